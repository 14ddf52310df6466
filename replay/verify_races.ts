// What a counter's record says that its task did, when two CPUs changed the counter at the same
// moment.
//
// rss_stat prints the sum of all CPUs after its own change. When another CPU has changed the
// counter but not printed yet, its change is in the printed value, too, and its own record then
// shows nothing: of a fault (+1) beside a reclaimer (-1) both records repeat the old value. The sum
// is right again with the later record. Which change was whose follows from the order in which 6.18
// counts: unmapping for swap is ANON -1, SWAP +1; a swap-in ANON +1, SWAP -1; swapoff SWAP -1, ANON
// +1; a fault's only ANON is +1. A task that is interrupted before it prints shows an old value. So
// values may differ from the sum of these for a moment; when they differ by much, or stay
// different, the record is believed.

import {argNumber, type EventColumns} from '../formats/columns.ts';
import {FIRST_ANSWER, KIND} from '../formats/kinds.ts';
import {MM_ANONPAGES, MM_SWAPENTS} from '../kernel/mm/rss.ts';

const PAGE_BYTES = 4096;
const REMOTE_SHOOTDOWN = 1;
const BATCH_REASONS = [2, 4];
/** A value that stays off for so many records is no race. */
const MAX_RACE_RECORDS = 4;
const MAX_RACE_PAGES = 16;

/** The last ANON or SWAP record of a task. */
interface Last {
  readonly event: number;
  readonly mmId: number;
  readonly member: number;
  /** Direction of a pair that the values left open: see settle. */
  open: {readonly anon: number; readonly swap: number} | null;
}

/**
 * By event: the change that a rss_stat record stands for, NaN where the code path does not say.
 * `order`: events by time, null when they are. Cost: one pass; null when nothing was swapped.
 */
export function racingChanges(events: EventColumns, order: Int32Array | null): Float64Array | null {
  if (!events.kind.subarray(0, events.count).includes(KIND.vmscan_write_folio)) return null;
  return new PathReader(events, order).read();
}

class PathReader {
  private readonly changes: Float64Array;
  /** Printed changes of all records. */
  private readonly printed: Float64Array;
  private readonly last = new Map<number, Last>();
  private readonly inFault = new Set<number>();
  private readonly inSwapoff = new Set<number>();

  constructor(
    private readonly events: EventColumns,
    private readonly order: Int32Array | null,
  ) {
    this.changes = new Float64Array(events.count).fill(Number.NaN);
    this.printed = new Float64Array(events.count);
  }

  read(): Float64Array {
    const {events, order} = this;
    const values = new Map<number, number>();
    for (let n = 0; n < events.count; n++) {
      const i = order === null ? n : order[n];
      const kind = events.kind[i];
      const tid = events.tid[i];
      if (kind === KIND.rss_stat) {
        const key = argNumber(events, i, 0) * 4 + argNumber(events, i, 2);
        const pages = argNumber(events, i, 3) / PAGE_BYTES;
        this.printed[i] = pages - (values.get(key) ?? 0);
        values.set(key, pages);
        this.record(i, tid);
      } else if (kind < FIRST_ANSWER) this.operation(kind, tid);
      else this.answer(kind, i, tid);
    }
    for (const last of this.last.values()) this.settle(last, false);
    return this.changes;
  }

  private operation(kind: number, tid: number): void {
    this.forget(tid);
    if (kind === KIND.access) this.inFault.add(tid);
    else this.inFault.delete(tid);
    if (kind === KIND.swapoff) this.inSwapoff.add(tid);
  }

  private forget(tid: number): void {
    const last = this.last.get(tid);
    if (last === undefined) return;
    this.settle(last, false);
    this.last.delete(tid);
  }

  private answer(kind: number, i: number, tid: number): void {
    if (kind === KIND.sys_exit) this.inSwapoff.delete(tid);
    const last = this.last.get(tid);
    if (last === undefined) return;
    const reason = kind === KIND.tlb_flush ? argNumber(this.events, i, 1) : -1;
    if (reason === REMOTE_SHOOTDOWN) return;
    const reclaim = BATCH_REASONS.includes(reason) || kind === KIND.vmscan_write_folio;
    if (reclaim) this.settle(last, true);
  }

  private record(i: number, tid: number): void {
    const {events, inSwapoff} = this;
    const mmId = argNumber(events, i, 0);
    const member = argNumber(events, i, 2);
    const last = this.last.get(tid);
    if (last !== undefined) this.settle(last, false);
    const now: Last = {event: i, mmId, member, open: null};
    this.last.set(tid, now);
    if (inSwapoff.has(tid)) {
      if (member === MM_SWAPENTS) this.changes[i] = -1;
      else if (member === MM_ANONPAGES) this.changes[i] = 1;
      return;
    }
    const pair = last?.member === MM_ANONPAGES && last.mmId === mmId && member === MM_SWAPENTS;
    // Outside faults ANON and SWAP may be one vector of fork or unmapping.
    if (pair && this.inFault.has(tid)) this.pair(last.event, i, now);
    else if (member === MM_ANONPAGES && this.inFault.has(tid)) this.changes[i] = 1;
  }

  /** ANON then SWAP of one mm: out or in, by what was printed, else by what comes next. */
  private pair(anon: number, swap: number, now: Last): void {
    const out = this.printed[swap] - this.printed[anon];
    if (out === 0) now.open = {anon, swap};
    else this.setPair(anon, swap, out > 0);
  }

  private setPair(anon: number, swap: number, out: boolean): void {
    this.changes[anon] = out ? -1 : 1;
    this.changes[swap] = out ? 1 : -1;
  }

  private settle(last: Last, out: boolean): void {
    if (last.open === null) return;
    this.setPair(last.open.anon, last.open.swap, out);
    last.open = null;
  }
}

/** One counter as the sum of its tasks' changes. */
export class RacedCounter {
  private off = 0;
  private records = 0;

  constructor(private sum: number) {}

  /**
   * A record printed `pages`; its task changed the counter by `expected` (NaN: unknown). Returns
   * its change.
   */
  change(pages: number, expected: number): number {
    const printed = pages - this.sum;
    const off = printed - expected;
    this.records = off === this.off ? this.records + 1 : 1;
    this.off = off;
    const raced = Math.abs(off) <= MAX_RACE_PAGES && this.records <= MAX_RACE_RECORDS;
    const change = off === 0 || raced ? expected : printed;
    this.sum += change;
    return change;
  }
}
