// struct rw_semaphore: many readers or one writer, both may sleep. The essay of the mechanism is
// Linux's own kernel/locking/rwsem.c; which parts a kernel version has is in rwsem_facts.ts.
//
// Every down and up is a locked operation on the count: mmap_lock's line travels even between
// readers. A writer that fails spins while the owner runs (on readers for 10 to 25 us, once per
// read phase), then queues and sleeps. A reader that fails may slip in past the queue when no
// writer holds the lock and it is the only reader, else it queues. Whoever makes the lock free
// wakes the queue: readers are granted the lock by the waker, up to 256 at a time; a writer is only
// woken and must win the lock itself, unless 4 ms have passed: then it sets the hand-off flag and
// nobody else gets in. Waiters and wakers meet under wait_lock, which is on the same line. Left
// out: spinning of readers (5.3 to 5.10), which then queue or steal.
//
// A killable waiter that gets a fatal signal while it sleeps takes itself out of the queue. If it
// was the first, it wakes those behind it: they may be what the lock was open to all the time. A
// spinner, and a writer that wins the lock, do not look at signals.

import {assert} from '../../machine/assert.ts';
import type {Cpu} from '../../machine/cpu.ts';
import type {Code} from '../../machine/process.ts';
import type {Rng} from '../../machine/rng.ts';
import {nsToTicks} from '../../machine/time.ts';
import type {Task} from '../task.ts';
import type {Acquisition} from './lockdep.ts';
import {HANDOFF_AFTER_TICKS, MAX_READERS_WOKEN} from './rwsem_facts.ts';
import {RwsemSpin} from './rwsem_spin.ts';
import type {RwsemWaiter} from './rwsem_state.ts';
import {SLEEPING, TRYLOCK} from './sleeping_lock.ts';

/** Spread of the time that a woken writer takes to its next try (cold caches): assumption. */
const WAKE_SPREAD_TICKS = nsToTicks(1000);

/** A reader-writer lock that one may sleep for, as mmap_lock. */
export class RwSemaphore extends RwsemSpin {
  /** Made with the first writer that a reader wakes. */
  private rng: Rng | null = null;
  /** The queue was last woken by a reader, who may be back at once. */
  private readByTurns = false;

  /**
   * down_read(). False: go on with readAcquireSlow. `how`: SLEEPING, with a subclass if nested
   * (lockdep).
   */
  readAcquire(t: Task, fn: number, how: Acquisition = SLEEPING): boolean {
    this.kernel.sched.mightSleep(t, 'down_read');
    if (this.locks.lockdep !== null) this.noteAcquire(t, fn, how);
    if (t.cpu.settle()) return false;
    return this.tryRead(t);
  }

  /**
   * With `killable`, down_read_killable(): false when a fatal signal ended the wait (-EINTR), else
   * true.
   */
  *readAcquireSlow(t: Task, fn: number, killable = false): Code<boolean> {
    if (t.process!.pendingKey !== 0) {
      yield;
      if (this.tryRead(t)) return true;
    }
    const since = this.now;
    const {stats} = this.readHolders;
    stats.contended++;
    if (t.cpu.settle()) yield;
    const stole = yield* this.stealRead(t);
    const taken = stole || (yield* this.queueReader(t, killable && this.facts.killableRead));
    stats.waited(fn, this.now - since);
    if (!taken) this.locks.lockdep?.release(t, this.classId);
    return taken;
  }

  /** down_read_trylock(). The caller has settled. */
  tryReadAcquire(t: Task, fn: number): boolean {
    if (!this.tryRead(t)) return false;
    this.locks.lockdep?.acquire(t, this.classId, fn, TRYLOCK);
    return true;
  }

  /** up_read(). False: go on with readReleaseSlow. */
  readRelease(t: Task): boolean {
    if (t.cpu.settle()) return false;
    return this.dropRead(t);
  }

  *readReleaseSlow(t: Task): Code {
    if (t.process!.pendingKey !== 0) {
      yield;
      if (this.dropRead(t)) return;
    }
    this.readByTurns = true;
    yield* this.wakeQueue(t);
  }

  /** up_read() at the very time of a tryReadAcquire: nobody can have queued meanwhile. */
  readReleaseAtOnce(t: Task): void {
    assert(this.dropRead(t), 'somebody queued for an rwsem within one instant');
  }

  /** down_write(). False: go on with writeAcquireSlow. */
  writeAcquire(t: Task, fn: number, how: Acquisition = SLEEPING): boolean {
    this.kernel.sched.mightSleep(t, 'down_write');
    if (this.locks.lockdep !== null) this.noteAcquire(t, fn, how);
    if (t.cpu.settle()) return false;
    return this.tryWrite(t);
  }

  /**
   * With `killable`, down_write_killable(): false when a fatal signal ended the wait, else true.
   */
  *writeAcquireSlow(t: Task, fn: number, killable = false): Code<boolean> {
    if (t.process!.pendingKey !== 0) {
      yield;
      if (this.tryWrite(t)) return true;
    }
    const since = this.now;
    const {stats} = this.writeHolders;
    stats.contended++;
    if (t.cpu.settle()) yield;
    const spun = yield* this.spin(t);
    const taken = spun || (yield* this.queueWriter(t, killable && this.facts.killableWrite));
    stats.waited(fn, this.now - since);
    if (!taken) this.locks.lockdep?.release(t, this.classId);
    return taken;
  }

  /** down_write_trylock(). The caller has settled. */
  tryWriteAcquire(t: Task, fn: number): boolean {
    if (!this.tryWrite(t)) return false;
    this.locks.lockdep?.acquire(t, this.classId, fn, TRYLOCK);
    return true;
  }

  override writeRelease(t: Task): boolean {
    assert(this.writer === t, 'up_write by a task that does not hold the rwsem');
    if (t.cpu.settle()) return false;
    return this.dropWrite(t);
  }

  *writeReleaseSlow(t: Task): Code {
    if (t.process!.pendingKey !== 0) {
      yield;
      if (this.dropWrite(t)) return;
    }
    this.readByTurns = false;
    yield* this.wakeQueue(t);
  }

  /** downgrade_write(): the writer becomes a reader, and queued readers join it. */
  *downgrade(t: Task): Code {
    assert(this.writer === t, 'an rwsem is downgraded by a task that does not hold it');
    if (t.cpu.settle()) yield;
    this.writeHolders.stats.holdTicks += this.now - this.heldSince;
    this.writer = null;
    this.readers = 1;
    this.heldSince = this.now;
    this.rmw(t.cpu, this.writeFn);
    this.notifyLookers(t.cpu);
    if (this.waiters.length > 0) yield* this.wakeQueue(t);
  }

  /**
   * Reader optimistic lock stealing: past the queue, but not when other readers hold the lock
   * already.
   */
  private *stealRead(t: Task): Code<boolean> {
    if (!this.facts.readersSteal || this.writer !== null || this.handoff || this.readers > 0) {
      return false;
    }
    this.addReader(t.cpu);
    const first: RwsemWaiter | undefined = this.waiters[0];
    if (first?.reads === true) yield* this.wakeQueue(t);
    return true;
  }

  private *queueReader(t: Task, killable: boolean): Code<boolean> {
    yield* this.lockQueue(t);
    if (this.waiters.length === 0 && this.writer === null) {
      this.addReader(t.cpu);
      yield* this.unlockQueue(t);
      return true;
    }
    const waiter = this.enqueue(t, true);
    const woken = this.lockIsOpenTo(waiter) ? this.markWake(t.cpu) : [];
    yield* this.unlockQueue(t);
    yield* this.wakeAll(t, woken);
    t.se.killable = killable;
    while (!waiter.granted) {
      this.kernel.sched.prepareToWait(t);
      if (killable && t.sigkill && (yield* this.leaveQueue(t, waiter))) break;
      yield* this.kernel.sched.schedule(t, this);
    }
    t.se.killable = false;
    waiter.left = true;
    this.kernel.sched.cancelWait(t);
    return waiter.granted;
  }

  private *queueWriter(t: Task, killable: boolean): Code<boolean> {
    const {sched} = this.kernel;
    yield* this.lockQueue(t);
    const waiter = this.enqueue(t, false);
    const ahead = this.waiters[0];
    const woken =
      ahead !== waiter && ahead.reads && this.writer === null ? this.markWake(t.cpu) : [];
    yield* this.wakeAll(t, woken);
    t.se.killable = killable;
    for (;;) {
      sched.prepareToWait(t);
      if (t.cpu.settle()) yield;
      if (this.takeQueued(waiter)) break;
      yield* this.unlockQueue(t);
      if (killable && t.sigkill) {
        yield* this.leaveQueue(t, waiter);
        t.se.killable = false;
        return false;
      }
      yield* sched.schedule(t, this);
      if (this.readByTurns) t.cpu.stall(this.wakeSpread(), this.sleepFn);
      yield* this.lockQueue(t);
    }
    t.se.killable = false;
    waiter.left = true;
    sched.cancelWait(t);
    this.waiters.splice(this.waiters.indexOf(waiter), 1);
    yield* this.unlockQueue(t);
    return true;
  }

  /**
   * out_nolock, rwsem_del_wake_waiter(): a killed waiter leaves the queue. False when it is a
   * reader that was granted the lock meanwhile and keeps it.
   */
  private *leaveQueue(t: Task, waiter: RwsemWaiter): Code<boolean> {
    this.kernel.sched.cancelWait(t);
    yield* this.lockQueue(t);
    if (waiter.granted) {
      yield* this.unlockQueue(t);
      return false;
    }
    const {facts, waiters} = this;
    const first = waiters[0] === waiter;
    waiter.left = true;
    waiters.splice(waiters.indexOf(waiter), 1);
    if (waiters.length === 0 || (first && !waiter.reads && !facts.handoffStays)) {
      this.handoff = false;
      this.rmw(t.cpu, waiter.reads ? this.readFn : this.writeFn);
    }
    const wakes = facts.firstWakes ? first : !waiter.reads;
    const woken = wakes ? this.markWake(t.cpu) : [];
    yield* this.unlockQueue(t);
    yield* this.wakeAll(t, woken);
    return true;
  }

  /**
   * Ticks by which a writer that a reader woke is later than the soonest. Without it a writer that
   * must find the lock free by chance would run in step with a reader that takes it time and again.
   */
  private wakeSpread(): number {
    this.rng ??= this.kernel.machine.rng(`rwsem ${this.name}`);
    return this.rng.nextInt(WAKE_SPREAD_TICKS);
  }

  /** rwsem_try_write_lock(), under wait_lock. */
  private takeQueued(waiter: RwsemWaiter): boolean {
    const t = waiter.task;
    this.rmw(t.cpu, this.writeFn);
    const first = this.waiters[0] === waiter;
    if (this.handoff && !first) return false;
    if (this.writer !== null || this.readers > 0) {
      if (first && this.facts.handoff && this.now > waiter.timeoutTick) this.handoff = true;
      return false;
    }
    this.setWriter(t);
    return true;
  }

  private enqueue(t: Task, reads: boolean): RwsemWaiter {
    const timeoutTick = this.now + HANDOFF_AFTER_TICKS;
    const waiter = {task: t, reads, timeoutTick, granted: false, left: false};
    this.waiters.push(waiter);
    this.rmw(t.cpu, reads ? this.readFn : this.writeFn);
    return waiter;
  }

  /**
   * rwsem_cond_wake_waiter(): nobody holds the lock, or readers do and the queue starts with this
   * reader.
   */
  private lockIsOpenTo(waiter: RwsemWaiter): boolean {
    if (this.writer !== null) return false;
    return this.readers === 0 || this.waiters[0] === waiter;
  }

  /** rwsem_wake(): somebody made the lock free, or freer. */
  private *wakeQueue(t: Task): Code {
    yield* this.lockQueue(t);
    const woken = this.markWake(t.cpu);
    yield* this.unlockQueue(t);
    yield* this.wakeAll(t, woken);
  }

  /**
   * rwsem_mark_wake(): grants the lock to queued readers, or picks the writer to wake. Under
   * wait_lock.
   */
  protected override markWake(cpu: Cpu): RwsemWaiter[] {
    const first: RwsemWaiter | undefined = this.waiters[0];
    if (first === undefined) return [];
    if (!first.reads) return this.readers === 0 ? [first] : [];
    if (this.writer !== null) {
      if (this.facts.handoff && this.now > first.timeoutTick) this.handoff = true;
      return [];
    }
    const woken: RwsemWaiter[] = [];
    for (let i = 0; i < this.waiters.length && woken.length < MAX_READERS_WOKEN; ) {
      const waiter = this.waiters[i];
      if (waiter.reads) {
        this.waiters.splice(i, 1);
        waiter.granted = true;
        woken.push(waiter);
        this.addReader(waiter.task.cpu);
      } else if (this.facts.wakesAllReaders) i++;
      else break;
    }
    this.handoff = false;
    this.rmw(cpu, this.readFn);
    return woken;
  }

  private *wakeAll(t: Task, woken: readonly RwsemWaiter[]): Code {
    for (const waiter of woken) {
      if (t.cpu.settle()) yield;
      if (!waiter.left) this.kernel.sched.wake(waiter.task);
    }
  }

  private *lockQueue(t: Task): Code {
    if (!this.waitLock.acquire(t, this.sleepFn)) yield* this.waitLock.acquireSlow(t, this.sleepFn);
    if (t.cpu.settle()) yield;
  }

  private *unlockQueue(t: Task): Code {
    if (!this.waitLock.release(t)) yield* this.waitLock.releaseSlow(t);
  }
}
