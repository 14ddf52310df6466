// The state of an rw_semaphore and its fast paths: count, owner, flags, who waits, statistics. The
// slow paths are in rwsem.ts. Every operation on the count is a locked one and costs the line.
//
// A writer whose section was plain code may give the lock up *ahead*: at its CPU's own time, which
// is later than the present while it has time unsettled. Nobody can tell until somebody comes.
// Whoever comes after that time finds the lock free; whoever comes before it turns the release into
// an event at its time. So fork and exit take hundreds of uncontended rwsems at one event each.

import {assert} from '../../machine/assert.ts';
import type {Cpu} from '../../machine/cpu.ts';
import {type Process, Timer} from '../../machine/process.ts';
import type {Kernel} from '../kernel.ts';
import type {Task} from '../task.ts';
import type {Acquisition} from './lockdep.ts';
import type {LockOptions} from './registry.ts';
import {type RwsemFacts, rwsemFacts} from './rwsem_facts.ts';
import {HolderStats, SleepingLock} from './sleeping_lock.ts';

/** A sleeping task in the queue. */
export interface RwsemWaiter {
  readonly task: Task;
  readonly reads: boolean;
  /** Tick from which on it may ask for a hand-off. */
  readonly timeoutTick: number;
  /** A reader that a waker gave the lock to. */
  granted: boolean;
  /** It no longer sleeps here: a wake-up that is still on its way is dropped. */
  left: boolean;
}

/** Count, owner and queue of an rwsem. */
export abstract class RwsemState extends SleepingLock {
  private heldBy: Task | null = null;
  /** Tick at which `heldBy` gives up the lock, -1 when that is not decided. */
  private releaseTick = -1;
  private releaseTimer: Timer | null = null;
  protected readers = 0;
  protected readonly waiters: RwsemWaiter[] = [];
  protected handoff = false;
  /** RWSEM_NONSPINNABLE: spinning on this read phase has timed out once. */
  protected nonspinnable = false;
  protected readonly facts: RwsemFacts;
  protected readonly readHolders: HolderStats;
  protected readonly writeHolders: HolderStats;
  protected readonly readFn: number;
  protected readonly writeFn: number;
  /** Start of the present read phase or of the writer's hold. */
  protected heldSince = 0;

  constructor(kernel: Kernel, name: string, opts: LockOptions = {}) {
    super(kernel, name, opts, 'rwsem');
    const className = opts.class ?? name;
    this.facts = rwsemFacts(kernel.facts.version);
    this.readHolders = new HolderStats(kernel, kernel.locks.stats(`${className}-R`));
    this.writeHolders = new HolderStats(kernel, kernel.locks.stats(`${className}-W`));
    this.readFn = kernel.fn('down_read');
    this.writeFn = kernel.fn('down_write');
  }

  holder(): Process | null {
    return this.heldBy?.process ?? null;
  }

  /** The writer at this moment. */
  protected get writer(): Task | null {
    if (this.releaseTick >= 0) this.arriveBefore();
    return this.heldBy;
  }

  protected set writer(t: Task | null) {
    this.heldBy = t;
  }

  get readerCount(): number {
    return this.readers;
  }

  isWriteHeldBy(t: Task): boolean {
    return this.writer === t;
  }

  protected tryRead(t: Task): boolean {
    this.rmw(t.cpu, this.readFn);
    if (this.writer !== null || this.waiters.length > 0 || this.handoff) return false;
    this.addReader(t.cpu);
    return true;
  }

  protected tryWrite(t: Task): boolean {
    this.rmw(t.cpu, this.writeFn);
    if (this.writer !== null || this.readers > 0 || this.waiters.length > 0) return false;
    this.setWriter(t);
    return true;
  }

  protected addReader(cpu: Cpu): void {
    if (this.readers++ === 0) this.heldSince = this.now;
    this.readHolders.taken(cpu);
  }

  protected setWriter(t: Task): void {
    this.writer = t;
    this.handoff = false;
    this.nonspinnable = false;
    this.heldSince = this.now;
    this.writeHolders.taken(t.cpu);
  }

  /** True when nothing is left to do. */
  protected dropRead(t: Task): boolean {
    assert(this.readers > 0, 'up_read without a reader');
    if (this.locks.lockdep !== null) this.noteRelease(t);
    this.rmw(t.cpu, this.readFn);
    if (--this.readers > 0) return true;
    this.readHolders.stats.holdTicks += this.now - this.heldSince;
    this.nonspinnable = false;
    this.notifyLookers(t.cpu);
    return this.waiters.length === 0;
  }

  protected dropWrite(t: Task): boolean {
    this.locks.lockdep?.release(t, this.classId);
    this.writeHolders.stats.holdTicks += this.now - this.heldSince;
    this.writer = null;
    this.rmw(t.cpu, this.writeFn);
    this.notifyLookers(t.cpu);
    return this.waiters.length === 0;
  }

  protected isFree(): boolean {
    return this.writer === null && this.readers === 0;
  }

  /** up_write(). False: go on with writeReleaseSlow. */
  abstract writeRelease(t: Task): boolean;

  /**
   * up_write() without settling, at the end of a section that did not wait; an ordinary one when
   * somebody is there already. False: go on with writeReleaseSlow.
   */
  writeReleaseAhead(t: Task): boolean {
    if (this.hasCompany()) return this.writeRelease(t);
    if (this.locks.lockdep !== null) this.noteRelease(t);
    const {cpu} = t;
    const tick = this.engine.now + cpu.pendingTicks;
    this.writeHolders.stats.holdTicks += tick - this.heldSince;
    cpu.stall(this.line.rmw(cpu, tick), this.writeFn);
    this.releaseTick = tick;
    return true;
  }

  /** Somebody waits for the lock, or looks at it. */
  private hasCompany(): boolean {
    return this.waiters.length + this.lookers.length > 0 || !this.osq.isEmpty;
  }

  /** For lockdep; apart, to keep the fast paths short. */
  protected noteAcquire(t: Task, fn: number, how: Acquisition): void {
    this.locks.lockdep?.acquire(t, this.classId, fn, how);
  }

  protected noteRelease(t: Task): void {
    this.locks.lockdep?.release(t, this.classId);
  }

  /** Somebody looks at a lock that was given up ahead. */
  private arriveBefore(): void {
    const {engine} = this;
    if (engine.now < this.releaseTick) {
      engine.schedule(this.releaseTimer ?? this.makeTimer(), this.releaseTick);
    } else this.heldBy = null;
    this.releaseTick = -1;
  }

  /** Apart: a function in which a closure stands pays for it at every call. */
  private makeTimer(): Timer {
    this.releaseTimer = new Timer(this.engine, () => this.releaseNow());
    return this.releaseTimer;
  }

  /**
   * The event of a release that somebody came before. What it costs, the holder pays with its next
   * step.
   */
  private releaseNow(): void {
    const {cpu} = this.heldBy!;
    this.heldBy = null;
    cpu.stall(this.line.rmw(cpu, this.now), this.writeFn);
    this.notifyLookers(cpu);
    if (this.waiters.length === 0) return;
    for (const waiter of this.markWake(cpu)) {
      if (!waiter.left) this.kernel.sched.wake(waiter.task);
    }
  }

  /** rwsem_mark_wake(): whom to wake now that the lock is free, or freer. */
  protected abstract markWake(cpu: Cpu): RwsemWaiter[];
}
