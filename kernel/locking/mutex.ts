// struct mutex, kernel/locking/mutex.c as of 4.10 and later: owner and flags in one word,
// optimistic spinning, and hand-off. Before 4.10 a woken waiter neither spun nor got a hand-off,
// and could lose to others for ever.
//
// Lock: cmpxchg of a free word; else spin while the owner runs; else queue under wait_lock and
// sleep. A waiter that was woken as the first of the queue and did not get the lock sets the
// hand-off flag: the next unlock gives it the lock (owner is set for it, "pickup"). The first
// waiter spins too, beside the head of the spin queue.
//     if (!m.acquire(t, fn)) yield* m.acquireSlow(t, fn);
//     if (!m.release(t)) yield* m.releaseSlow(t);

import {assert} from '../../machine/assert.ts';
import type {Code, Process} from '../../machine/process.ts';
import type {Kernel} from '../kernel.ts';
import type {Task} from '../task.ts';
import {isBefore} from '../version.ts';
import type {Acquisition} from './lockdep.ts';
import type {LockOptions} from './registry.ts';
import {HolderStats, SLEEPING, SleepingLock, TRYLOCK} from './sleeping_lock.ts';
import type {LockStats} from './stats.ts';

/** A sleeping lock with one holder. */
export class Mutex extends SleepingLock {
  private owner: Task | null = null;
  /** The owner was set by a hand-off and has not noticed yet. */
  private pickup = false;
  private handoff = false;
  private readonly waiters: Task[] = [];
  private readonly stats: LockStats;
  private readonly holders: HolderStats;
  private readonly handsOff: boolean;
  private readonly lockFn: number;
  private acquiredTick = 0;

  constructor(kernel: Kernel, name: string, opts: LockOptions = {}) {
    super(kernel, name, opts, 'mutex');
    this.stats = kernel.locks.stats(opts.class ?? name);
    this.holders = new HolderStats(kernel, this.stats);
    this.handsOff = !isBefore(kernel.facts.version, '4.10');
    this.lockFn = kernel.fn('mutex_lock');
  }

  holder(): Process | null {
    return this.owner?.process ?? null;
  }

  get isHeld(): boolean {
    return this.owner !== null;
  }

  isHeldBy(t: Task): boolean {
    return this.owner === t && !this.pickup;
  }

  /** mutex_lock(). False: go on with acquireSlow. `fn` is the profile id of the caller. */
  acquire(t: Task, fn: number, how: Acquisition = SLEEPING): boolean {
    this.kernel.sched.mightSleep(t, 'mutex_lock');
    this.kernel.locks.lockdep?.acquire(t, this.classId, fn, how);
    if (t.cpu.settle()) return false;
    return this.tryTake(t);
  }

  *acquireSlow(t: Task, fn: number): Code {
    if (t.process!.pendingKey !== 0) {
      yield;
      if (this.tryTake(t)) return;
    }
    const since = this.now;
    this.stats.contended++;
    t.preemptCount++;
    if (t.cpu.settle()) yield;
    if (!(yield* this.spin(t, false))) yield* this.sleepFor(t);
    t.preemptCount--;
    this.stats.waited(fn, this.now - since);
  }

  /** mutex_trylock(). The caller has settled. */
  tryAcquire(t: Task, fn: number): boolean {
    if (!this.tryTake(t)) return false;
    this.kernel.locks.lockdep?.acquire(t, this.classId, fn, TRYLOCK);
    return true;
  }

  /** mutex_unlock(). False: go on with releaseSlow. */
  release(t: Task): boolean {
    assert(this.isHeldBy(t), 'a mutex is unlocked by a task that does not hold it');
    if (t.cpu.settle() || this.waiters.length > 0) return false;
    this.letGo(t);
    return true;
  }

  *releaseSlow(t: Task): Code {
    if (t.process!.pendingKey !== 0) yield;
    if (this.waiters.length === 0) {
      this.letGo(t);
      return;
    }
    if (!this.handoff) this.letGo(t);
    if (!this.waitLock.acquire(t, this.sleepFn)) {
      yield* this.waitLock.acquireSlow(t, this.sleepFn);
    }
    const next: Task | undefined = this.waiters[0];
    if (this.owner === t) this.passOn(t, next);
    if (!this.waitLock.release(t)) yield* this.waitLock.releaseSlow(t);
    if (t.cpu.settle()) yield;
    if (next !== undefined && this.waiters.includes(next)) this.kernel.sched.wake(next);
  }

  private tryTake(t: Task): boolean {
    const {cpu} = t;
    this.rmw(cpu, this.lockFn);
    if (this.owner !== null && !(this.owner === t && this.pickup)) return false;
    this.owner = t;
    this.pickup = false;
    this.handoff = false;
    this.acquiredTick = this.now + cpu.pendingTicks;
    this.holders.taken(cpu);
    return true;
  }

  private letGo(t: Task): void {
    this.ends(t);
    this.owner = null;
    this.rmw(t.cpu, this.lockFn);
    this.notifyLookers(t.cpu);
  }

  /** __mutex_handoff(): nobody else can take the lock before `next` does. */
  private passOn(t: Task, next: Task | undefined): void {
    this.ends(t);
    this.owner = next ?? null;
    this.pickup = next !== undefined;
    this.rmw(t.cpu, this.lockFn);
    this.notifyLookers(t.cpu);
  }

  private ends(t: Task): void {
    this.stats.holdTicks += this.now - this.acquiredTick;
    this.kernel.locks.lockdep?.release(t, this.classId);
  }

  /**
   * mutex_optimistic_spin(). `first`: the first sleeper, which spins without queueing. True: it has
   * the lock.
   */
  private *spin(t: Task, first: boolean): Code<boolean> {
    if (!this.canSpin(t)) return false;
    const spinner = this.newSpinner(t);
    if (!first && !(yield* this.osq.lock(spinner, this.spinFn))) return false;
    let taken = false;
    for (;;) {
      taken = this.tryTake(t);
      if (t.cpu.settle()) yield;
      if (taken || !this.canSpin(t)) break;
      if (this.owner === null || (this.owner === t && this.pickup)) continue;
      this.lookers.push(spinner);
      yield* spinner.wait(this, this.owner, Infinity, this.spinFn);
      this.stopLooking(spinner);
    }
    if (!first) this.osq.unlock(spinner);
    return taken;
  }

  private canSpin(t: Task): boolean {
    if (t.needResched) return false;
    return this.owner === null || this.owner === t || this.owner.se.onCpu;
  }

  private *sleepFor(t: Task): Code {
    const {sched} = this.kernel;
    const {waitLock, sleepFn} = this;
    if (!waitLock.acquire(t, sleepFn)) yield* waitLock.acquireSlow(t, sleepFn);
    this.waiters.push(t);
    sched.prepareToWait(t);
    for (;;) {
      if (t.cpu.settle()) yield;
      if (this.tryTake(t)) break;
      if (!waitLock.release(t)) yield* waitLock.releaseSlow(t);
      t.preemptCount--;
      yield* sched.schedule(t, this);
      t.preemptCount++;
      const first = this.handsOff && this.waiters[0] === t;
      if (first && this.owner !== null && !this.pickup) this.handoff = true;
      sched.prepareToWait(t);
      const taken = this.tryTake(t);
      if (t.cpu.settle()) yield;
      const spun = taken || (first && (yield* this.spin(t, true)));
      if (!waitLock.acquire(t, sleepFn)) yield* waitLock.acquireSlow(t, sleepFn);
      if (spun) break;
    }
    this.waiters.splice(this.waiters.indexOf(t), 1);
    if (this.waiters.length === 0) this.handoff = false;
    sched.cancelWait(t);
    if (!waitLock.release(t)) yield* waitLock.releaseSlow(t);
  }
}
