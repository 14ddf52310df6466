// raw_spinlock_t: what all policies have in common. A policy (tas, ticket, mcs, qspinlock, cna)
// says how a CPU waits and how the lock goes from one to the next; everything about the uncontended
// case is here, in plain functions.
//
// Time. A lock word is on a machine CacheLine and every operation on it is ordered by when it was
// requested: the line serves requests one after the other, so deciding an operation's outcome at
// its request and letting its ticks pass afterwards is exact. A CPU settles before it requests.
// Waiters are parked processes that keep their CPU; a policy works out the tick at which the next
// one sees the lock and wakes it then. If that CPU was interrupted, it is late.
//
// What is charged: the transfers of lines and the latency of locked operations. The instructions of
// a slow path, some tens of cycles, are not.
//
// TSO. Taking a lock is a locked operation: it waits until the CPU's earlier stores are visible.
// Releasing is a plain store behind them in the store buffer: the releaser goes on at once, others
// see the lock free when its earlier stores are visible (`releaseTick`); with waiters a timer does
// the hand-off then.
//
// Use:  if (!lock.acquire(t, fn)) yield* lock.acquireSlow(t, fn);
//       if (!lock.release(t)) yield* lock.releaseSlow(t);

import {bug} from '../../machine/assert.ts';
import type {CacheLine} from '../../machine/cache_line.ts';
import type {Cpu} from '../../machine/cpu.ts';
import {PRIORITY} from '../../machine/priorities.ts';
import {type Code, type Process, Timer, type Waitable} from '../../machine/process.ts';
import type {Task} from '../task.ts';
import {type LockContext, Waiter} from './context.ts';
import type {LockStats} from './stats.ts';

/** What a lock is made of. */
export interface SpinLockParts {
  readonly name: string;
  readonly line: CacheLine;
  readonly stats: LockStats;
  /** Lockdep class, -1 for a lock that lockdep does not follow. */
  readonly classId: number;
}

/** A spinlock under one policy. Not recursive. */
export abstract class SpinLock implements Waitable {
  readonly name: string;
  readonly line: CacheLine;
  readonly stats: LockStats;
  readonly classId: number;
  protected readonly ctx: LockContext;
  /** Profile id of waiting. */
  protected readonly slowFn: number;
  /** Nobody holds the lock, waits for it or has a release of it under way. */
  protected idle = true;
  protected owner: Task | null = null;
  /** Tasks inside `contend`, whether they wait already or are on the way there. */
  private contenders = 0;
  /** Releasing without waiters is a locked operation, not a store. */
  private readonly lockedRelease: boolean;
  /** Ticks of taking and of releasing the lock for a CPU that has its line to itself. */
  private readonly ownAcquireTicks: number;
  private readonly ownReleaseTicks: number;
  /** CPU of the last holder, -1 before the first. */
  protected lastCpu = -1;
  private acquiredTick = 0;
  /** Tick at which a release becomes visible that waits for older stores; -1 when there is none. */
  private releaseTick = -1;
  private releaseTimer: Timer | null = null;

  constructor(ctx: LockContext, parts: SpinLockParts, slowName: string, lockedRelease = false) {
    this.ctx = ctx;
    this.name = parts.name;
    this.line = parts.line;
    this.stats = parts.stats;
    this.classId = parts.classId;
    this.lockedRelease = lockedRelease;
    this.ownAcquireTicks = ctx.topology.atomicLocalTicks;
    this.ownReleaseTicks = lockedRelease ? ctx.topology.atomicLocalTicks : ctx.topology.l1HitTicks;
    this.slowFn = ctx.machine.profile.id(slowName);
  }

  /** Waits until the lock is `w`'s; on return `w`'s CPU has it. Called when it was not free. */
  protected abstract contend(t: Task, w: Waiter): Code;
  /** Gives the lock of `cpu` to the waiters; `owner` is null already. */
  protected abstract handOff(cpu: Cpu): void;
  /** Somebody waits, apart from the holder. */
  protected abstract hasWaiters(): boolean;

  /**
   * spin_lock. False: the caller must go on with acquireSlow. `fn`: profile id of the calling
   * function. `subclass`: lockdep's nesting annotation (spin_lock_nested).
   */
  acquire(t: Task, fn: number, subclass = 0): boolean {
    t.preemptCount++;
    const {ctx} = this;
    const {cpu} = t;
    const tick = ctx.engine.now + cpu.pendingTicks;
    // Taken again by the CPU that has its line, while nobody else is due or looks.
    if (this.idle && this.lastCpu === cpu.id && ctx.isQuiet(tick) && this.line.isOwn(cpu.id)) {
      const ticks = this.ownAcquireTicks;
      cpu.stall(ticks, ctx.lockFn);
      this.idle = false;
      this.owner = t;
      this.acquiredTick = tick + ticks;
      this.stats.acquired++;
      return true;
    }
    return this.acquireOther(t, fn, subclass);
  }

  /** `acquire` of a lock that is not free, not this CPU's last, or watched by somebody. */
  private acquireOther(t: Task, fn: number, subclass: number): boolean {
    if (this.ctx.lockdep !== null) this.ctx.lockdep.acquireNested(t, this.classId, fn, subclass);
    const {cpu} = t;
    const {engine} = this.ctx;
    // A free lock while nobody else is due: the operation takes place at the CPU's own time,
    // unsettled.
    if (!this.idle || engine.now + cpu.pendingTicks >= engine.quietBefore) {
      if (cpu.pendingTicks !== 0 && cpu.settle()) return false;
      if (!this.idle && !this.becameFree()) return false;
    }
    if (this.ctx.mustDrain(cpu.id)) return false;
    this.takeFree(t, cpu);
    return true;
  }

  /** What is left of `acquire` after it returned false. */
  *acquireSlow(t: Task, fn: number): Code {
    if (t.process!.pendingKey !== 0) yield;
    const {cpu} = t;
    const {engine} = this.ctx;
    if (cpu.settle()) yield;
    const fence = this.ctx.drainTicks(cpu.id, engine.now);
    if (fence > 0) {
      cpu.stall(fence, this.slowFn);
      if (cpu.settle()) yield;
    }
    if (this.becameFree()) {
      this.takeFree(t, cpu);
      return;
    }
    const since = engine.now;
    this.stats.contended++;
    this.contenders++;
    yield* this.contend(t, new Waiter(cpu, fn));
    this.contenders--;
    this.idle = false;
    this.stats.waited(fn, engine.now - since);
    this.stats.acquired++;
    this.owner = t;
    this.acquiredTick = engine.now + cpu.pendingTicks;
    if (this.lastCpu !== cpu.id) this.moved(cpu.id);
  }

  /** spin_trylock: takes the lock if it is free. The caller has settled. */
  tryAcquire(t: Task, fn: number): boolean {
    const {cpu} = t;
    if (cpu.pendingTicks !== 0) bug(`trylock of ${this.name} with time unsettled`);
    if (!this.becameFree()) {
      cpu.stall(this.line.read(cpu, this.ctx.engine.now), this.ctx.lockFn);
      return false;
    }
    t.preemptCount++;
    if (this.ctx.lockdep !== null) this.ctx.lockdep.acquire(t, this.classId, fn, {trylock: true});
    this.takeFree(t, cpu);
    return true;
  }

  /** spin_unlock. False: the caller must go on with releaseSlow. */
  release(t: Task): boolean {
    const {ctx} = this;
    const {cpu} = t;
    const tick = ctx.engine.now + cpu.pendingTicks;
    // Nobody waits or looks: what letGo does, without asking.
    if (this.contenders === 0 && ctx.isQuiet(tick) && this.line.isOwn(cpu.id)) {
      if (this.owner !== t) this.notHeld();
      this.stats.holdTicks += tick - this.acquiredTick;
      t.preemptCount--;
      this.owner = null;
      this.idle = true;
      cpu.stall(this.ownReleaseTicks, ctx.unlockFn);
      return true;
    }
    if (this.contenders !== 0 || tick >= ctx.engine.quietBefore) {
      if (cpu.pendingTicks !== 0 && cpu.settle()) return false;
    }
    this.letGo(t, cpu);
    return true;
  }

  /** What is left of `release` after it returned false. */
  *releaseSlow(t: Task): Code {
    if (t.process!.pendingKey !== 0) yield;
    this.releaseSettled(t);
  }

  /** The same as plain code, for a caller that has yielded. */
  releaseSettled(t: Task): void {
    this.letGo(t, t.cpu);
  }

  /** spin_lock_irq: as acquire, with interrupts of the CPU off. Goes on with acquireSlow. */
  acquireIrq(t: Task, fn: number): boolean {
    t.cpu.disableInterrupts();
    return this.acquire(t, fn);
  }

  /** spin_unlock_irq. False: the caller must go on with releaseIrqSlow. */
  releaseIrq(t: Task): boolean {
    if (!this.release(t)) return false;
    t.cpu.enableInterrupts();
    return true;
  }

  *releaseIrqSlow(t: Task): Code {
    yield* this.releaseSlow(t);
    t.cpu.enableInterrupts();
  }

  /** Takes over the part of a lock that is held by `t`, whose CPU has the line, since `tick`. */
  adopt(t: Task, tick: number): void {
    const {now} = this.ctx.engine;
    this.line.rmw(t.cpu, now);
    this.line.busyUntil = now;
    t.preemptCount++;
    this.idle = false;
    this.owner = t;
    this.acquiredTick = tick;
    this.lastCpu = t.cpu.id;
  }

  /** Nobody holds the lock or waits for it. */
  get isIdle(): boolean {
    return this.idle && !this.hasWaiters();
  }

  get isHeld(): boolean {
    return this.owner !== null;
  }

  isHeldBy(t: Task): boolean {
    return this.owner === t && this.releaseTick < 0;
  }

  holder(): Process | null {
    return this.owner === null ? null : this.owner.process;
  }

  /** The locked operation that takes a free lock. */
  private takeFree(t: Task, cpu: Cpu): void {
    const {ctx} = this;
    const now = ctx.engine.now + cpu.pendingTicks;
    let ticks = this.line.rmw(cpu, now);
    if (ctx.storeTick > now || ctx.storeBuffers.pending !== 0) ticks += ctx.fenceTicks(cpu.id, now);
    cpu.stall(ticks, ctx.lockFn);
    this.idle = false;
    this.owner = t;
    this.acquiredTick = now + ticks;
    this.stats.acquired++;
    if (this.lastCpu !== cpu.id) this.moved(cpu.id);
  }

  /** The lock goes to another CPU than the last one. */
  private moved(cpu: number): void {
    const from = this.lastCpu;
    this.lastCpu = cpu;
    if (from >= 0) this.stats.handoff[this.ctx.topology.distance(from, cpu)]++;
    else this.stats.first++;
  }

  private letGo(t: Task, cpu: Cpu): void {
    if (this.owner !== t) this.notHeld();
    const {lockdep, engine} = this.ctx;
    const now = engine.now + cpu.pendingTicks;
    this.stats.holdTicks += now - this.acquiredTick;
    t.preemptCount--;
    if (lockdep !== null) lockdep.release(t, this.classId);
    if (!this.releasedLater(cpu, now)) this.releaseNow(cpu, now);
  }

  private notHeld(): never {
    bug(`${this.name} released by a task that does not hold it`);
  }

  /** The store of a release reaches the line. */
  private releaseNow(cpu: Cpu, now: number): void {
    this.owner = null;
    if (this.hasWaiters()) {
      this.handOff(cpu);
      return;
    }
    this.idle = true;
    const ticks = this.lockedRelease ? this.line.rmw(cpu, now) : this.line.write(cpu, now);
    this.released(cpu, now, ticks);
  }

  /**
   * Charges a release without waiters that takes `ticks`: a store leaves the CPU at once, a locked
   * operation holds it.
   */
  private released(cpu: Cpu, now: number, ticks: number): void {
    const {ctx} = this;
    if (!this.lockedRelease) ctx.stored(cpu.id, now + ticks);
    cpu.stall(this.lockedRelease ? ticks : ctx.topology.l1HitTicks, ctx.unlockFn);
  }

  /** True when the release waits in the store buffer of `cpu` behind older stores. */
  private releasedLater(cpu: Cpu, now: number): boolean {
    const tick = this.ctx.storeBuffers.drainedBy(cpu.id);
    if (tick <= now) return false;
    this.releaseTick = tick;
    cpu.stall(this.ctx.topology.l1HitTicks, this.ctx.unlockFn);
    if (this.hasWaiters()) this.armRelease();
    return true;
  }

  private armRelease(): void {
    const {engine} = this.ctx;
    this.releaseTimer ??= new Timer(engine, () => this.finishRelease(engine.now));
    const tick = Math.max(this.releaseTick, engine.now);
    engine.schedule(this.releaseTimer, tick, PRIORITY.storeDrain);
  }

  private finishRelease(tick: number): void {
    this.releaseTick = -1;
    const cpu = this.ctx.machine.cpus[this.lastCpu];
    const owed = cpu.pendingTicks;
    this.releaseNow(cpu, tick);
    cpu.pendingTicks = owed;
  }

  /** True when the lock is free now; a release that came due meanwhile is carried out first. */
  private becameFree(): boolean {
    if (this.idle) return true;
    if (this.releaseTick < 0) return false;
    if (this.releaseTick > this.ctx.engine.now) {
      this.armRelease();
      return false;
    }
    if (this.releaseTimer !== null) this.ctx.engine.cancel(this.releaseTimer);
    this.finishRelease(this.releaseTick);
    return this.idle;
  }

  /**
   * `w`'s process spins until its grant: `if (this.spins(w)) yield; this.spun(w);` (plain
   * functions, because every generator on the way to a yield is paid for again at each resumption).
   */
  protected spins(w: Waiter): boolean {
    const {engine} = this.ctx;
    const {now} = engine;
    w.spinTick = now;
    if (w.grantTick >= 0) return w.grantTick > now && engine.advance(w.grantTick - now);
    if (w.cpu.pendingTicks !== 0) bug(`spins for ${this.name} with time unsettled`);
    w.process = engine.current!;
    w.process.park(this);
    if (this.releaseTick >= 0) this.armRelease();
    return true;
  }

  /** The spin that `spins` began is over. */
  protected spun(w: Waiter): void {
    w.process = null;
    w.grantTick = -1;
    this.ctx.machine.profile.add(this.slowFn, this.ctx.engine.now - w.spinTick);
  }

  /** `w` sees at `tick` that it may go on. */
  protected grant(w: Waiter, tick: number): void {
    const {engine} = this.ctx;
    w.grantTick = tick;
    if (w.process !== null) engine.wake(w.process, Math.max(0, tick - engine.now));
  }
}
