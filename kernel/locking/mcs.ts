// MCS lock as a raw spinlock. Mainline never had it for spinlocks (its MCS queue is inside
// qspinlock and, from 3.15, the optimistic spinning of mutexes): this is the lock that
// Boyd-Wickizer et al. (2012) put into Linux against the ticket lock's collapse, and the reference
// for "hand-off does not depend on the number of waiters".
//
// Taking it is an xchg of the tail; a waiter links itself into its predecessor's node and polls its
// own. The holder passes the lock with one store into the successor's node: the successor's copy is
// invalidated and fetched again, two transactions between two CPUs, whoever else waits. Without a
// successor the release is a cmpxchg, a locked operation.

import type {Cpu} from '../../machine/cpu.ts';
import type {Code} from '../../machine/process.ts';
import type {Task} from '../task.ts';
import type {LockContext, Waiter} from './context.ts';
import {SpinLock, type SpinLockParts} from './spinlock.ts';

/** A queue of CPUs, each polling memory of its own. */
export class McsLock extends SpinLock {
  /** Who gets the lock next, and the last in the queue. */
  private first: Waiter | null = null;
  private last: Waiter | null = null;

  constructor(ctx: LockContext, parts: SpinLockParts) {
    super(ctx, parts, 'mcs_spin_lock', true);
  }

  protected override hasWaiters(): boolean {
    return this.first !== null;
  }

  protected override *contend(t: Task, w: Waiter): Code {
    const {cpu} = w;
    const {ctx} = this;
    cpu.stall(ctx.claimNode(cpu.id), this.slowFn);
    if (cpu.settle()) yield;
    const {now} = ctx.engine;
    const ticks = this.line.rmw(cpu, now);
    if (this.idle) {
      cpu.stall(ticks, this.slowFn);
      this.owner = t;
      return;
    }
    const prev = this.last === null ? this.lastCpu : this.last.cpu.id;
    const written = now + ticks + ctx.writeNode(prev, cpu.id);
    w.linkedTick = written + ctx.nodeTicks(cpu.id, prev, prev);
    w.nodeBusyTick = now + ticks;
    if (this.last === null) this.first = w;
    else {
      this.last.next = w;
      this.last.nodeBusyTick = w.linkedTick;
    }
    this.last = w;
    if (this.spins(w)) yield;
    this.spun(w);
    this.owner = t;
  }

  protected override handOff(cpu: Cpu): void {
    const {ctx} = this;
    const {now} = ctx.engine;
    const next = this.first!;
    this.first = next.next;
    if (this.first === null) this.last = null;
    const start = Math.max(now, next.linkedTick, next.nodeBusyTick);
    const written = start + ctx.writeNode(next.cpu.id, cpu.id);
    cpu.stall(Math.max(0, next.linkedTick - now) + ctx.topology.l1HitTicks, ctx.unlockFn);
    ctx.stored(cpu.id, written);
    this.grant(next, written + ctx.nodeTicks(cpu.id, next.cpu.id, next.cpu.id));
  }
}
