// Reclaim as an input of a replay: how many pages of which process each recorded operation took
// away, and which.
//
// Reclaim takes the pages that nobody has used for longest, and who used a page is what no
// recording holds: an access that does not fault leaves no trace. But the answers hold how many
// pages of each address space every operation unmapped (SWAP +1), and later faults show which they
// were: a page that comes back by a swap-in was out, a page that is written for the first time
// after a swapoff (a fault that reuses it) was brought in by it. Each reclaimed page goes to one of
// those later faults of its address space, the earliest first among the pages that are in memory:
// if any choice explains all of these faults, this one does (unit jobs with release times and
// deadlines). Pages that no fault ever tells of are taken last.
//
// This is a plan, made before the replay. What it says is done by the kernel's own reclaim
// (reclaim_driver.ts).

import {KIND} from '../formats/kinds.ts';
import {MM_SWAPENTS} from '../kernel/mm/rss.ts';
import {argNumber} from '../formats/columns.ts';
import {vpnArg} from './bind/binding.ts';
import {type Later, PresentPages} from './recorded_pages.ts';
import type {CompiledTrace} from './tracks.ts';
import type {Recorded} from './verify_record.ts';

/** Pages of one address space that go in one operation. */
export interface TakenPages {
  readonly life: number;
  readonly vpns: readonly number[];
}

/** All reclaim of a recording. */
export interface ReclaimPlan {
  /**
   * Pages written in an operation, by operation. Those were dirty, although no fault may have shown
   * the writing access.
   */
  readonly written: ReadonlyMap<number, number>;
  /** By operation in which its task reclaims, or kswapd while it is the last that began. */
  readonly taken: ReadonlyMap<number, readonly TakenPages[]>;
  /** Address spaces that lose pages. */
  readonly lives: ReadonlySet<number>;
  readonly pages: number;
  /**
   * Reclaimed pages that no later fault tells of: the recording does not say which, and none is
   * taken.
   */
  readonly unknown: number;
  /** Later faults on pages that nothing took away before. */
  readonly unexplained: number;
  /** The first operation that reclaims, and the last. */
  readonly firstOp: number;
  readonly lastOp: number;
  /** Pages that swapoff brought in, in order: the operation that began next. */
  readonly unused: Int32Array;
  /**
   * Faults beside a swapoff that brought their page in (true), or found that it was being brought
   * in (false), by operation.
   */
  readonly beside: ReadonlyMap<number, boolean>;
  /** Swap areas were in use before the recording began, or nobody recorded their swapon. */
  readonly areaMissing: boolean;
}

/**
 * The plan; null for a recording in which nothing was swapped out, and for a trace that states its
 * limits (memcg_limit): there the model reclaims. Cost: one pass over faults and records.
 */
export function planReclaim(compiled: CompiledTrace, recorded: Recorded): ReclaimPlan | null {
  const counts = swappedOut(compiled, recorded);
  if (counts.size === 0 || statesLimits(compiled)) return null;
  return new Planner(compiled, recorded, counts).plan();
}

function statesLimits({trace, opEvent}: CompiledTrace): boolean {
  return opEvent.some((event) => trace.events.kind[event] === KIND.memcg_limit);
}

/**
 * Entries that became swap entries, by operation and life, unless the operation asks for that
 * (MADV_PAGEOUT) or copies.
 */
function swappedOut(compiled: CompiledTrace, recorded: Recorded): Map<number, Map<number, number>> {
  const {stepOp, stepKey, stepChange, stepUnused, lives} = recorded;
  const {kind} = compiled.trace.events;
  const net = new Map<number, Map<number, number>>();
  const add = (op: number, life: number, pages: number): void => {
    const byLife = net.get(op) ?? new Map<number, number>();
    byLife.set(life, (byLife.get(life) ?? 0) + pages);
    net.set(op, byLife);
  };
  for (let n = 0; n < stepOp.length; n++) {
    if (stepKey[n] % 4 !== MM_SWAPENTS || stepUnused[n] !== 0) continue;
    const life = Math.floor(stepKey[n] / 4);
    const op = stepOp[n];
    if (lives[life].bornOp === op && compiled.opChild[op] >= 0) continue;
    if (kind[compiled.opEvent[op]] === KIND.madvise) continue;
    // In a fault what goes down is the fault's own page; other calls unmap entries, too.
    if (stepChange[n] > 0 || kind[compiled.opEvent[op]] === KIND.access)
      add(op, life, stepChange[n]);
  }
  const {backgroundSteps: steps} = recorded;
  for (let n = 0; n < steps.length; n += 3) {
    if (steps[n + 1] % 4 === MM_SWAPENTS && steps[n + 2] > 0)
      add(steps[n], Math.floor(steps[n + 1] / 4), steps[n + 2]);
  }
  for (const {op, life, faultClass} of recorded.faults) {
    if (faultClass === 'swap' && net.has(op)) add(op, life.index, 1);
  }
  return positiveOnly(net);
}

/**
 * Two CPUs that count at once may leave one record too high and the next too low: what is negative
 * is made up for later.
 */
function positiveOnly(net: Map<number, Map<number, number>>): Map<number, Map<number, number>> {
  const counts = new Map<number, Map<number, number>>();
  const debts = new Map<number, number>();
  for (const op of [...net.keys()].sort((a, b) => a - b)) {
    for (const [life, pages] of net.get(op)!) {
      const left = pages + (debts.get(life) ?? 0);
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
  private readonly present = new PresentPages();
  private readonly swapoffs: number[] = [];
  private areaMissing = true;
  private pages = 0;
  private unknown = 0;
  private unexplained = 0;

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
    this.run(this.laterFaults());
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

  /** All operations in order: who reclaims, forks, faults, ends. */
  private run(later: readonly Map<number, Later[]>[]): void {
    const {faults, lives, opLife} = this.recorded;
    const {opCount} = this.compiled;
    const lastOp = new Map<number, number>();
    for (const [op, life] of opLife.entries()) lastOp.set(life, op);
    const born = new Map(lives.map((life) => [life.bornOp, life.index]));
    for (const {bornOp, index} of lives) {
      if (bornOp >= 0 && this.compiled.opChild[bornOp] >= 0)
        this.present.expectFork(opLife[bornOp], index, bornOp);
    }
    for (const [life, pages] of later.entries()) this.present.expect(life, pages, this.swapoffs);
    let next = 0;
    for (let op = 0; op < opCount; op++) {
      const counts = this.counts.get(op);
      if (counts !== undefined) this.take(op, counts);
      const child = born.get(op);
      if (child !== undefined && this.compiled.opChild[op] >= 0)
        this.present.fork(opLife[op], child, op);
      for (; next < faults.length && faults[next].op <= op; next++) this.arrived(next);
      if (lastOp.get(opLife[op]) === op) this.present.end(opLife[op]);
    }
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

  /**
   * By life and page: what faults say of it, in order. A fault that changed nothing met the page on
   * its way.
   */
  private laterFaults(): Map<number, Later[]>[] {
    const later: Map<number, Later[]>[] = this.recorded.lives.map(() => new Map());
    this.recorded.faults.forEach(({op, life, faultClass}, n) => {
      if (faultClass === 'empty' || faultClass === 'file') return;
      const vpn = this.vpnOf(n);
      const unused = faultClass === 'reuse' && this.swapoffs.some((swapoff) => swapoff < op);
      const list = later[life.index].get(vpn);
      const one = {op, wasOut: faultClass === 'swap' || unused};
      if (list === undefined) later[life.index].set(vpn, [one]);
      else list.push(one);
    });
    return later;
  }

  private vpnOf(fault: number): number {
    const {events} = this.compiled.trace;
    return vpnArg(events, this.compiled.opEvent[this.recorded.faults[fault].op], 0);
  }

  /**
   * After fault `n` its page is in memory: the one that was there, the one that others have in
   * swap, or a new one.
   */
  private arrived(n: number): void {
    const {life, op, faultClass} = this.recorded.faults[n];
    if (faultClass === 'file' || faultClass === 'empty') return;
    const write = (argNumber(this.compiled.trace.events, this.compiled.opEvent[op], 1) & 2) !== 0;
    const kind = faultClass === 'reuse' ? 'same' : faultClass === 'swap' ? 'back' : 'new';
    if (this.present.arrived(life.index, this.vpnOf(n), op, kind, write)) this.unexplained++;
  }

  private take(op: number, counts: ReadonlyMap<number, number>): void {
    const left = new Map(counts);
    for (const life of counts.keys()) {
      const vpns = this.present.take(life, left, op);
      this.pages += vpns.length;
      if (vpns.length === 0) continue;
      const list = this.taken.get(op);
      if (list === undefined) this.taken.set(op, [{life, vpns}]);
      else list.push({life, vpns});
    }
    for (const n of left.values()) this.unknown += n;
  }
}
