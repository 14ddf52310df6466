// mm/oom_kill.c: out_of_memory, what happens when reclaim can free nothing more (6.18).
//
// A task that dies anyway gets access to the reserves; else the process with the largest badness is
// killed, with all that share its mm, and its mm is left to the reaper (oom_reaper.ts). One kill at
// a time: allocators try oom_lock and sleep a jiffy when it is taken; charges of a cgroup wait for
// it. While a victim is on its way out, nobody else is chosen. Up to 5.0 the worst child with an mm
// of its own was killed instead of the chosen process. A cgroup's OOM is handled where the charge
// fails, but from 3.12 to 4.18 at the end of the fault, with no locks held
// (pagefault_out_of_memory).
//
// Victims may dip into reserves: half of the min watermark (4.14+), all of it before. A victim's
// charge over its cgroup's limit is forced up to 5.14 and fails since. Not modelled: panic_on_oom,
// oom_kill_allocating_task, memory.oom.group, cpusets, PSI.

import type {Code} from '../../machine/process.ts';
import {kill_group} from '../exit_task.ts';
import type {Kernel} from '../kernel.ts';
import {Mutex} from '../locking/mutex.ts';
import {JIFFY_TICKS} from '../sched/tunables.ts';
import type {Task} from '../task.ts';
import {isBefore} from '../version.ts';
import type {Mm} from './mm_state.ts';
import type {MmStruct} from '../mm_types.ts';
import {
  OomControl,
  oom_badness,
  process_shares_mm,
  select_bad_process,
  task_will_free_mem,
} from './oom_badness.ts';
import {type OomCosts, type OomFns, oomCosts, oomFns} from './oom_costs.ts';
import {OomReaper} from './oom_reaper.ts';
import {MM_SWAPENTS} from './rss.ts';
import {get_mm_counter, get_mm_rss} from './rss_stat.ts';
import {MMF_OOM_SKIP, MMF_OOM_VICTIM, type UserMm} from './user_mm.ts';

/** PAGE_ALLOC_COSTLY_ORDER. */
const COSTLY_ORDER = 3;

/** What the kernel log says about one kill, and when its memory came back. */
export interface OomKill {
  readonly tid: number;
  readonly comm: string;
  readonly memcg: number;
  readonly points: number;
  /** Pages at the time of the kill. */
  readonly rss: number;
  readonly swapEntries: number;
  readonly tablePages: number;
  readonly killTick: number;
  /** When the reaper was done with it, -1: it was not reaped; pages that it took. */
  reapedTick: number;
  reapedPages: number;
  /** When its own exit had freed everything, -1: not yet. */
  exitTick: number;
}

/** The OOM killer of one kernel. */
export class Oom {
  readonly lock: Mutex;
  readonly fns: OomFns;
  readonly costs: OomCosts;
  readonly reaper: OomReaper;
  /** Every kill, in order. */
  readonly kills: OomKill[] = [];
  /** Times that out_of_memory found a victim still dying. */
  waited = 0;
  private readonly byMm = new Map<MmStruct, OomKill>();

  constructor(readonly k: Kernel) {
    this.lock = new Mutex(k, 'oom_lock');
    this.fns = oomFns(k);
    this.costs = oomCosts(k);
    this.reaper = new OomReaper(this);
  }

  killOf(mm: MmStruct): OomKill | null {
    return this.byMm.get(mm) ?? null;
  }

  noteKill(mm: MmStruct, kill: OomKill): void {
    this.kills.push(kill);
    this.byMm.set(mm, kill);
    this.k.checks.count('oom_kill');
  }

  /** The mm has nothing left: the kill's memory is back. */
  noteExit(mm: MmStruct): void {
    if (mm.user !== null) mm.user.flags |= MMF_OOM_SKIP;
    const kill = this.byMm.get(mm);
    if (kill === undefined) return;
    kill.exitTick = this.k.machine.engine.now;
    this.byMm.delete(mm);
    const back = kill.reapedTick < 0 ? kill.exitTick : kill.reapedTick;
    this.k.checks.count('oom_reclaim_us', Math.round((back - kill.killTick) / TICKS_PER_US));
  }
}
const TICKS_PER_US = 10_000;

/** Installs the OOM killer; costs nothing until memory is out. */
export function install_oom(k: Kernel, mm: Mm): Oom {
  const oom = new Oom(k);
  const {hooks} = mm;
  const {version} = k.facts;
  hooks.out_of_memory = (t, _node, order) => alloc_pages_may_oom(oom, t, order);
  const atFault = !isBefore(version, '3.12') && isBefore(version, '4.19');
  hooks.mem_cgroup_oom = (t, memcg, n) => mem_cgroup_oom(oom, t, memcg, n, atFault);
  if (atFault) hooks.pagefault_out_of_memory = (t) => pagefault_out_of_memory(oom, t);
  hooks.oom_exit_mmap = (t, user, torn) => oom_exit_mmap(oom, t, user, torn);
  return oom;
}

/** __alloc_pages_may_oom: true when the allocation should be tried again. */
function* alloc_pages_may_oom(oom: Oom, t: Task, order: number): Code<boolean> {
  const {k} = oom;
  if (order > COSTLY_ORDER) return false;
  if (t.cpu.settle()) yield;
  if (!oom.lock.tryAcquire(t, oom.fns.out_of_memory)) {
    yield* k.sched.sleep(t, JIFFY_TICKS);
    return true;
  }
  const progress = highWatermarkOk(k, order) || (yield* out_of_memory(oom, t, 0, order));
  if (!oom.lock.release(t)) yield* oom.lock.releaseSlow(t);
  return progress;
}

/** The last look before a kill: somebody may have freed a lot meanwhile. */
function highWatermarkOk(k: Kernel, order: number): boolean {
  return k.mm.zones.some((zone) => zone.free - 2 ** order >= zone.watermarks.high);
}

/**
 * mem_cgroup_oom, and mem_cgroup_out_of_memory under oom_lock. With `later` (3.12 to 4.18) the
 * charge fails, and the cgroup is remembered for the end of the fault (memcg_in_oom).
 */
function* mem_cgroup_oom(
  oom: Oom,
  t: Task,
  memcg: number,
  n: number,
  later: boolean,
): Code<boolean> {
  const {k} = oom;
  if (later) {
    t.memcgInOom = memcg;
    return false;
  }
  if (n > 2 ** COSTLY_ORDER) return false;
  const fn = oom.fns.mem_cgroup_out_of_memory;
  if (!oom.lock.acquire(t, fn)) yield* oom.lock.acquireSlow(t, fn);
  let retry = true;
  // mutex_lock_killable: who was killed while it waited, goes back and fails.
  if (!t.sigkill && k.mm.swap.memcgs.of(memcg).margin < n) {
    retry = yield* out_of_memory(oom, t, memcg, 0);
  }
  if (!oom.lock.release(t)) yield* oom.lock.releaseSlow(t);
  return retry;
}

/** pagefault_out_of_memory and mem_cgroup_oom_synchronize: the fault is taken again. */
function* pagefault_out_of_memory(oom: Oom, t: Task): Code<boolean> {
  const memcg = t.memcgInOom;
  t.memcgInOom = 0;
  if (memcg === 0 || t.sigkill) return false;
  return yield* mem_cgroup_oom(oom, t, memcg, 1, false);
}

/** out_of_memory, under oom_lock. True: memory is on its way, or nobody needed to die. */
export function* out_of_memory(oom: Oom, t: Task, memcg: number, order: number): Code<boolean> {
  const {k} = oom;
  t.cpu.charge(oom.costs.outOfMemoryTicks, oom.fns.out_of_memory);
  if (t.cpu.settle()) yield;
  k.checks.count('out_of_memory');
  if (yield* task_will_free_mem(k, t, t, oom.fns)) {
    yield* mark_oom_victim(oom, t, t);
    return true;
  }
  const oc = new OomControl(memcg, order);
  oc.totalPages = totalPages(k, memcg);
  yield* select_bad_process(k, t, oc, oom.fns);
  if (oc.aborted) {
    oom.waited++;
    return true;
  }
  if (oc.chosen !== null) {
    yield* oom_kill_process(oom, t, oc.chosen, oc.chosenPoints, memcg, oc.totalPages);
    return true;
  }
  t.cpu.charge(oom.costs.dumpHeaderTicks, oom.fns.out_of_memory);
  if (memcg === 0) k.checks.finding('Kernel panic - not syncing: System is deadlocked on memory');
  else k.checks.warn('out of memory and no killable processes in a cgroup: the charge fails');
  return false;
}

/** constrained_alloc's total: what oom_score_adj's thousandths are of. */
function totalPages(k: Kernel, memcg: number): number {
  const {swap, pages} = k.mm;
  const swapPages = swap.totalPages;
  if (memcg !== 0) return Math.max(swap.memcgs.of(memcg).max + swapPages, 1);
  return pages.nodes.reduce((sum, {first, end}) => sum + end - first, 0) + swapPages;
}

/** mark_oom_victim and queue_oom_reaper; `victim` still has its mm. */
function* mark_oom_victim(oom: Oom, t: Task, victim: Task): Code {
  const signal = victim.signal!;
  const mm = victim.mm!;
  signal.oomMm ??= mm;
  if (mm.user !== null) mm.user.flags |= MMF_OOM_VICTIM;
  yield* oom.reaper.queue(t, victim, mm);
}

/** oom_kill_process: `p` (to 5.0: or the worst of its children) and all that share its mm. */
export function* oom_kill_process(
  oom: Oom,
  t: Task,
  p: Task,
  points: number,
  memcg: number,
  total: number,
): Code {
  const {k} = oom;
  if (yield* task_will_free_mem(k, t, p, oom.fns)) {
    yield* mark_oom_victim(oom, t, p);
    return;
  }
  t.cpu.charge(oom.costs.dumpHeaderTicks, oom.fns.oom_kill_process);
  let victim = p;
  let score = points;
  if (isBefore(k.facts.version, '5.1')) {
    score = -Infinity;
    for (const child of p.children) {
      if (child.signal === p.signal || child.mm === null || child.mm === p.mm) continue;
      const childPoints = yield* oom_badness(k, t, child, total, oom.fns);
      if (childPoints <= score) continue;
      victim = child;
      score = childPoints;
    }
    if (victim === p) score = points;
  }
  yield* __oom_kill_process(oom, t, victim, score, memcg);
}

function* __oom_kill_process(oom: Oom, t: Task, chosen: Task, points: number, memcg: number): Code {
  const {k} = oom;
  const fn = oom.fns.oom_kill_process;
  const victim = yield* k.taskList.find_lock_task_mm(t, chosen, fn);
  if (victim === null) return;
  const mm = victim.mm!;
  t.cpu.charge(oom.costs.killTicks, fn);
  oom.noteKill(mm, {
    tid: victim.tgid,
    comm: victim.comm,
    memcg,
    points,
    rss: get_mm_rss(mm),
    swapEntries: get_mm_counter(mm, MM_SWAPENTS),
    tablePages: (mm.user?.pgd.pgtablesBytes ?? 0) / 4096,
    killTick: k.machine.engine.now,
    reapedTick: -1,
    reapedPages: 0,
    exitTick: -1,
  });
  victim.signal!.oomMm = mm;
  yield* killAndWake(k, t, victim);
  const lock = victim.allocLock!;
  if (!lock.release(t)) yield* lock.releaseSlow(t);
  yield* killSharers(oom, t, victim, mm);
  if (victim.mm === mm) yield* mark_oom_victim(oom, t, victim);
}

/** Processes of other groups that use the same mm die, too (CLONE_VM without CLONE_THREAD). */
function* killSharers(oom: Oom, t: Task, victim: Task, mm: MmStruct): Code {
  const {k} = oom;
  const others: Task[] = [];
  k.rcu.readLock(t);
  yield* k.taskList.for_each_process(t, oom.fns.oom_kill_process, (p) => {
    if (p.signal !== victim.signal && !p.isKernelThread && process_shares_mm(p, mm)) others.push(p);
    return undefined;
  });
  k.rcu.readUnlock(t);
  for (const p of others) {
    p.signal!.oomMm ??= mm;
    yield* killAndWake(k, t, p);
  }
}

/** SIGKILL for a group; those that wait outside of the kernel find out now. */
function* killAndWake(k: Kernel, t: Task, p: Task): Code {
  yield* kill_group(k, t, p);
  for (const thread of p.threads) if (thread.parked) k.sched.wake(thread);
}

/**
 * exit_mmap of a victim. From 4.17 to 6.0 it reaps the mm itself first, under oom_lock, and hides
 * it from the killer; since 6.1 (and before 4.17) the reaper may run beside it.
 */
function* oom_exit_mmap(oom: Oom, t: Task, user: UserMm, torn: boolean): Code {
  if (torn) {
    if (t.cpu.settle()) yield;
    oom.noteExit(user.mm);
    return;
  }
  const {version} = oom.k.facts;
  if (isBefore(version, '4.17') || !isBefore(version, '6.1')) return;
  yield* oom.reaper.exitReap(t, user);
}
