// The scheduler as tasks see it: become runnable, sleep, wake, run user code, give way, end.
//
// Blocking follows Linux: the state is set to sleeping before the condition is looked at for the
// last time, and a wake-up that comes before the task has left its CPU only sets the state back, so
// no wake-up is lost. `block` is both steps for callers that have settled and looked;
// `prepareToWait` and `schedule` are the two steps apart. Costs: the waker pays try_to_wake_up and
// the run queue's line, the switch is paid on the CPU that switches (dispatch.ts), and an idle or
// remote CPU adds its wake-up latency.

import {Cpu} from '../../machine/cpu.ts';
import {PRIORITY} from '../../machine/priorities.ts';
import {type Code, Timer, type Waitable} from '../../machine/process.ts';
import {KernelBug} from '../checks.ts';
import type {Kernel} from '../kernel.ts';
import {TaskKilled} from '../signal_struct.ts';
import type {Task} from '../task.ts';
import {Dispatcher} from './dispatch.ts';
import {SleepChecker} from './might_sleep.ts';
import type {RunQueue} from './runqueue.ts';
import {HRTIMER_BODY_TICKS, WAKE_SHARE} from './tunables.ts';

const TIMER: Waitable = {name: 'a timer'};
const ANY_CPU: Waitable = {name: 'a CPU'};

/** Time of all CPUs so far, in ticks. */
export interface CpuTimes {
  idleTicks: number;
  busyTicks: number;
  userTicks: number;
  interruptTicks: number;
}

/** Work that a task finds on its way to user mode (task_work): NUMA balancing's scan. */
export interface TaskWork {
  /** Plain and cheap. */
  due(t: Task): boolean;
  run(t: Task): Code;
}

/** The scheduler of one kernel. */
export class Scheduler {
  readonly dispatcher: Dispatcher;
  readonly sleepChecker: SleepChecker;
  private readonly wakeTicks: number;
  private readonly wakeFn: number;
  private readonly userFn: number;
  /** Looked at before user work and after it; null where there is none. */
  taskWork: TaskWork | null = null;
  /** The CPU whose interrupt handler is running, null in process context. */
  private interrupted: Cpu | null = null;
  /** Time of wake-ups made by that handler, on top of what it returns. */
  private handlerTicks = 0;

  constructor(readonly kernel: Kernel) {
    this.dispatcher = new Dispatcher(kernel);
    this.sleepChecker = new SleepChecker(kernel);
    this.wakeTicks = Math.round(kernel.machine.topology.contextSwitchTicks * WAKE_SHARE);
    this.wakeFn = kernel.fn('try_to_wake_up');
    this.userFn = kernel.fn('[user]');
  }

  /**
   * wake_up_new_task(): `code` is what the task does. CPU by fork balancing, or where it is pinned.
   */
  startTask(t: Task, code: Code<unknown>): void {
    const {engine} = this.kernel.machine;
    const {dispatcher} = this;
    t.process = engine.create(`${t.comm}/${t.tid}`, code);
    t.process.onDone = () => this.ended(t);
    t.process.onCrash = (error) => this.crashed(t, error);
    const parent = this.currentCpu();
    const rq = dispatcher.rqs[dispatcher.selector.forFork(t, parent?.id ?? t.cpu.id)];
    dispatcher.fair.updateCurrent(rq, engine.now);
    dispatcher.fair.placeNew(rq, t);
    t.state = 'running';
    t.cpu = rq.cpu;
    this.park(t, ANY_CPU);
    dispatcher.activate(t, rq, parent?.id ?? -1, this.payWake(parent, rq));
  }

  /**
   * try_to_wake_up(): false when the task is not asleep. The caller has settled what the wake-up
   * stands for. Callable from tasks, interrupt handlers and timers.
   */
  wake(t: Task): boolean {
    if (t.state !== 'sleeping') return false;
    const {dispatcher} = this;
    const {now} = this.kernel.machine.engine;
    t.state = 'running';
    if (t.se.onCpu) return true;
    dispatcher.watchdog.woken(t, t.se.sleepStart, now);
    const waker = this.currentCpu();
    const from = dispatcher.rqOf(t);
    const rq = dispatcher.rqs[dispatcher.selector.forWakeUp(t, waker?.id ?? -1)];
    dispatcher.fair.updateCurrent(rq, now);
    dispatcher.fair.placeWoken(rq, from, t);
    const leadTicks = this.payWake(waker, rq);
    this.park(t, ANY_CPU);
    dispatcher.activate(t, rq, waker?.id ?? -1, leadTicks);
    return true;
  }

  /** set_current_state(): from here on a wake-up is not lost, though the task still runs. */
  prepareToWait(t: Task, interruptible = false): void {
    t.state = 'sleeping';
    t.se.interruptible = interruptible;
  }

  /** finish_wait(): the condition came true, the task does not sleep after all. */
  cancelWait(t: Task): void {
    t.state = 'running';
  }

  /** Sleeps until woken. The caller has settled and seen that it must wait. */
  *block(t: Task, on: Waitable, interruptible = false): Code {
    this.prepareToWait(t, interruptible);
    if (t.cpu.settle()) yield;
    if (this.deschedule(t, on)) yield;
  }

  /**
   * schedule(): leaves the CPU if the state says so, else lets the run queue decide who goes on.
   */
  *schedule(t: Task, on: Waitable = ANY_CPU): Code {
    if (t.cpu.settle()) yield;
    if (this.deschedule(t, on)) yield;
  }

  /**
   * cond_resched()'s test; also the scheduling point that watchdog and RCU look for. Under a lock
   * it is no point: there read `t.needResched`, as need_resched() does, and drop the lock first
   * (cond_resched_lock).
   *     if (sched.needsResched(t)) yield* sched.condResched(t);
   */
  needsResched(t: Task): boolean {
    if (t.preemptCount > 0) {
      this.sleepChecker.check(t, 'cond_resched');
      return false;
    }
    this.dispatcher.point(t);
    return t.needResched;
  }

  /** cond_resched(). */
  *condResched(t: Task): Code {
    if (!this.needsResched(t)) return;
    if (t.cpu.settle()) yield;
    if (!t.needResched) return;
    this.park(t, ANY_CPU);
    this.dispatcher.requeue(t);
    yield;
  }

  /** sched_yield(): as cond_resched, but behind the others. */
  *yieldCpu(t: Task): Code {
    if (t.cpu.settle()) yield;
    const rq = this.dispatcher.rqOf(t);
    const first = rq.first();
    if (first === null) return;
    this.dispatcher.fair.updateCurrent(rq, this.kernel.machine.engine.now);
    t.vruntimeTicks = Math.max(t.vruntimeTicks, first.vruntimeTicks + 1);
    this.park(t, ANY_CPU);
    this.dispatcher.requeue(t);
    yield;
  }

  /**
   * Runs user code for `ticks` of CPU time: preempted, interrupted and slowed by an SMT sibling as
   * it happens.
   */
  *userRun(t: Task, ticks: number): Code {
    if (t.cpu.settle()) yield;
    if (this.needsResched(t)) yield* this.condResched(t);
    const {taskWork} = this;
    if (taskWork?.due(t)) yield* taskWork.run(t);
    if (this.enterUser(t, ticks)) yield;
    this.leaveUser(t);
    if (taskWork?.due(t)) yield* taskWork.run(t);
  }

  /** True when a task can go to user mode as it is: nothing waits to be done first. */
  mayEnterUser(t: Task): boolean {
    return !this.needsResched(t) && this.taskWork?.due(t) !== true;
  }

  /**
   * User code runs for `ticks`, from when the CPU's unsettled time has passed: one event for both.
   * True: yield. `leaveUser` when it is over.
   */
  enterUser(t: Task, ticks: number): boolean {
    const {se, cpu} = t;
    const {engine, profile} = this.kernel.machine;
    profile.add(this.userFn, ticks);
    const rest = cpu.pendingTicks;
    cpu.pendingTicks = 0;
    se.userLeftTicks = ticks;
    se.userStart = engine.now + rest;
    se.userRate = this.dispatcher.userRate(cpu);
    se.inUser = true;
    return engine.advance(rest + Math.round(ticks * se.userRate));
  }

  /** The end of what `enterUser` began. Throws TaskKilled. */
  leaveUser(t: Task): void {
    const {se} = t;
    const {now} = this.kernel.machine.engine;
    se.inUser = false;
    const rq = this.dispatcher.rqOf(t);
    rq.userTicks += Math.round(se.userLeftTicks * se.userRate);
    rq.schedulingPoint = now;
    rq.quiescentAt = now;
    se.userLeftTicks = 0;
    if (t.sigkill && !t.exiting) throw new TaskKilled();
  }

  /**
   * kick_process(): user code of `t` ends now and not when its work is done, because a fatal signal
   * is pending.
   */
  cutUser(t: Task): void {
    const {se} = t;
    if (!se.inUser || (se.onCpu && t.process!.pendingKey === 0)) return;
    const {engine, profile} = this.kernel.machine;
    const resume = se.onCpu ? this.dispatcher.accountUser(this.dispatcher.rqOf(t), t) : -1;
    profile.add(this.userFn, -se.userLeftTicks);
    se.userLeftTicks = 0;
    if (resume >= 0) engine.schedule(t.process!, resume);
  }

  /**
   * As `userRun`, in place: false, with nothing done, when somebody else is due before the end of
   * it.
   */
  userRunAtOnce(t: Task, ticks: number): boolean {
    const {engine, profile} = this.kernel.machine;
    const {cpu} = t;
    const rate = this.dispatcher.userRate(cpu);
    const userTicks = Math.round(ticks * rate);
    if (!engine.canAdvance(cpu.pendingTicks + userTicks) || !this.mayEnterUser(t)) return false;
    cpu.settle();
    engine.advance(userTicks);
    profile.add(this.userFn, ticks);
    const rq = this.dispatcher.rqOf(t);
    rq.userTicks += userTicks;
    rq.schedulingPoint = engine.now;
    rq.quiescentAt = engine.now;
    return true;
  }

  /** Sleeps for `ticks` (nanosleep): a timer interrupt on the task's CPU wakes it. */
  *sleep(t: Task, ticks: number): Code {
    this.enterSleep(t);
    if (t.cpu.settle()) yield;
    if (this.fallAsleep(t, ticks)) yield;
  }

  /** The first part of `sleep`, for callers who have no generator to spare; they settle then. */
  enterSleep(t: Task): void {
    t.cpu.charge(HRTIMER_BODY_TICKS, this.wakeFn);
  }

  /** The second part of `sleep`. True: yield. */
  fallAsleep(t: Task, ticks: number): boolean {
    this.prepareToWait(t, true);
    this.startTimer(t, ticks);
    return this.deschedule(t, TIMER);
  }

  /** As `block`, but at most for `ticks`. True: woken before that. */
  *blockTimeout(t: Task, on: Waitable, ticks: number): Code<boolean> {
    this.prepareToWait(t);
    t.cpu.charge(HRTIMER_BODY_TICKS, this.wakeFn);
    if (t.cpu.settle()) yield;
    this.startTimer(t, ticks);
    if (this.deschedule(t, on)) yield;
    const timer = t.se.timer!;
    const inTime = timer.pendingKey !== 0;
    this.kernel.machine.engine.cancel(timer);
    return inTime;
  }

  /**
   * do_task_dead(): the task runs no further; never returns to it. A zombie stays one until it is
   * reaped.
   */
  *exitTask(t: Task): Code {
    if (t.cpu.settle()) yield;
    if (t.state !== 'zombie') t.state = 'dead';
    this.kernel.machine.engine.retire(t.process!);
    yield;
  }

  /** exec_mmap() and exit_mm(): `t`, running, has got another mm (or none); loads it. */
  activateMm(t: Task): void {
    const rq = this.dispatcher.rqOf(t);
    const ticks = this.dispatcher.mms.switchTo(rq, t);
    t.cpu.stall(ticks, this.wakeFn);
  }

  /** might_sleep(): `what` is the function that may sleep. */
  mightSleep(t: Task, what: string): void {
    this.sleepChecker.check(t, what);
  }

  /** True while `t` runs on a CPU: what optimistic spinners look at. */
  isOnCpu(t: Task): boolean {
    return t.se.onCpu;
  }

  /** The CPU on which simulated code runs at this moment, null in a timer of no CPU. */
  currentCpu(): Cpu | null {
    if (this.interrupted !== null) return this.interrupted;
    const gate = this.kernel.machine.engine.current?.gate ?? null;
    return gate instanceof Cpu ? gate : null;
  }

  /**
   * Runs `handler` as an interrupt of `cpu`: wake-ups inside come from there, and preempt on the
   * way out.
   */
  interrupt(cpu: Cpu, handler: () => number): void {
    cpu.interrupt(() => {
      const outer = this.interrupted;
      const outerTicks = this.handlerTicks;
      this.interrupted = cpu;
      this.handlerTicks = 0;
      const ticks = handler() + this.handlerTicks;
      this.interrupted = outer;
      this.handlerTicks = outerTicks;
      this.dispatcher.preemptUser(this.dispatcher.rqs[cpu.id]);
      return ticks;
    });
  }

  /** Idle, busy and user time up to now, of one CPU or of all. */
  times(cpu = -1): CpuTimes {
    const sum: CpuTimes = {idleTicks: 0, busyTicks: 0, userTicks: 0, interruptTicks: 0};
    for (const rq of this.dispatcher.rqs) {
      if (cpu >= 0 && rq.cpu.id !== cpu) continue;
      this.dispatcher.closeTimes(rq);
      sum.idleTicks += rq.idleTicks;
      sum.busyTicks += rq.cpu.busyTicks;
      sum.userTicks += rq.userTicks;
      sum.interruptTicks += rq.cpu.interruptTicks;
    }
    return sum;
  }

  /**
   * End of the run: gaps that are still open count as if they ended now, and of `tasks` those that
   * still sleep as if they woke now.
   */
  finish(tasks: readonly Task[] = []): void {
    const {now} = this.kernel.machine.engine;
    for (const t of tasks) {
      if (t.state === 'sleeping') this.dispatcher.watchdog.woken(t, t.se.sleepStart, now);
    }
    for (const rq of this.dispatcher.rqs) {
      if (rq.current !== null && !rq.current.se.inUser) {
        this.dispatcher.watchdog.touch(rq, now, rq.current);
      }
    }
  }

  /** The task leaves its CPU if it still has to; true: the caller must yield. */
  private deschedule(t: Task, on: Waitable): boolean {
    this.sleepChecker.checkSchedule(t);
    if (t.state === 'running') {
      this.dispatcher.point(t);
      if (!t.needResched) return false;
      this.park(t, ANY_CPU);
      this.dispatcher.requeue(t);
      return true;
    }
    t.se.sleepStart = this.kernel.machine.engine.now;
    this.park(t, on);
    this.dispatcher.leave(t);
    return true;
  }

  private park(t: Task, on: Waitable): void {
    t.process!.waitingFor = on;
  }

  /** Charges a wake-up to the waker; returns by how much its CPU is ahead of the clock. */
  private payWake(waker: Cpu | null, rq: RunQueue): number {
    if (waker === null) return 0;
    const {engine} = this.kernel.machine;
    const {line} = rq;
    if (this.interrupted !== null) {
      const ticks = this.wakeTicks + line.rmw(waker, engine.now);
      this.handlerTicks += ticks;
      return ticks;
    }
    waker.charge(this.wakeTicks, this.wakeFn);
    waker.stall(line.rmw(waker, engine.now), this.wakeFn);
    return waker.pendingTicks;
  }

  private startTimer(t: Task, ticks: number): void {
    const {engine} = this.kernel.machine;
    t.se.timer ??= new Timer(engine, () => {
      this.interrupt(t.cpu, () => {
        this.wake(t);
        return HRTIMER_BODY_TICKS;
      });
    });
    engine.schedule(t.se.timer, engine.now + ticks, PRIORITY.timer);
  }

  private ended(t: Task): void {
    if (t.state !== 'zombie') t.state = 'dead';
    this.dispatcher.remove(t);
    if (t.se.timer !== null) this.kernel.machine.engine.unregister(t.se.timer);
    t.se.timer = null;
  }

  /** An oops: the task dies where it stands, with the locks it holds. */
  private crashed(t: Task, error: unknown): boolean {
    if (!(error instanceof KernelBug)) return false;
    t.state = 'dead';
    return true;
  }
}
