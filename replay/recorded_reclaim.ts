// Reclaim as an input of a replay: how many pages of which process each recorded operation took away, and which.
//
// Reclaim takes the pages that nobody has used for longest, and who used a page is what no recording holds: an access
// that does not fault leaves no trace. But the answers hold how many pages of each address space every operation
// unmapped (SWAP +1), and later faults show which they were: a page that comes back by a swap-in was out, a page
// that is written for the first time after a swapoff (a fault that reuses it) was brought in by it. Each reclaimed page
// goes to one of those later faults of its address space, the earliest first among the pages that are in memory: if any
// choice explains all of these faults, this one does (unit jobs with release times and deadlines). Pages that no fault
// ever tells of are taken last.
//
// This is a plan, made before the replay. What it says is done by the kernel's own reclaim (reclaim_driver.ts).

import {KIND} from '../formats/kinds.ts';
import {MM_SWAPENTS} from '../kernel/mm/rss.ts';
import {vpnArg} from './bind/binding.ts';
import type {CompiledTrace} from './tracks.ts';
import type {Recorded} from './verify_record.ts';

/** Pages of one address space that go in one operation. */
export interface TakenPages {
  readonly life: number;
  readonly vpns: readonly number[];
}

/** All reclaim of a recording. */
export interface ReclaimPlan {
  /** Pages written in an operation, by operation. Those were dirty, although no fault may have shown the writing access. */
  readonly written: ReadonlyMap<number, number>;
  /** By operation, in which its task reclaims. */
  readonly taken: ReadonlyMap<number, readonly TakenPages[]>;
  /** Address spaces that lose pages. */
  readonly lives: ReadonlySet<number>;
  readonly pages: number;
  /** Reclaimed pages that no later fault tells of: the recording does not say which, and none is taken. */
  readonly unknown: number;
  /** Later faults on pages that nothing took away before. */
  readonly unexplained: number;
  /** The first operation that reclaims, and the last. */
  readonly firstOp: number;
  readonly lastOp: number;
  /** Pages that swapoff brought in, in order: the operation that began next. */
  readonly unused: Int32Array;
  /** Faults beside a swapoff that brought their page in (true), or found that it was being brought in (false), by operation. */
  readonly beside: ReadonlyMap<number, boolean>;
  /** Swap areas were in use before the recording began, or nobody recorded their swapon. */
  readonly areaMissing: boolean;
}

/** A page in memory: the operation before which it must have gone, and its place in the order of arrival. */
interface Present {
  readonly vpn: number;
  readonly deadline: number;
  readonly seq: number;
}

/** What a later fault says of a page. */
interface Later {
  readonly op: number;
  readonly wasOut: boolean;
}

/** The plan, null for a recording in which nothing was swapped out. Cost: one pass over faults and records. */
export function planReclaim(compiled: CompiledTrace, recorded: Recorded): ReclaimPlan | null {
  const counts = swappedOut(recorded);
  if (counts.size === 0) return null;
  return new Planner(compiled, recorded, counts).plan();
}

/** Pages that each operation swapped out, by operation and life. */
function swappedOut(recorded: Recorded): Map<number, Map<number, number>> {
  const net = new Map<number, Map<number, number>>();
  const {stepOp, stepKey, stepChange, stepUnused} = recorded;
  const add = (op: number, life: number, pages: number): void => {
    const byLife = net.get(op) ?? new Map<number, number>();
    byLife.set(life, (byLife.get(life) ?? 0) + pages);
    net.set(op, byLife);
  };
  for (let n = 0; n < stepOp.length; n++) {
    if (stepKey[n] % 4 === MM_SWAPENTS && stepUnused[n] === 0)
      add(stepOp[n], Math.floor(stepKey[n] / 4), stepChange[n]);
  }
  for (const {op, life, faultClass} of recorded.faults) {
    if (faultClass === 'swap' && net.has(op)) add(op, life.index, 1);
  }
  return positiveOnly(net);
}

/** Two CPUs that count at once leave one record too high and the next too low: what is negative is made up for later. */
function positiveOnly(net: Map<number, Map<number, number>>): Map<number, Map<number, number>> {
  const counts = new Map<number, Map<number, number>>();
  const debts = new Map<number, number>();
  for (const op of [...net.keys()].sort((a, b) => a - b)) {
    for (const [life, pages] of net.get(op)!) {
      const left = pages + Math.min(debts.get(life) ?? 0, 0);
      debts.set(life, Math.min(left, 0));
      if (left <= 0) continue;
      const byLife = counts.get(op) ?? new Map<number, number>();
      byLife.set(life, left);
      counts.set(op, byLife);
    }
  }
  return counts;
}

class Planner {
  private readonly taken = new Map<number, TakenPages[]>();
  private readonly lives = new Set<number>();
  private readonly present = new Map<number, PresentPages>();
  private readonly swapoffs: number[] = [];
  private areaMissing = true;
  private pages = 0;
  private unknown = 0;
  private unexplained = 0;
  private seq = 0;

  constructor(
    private readonly compiled: CompiledTrace,
    private readonly recorded: Recorded,
    private readonly counts: ReadonlyMap<number, ReadonlyMap<number, number>>,
  ) {}

  plan(): ReclaimPlan {
    const ops = [...this.counts.keys()].sort((a, b) => a - b);
    this.findAreas(ops[0]);
    for (const byLife of this.counts.values())
      for (const life of byLife.keys()) this.lives.add(life);
    const later = this.laterFaults();
    const {faults} = this.recorded;
    let next = 0;
    for (const op of ops) {
      for (; next < faults.length && faults[next].op < op; next++) this.arrived(next, later);
      for (const [life, n] of this.counts.get(op)!) this.take(op, life, n);
    }
    for (; next < faults.length; next++) this.arrived(next, later);
    return {
      written: this.recorded.writtenIn,
      taken: this.taken,
      lives: this.lives,
      pages: this.pages,
      unknown: this.unknown,
      unexplained: this.unexplained,
      firstOp: ops[0],
      lastOp: ops[ops.length - 1],
      unused: this.recorded.unused,
      beside: this.faultsBeside(),
      areaMissing: this.areaMissing,
    };
  }

  private faultsBeside(): Map<number, boolean> {
    const {faults, unused} = this.recorded;
    const beside = new Map<number, boolean>();
    if (unused.length === 0) return beside;
    for (const {op, faultClass} of faults) {
      if (op < unused[0] || op > unused[unused.length - 1]) continue;
      if (faultClass === 'swap' || faultClass === 'empty') beside.set(op, faultClass === 'swap');
    }
    return beside;
  }

  private findAreas(first: number): void {
    const {events} = this.compiled.trace;
    for (let op = 0; op < this.compiled.opCount; op++) {
      const kind = events.kind[this.compiled.opEvent[op]];
      if (kind === KIND.swapoff) this.swapoffs.push(op);
      if (kind === KIND.swapon && op < first) this.areaMissing = false;
    }
  }

  /** For each fault, the next one on the same page of the same life; pages first seen by a swap-in arrive with their life. */
  private laterFaults(): (Later | null)[] {
    const {faults} = this.recorded;
    const last = new Map<number, Map<number, Later>>();
    const later = new Array<Later | null>(faults.length).fill(null);
    for (let n = faults.length - 1; n >= 0; n--) {
      const {op, life, faultClass} = faults[n];
      // A fault that changed nothing met the page on its way.
      if (!this.lives.has(life.index) || faultClass === 'empty') continue;
      let pages = last.get(life.index);
      if (pages === undefined) {
        pages = new Map();
        last.set(life.index, pages);
      }
      const vpn = this.vpnOf(n);
      const next = pages.get(vpn) ?? null;
      later[n] = next;
      const unused = faultClass === 'reuse' && this.swapoffBefore(op) >= 0;
      pages.set(vpn, {op, wasOut: faultClass === 'swap' || unused});
    }
    for (const [life, pages] of last) {
      for (const [vpn, first] of pages)
        if (first.wasOut) this.pagesOf(life).add(this.page(vpn, -1, first));
    }
    return later;
  }

  private vpnOf(fault: number): number {
    const {events} = this.compiled.trace;
    return vpnArg(events, this.compiled.opEvent[this.recorded.faults[fault].op], 0);
  }

  private swapoffBefore(op: number): number {
    return this.swapoffs.findLast((swapoff) => swapoff < op) ?? -1;
  }

  /** After fault `n` its page is in memory. */
  private arrived(n: number, later: readonly (Later | null)[]): void {
    const {life, op, faultClass} = this.recorded.faults[n];
    if (!this.lives.has(life.index) || faultClass === 'file' || faultClass === 'empty') return;
    const missed = this.pagesOf(life.index).add(this.page(this.vpnOf(n), op, later[n]));
    if (missed) this.unexplained++;
  }

  /** When a page must have gone: before it comes back, and before the swapoff after which nothing goes out. */
  private page(vpn: number, since: number, next: Later | null): Present {
    const seq = this.seq++;
    if (next === null || !next.wasOut) return {vpn, deadline: Number.POSITIVE_INFINITY, seq};
    const swapoff = this.swapoffBefore(next.op);
    return {vpn, deadline: swapoff > since ? swapoff : next.op, seq};
  }

  private pagesOf(life: number): PresentPages {
    let pages = this.present.get(life);
    if (pages === undefined) {
      pages = new PresentPages();
      this.present.set(life, pages);
    }
    return pages;
  }

  private take(op: number, life: number, n: number): void {
    const pages = this.pagesOf(life);
    const vpns: number[] = [];
    while (vpns.length < n) {
      const page = pages.earliest();
      if (page === null) break;
      if (page.deadline > op) vpns.push(page.vpn);
      else this.unexplained++;
    }
    this.unknown += n - vpns.length;
    this.pages += vpns.length;
    if (vpns.length === 0) return;
    const list = this.taken.get(op);
    if (list === undefined) this.taken.set(op, [{life, vpns}]);
    else list.push({life, vpns});
  }
}

/** The pages of one life that are in memory: a heap by deadline; the last arrival of a page counts. */
class PresentPages {
  private readonly heap: Present[] = [];
  private readonly current = new Map<number, Present>();

  /** True when the page was to have gone and is in memory still. */
  add(page: Present): boolean {
    const before = this.current.get(page.vpn);
    this.current.set(page.vpn, page);
    const {heap} = this;
    let at = heap.push(page) - 1;
    while (at > 0) {
      const parent = (at - 1) >> 1;
      if (!isBefore(page, heap[parent])) break;
      heap[at] = heap[parent];
      at = parent;
    }
    heap[at] = page;
    return before !== undefined && before.deadline < Number.POSITIVE_INFINITY;
  }

  /** Takes out the page with the earliest deadline. */
  earliest(): Present | null {
    for (;;) {
      const {heap} = this;
      if (heap.length === 0) return null;
      const top = heap[0];
      const last = heap.pop()!;
      if (heap.length > 0) this.sink(last);
      if (this.current.get(top.vpn) !== top) continue;
      this.current.delete(top.vpn);
      return top;
    }
  }

  private sink(page: Present): void {
    const {heap} = this;
    let at = 0;
    for (;;) {
      let child = 2 * at + 1;
      if (child >= heap.length) break;
      if (child + 1 < heap.length && isBefore(heap[child + 1], heap[child])) child++;
      if (!isBefore(heap[child], page)) break;
      heap[at] = heap[child];
      at = child;
    }
    heap[at] = page;
  }
}

function isBefore(a: Present, b: Present): boolean {
  return a.deadline === b.deadline ? a.seq < b.seq : a.deadline < b.deadline;
}
