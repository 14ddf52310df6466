// Spinlocks inside bulk objects (mm->page_table_lock, task_struct.alloc_lock): tens of thousands,
// hardly ever contended.
//
// Such a lock is thin: a LineArena line, its holder, and the class's shared parts. On the first
// contention it borrows a full spinlock of the design's policy from the class's spares and behaves
// exactly as that one until nobody holds it or waits for it any more. So contention on bulk locks
// costs what the policy says, and the others cost a few words each.
//
// `users` counts who works with the borrowed lock: its holder and everyone who has asked for it.

import {assert, bug} from '../../machine/assert.ts';
import type {Cpu} from '../../machine/cpu.ts';
import type {Code, Process, Waitable} from '../../machine/process.ts';
import type {Task} from '../task.ts';
import type {LockContext} from './context.ts';
import type {SpinLock} from './spinlock.ts';
import type {LockStats} from './stats.ts';

/** Full locks that thin ones borrow, by memory node. */
export class SpareLocks {
  private readonly byNode: SpinLock[][] = [];
  private readonly make: (node: number) => SpinLock;

  constructor(make: (node: number) => SpinLock) {
    this.make = make;
  }

  take(node: number): SpinLock {
    return this.byNode[node]?.pop() ?? this.make(node);
  }

  put(lock: SpinLock): void {
    const node = lock.line.homeNode;
    this.byNode[node] ??= [];
    this.byNode[node].push(lock);
  }
}

/** What the locks of one class share. */
export interface BulkClass {
  readonly name: string;
  readonly stats: LockStats;
  readonly classId: number;
  readonly spares: SpareLocks;
}

/** One lock of many; used as a SpinLock is. */
export class BulkLock implements Waitable {
  private readonly ctx: LockContext;
  private readonly shared: BulkClass;
  private readonly node: number;
  private readonly line: number;
  private owner: Task | null = null;
  private lastCpu = -1;
  private acquiredTick = 0;
  /** Tick from which the last release is visible. */
  private freeTick = 0;
  private full: SpinLock | null = null;
  private users = 0;

  constructor(ctx: LockContext, shared: BulkClass, node: number) {
    this.ctx = ctx;
    this.shared = shared;
    this.node = node;
    this.line = ctx.machine.lines.allocate(node);
  }

  get name(): string {
    return this.shared.name;
  }

  /** spin_lock_init by `cpu`: from then on the line is in its cache. */
  init(cpu: Cpu): void {
    this.ctx.machine.lines.touch(this.line, cpu);
  }

  /** spin_lock. False: the caller must go on with acquireSlow. */
  acquire(t: Task, fn: number, subclass = 0): boolean {
    t.preemptCount++;
    const {ctx} = this;
    if (ctx.lockdep !== null) ctx.lockdep.acquireNested(t, this.shared.classId, fn, subclass);
    const {cpu} = t;
    if (cpu.pendingTicks !== 0 && cpu.settle()) return false;
    if (!this.isFree() || ctx.mustDrain(cpu.id)) return false;
    this.take(t);
    return true;
  }

  *acquireSlow(t: Task, fn: number): Code {
    if (t.process!.pendingKey !== 0) yield;
    const {cpu} = t;
    const {engine} = this.ctx;
    const fence = this.ctx.drainTicks(cpu.id, engine.now);
    if (fence > 0) {
      cpu.stall(fence, this.ctx.lockFn);
      if (cpu.settle()) yield;
    }
    while (this.owner === null && this.full === null) {
      if (this.freeTick <= engine.now) {
        this.take(t);
        return;
      }
      this.shared.stats.waited(fn, this.freeTick - engine.now);
      cpu.stall(this.freeTick - engine.now, this.ctx.lockFn);
      if (cpu.settle()) yield;
    }
    this.inflate();
    this.users++;
    const full = this.full!;
    if (!full.acquire(t, fn)) yield* full.acquireSlow(t, fn);
  }

  /** spin_trylock; the caller has settled. */
  tryAcquire(t: Task, fn: number): boolean {
    const {cpu} = t;
    if (cpu.pendingTicks !== 0) bug(`trylock of ${this.name} with time unsettled`);
    const {ctx} = this;
    if (this.full !== null) {
      if (!this.full.tryAcquire(t, fn)) return false;
      this.users++;
      t.preemptCount++;
    } else {
      if (!this.isFree()) {
        cpu.stall(ctx.machine.lines.touch(this.line, cpu), ctx.lockFn);
        return false;
      }
      t.preemptCount++;
      this.take(t);
    }
    if (ctx.lockdep !== null) ctx.lockdep.acquire(t, this.shared.classId, fn, {trylock: true});
    return true;
  }

  /** spin_unlock. False: the caller must go on with releaseSlow. */
  release(t: Task): boolean {
    const {cpu} = t;
    if (cpu.pendingTicks !== 0 && cpu.settle()) return false;
    this.letGo(t);
    return true;
  }

  *releaseSlow(t: Task): Code {
    if (t.process!.pendingKey !== 0) yield;
    this.letGo(t);
  }

  /** As in SpinLock; goes on with acquireSlow. */
  acquireIrq(t: Task, fn: number): boolean {
    t.cpu.disableInterrupts();
    return this.acquire(t, fn);
  }

  releaseIrq(t: Task): boolean {
    if (!this.release(t)) return false;
    t.cpu.enableInterrupts();
    return true;
  }

  *releaseIrqSlow(t: Task): Code {
    yield* this.releaseSlow(t);
    t.cpu.enableInterrupts();
  }

  /** It has a full lock at the moment. */
  get isBorrowing(): boolean {
    return this.full !== null;
  }

  get isHeld(): boolean {
    return this.full === null ? this.owner !== null : this.full.isHeld;
  }

  isHeldBy(t: Task): boolean {
    return this.full === null ? this.owner === t : this.full.isHeldBy(t);
  }

  holder(): Process | null {
    return this.full === null ? (this.owner?.process ?? null) : this.full.holder();
  }

  /** The object is freed. */
  destroy(): void {
    assert(this.owner === null && this.users === 0, `${this.name} freed while in use`);
    this.ctx.machine.lines.release(this.line);
  }

  private isFree(): boolean {
    return this.owner === null && this.full === null && this.freeTick <= this.ctx.engine.now;
  }

  private take(t: Task): void {
    const {ctx, lastCpu} = this;
    const {cpu} = t;
    const {stats} = this.shared;
    const {now} = ctx.engine;
    let ticks = ctx.machine.lines.rmw(this.line, cpu);
    if (ctx.storeTick > now || ctx.storeBuffers.pending !== 0) ticks += ctx.fenceTicks(cpu.id, now);
    cpu.stall(ticks, ctx.lockFn);
    this.owner = t;
    this.acquiredTick = now + ticks;
    stats.acquired++;
    if (lastCpu !== cpu.id) this.moved(cpu.id);
  }

  private moved(cpu: number): void {
    const {stats} = this.shared;
    if (this.lastCpu < 0) stats.first++;
    else stats.handoff[this.ctx.topology.distance(this.lastCpu, cpu)]++;
    this.lastCpu = cpu;
  }

  private inflate(): void {
    if (this.full !== null) return;
    this.full = this.shared.spares.take(this.node);
    this.full.adopt(this.owner!, this.acquiredTick);
    this.owner = null;
    this.users = 1;
  }

  private letGo(t: Task): void {
    const {ctx, full} = this;
    t.preemptCount--;
    if (ctx.lockdep !== null) ctx.lockdep.release(t, this.shared.classId);
    if (full === null) {
      this.letGoThin(t);
      return;
    }
    if (!full.release(t)) bug('time was settled');
    this.users--;
    if (this.users > 0 || !full.isIdle) return;
    this.full = null;
    this.lastCpu = t.cpu.id;
    ctx.machine.lines.touch(this.line, t.cpu);
    this.shared.spares.put(full);
  }

  private letGoThin(t: Task): void {
    if (this.owner !== t) bug(`${this.name} released by a task that does not hold it`);
    const {ctx} = this;
    const {cpu} = t;
    const {now} = ctx.engine;
    this.owner = null;
    this.shared.stats.holdTicks += now - this.acquiredTick;
    if (ctx.storeBuffers.pending !== 0) this.freeTick = ctx.storeBuffers.drainedBy(cpu.id);
    cpu.stall(ctx.topology.l1HitTicks, ctx.unlockFn);
  }
}
