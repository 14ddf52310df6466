// mm/mmu_notifier.c: the core that tells secondary MMUs what happens to an address space.
//
// Notifiers of an mm are called in reverse order of registration. start asks the interval notifiers
// first (mmu_interval_ notifier.ts installs itself in `interval`), then the list; end calls in the
// same order, interval side last. An mm that nobody registered with costs a comparison. What is
// sent is counted by function, event and call site in kernel.mm.notifierCounts, sent or not:
// `calls` are the places passed, `callbacks` what consumers got.

import type {Code} from '../../machine/process.ts';
import {EAGAIN} from '../errno.ts';
import type {Kernel} from '../kernel.ts';
import type {Lockdep} from '../locking/lockdep.ts';
import type {MmStruct} from '../mm_types.ts';
import type {Task} from '../task.ts';
import type {IntervalTree} from './mmu_interval_notifier.ts';
import {MMU_NOTIFY_NAMES, type MmuNotifier, type MmuNotifierRange} from './mmu_notifier_types.ts';
import type {Mm} from './mm_state.ts';
import type {MmProbe} from './probe.ts';

/** struct mmu_notifier_subscriptions: made with the first registration, kept until __mmdrop. */
export class MmuNotifierSubscriptions {
  /** Newest first. */
  readonly list: MmuNotifier[] = [];
  interval: IntervalTree | null = null;
  released = false;
}

/** Calls of one site: by event, for start and end, with the pages of their ranges. */
export interface SiteCounts {
  readonly start: number[];
  readonly end: number[];
  /** Pages of all ranges started. */
  pages: number;
}

/** Counts by site, event and function. */
export class NotifierCounts {
  /** Calls of the core, whether somebody listens or not. */
  readonly sites = new Map<string, SiteCounts>();
  /** Callbacks run. */
  callbacks = 0;
  /** Invalidations given up because a notifier would have had to wait (-EAGAIN). */
  eagain = 0;
  /** Collisions that mmu_interval_read_retry has found. */
  retries = 0;
  /** The site that was asked for last: callers come in runs. */
  private lastName = '';
  private lastRow: SiteCounts | null = null;

  /** Invalidations begun, by site. */
  starts(): Record<string, number> {
    const rows = [...this.sites].map(([name, row]) => {
      return [name, row.start.reduce((sum, n) => sum + n, 0)] as const;
    });
    return Object.fromEntries(rows.filter(([, n]) => n > 0));
  }

  /** Forgets all that was counted. */
  clear(): void {
    this.sites.clear();
    this.lastRow = null;
    this.callbacks = 0;
    this.eagain = 0;
    this.retries = 0;
  }

  site(name: string): SiteCounts {
    const {lastRow} = this;
    return lastRow !== null && this.lastName === name ? lastRow : this.otherSite(name);
  }

  private otherSite(name: string): SiteCounts {
    let row = this.sites.get(name);
    if (row === undefined) {
      const zeros = (): number[] => MMU_NOTIFY_NAMES.map(() => 0);
      row = {start: zeros(), end: zeros(), pages: 0};
      this.sites.set(name, row);
    }
    this.lastName = name;
    this.lastRow = row;
    return row;
  }
}

const PSEUDO = {pseudo: true, sleeping: true} as const;

/** mm_has_notifiers. */
export function mm_has_notifiers(mm: MmStruct): boolean {
  const subscriptions = mm.user?.notifierSubscriptions ?? null;
  if (subscriptions === null) return false;
  return subscriptions.list.length > 0 || subscriptions.interval !== null;
}

/**
 * Counts and traces; true when there is nobody to call, so that callers need not enter a generator.
 */
export function invalidate_range_start(k: Kernel, t: Task, range: MmuNotifierRange): boolean {
  const {mm} = k;
  const counts = mm.notifierCounts.site(range.site);
  counts.start[range.event]++;
  counts.pages += range.end - range.start;
  if (mm.probe !== null) trace(mm.probe, 'start', range);
  const {lockdep} = k.locks;
  if (lockdep !== null && mm.notifierFacts.lockdepMap) mightWait(lockdep, mm, t);
  return !mm_has_notifiers(range.mm);
}

/**
 * __mmu_notifier_invalidate_range_start_map: whoever gets here might wait for what a callback waits
 * for.
 */
function mightWait(lockdep: Lockdep, {notifierClass, fns}: Mm, t: Task): void {
  lockdep.acquire(t, notifierClass, fns.mmu_notifier_register, PSEUDO);
  lockdep.release(t, notifierClass);
}

function trace(probe: MmProbe, name: 'start' | 'end', range: MmuNotifierRange): void {
  probe.notifier(range.mm, name, range.event, range.site, range.start, range.end);
}

/** As invalidate_range_start, for the end. */
export function invalidate_range_end(k: Kernel, range: MmuNotifierRange): boolean {
  const {mm} = k;
  mm.notifierCounts.site(range.site).end[range.event]++;
  if (mm.probe !== null) trace(mm.probe, 'end', range);
  return !mm_has_notifiers(range.mm);
}

/** mmu_notifier_invalidate_range_start: may sleep. */
export function* mmu_notifier_invalidate_range_start(
  k: Kernel,
  t: Task,
  range: MmuNotifierRange,
): Code {
  if (!invalidate_range_start(k, t, range)) yield* callStart(k, t, range);
}

/** mmu_notifier_invalidate_range_start_nonblock: 0, or -EAGAIN when somebody would have to wait. */
export function* mmu_notifier_invalidate_range_start_nonblock(
  k: Kernel,
  t: Task,
  range: MmuNotifierRange,
): Code<number> {
  range.blockable = false;
  if (invalidate_range_start(k, t, range)) return 0;
  return yield* callStart(k, t, range);
}

/** mmu_notifier_invalidate_range_end. */
export function* mmu_notifier_invalidate_range_end(
  k: Kernel,
  t: Task,
  range: MmuNotifierRange,
): Code {
  if (!invalidate_range_end(k, range)) yield* callEnd(k, t, range, false);
}

/** mmu_notifier_invalidate_range_only_end (4.15 to 6.5): without the implied invalidate_range. */
export function* mmu_notifier_invalidate_range_only_end(
  k: Kernel,
  t: Task,
  range: MmuNotifierRange,
): Code {
  if (!invalidate_range_end(k, range)) yield* callEnd(k, t, range, true);
}

/** __mmu_notifier_invalidate_range_start. */
export function* callStart(k: Kernel, t: Task, range: MmuNotifierRange): Code<number> {
  range.beganTick = k.machine.engine.now + t.cpu.pendingTicks;
  const result = yield* startAll(k, t, range);
  if (result === -EAGAIN) k.mm.notifierCounts.eagain++;
  return result;
}

function* startAll(k: Kernel, t: Task, range: MmuNotifierRange): Code<number> {
  const subscriptions = range.mm.user!.notifierSubscriptions!;
  if (range.blockable) k.sched.mightSleep(t, 'mmu_notifier_invalidate_range_start');
  if (subscriptions.interval !== null) {
    const result = yield* subscriptions.interval.inv_start(t, range);
    if (result !== 0) return result;
  }
  let failed = 0;
  const called: MmuNotifier[] = [];
  const id = readLock(k, t);
  for (const n of [...subscriptions.list]) {
    if (n.ops.invalidate_range_start === undefined) continue;
    k.mm.notifierCounts.callbacks++;
    if (!range.blockable) t.nonBlockCount++;
    const result = yield* n.ops.invalidate_range_start(n, t, range);
    if (!range.blockable) t.nonBlockCount--;
    if (result === 0) called.push(n);
    else failed = reportFailure(k, n, range, result);
  }
  if (failed !== 0 && k.mm.notifierFacts.unwindsHlist) {
    for (const n of called) {
      if (n.ops.invalidate_range_end !== undefined) yield* n.ops.invalidate_range_end(n, t, range);
    }
  }
  readUnlock(k, t, id);
  return failed;
}

/**
 * The section in which callbacks run: SRCU since 3.7, before that RCU, in which nobody may sleep.
 */
function readLock(k: Kernel, t: Task): number {
  if (k.mm.notifierFacts.sleeps) return k.mm.srcu.readLock();
  k.rcu.readLock(t);
  return 0;
}

function readUnlock(k: Kernel, t: Task, id: number): void {
  if (k.mm.notifierFacts.sleeps) k.mm.srcu.readUnlock(id);
  else k.rcu.readUnlock(t);
}

/**
 * A callback may fail only with -EAGAIN and only when the range is not blockable. Returns what
 * counts as the result.
 */
function reportFailure(k: Kernel, n: MmuNotifier, range: MmuNotifierRange, result: number): number {
  if (range.blockable || result !== -EAGAIN) {
    const how = range.blockable ? 'blockable' : 'non-blockable';
    k.checks.warn(
      `${n.ops.name} invalidate_range_start callback failed with ${result} in ${how} context`,
    );
  }
  return range.blockable ? 0 : result;
}

function* callEnd(k: Kernel, t: Task, range: MmuNotifierRange, onlyEnd: boolean): Code {
  const subscriptions = range.mm.user!.notifierSubscriptions!;
  subscriptions.interval?.inv_end(t, range);
  const implied = !onlyEnd && k.mm.notifierFacts.secondaryTlb === 'range';
  const id = readLock(k, t);
  for (const n of [...subscriptions.list]) {
    if (implied && n.ops.invalidate_range !== undefined) {
      k.mm.notifierCounts.callbacks++;
      n.ops.invalidate_range(n, t, range.start, range.end);
    }
    if (n.ops.invalidate_range_end === undefined) continue;
    k.mm.notifierCounts.callbacks++;
    if (!range.blockable) t.nonBlockCount++;
    yield* n.ops.invalidate_range_end(n, t, range);
    if (!range.blockable) t.nonBlockCount--;
  }
  readUnlock(k, t, id);
  const now = k.machine.engine.now + t.cpu.pendingTicks;
  k.invalidated?.(now - range.beganTick);
}

/**
 * mmu_notifier_invalidate_range (3.19 to 6.5), arch_invalidate_secondary_tlbs (6.6+): plain, may be
 * under a PTL.
 */
export function invalidate_secondary_tlbs(
  k: Kernel,
  t: Task,
  mm: MmStruct,
  start: number,
  end: number,
): void {
  const subscriptions = mm.user?.notifierSubscriptions ?? null;
  if (subscriptions === null || k.mm.notifierFacts.secondaryTlb === 'none') return;
  for (const n of subscriptions.list) {
    if (n.ops.invalidate_range === undefined) continue;
    k.mm.notifierCounts.callbacks++;
    k.mm.probe?.notifier(mm, 'invalidate_range', 1, 'tlb', start, end);
    n.ops.invalidate_range(n, t, start, end);
  }
}

/** mmu_notifier_invalidate_page (up to 4.12). */
export function* mmu_notifier_invalidate_page(k: Kernel, t: Task, mm: MmStruct, vpn: number): Code {
  const subscriptions = mm.user?.notifierSubscriptions ?? null;
  if (subscriptions === null) return;
  for (const n of [...subscriptions.list]) {
    if (n.ops.invalidate_page === undefined) continue;
    k.mm.notifierCounts.callbacks++;
    k.mm.probe?.notifier(mm, 'invalidate_page', 1, 'rmap', vpn, vpn + 1);
    const id = readLock(k, t);
    yield* n.ops.invalidate_page(n, t, vpn);
    readUnlock(k, t, id);
  }
}

/** mmu_notifier_change_pte (up to 6.9), under the PTL. */
export function change_pte(k: Kernel, t: Task, mm: MmStruct, vpn: number, pfn: number): void {
  const subscriptions = mm.user?.notifierSubscriptions ?? null;
  if (subscriptions === null || k.mm.notifierFacts.changePte === 'none') return;
  for (const n of subscriptions.list) {
    if (n.ops.change_pte === undefined) continue;
    k.mm.notifierCounts.callbacks++;
    k.mm.probe?.notifier(mm, 'change_pte', 1, 'set_pte_at_notify', vpn, vpn + 1);
    n.ops.change_pte(n, t, vpn, pfn);
  }
}

/** Young operations, under the PTL; OR over all notifiers. */
export function mmu_notifier_young(
  t: Task,
  mm: MmStruct,
  how: 'clear_flush_young' | 'clear_young',
  start: number,
  end: number,
): boolean {
  const subscriptions = mm.user?.notifierSubscriptions ?? null;
  if (subscriptions === null) return false;
  let young = false;
  for (const n of subscriptions.list) {
    if (n.ops[how]?.(n, t, start, end) === true) young = true;
  }
  return young;
}

/** Waits until every callback that is running now has returned. */
export function* mmu_notifier_synchronize(k: Kernel, t: Task): Code {
  if (k.mm.notifierFacts.sleeps) yield* k.mm.srcu.synchronize(t);
  else yield* k.rcu.synchronize(t);
}

/**
 * mmu_notifier_release, first thing in exit_mmap: every notifier's release, then the list is empty.
 */
export function* mmu_notifier_release(k: Kernel, t: Task, mm: MmStruct): Code {
  const subscriptions = mm.user?.notifierSubscriptions ?? null;
  if (subscriptions === null || subscriptions.released) return;
  subscriptions.released = true;
  if (subscriptions.interval !== null) yield* subscriptions.interval.release(t, mm);
  const list = [...subscriptions.list];
  for (const n of list) {
    k.mm.probe?.notifier(mm, 'release', 5, 'exit_mmap', 0, 2 ** 45);
    const id = readLock(k, t);
    if (n.ops.release !== undefined) yield* n.ops.release(n, t);
    readUnlock(k, t, id);
  }
  subscriptions.list.length = 0;
  if (list.length > 0) yield* mmu_notifier_synchronize(k, t);
}
