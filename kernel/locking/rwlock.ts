// rwlock_t as qrwlock, x86 from 3.16 on (kernel/locking/qrwlock.c as in 5.x): tasklist_lock.
//
// `cnts` holds the number of readers, a writer byte and a writer-waiting bit. A reader adds itself
// and is in unless a writer holds or waits; then it takes itself out again and queues behind
// `wait_lock`, a spinlock of the design's policy in the same cache line. A writer tries a cmpxchg
// of 0, else queues there too, sets the waiting bit and spins until the readers are gone. So
// whoever holds wait_lock is the only one who spins on cnts; all others spin as the policy says.
// Fair: a waiting writer stops new readers. Readers in interrupts, who may pass it, do not occur in
// the model.
//
// Before 3.16 the word was a counter biased by RW_LOCK_BIAS without any queue: readers could starve
// writers for ever and everyone polled the word. Older kernels get this file's lock all the same.
//
// Every release by a reader is a locked operation on cnts; a writer's is a plain store behind its
// earlier ones.

import {bug} from '../../machine/assert.ts';
import type {CacheLine} from '../../machine/cache_line.ts';
import type {Cpu} from '../../machine/cpu.ts';
import {PRIORITY} from '../../machine/priorities.ts';
import {type Code, type Process, Timer, type Waitable} from '../../machine/process.ts';
import type {Task} from '../task.ts';
import type {LockContext} from './context.ts';
import type {SpinLock} from './spinlock.ts';
import type {LockStats} from './stats.ts';

/** What a rwlock is made of. */
export interface RwLockParts {
  readonly name: string;
  readonly line: CacheLine;
  readonly readStats: LockStats;
  readonly writeStats: LockStats;
  readonly classId: number;
  readonly waitLock: SpinLock;
}

/** A queued reader-writer spinlock. */
export class RwLock implements Waitable {
  readonly name: string;
  private readonly ctx: LockContext;
  private readonly parts: RwLockParts;
  private readonly line: CacheLine;
  private readonly readFn: number;
  private readonly writeFn: number;
  private readers = 0;
  private writer: Task | null = null;
  private writerWaits = false;
  /** The holder of wait_lock while it spins on cnts, and when it was told that it may go on. */
  private spinner: {process: Process; cpu: Cpu; write: boolean} | null = null;
  private lastCpu = -1;
  private readonly releaseTimer: Timer;

  constructor(ctx: LockContext, parts: RwLockParts) {
    this.ctx = ctx;
    this.parts = parts;
    this.name = parts.name;
    this.line = parts.line;
    this.readFn = ctx.machine.profile.id('queued_read_lock_slowpath');
    this.writeFn = ctx.machine.profile.id('queued_write_lock_slowpath');
    this.releaseTimer = new Timer(ctx.engine, () => this.dropWriter(this.lastCpu));
  }

  /** read_lock. False: the caller must go on with readAcquireSlow. */
  readAcquire(t: Task, fn: number): boolean {
    t.preemptCount++;
    const {lockdep} = this.ctx;
    if (lockdep !== null) lockdep.acquire(t, this.parts.classId, fn, {recursiveRead: true});
    const {cpu} = t;
    if (cpu.pendingTicks !== 0 && cpu.settle()) return false;
    return this.tryRead(cpu);
  }

  *readAcquireSlow(t: Task, fn: number): Code {
    if (t.process!.pendingKey !== 0) yield;
    const {cpu} = t;
    const {engine} = this.ctx;
    if (this.drain(cpu, this.readFn)) yield;
    if (this.tryRead(cpu)) return;
    const since = engine.now;
    const {readStats, waitLock} = this.parts;
    readStats.contended++;
    // the add that saw a writer, and the sub that takes it back
    cpu.stall(this.line.rmw(cpu, since) + this.ctx.topology.atomicLocalTicks, this.readFn);
    if (!waitLock.acquire(t, fn)) yield* waitLock.acquireSlow(t, fn);
    if (cpu.settle()) yield;
    this.readers++;
    cpu.stall(this.line.rmw(cpu, engine.now), this.readFn);
    if (cpu.settle()) yield;
    while (this.writer !== null) yield* this.spin(cpu, false, this.readFn);
    readStats.waited(fn, engine.now - since);
    this.taken(cpu.id, readStats, engine.now);
    if (!waitLock.release(t)) yield* waitLock.releaseSlow(t);
  }

  /** read_unlock. False: the caller must go on with readReleaseSlow. */
  readRelease(t: Task): boolean {
    const {cpu} = t;
    if (cpu.pendingTicks !== 0 && cpu.settle()) return false;
    this.dropReader(t);
    return true;
  }

  *readReleaseSlow(t: Task): Code {
    if (t.process!.pendingKey !== 0) yield;
    this.dropReader(t);
  }

  /** write_lock. False: the caller must go on with writeAcquireSlow. */
  writeAcquire(t: Task, fn: number): boolean {
    t.preemptCount++;
    const {lockdep} = this.ctx;
    if (lockdep !== null) lockdep.acquire(t, this.parts.classId, fn);
    const {cpu} = t;
    if (cpu.pendingTicks !== 0 && cpu.settle()) return false;
    return this.tryWrite(t, cpu);
  }

  *writeAcquireSlow(t: Task, fn: number): Code {
    if (t.process!.pendingKey !== 0) yield;
    const {cpu} = t;
    const {engine} = this.ctx;
    if (this.drain(cpu, this.writeFn)) yield;
    if (this.tryWrite(t, cpu)) return;
    const since = engine.now;
    const {writeStats, waitLock} = this.parts;
    writeStats.contended++;
    cpu.stall(this.line.rmw(cpu, since), this.writeFn);
    if (!waitLock.acquire(t, fn)) yield* waitLock.acquireSlow(t, fn);
    if (cpu.settle()) yield;
    if (!this.isFree()) {
      this.writerWaits = true;
      cpu.stall(this.line.rmw(cpu, engine.now), this.writeFn);
      if (cpu.settle()) yield;
      while (this.readers > 0 || this.writer !== null) yield* this.spin(cpu, true, this.writeFn);
      this.writerWaits = false;
    }
    this.writer = t;
    cpu.stall(this.line.rmw(cpu, engine.now), this.writeFn);
    writeStats.waited(fn, engine.now - since);
    this.taken(cpu.id, writeStats, engine.now + cpu.pendingTicks);
    if (!waitLock.release(t)) yield* waitLock.releaseSlow(t);
  }

  /** write_unlock. False: the caller must go on with writeReleaseSlow. */
  writeRelease(t: Task): boolean {
    const {cpu} = t;
    if (cpu.pendingTicks !== 0 && cpu.settle()) return false;
    this.letGoWriter(t);
    return true;
  }

  *writeReleaseSlow(t: Task): Code {
    if (t.process!.pendingKey !== 0) yield;
    this.letGoWriter(t);
  }

  /** read_lock_irq; goes on with readAcquireSlow. */
  readAcquireIrq(t: Task, fn: number): boolean {
    t.cpu.disableInterrupts();
    return this.readAcquire(t, fn);
  }

  readReleaseIrq(t: Task): boolean {
    if (!this.readRelease(t)) return false;
    t.cpu.enableInterrupts();
    return true;
  }

  *readReleaseIrqSlow(t: Task): Code {
    yield* this.readReleaseSlow(t);
    t.cpu.enableInterrupts();
  }

  /** write_lock_irq; goes on with writeAcquireSlow. */
  writeAcquireIrq(t: Task, fn: number): boolean {
    t.cpu.disableInterrupts();
    return this.writeAcquire(t, fn);
  }

  writeReleaseIrq(t: Task): boolean {
    if (!this.writeRelease(t)) return false;
    t.cpu.enableInterrupts();
    return true;
  }

  *writeReleaseIrqSlow(t: Task): Code {
    yield* this.writeReleaseSlow(t);
    t.cpu.enableInterrupts();
  }

  holder(): Process | null {
    return this.writer === null ? null : this.writer.process;
  }

  get readerCount(): number {
    return this.readers;
  }

  isWrittenBy(t: Task): boolean {
    return this.writer === t;
  }

  private isFree(): boolean {
    return this.readers === 0 && this.writer === null;
  }

  /** A locked operation waits for the CPU's earlier stores. True: the caller must yield. */
  private drain(cpu: Cpu, fn: number): boolean {
    const ticks = this.ctx.drainTicks(cpu.id, this.ctx.engine.now);
    if (ticks <= 0) return false;
    cpu.stall(ticks, fn);
    return cpu.settle();
  }

  private tryRead(cpu: Cpu): boolean {
    if (this.writer !== null || this.writerWaits || this.ctx.mustDrain(cpu.id)) return false;
    this.readers++;
    this.taken(cpu.id, this.parts.readStats, this.lockedOp(cpu, this.ctx.lockFn));
    return true;
  }

  private tryWrite(t: Task, cpu: Cpu): boolean {
    if (!this.isFree() || this.writerWaits || this.ctx.mustDrain(cpu.id)) return false;
    this.writer = t;
    this.taken(cpu.id, this.parts.writeStats, this.lockedOp(cpu, this.ctx.lockFn));
    return true;
  }

  /** A locked operation on cnts. Returns the tick at which it is done. */
  private lockedOp(cpu: Cpu, fn: number): number {
    const {now} = this.ctx.engine;
    const ticks = this.line.rmw(cpu, now) + this.ctx.fenceTicks(cpu.id, now);
    cpu.stall(ticks, fn);
    return now + ticks;
  }

  private taken(cpu: number, stats: LockStats, tick: number): void {
    stats.acquired++;
    stats.holdTicks -= tick;
    if (this.lastCpu < 0) stats.first++;
    else if (this.lastCpu !== cpu) stats.handoff[this.ctx.topology.distance(this.lastCpu, cpu)]++;
    this.lastCpu = cpu;
  }

  /** The holder of wait_lock polls cnts until it is woken. */
  private *spin(cpu: Cpu, write: boolean, fn: number): Code {
    const {engine, machine} = this.ctx;
    const began = engine.now;
    const process = engine.current!;
    this.spinner = {process, cpu, write};
    this.line.poll(cpu.id);
    process.park(this);
    yield;
    this.spinner = null;
    this.line.unpoll(cpu.id);
    machine.profile.add(fn, engine.now - began);
  }

  /** cnts changed, visibly from `tick` on: does the spinner's wait end? */
  private tellSpinner(tick: number): void {
    const {spinner, ctx} = this;
    if (spinner === null || this.writer !== null || (spinner.write && this.readers > 0)) return;
    const seen = tick + this.line.fetch(spinner.cpu, tick);
    if (spinner.process.waitingFor === this)
      ctx.engine.wake(spinner.process, seen - ctx.engine.now);
  }

  private dropReader(t: Task): void {
    if (this.readers === 0) bug(`${this.name}: more readers left than came`);
    const {ctx} = this;
    const {cpu} = t;
    t.preemptCount--;
    if (ctx.lockdep !== null) ctx.lockdep.release(t, this.parts.classId);
    this.parts.readStats.holdTicks += ctx.engine.now;
    this.readers--;
    this.tellSpinner(this.lockedOp(cpu, ctx.unlockFn));
  }

  private letGoWriter(t: Task): void {
    if (this.writer !== t) bug(`${this.name}: write_unlock by a task that does not hold it`);
    const {ctx} = this;
    const {cpu} = t;
    const {now} = ctx.engine;
    t.preemptCount--;
    if (ctx.lockdep !== null) ctx.lockdep.release(t, this.parts.classId);
    this.parts.writeStats.holdTicks += now;
    cpu.stall(ctx.topology.l1HitTicks, ctx.unlockFn);
    const drained = ctx.storeBuffers.pending === 0 ? 0 : ctx.storeBuffers.drainedBy(cpu.id);
    if (drained > now) ctx.engine.schedule(this.releaseTimer, drained, PRIORITY.storeDrain);
    else this.dropWriter(cpu.id);
  }

  /** The writer's store of 0 reaches the line. */
  private dropWriter(cpu: number): void {
    const {ctx} = this;
    const {now} = ctx.engine;
    this.writer = null;
    const ticks = this.line.write(ctx.machine.cpus[cpu], now);
    ctx.stored(cpu, now + ticks);
    this.tellSpinner(now + ticks);
  }
}
