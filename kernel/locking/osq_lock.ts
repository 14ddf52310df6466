// Optimistic spinning: what mutex and rwsem share. A task that finds the lock taken by somebody who
// runs spins instead of sleeping. Spinners queue (osq_lock, an MCS queue that one can leave): only
// the head looks at the owner. Everybody stops who should give way (need_resched); the head also
// stops when the owner leaves its CPU.
//
// A spinner is a parked process that keeps its CPU. What it would see by polling is brought to it:
// release of the lock, hand-over of the queue, need_resched, the owner's switch. It then goes on
// after the ticks of the line's way to it. Linux: kernel/locking/osq_lock.c (3.15; the MCS queue of
// mutexes since 3.10). Lock owners that a hypervisor has preempted (vcpu_is_preempted) are not
// modelled.

import {assert} from '../../machine/assert.ts';
import type {CacheLine} from '../../machine/cache_line.ts';
import type {Code, Waitable} from '../../machine/process.ts';
import type {Kernel} from '../kernel.ts';
import type {SpinWatcher} from '../sched/entity.ts';
import type {Task} from '../task.ts';

/** One task's optimistic spin. */
export class Spinner implements SpinWatcher {
  private parked = false;
  private watched: Task | null = null;

  constructor(
    readonly kernel: Kernel,
    readonly task: Task,
  ) {}

  /**
   * Spins until something happens, at most until tick `deadline`. `owner` is the task whose CPU is
   * watched, null for none. The caller has settled; nothing may be charged.
   */
  *wait(on: Waitable, owner: Task | null, deadline: number, fn: number): Code {
    const {task} = this;
    const {engine, profile} = this.kernel.machine;
    assert(task.cpu.pendingTicks === 0, 'spins with time unsettled');
    if (task.needResched) return;
    const began = engine.now;
    this.parked = true;
    task.se.spin = this;
    this.watch(owner);
    task.process!.park(on);
    if (deadline < Infinity) engine.schedule(task.process!, deadline);
    yield;
    this.parked = false;
    task.se.spin = null;
    this.watch(null);
    profile.add(fn, engine.now - began);
  }

  /** The spinner sees a change after `ticks`. */
  notify(ticks: number): void {
    if (!this.parked) return;
    this.parked = false;
    this.kernel.machine.engine.wake(this.task.process!, ticks);
  }

  needsResched(): void {
    this.notify(0);
  }

  ownerLeft(): void {
    this.notify(this.kernel.machine.topology.l1HitTicks);
  }

  private watch(owner: Task | null): void {
    const old = this.watched;
    if (old !== null) {
      const {watchers} = old.se;
      watchers!.splice(watchers!.indexOf(this), 1);
      if (watchers!.length === 0) old.se.watchers = null;
    }
    this.watched = owner;
    if (owner !== null) {
      owner.se.watchers ??= [];
      owner.se.watchers.push(this);
    }
  }
}

/** struct optimistic_spin_queue. */
export class OsqLock implements Waitable {
  private readonly queue: Spinner[] = [];

  constructor(
    readonly kernel: Kernel,
    readonly name: string,
    /** The lock's own line: the tail is beside the count. */
    readonly line: CacheLine,
  ) {}

  get isEmpty(): boolean {
    return this.queue.length === 0;
  }

  /** osq_lock(): false when the task has to give way before it is at the head. */
  *lock(spinner: Spinner, fn: number): Code<boolean> {
    const {task} = spinner;
    const {engine} = this.kernel.machine;
    this.queue.push(spinner);
    task.cpu.stall(this.line.rmw(task.cpu, engine.now), fn);
    if (task.cpu.settle()) yield;
    while (this.queue[0] !== spinner) {
      if (task.needResched) {
        this.queue.splice(this.queue.indexOf(spinner), 1);
        return false;
      }
      yield* spinner.wait(this, null, Infinity, fn);
    }
    return true;
  }

  /** osq_unlock(): the next spinner sees it after the way of its node's line. */
  unlock(spinner: Spinner): void {
    assert(this.queue[0] === spinner, 'only the head leaves the spin queue so');
    this.queue.shift();
    if (this.queue.length === 0) return;
    const {topology} = this.kernel.machine;
    const from = spinner.task.cpu.id;
    const to = this.queue[0].task.cpu.id;
    const ticks = topology.transferTicks(from, to, topology.nodeOf[to]);
    spinner.task.cpu.stall(ticks, this.kernel.fn('osq_unlock'));
    this.queue[0].notify(2 * ticks);
  }
}
