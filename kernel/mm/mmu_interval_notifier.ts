// mmu_interval_notifier (5.5+): invalidations of a range of an mm, with a sequence that tells a
// driver whether what it collected is still true (mm/mmu_notifier.c).
//
// invalidate_seq is odd while at least one node has been hit by an invalidation that is still
// active; it becomes even when all active ones have ended, whether they hit a node or not. A node
// remembers the sequence of the last invalidation that hit it. Nodes added or removed while the
// tree is in use wait on the deferred list.

import {assert} from '../../machine/assert.ts';
import type {Code} from '../../machine/process.ts';
import {EAGAIN} from '../errno.ts';
import type {Kernel} from '../kernel.ts';
import type {MmStruct} from '../mm_types.ts';
import {WaitQueue} from '../sched/wait_queue.ts';
import type {Task} from '../task.ts';
import {MmuNotifierSubscriptions, type NotifierCounts} from './mmu_notifier.ts';
import {MMU_NOTIFY_RELEASE, MmuNotifierRange} from './mmu_notifier_types.ts';

/** struct mmu_interval_notifier_ops. */
export interface MmuIntervalNotifierOps {
  readonly name: string;
  /**
   * Under the driver's lock: set_seq, drop what the device has of the range. False only when not
   * blockable.
   */
  invalidate(n: MmuIntervalNotifier, t: Task, range: MmuNotifierRange, seq: number): Code<boolean>;
}

/** struct mmu_interval_notifier: pages [start, end) of an mm. */
export class MmuIntervalNotifier {
  invalidateSeq = 0;
  mm: MmStruct | null = null;
  inTree = false;
  /** Where collisions are counted, once the notifier has been inserted. */
  counts: NotifierCounts | null = null;

  constructor(
    readonly ops: MmuIntervalNotifierOps,
    readonly context: object,
    readonly start: number,
    readonly end: number,
  ) {}

  /** mmu_interval_set_seq: in the callback, under the driver's lock. */
  setSeq(seq: number): void {
    this.invalidateSeq = seq;
  }

  /** mmu_interval_read_retry: under the driver's lock. True: collect again. */
  readRetry(seq: number): boolean {
    if (this.invalidateSeq === seq) return false;
    if (this.counts !== null) this.counts.retries++;
    return true;
  }
}

/** The interval part of mmu_notifier_subscriptions. */
export class IntervalTree {
  seq = 2;
  activeRanges = 0;
  readonly nodes: MmuIntervalNotifier[] = [];
  private readonly deferredAdds: MmuIntervalNotifier[] = [];
  private readonly deferredRemoves: MmuIntervalNotifier[] = [];
  readonly waiters: WaitQueue;

  constructor(readonly kernel: Kernel) {
    this.waiters = new WaitQueue(kernel, 'end of mmu_notifier invalidations');
  }

  get isInvalidating(): boolean {
    return (this.seq & 1) !== 0;
  }

  get hasWork(): boolean {
    return this.nodes.length > 0;
  }

  *inv_start(t: Task, range: MmuNotifierRange): Code<number> {
    this.activeRanges++;
    const hit = this.nodes.filter((n) => n.start < range.end && range.start < n.end);
    if (hit.length > 0) this.seq |= 1;
    const {seq} = this;
    for (const n of hit) {
      this.kernel.mm.notifierCounts.callbacks++;
      if (yield* n.ops.invalidate(n, t, range, seq)) continue;
      if (range.blockable) {
        this.kernel.checks.warn(`${n.ops.name}: invalidate failed although it may block`);
        continue;
      }
      this.inv_end(t, range);
      return -EAGAIN;
    }
    return 0;
  }

  inv_end(_t: Task, _range: MmuNotifierRange): void {
    this.activeRanges--;
    assert(this.activeRanges >= 0, 'more interval invalidations ended than started');
    if (this.activeRanges > 0 || !this.isInvalidating) return;
    this.seq++;
    for (const n of this.deferredAdds.splice(0)) this.enter(n);
    for (const n of this.deferredRemoves.splice(0)) this.leave(n);
    this.waiters.wakeAll();
  }

  /** mn_itree_release: the mm goes; every node is told. */
  *release(t: Task, mm: MmStruct): Code {
    const range = new MmuNotifierRange(MMU_NOTIFY_RELEASE, mm, null, 0, Infinity, 'exit_mmap');
    yield* this.inv_start(t, range);
    this.inv_end(t, range);
  }

  insert(n: MmuIntervalNotifier): void {
    if (this.activeRanges > 0) {
      if (this.isInvalidating) {
        this.deferredAdds.push(n);
      } else {
        this.seq |= 1;
        this.enter(n);
      }
      n.invalidateSeq = this.seq;
      return;
    }
    this.enter(n);
    n.invalidateSeq = this.seq - 1;
  }

  /** Returns the sequence to wait for the end of, 0 when it is gone already. */
  remove(n: MmuIntervalNotifier): number {
    if (!this.isInvalidating) {
      this.leave(n);
      return 0;
    }
    const at = this.deferredAdds.indexOf(n);
    if (at >= 0) this.deferredAdds.splice(at, 1);
    else this.deferredRemoves.push(n);
    return at >= 0 ? 0 : this.seq;
  }

  private enter(n: MmuIntervalNotifier): void {
    n.inTree = true;
    const at = this.nodes.findIndex((other) => other.start > n.start);
    this.nodes.splice(at < 0 ? this.nodes.length : at, 0, n);
  }

  private leave(n: MmuIntervalNotifier): void {
    n.inTree = false;
    const at = this.nodes.indexOf(n);
    if (at >= 0) this.nodes.splice(at, 1);
  }
}

/** mmu_interval_notifier_insert. */
export function mmu_interval_notifier_insert(
  k: Kernel,
  mm: MmStruct,
  n: MmuIntervalNotifier,
): void {
  const user = k.mm.userOf(mm);
  if (mm.users <= 0) k.checks.warn(`${n.ops.name}: interval notifier inserted into a dying mm`);
  user.notifierSubscriptions ??= new MmuNotifierSubscriptions();
  const subscriptions = user.notifierSubscriptions;
  subscriptions.interval ??= new IntervalTree(k);
  n.mm = mm;
  n.counts = k.mm.notifierCounts;
  subscriptions.interval.insert(n);
  mm.count++;
}

/**
 * mmu_interval_notifier_remove: waits until no invalidation can see the node. Not from a callback.
 */
export function* mmu_interval_notifier_remove(k: Kernel, t: Task, n: MmuIntervalNotifier): Code {
  const {mm} = n;
  assert(mm !== null, 'interval notifier removed twice');
  const tree = mm.user!.notifierSubscriptions!.interval!;
  if (t.cpu.settle()) yield;
  const seq = tree.remove(n);
  if (seq !== 0) yield* waitWhile(t, tree, () => tree.seq === seq);
  n.mm = null;
  mm.count--;
  assert(mm.count > 0, `${k.facts.version}: interval notifier held the last reference of its mm`);
}

/**
 * mmu_interval_read_begin: waits for an invalidation of this node to end. Returns the sequence for
 * readRetry.
 */
export function* mmu_interval_read_begin(
  _k: Kernel,
  t: Task,
  n: MmuIntervalNotifier,
): Code<number> {
  const tree = n.mm!.user!.notifierSubscriptions!.interval!;
  if (t.cpu.settle()) yield;
  const seq = n.invalidateSeq;
  if (seq === tree.seq) yield* waitWhile(t, tree, () => tree.seq === seq);
  return seq;
}

function* waitWhile(t: Task, tree: IntervalTree, busy: () => boolean): Code {
  while (busy()) yield* tree.waiters.wait(t);
}
