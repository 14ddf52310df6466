// CNA, the compact NUMA-aware qspinlock: Alex Kogan, "[PATCH v3 0/5] Add NUMA-awareness to
// qspinlock", LKML, 15 July 2019, patches 3 to 5. Never merged. Constants read in the posting.
//
// The queue of qspinlock becomes two. The CPU that takes the lock from the head of the main queue
// looks for the first waiter on its own node; those it skips go to the end of the secondary queue,
// and the lock's queue passes to the one found. With none on its node, or with probability 2^-16
// for the sake of the others, the secondary queue goes back to the front. While the secondary queue
// is empty the search is only made one time in 128, so that light contention does not shuffle for
// nothing.
//
// Cost: the search happens before the critical section and reads the node of every waiter it
// passes, one transfer each; the immediate successor's node is there already (prefetchw). Splicing
// writes up to three nodes.

import type {Rng} from '../../machine/rng.ts';
import type {LockContext, Waiter} from './context.ts';
import {QSpinLock} from './qspinlock.ts';
import type {SpinLockParts} from './spinlock.ts';

/** INTRA_NODE_HANDOFF_PROB_ARG of v3: one hand-off in so many ignores the node. */
const INTRA_NODE_HANDOFF_RANGE = 0x10000;
/** SHUFFLE_REDUCTION_PROB_ARG of v3: one search in so many while the secondary queue is empty. */
const SHUFFLE_REDUCTION_RANGE = 0x80;

/** qspinlock with a queue for the waiters of other nodes. */
export class CnaLock extends QSpinLock {
  private secondHead: Waiter | null = null;
  private secondTail: Waiter | null = null;
  private readonly rng: Rng;

  constructor(ctx: LockContext, parts: SpinLockParts) {
    super(ctx, parts);
    this.rng = ctx.machine.rng(`cna ${parts.name}`);
  }

  /** False once in `range`. */
  private probably(range: number): boolean {
    return this.rng.nextInt(range) !== 0;
  }

  /** cna_pass_mcs_lock. */
  protected override passQueue(w: Waiter, visible: number): void {
    const next = w.next!;
    if (this.secondHead === null && this.probably(SHUFFLE_REDUCTION_RANGE)) {
      this.passTo(w, next, visible);
      return;
    }
    if (this.probably(INTRA_NODE_HANDOFF_RANGE)) {
      const local = this.findSuccessor(w);
      if (local !== null) {
        this.passTo(w, local, local === next ? visible : this.splicedTick(w, visible));
        return;
      }
    }
    const {secondHead, secondTail} = this;
    if (secondHead === null) {
      this.passTo(w, next, visible);
      return;
    }
    secondTail!.next = next;
    this.secondHead = null;
    this.secondTail = null;
    const written = this.ctx.engine.now + this.ctx.writeNode(secondTail!.cpu.id, w.cpu.id);
    next.linkedTick = Math.max(next.linkedTick, written);
    this.passTo(w, secondHead, Math.max(visible, written));
  }

  /** cna_set_locked_empty_mcs: the main queue ended with `w`. */
  protected override endQueue(w: Waiter, tick: number): void {
    const {secondHead, secondTail} = this;
    if (secondHead === null) {
      super.endQueue(w, tick);
      return;
    }
    this.tail = secondTail;
    this.secondHead = null;
    this.secondTail = null;
    this.passTo(w, secondHead, tick);
  }

  /** The first waiter on the node of `w`; those before it are moved to the secondary queue. */
  private findSuccessor(w: Waiter): Waiter | null {
    const {nodeOf} = this.ctx.topology;
    const node = nodeOf[w.cpu.id];
    const next = w.next!;
    if (nodeOf[next.cpu.id] === node) return next;
    let before = next;
    for (let at = this.linkSeen(w, next); at !== null; at = this.linkSeen(w, at)) {
      w.cpu.stall(this.ctx.nodeTicks(at.cpu.id, w.cpu.id, at.cpu.id), this.slowFn);
      if (nodeOf[at.cpu.id] === node) {
        this.moveToSecond(next, before);
        return at;
      }
      before = at;
    }
    return null;
  }

  /** The successor of `at`, when the link to it is visible to the searching CPU. */
  private linkSeen(w: Waiter, at: Waiter): Waiter | null {
    const {next} = at;
    if (next === null) return null;
    return next.linkedTick > this.ctx.engine.now + w.cpu.pendingTicks ? null : next;
  }

  private moveToSecond(from: Waiter, to: Waiter): void {
    if (this.secondTail === null) this.secondHead = from;
    else this.secondTail.next = from;
    this.secondTail = to;
    to.next = null;
  }

  /** When the stores of a splice, issued together, are all visible. */
  private splicedTick(w: Waiter, visible: number): number {
    const {secondHead, secondTail, ctx} = this;
    if (secondHead === null || secondTail === null) return visible;
    const issued = ctx.engine.now + w.cpu.pendingTicks;
    const head = issued + ctx.nodeTicks(secondHead.cpu.id, w.cpu.id, secondHead.cpu.id);
    const tail = issued + ctx.nodeTicks(secondTail.cpu.id, w.cpu.id, secondTail.cpu.id);
    return Math.max(visible, head, tail);
  }
}
