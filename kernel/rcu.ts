// RCU as of the tree implementation: readers cost nothing, a grace period ends when every CPU has
// passed a quiescent state (context switch, cond_resched, idle, user mode) since it began.
//
// Mechanism and times of kernel/rcu/tree.c: the grace-period kthread starts a period when somebody
// needs one, looks at the CPUs after jiffies_till_first_fqs and then every jiffies_till_next_fqs,
// both RCU_JIFFIES_TILL_FORCE_QS (1 + (HZ > 250) + (HZ > 500)) plus a jiffy per 256 CPUs. A CPU
// that runs one reader without a switch holds it up; 21 s of that are a stall. Callbacks queued
// while a period runs wait for the next one, as they may have missed its start. Left out: the
// per-CPU reports that can end a period before the first look, expedited periods, callback
// offloading: so a period takes a whole number of jiffies, from 4 to 8 ms with HZ=250 on up to 255
// CPUs. Callbacks of one period run together, at its end, in softirq context, at a cost per
// callback.

import {CpuMask} from '../machine/cpumask.ts';
import {PRIORITY} from '../machine/priorities.ts';
import {type Code, Timer, type Waitable} from '../machine/process.ts';
import {nsToTicks} from '../machine/time.ts';
import type {Kernel} from './kernel.ts';
import {HZ, JIFFY_TICKS} from './sched/tunables.ts';
import type {Task} from './task.ts';

const STALL_TICKS = nsToTicks(21e9);
/** rcu_do_batch() per callback, the callback's own work apart. Assumption. */
const CALLBACK_TICKS = nsToTicks(60);
/** Looking at one CPU's state while forcing. Assumption. */
const FORCE_PER_CPU_TICKS = nsToTicks(20);

const GRACE_PERIOD: Waitable = {name: 'an RCU grace period'};

/** RCU of one kernel. */
export class Rcu {
  /** Grace periods completed. */
  completed = 0;
  stalls = 0;
  private startedAt = -1;
  private waiting: (() => void)[] = [];
  private next: (() => void)[] = [];
  private stallReported = false;
  /** CPUs that this period still waits for (qsmask). */
  private readonly waitsFor: CpuMask;
  private readonly timer: Timer;
  private readonly lookTicks: number;
  private readonly fn: number;

  constructor(readonly kernel: Kernel) {
    const {engine, cpus} = kernel.machine;
    this.waitsFor = new CpuMask(cpus.length);
    this.timer = new Timer(engine, () => this.forceQuiescentStates());
    const jiffies = 1 + (HZ > 250 ? 1 : 0) + (HZ > 500 ? 1 : 0) + Math.floor(cpus.length / 256);
    this.lookTicks = jiffies * JIFFY_TICKS;
    this.fn = kernel.fn('rcu_do_batch');
  }

  /** rcu_read_lock(). */
  readLock(t: Task): void {
    t.rcuDepth++;
  }

  /** rcu_read_unlock(). */
  readUnlock(t: Task): void {
    t.rcuDepth--;
  }

  /** synchronize_rcu(): sleeps until all readers that run now are done. */
  *synchronize(t: Task): Code {
    this.kernel.sched.mightSleep(t, 'synchronize_rcu');
    if (t.cpu.settle()) yield;
    let over = false;
    this.callRcu(() => {
      over = true;
      this.kernel.sched.wake(t);
    });
    while (!over) yield* this.kernel.sched.block(t, GRACE_PERIOD);
  }

  /**
   * call_rcu(): `callback` runs after a grace period that begins now or later, in no task's
   * context.
   */
  callRcu(callback: () => void): void {
    this.next.push(callback);
    if (this.startedAt < 0) this.start();
  }

  /** Callbacks that have not run. */
  get pending(): number {
    return this.waiting.length + this.next.length;
  }

  private start(): void {
    this.startedAt = this.kernel.machine.engine.now;
    this.stallReported = false;
    this.waiting = this.next;
    this.next = [];
    for (const cpu of this.kernel.machine.cpus) this.waitsFor.add(cpu.id);
    this.arm();
  }

  private arm(): void {
    const {engine} = this.kernel.machine;
    const jiffy = Math.floor(engine.now / JIFFY_TICKS) * JIFFY_TICKS;
    this.kernel.sched.dispatcher.backgroundTimers++;
    engine.schedule(this.timer, jiffy + this.lookTicks + JIFFY_TICKS, PRIORITY.timer);
  }

  private forceQuiescentStates(): void {
    const {dispatcher} = this.kernel.sched;
    const {engine, profile} = this.kernel.machine;
    dispatcher.backgroundTimers--;
    this.waitsFor.forEach((cpu) => {
      profile.add(this.fn, FORCE_PER_CPU_TICKS);
      if (this.isQuiet(cpu)) this.waitsFor.delete(cpu);
    });
    if (this.waitsFor.isEmpty()) {
      this.end();
      return;
    }
    this.checkStall();
    if (engine.pendingEvents > dispatcher.backgroundTimers) this.arm();
  }

  private isQuiet(cpu: number): boolean {
    const rq = this.kernel.sched.dispatcher.rqs[cpu];
    if (rq.current === null) return true;
    const {inUser, userStart} = rq.current.se;
    if (inUser && userStart <= this.kernel.machine.engine.now) return true;
    return rq.quiescentAt > this.startedAt;
  }

  private end(): void {
    this.completed++;
    this.startedAt = -1;
    const ready = this.waiting;
    this.waiting = [];
    if (this.next.length > 0) this.start();
    this.kernel.machine.profile.add(this.fn, ready.length * CALLBACK_TICKS);
    for (const callback of ready) callback();
  }

  private checkStall(): void {
    const {checks, machine} = this.kernel;
    if (this.stallReported || machine.engine.now - this.startedAt < STALL_TICKS) return;
    this.stallReported = true;
    this.stalls++;
    checks.count('rcu_stalls');
    checks.finding('INFO: rcu_sched detected stalls on CPUs/tasks');
  }
}
