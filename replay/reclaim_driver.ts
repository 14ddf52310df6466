// Carries out a recording's reclaim (recorded_reclaim.ts) while its operations are replayed.
//
// `recorded`: the charge that hit the cgroup's limit in the recorded operation hits it here as
// well, and the kernel reclaims the pages of the plan: references are not asked for, all else is
// its own work (isolation, swap slots, unmapping, flushes, writing, freeing what an earlier pass
// wrote). What the operation did not come to is done when it is over. `model`: the kernel chooses.
// The cgroup's limit is what it held when its first recorded reclaim began, and is lifted after the
// last one.
//
// A swapoff lasts while other operations go on. In total order its pages are steps of their own: it
// waits before each page until the operation that the recording has next to it is due, and
// operations wait for the pages before them. When an operation needs the mmap_lock that swapoff may
// hold, swapoff is let go.
//
// Swap areas in use before the recording began are added before the first operation; their size is
// an assumption.

import {KIND} from '../formats/kinds.ts';
import {pteSlot} from '../kernel/arch/x86/mm/pgtable.ts';
import {PTE_DIRTY, PTE_KIND, PTE_PRESENT, PTE_WRITE} from '../kernel/arch/x86/mm/pgtable_bits.ts';
import type {Kernel} from '../kernel/kernel.ts';
import {blk_finish_plug, blk_start_plug} from '../kernel/mm/blk_plug.ts';
import {currentTask, install_memcg, sys_swapon} from '../kernel/mm/swapfile.ts';
import type {Memcg} from '../kernel/mm/memcontrol.ts';
import {MM_SWAPENTS} from '../kernel/mm/rss.ts';
import type {UserMm} from '../kernel/mm/user_mm.ts';
import {reclaim_mapped, reclaim_written, type WrittenFolio} from '../kernel/mm/vmscan_pages.ts';
import type {MmStruct} from '../kernel/mm_types.ts';
import type {Task} from '../kernel/task.ts';
import type {Code, Waitable} from '../machine/process.ts';
import {blocksOnOthers} from './dependencies.ts';
import type {ReclaimPlan} from './recorded_reclaim.ts';
import type {Steering} from './steering.ts';
import type {CompiledTrace} from './tracks.ts';

/** Who chooses the pages that go. */
export const RECLAIM_MODES = ['recorded', 'model', 'none'] as const;
export type ReclaimMode = (typeof RECLAIM_MODES)[number];

/**
 * Size of an area that nobody recorded the swapon of: 1 GiB, so that it is not half full.
 * Assumption.
 */
export const ASSUMED_AREA_PAGES = 2 ** 18;
/** SWAP_CLUSTER_MAX. */
const CLUSTER = 32;

/** What a driver did. */
export interface ReclaimTotals {
  /** Pages that left, of those asked for. */
  taken: number;
  /** Pages in the plan that were not in memory when their turn came. */
  missed: number;
  /** Pages that had been written to without a fault. */
  dirtied: number;
  /** Operations whose reclaim was not over with their last charge. */
  late: number;
  /** Pages that swapoff brought in. */
  unused: number;
  /** Limit that the cgroup got, in pages; 0 for none. */
  limitPages: number;
  /** Slots of the area that was added; 0 when the recording has its own. */
  areaPages: number;
}

/** Steers the reclaim of one replay. */
export class ReclaimDriver implements Steering {
  readonly totals: ReclaimTotals = {
    taken: 0,
    missed: 0,
    dirtied: 0,
    late: 0,
    unused: 0,
    limitPages: 0,
    areaPages: 0,
  };
  private readonly mmOf = new Map<number, MmStruct>();
  /** By task: the operation whose reclaim is still to be done. */
  private readonly due = new Map<Task, number>();
  private written: WrittenFolio[] = [];
  private group: Memcg | null = null;
  private readonly pace: SwapoffPace;
  /** Swap entries of the task's mm when the operation began. */
  private entries = 0;

  constructor(
    private readonly kernel: Kernel,
    private readonly compiled: CompiledTrace,
    private readonly plan: ReclaimPlan,
    private readonly lifeOf: Int32Array,
    private readonly mode: ReclaimMode,
    /** One operation at a time, in recorded order. */
    total: boolean,
  ) {
    this.pace = new SwapoffPace(kernel, total ? plan.unused : null);
    kernel.mm.swap.unusePace = this.pace;
  }

  *before(t: Task, op: number): Code {
    const {plan} = this;
    if (this.group === null) yield* this.begin(t);
    const {user} = t.mm ?? {user: null};
    const life = this.lifeOf[op];
    if (t.mm !== null && user !== null && plan.lives.has(life)) {
      this.mmOf.set(life, t.mm);
      if (user.memcg === 0) user.memcg = this.group!.id;
    }
    const {kind} = this.compiled.trace.events;
    const what = kind[this.compiled.opEvent[op]];
    if (what === KIND.swapoff) this.pace.began(op);
    else if (this.pace.running) {
      if (what !== KIND.access && plan.lives.has(life)) this.pace.letGo();
      yield* this.pace.catchUp(t, op);
      if (blocksOnOthers(this.compiled, op)) this.pace.dueNow(op + 1);
      this.entries = entriesOf(t);
    }
    if (this.mode === 'model') this.limit(op);
    else if (plan.taken.has(op)) this.due.set(t, op);
  }

  *after(t: Task, op: number): Code {
    if (this.pace.running) this.pace.settle(this.plan.beside.get(op), this.entries - entriesOf(t));
    if (this.due.has(t)) {
      this.totals.late++;
      yield* this.carryOut(t);
    }
    if (!this.pace.running) return;
    if (this.outlasts(op)) {
      this.pace.ended();
      this.totals.unused = this.pace.pages;
    } else this.pace.dueNow(op + 1);
  }

  outlasts(op: number): boolean {
    return this.compiled.trace.events.kind[this.compiled.opEvent[op]] === KIND.swapoff;
  }

  /** The swap area and the cgroup that the recording takes for granted. */
  private *begin(t: Task): Code {
    const {kernel, plan, totals} = this;
    const {mm} = kernel;
    install_memcg(mm);
    this.group = mm.swap.memcgs.create();
    const {hooks} = mm;
    const {try_charge, memcg_reclaim} = hooks;
    hooks.try_charge = (memcg, n) =>
      (this.due.size === 0 || !this.due.has(currentTask(kernel))) && try_charge!(memcg, n);
    hooks.memcg_reclaim = (task, memcg, n) =>
      this.due.has(task) ? this.carryOut(task) : memcg_reclaim!(task, memcg, n);
    if (!plan.areaMissing) return;
    totals.areaPages = ASSUMED_AREA_PAGES;
    yield* sys_swapon(kernel, t, ASSUMED_AREA_PAGES);
  }

  private limit(op: number): void {
    const {plan, totals} = this;
    const group = this.group!;
    if (op > plan.lastOp) group.max = Infinity;
    else if (op >= plan.firstOp && totals.limitPages === 0) {
      totals.limitPages = group.usage;
      group.max = group.usage;
    }
  }

  /** The recorded reclaim of the operation that `t` is in, in rounds as reclaim makes them. */
  private *carryOut(t: Task): Code<boolean> {
    const {totals, plan} = this;
    const op = this.due.get(t)!;
    this.due.delete(t);
    let dirty = plan.written.get(op) ?? 0;
    for (const {life, vpns} of plan.taken.get(op)!) {
      const user = this.mmOf.get(life)?.user ?? null;
      for (let at = 0; at < vpns.length; at += CLUSTER) {
        const round = vpns.slice(at, at + CLUSTER);
        const plugged = blk_start_plug(this.kernel, t);
        const gone = user === null ? 0 : yield* this.round(t, user, round, dirty);
        if (plugged) blk_finish_plug(this.kernel, t);
        dirty = Math.max(dirty - gone, 0);
        totals.taken += gone;
        totals.missed += round.length - gone;
      }
    }
    return true;
  }

  /**
   * What was written before is freed, `vpns` are reclaimed, the first `dirty` as dirty pages.
   * Returns how many went.
   */
  private *round(t: Task, user: UserMm, vpns: readonly number[], dirty: number): Code<number> {
    const {kernel} = this;
    const before = this.written;
    this.written = [];
    const busy = yield* reclaim_written(kernel, t, before);
    this.totals.dirtied += markDirty(kernel, user, vpns.slice(0, dirty));
    const {written, unmapped} = yield* reclaim_mapped(kernel, t, user, vpns);
    this.written.push(...busy, ...written);
    return unmapped;
  }
}

function entriesOf({mm}: Task): number {
  return mm?.user?.rss.counts[MM_SWAPENTS] ?? 0;
}

/** The CPU's own mark of a write that caused no fault. Returns how many entries got it. */
function markDirty({mm}: Kernel, user: UserMm, vpns: readonly number[]): number {
  const {pt} = mm;
  let marked = 0;
  for (const vpn of vpns) {
    const slot = pteSlot(user.pgd, vpn);
    if (slot < 0 || (pt.flags[slot] & PTE_KIND) !== PTE_PRESENT) continue;
    if ((pt.flags[slot] & (PTE_WRITE | PTE_DIRTY)) !== PTE_WRITE) continue;
    pt.flags[slot] |= PTE_DIRTY;
    marked++;
  }
  return marked;
}

/** Keeps a swapoff and the operations beside it in step. */
class SwapoffPace {
  /** A swapoff is under way. */
  running = false;
  pages = 0;
  private reached = -1;
  private free = false;
  private waiting: Task | null = null;
  private readonly behind: Task[] = [];
  private readonly turn: Waitable = {name: 'its turn in the recorded swapoff'};

  constructor(
    private readonly kernel: Kernel,
    /** By page: the operation before which it came in; null lets swapoff run. */
    private readonly next: Int32Array | null,
  ) {}

  began(op: number): void {
    this.running = true;
    this.reached = op;
  }

  ended(): void {
    this.running = false;
    this.wakeBehind();
  }

  letGo(): void {
    this.free = true;
  }

  *wait(t: Task): Code {
    if (t.cpu.settle()) yield;
    while (!this.mayGo()) {
      this.waiting = t;
      this.wakeBehind();
      yield* this.kernel.sched.block(t, this.turn);
    }
    this.waiting = null;
  }

  private mayGo(): boolean {
    const {next, pages} = this;
    return next === null || this.free || pages >= next.length || next[pages] <= this.reached;
  }

  brought(): void {
    this.pages++;
  }

  /**
   * A fault met its page on the way, and swapoff and fault have changed parts here: the page that
   * one of them brought in is the other's in the recording.
   */
  settle(broughtThere: boolean | undefined, broughtHere: number): void {
    if (broughtThere === undefined || this.next === null) return;
    if (!broughtThere && broughtHere === 1) this.pages++;
    else if (broughtThere && broughtHere === 0) this.pages--;
  }

  /** Nothing comes before `op` any more but swapoff's pages. */
  dueNow(op: number): void {
    this.reached = Math.max(this.reached, op);
    if (this.waiting !== null && this.mayGo()) this.kernel.sched.wake(this.waiting);
  }

  /** `op` is due: swapoff does the pages before it, then `op` may begin. */
  *catchUp(t: Task, op: number): Code {
    const {next} = this;
    if (next === null) return;
    if (t.cpu.settle()) yield;
    this.dueNow(op);
    while (this.running && !this.free && this.pages < next.length && this.mayGo()) {
      this.behind.push(t);
      yield* this.kernel.sched.block(t, this.turn);
    }
  }

  private wakeBehind(): void {
    for (const task of this.behind.splice(0)) this.kernel.sched.wake(task);
  }
}
