// Who runs on which CPU: switching in and out, idling, ticks, preemption. Plain functions on the
// state of all run queues; the generators that tasks call are in core.ts.
//
// A task is on exactly one of: a CPU (se.onCpu, rq.current, cpu.process), a run queue (se.queued),
// nowhere (asleep, dead). Off a CPU its process has no event. The switch itself is time before the
// process's first event on the CPU. User code may be cut at any tick: the process's event, its end,
// is taken back and the rest is kept. Kernel code is only told (needResched), as with
// PREEMPT_VOLUNTARY, the default of the server distributions that the recordings used. A CPU's tick
// exists only while more than one task wants it; it also asks an idle CPU to help
// (nohz_balancer_kick).

import {assert} from '../../machine/assert.ts';
import type {Cpu} from '../../machine/cpu.ts';
import {PRIORITY} from '../../machine/priorities.ts';
import {Timer} from '../../machine/process.ts';
import type {Kernel} from '../kernel.ts';
import type {Task} from '../task.ts';
import {FairClass} from './fair.ts';
import {RunQueue} from './runqueue.ts';
import {CpuSelector} from './select_rq.ts';
import {MmSwitcher} from './switch_mm.ts';
import {
  BALANCE_PER_CPU_TICKS,
  fairTunables,
  IDLE_STATES,
  JIFFY_TICKS,
  POLL_IDLE_EXIT_TICKS,
  RESCHEDULE_BODY_TICKS,
  SCHEDULE_SHARE,
  TICK_BODY_TICKS,
} from './tunables.ts';
import {Watchdog} from './watchdog.ts';

/** The CPUs' side of the scheduler. */
export class Dispatcher {
  readonly rqs: readonly RunQueue[];
  readonly fair: FairClass;
  readonly selector: CpuSelector;
  readonly mms: MmSwitcher;
  readonly watchdog: Watchdog;
  /** Timers that keep house and cannot end a deadlock by themselves. */
  backgroundTimers = 0;
  private queuedTasks = 0;
  private dormant: RunQueue[] = [];
  private readonly scheduleTicks: number;
  private readonly switchFn: number;
  private readonly balanceFn: number;

  constructor(readonly kernel: Kernel) {
    const {machine} = kernel;
    this.rqs = machine.cpus.map((cpu) => this.makeQueue(cpu));
    this.fair = new FairClass(fairTunables(kernel.facts.version, machine.cpus.length));
    this.selector = new CpuSelector(machine.topology, this.rqs);
    this.mms = new MmSwitcher(kernel);
    this.watchdog = new Watchdog(kernel);
    this.scheduleTicks = Math.round(machine.topology.contextSwitchTicks * SCHEDULE_SHARE);
    this.switchFn = kernel.fn('__schedule');
    this.balanceFn = kernel.fn('load_balance');
  }

  get now(): number {
    return this.kernel.machine.engine.now;
  }

  rqOf(t: Task): RunQueue {
    return this.rqs[t.cpu.id];
  }

  /**
   * Makes a task that is nowhere runnable on `rq`, `leadTicks` from now at the earliest. `here` is
   * the waker's CPU.
   */
  activate(t: Task, rq: RunQueue, here: number, leadTicks: number): void {
    if (this.dormant.length > 0) this.wakeTicks();
    if (rq.current === null) {
      this.dispatch(rq, t, null, leadTicks + this.idleExitTicks(rq, here));
      return;
    }
    this.enqueue(rq, t);
    this.fair.updateCurrent(rq, this.now);
    if (this.fair.preempts(rq, t)) this.reschedule(rq, here, leadTicks);
    this.armTick(rq);
  }

  /** The running task leaves its CPU (asleep or dead), and the next one comes. */
  leave(t: Task): void {
    const rq = this.rqOf(t);
    this.fair.updateCurrent(rq, this.now);
    this.fair.leave(rq, t);
    this.takeOff(rq, t);
    this.pickNext(rq, t, 0);
  }

  /** The running task stays runnable and lets the queue decide. */
  requeue(t: Task, delayTicks = 0): void {
    const rq = this.rqOf(t);
    this.fair.updateCurrent(rq, this.now);
    this.takeOff(rq, t);
    this.enqueue(rq, t);
    this.pickNext(rq, t, delayTicks);
  }

  /** Forgets a task that ended, wherever it is. */
  remove(t: Task): void {
    if (t.se.onCpu) this.leave(t);
    else if (t.se.queued) this.dequeue(this.rqOf(t), t);
  }

  /** A scheduling point that is not a switch: cond_resched, and the way to and from user mode. */
  point(t: Task): void {
    const rq = this.rqOf(t);
    this.watchdog.touch(rq, this.now, t);
    if (t.rcuDepth === 0) rq.quiescentAt = this.now;
  }

  /**
   * Brings the user work of the task on `rq` up to date with the clock and with interrupts; returns
   * when it goes on.
   */
  accountUser(rq: RunQueue, t: Task): number {
    const {se} = t;
    const {now} = this;
    const start = se.userStart + rq.cpu.takeStolenTicks();
    if (start >= now) {
      se.userStart = start;
      return start;
    }
    const done = Math.min(se.userLeftTicks, Math.floor((now - start) / se.userRate));
    se.userLeftTicks -= done;
    se.userStart = now;
    rq.userTicks += now - start;
    return now;
  }

  /** Starts or restarts user work: its end is the process's event. */
  runUser(rq: RunQueue, t: Task, start: number): void {
    const {se} = t;
    se.userStart = start;
    se.userRate = this.userRate(rq.cpu);
    const ticks = Math.round(se.userLeftTicks * se.userRate);
    this.kernel.machine.engine.schedule(t.process!, start + ticks);
  }

  userRate(cpu: Cpu): number {
    const busy = cpu.sibling !== null && cpu.sibling.process !== null;
    return busy ? this.kernel.machine.topology.smtSlowdown : 1;
  }

  /** Adds the time since the last change to the CPU's idle or busy time. */
  closeTimes(rq: RunQueue): void {
    const ticks = this.now - rq.since;
    if (rq.current === null) rq.idleTicks += ticks;
    else rq.cpu.busyTicks += ticks;
    rq.since = this.now;
  }

  private makeQueue(cpu: Cpu): RunQueue {
    const {machine} = this.kernel;
    const node = machine.topology.nodeOf[cpu.id];
    const rq = new RunQueue(cpu, machine.line(`rq:${cpu.id}`, node));
    rq.tick = new Timer(machine.engine, () => {
      this.backgroundTimers--;
      cpu.interrupt(() => this.schedulerTick(rq));
    });
    rq.reschedule = new Timer(machine.engine, () => {
      cpu.interrupt(() => this.rescheduleInterrupt(rq));
    });
    return rq;
  }

  private enqueue(rq: RunQueue, t: Task): void {
    rq.insert(t);
    this.queuedTasks++;
  }

  private dequeue(rq: RunQueue, t: Task): void {
    rq.take(t);
    this.queuedTasks--;
  }

  private takeOff(rq: RunQueue, t: Task): void {
    assert(rq.current === t && t.se.onCpu, 'a task leaves a CPU that it is not on');
    assert(t.process!.pendingKey === 0, 'a task leaves its CPU with an event pending');
    this.watchdog.touch(rq, this.now, t);
    rq.quiescentAt = this.now;
    this.closeTimes(rq);
    t.se.onCpu = false;
    t.se.lastRanAt = this.now;
    t.process!.gate = null;
    rq.current = null;
    const {watchers} = t.se;
    if (watchers !== null) for (const watcher of watchers.slice()) watcher.ownerLeft();
  }

  private pickNext(rq: RunQueue, previous: Task, delayTicks: number): void {
    let next = rq.first();
    if (next !== null) this.dequeue(rq, next);
    else if (this.queuedTasks > 0) {
      next = this.pull(rq);
      delayTicks += this.balanceTicks(rq);
    }
    if (next === null) this.goIdle(rq);
    else this.dispatch(rq, next, previous, delayTicks);
  }

  /** Switches `t` in. `previous` ran until now on this CPU; null after idling. */
  private dispatch(rq: RunQueue, t: Task, previous: Task | null, delayTicks: number): void {
    const {se} = t;
    const {cpu} = rq;
    assert(!se.onCpu && !se.queued, 'a task is dispatched twice');
    assert(t.process!.pendingKey === 0, 'a task has an event while it is off the CPU');
    if (previous === null) this.leaveIdle(rq, t);
    if (t.cpu !== cpu) rq.migrations++;
    t.cpu = cpu;
    se.onCpu = true;
    t.needResched = false;
    t.process!.gate = cpu;
    t.process!.waitingFor = null;
    rq.current = t;
    cpu.process = t.process;
    const cost = previous === t ? Math.round(this.scheduleTicks / 3) : this.switchTicks(rq, t);
    this.kernel.machine.profile.add(this.switchFn, cost);
    const start = this.now + delayTicks + cost;
    se.execStart = this.now + delayTicks;
    se.prevSumExecTicks = se.sumExecTicks;
    rq.picks++;
    rq.updateMinVruntime();
    if (se.inUser) this.runUser(rq, t, start);
    else this.kernel.machine.engine.schedule(t.process!, start);
    this.armTick(rq);
  }

  private switchTicks(rq: RunQueue, t: Task): number {
    rq.switches++;
    const own = rq.line.rmw(rq.cpu, this.now);
    return this.scheduleTicks + own + this.mms.switchTo(rq, t);
  }

  private leaveIdle(rq: RunQueue, t: Task): void {
    this.closeTimes(rq);
    this.selector.setIdle(rq.cpu.id, false);
    rq.schedulingPoint = this.now;
    rq.cpu.process = t.process;
    this.siblingChanges(rq.cpu);
  }

  private goIdle(rq: RunQueue): void {
    rq.cpu.process = null;
    this.selector.setIdle(rq.cpu.id, true);
    this.mms.enterLazy(rq);
    this.stopTick(rq);
    this.siblingChanges(rq.cpu);
  }

  /** The core's other thread just became busy or idle: user work on it changes its speed. */
  private siblingChanges(cpu: Cpu): void {
    if (cpu.sibling === null) return;
    const rq = this.rqs[cpu.sibling.id];
    const t = rq.current;
    if (t === null || !t.se.inUser || t.process!.pendingKey === 0) return;
    this.runUser(rq, t, this.accountUser(rq, t));
  }

  /**
   * From the wake-up's store to need_resched until the idle CPU has left its idle state. Idle CPUs
   * watch that word (mwait, TIF_POLLING_NRFLAG), so there is no interrupt: the line's way, then the
   * exit from the state it is in.
   */
  private idleExitTicks(rq: RunQueue, here: number): number {
    const {topology} = this.kernel.machine;
    const idleFor = this.now - rq.since;
    const {id} = rq.cpu;
    let exit = POLL_IDLE_EXIT_TICKS;
    for (const state of IDLE_STATES) if (idleFor >= state.residencyTicks) exit = state.exitTicks;
    const flag =
      here < 0 || here === id ? 0 : topology.transferTicks(here, id, topology.nodeOf[id]);
    return exit + flag;
  }

  /** newidle_balance(): the nearest busy queue gives one task. */
  private pull(rq: RunQueue): Task | null {
    const t = this.selector.toPull(rq.cpu.id);
    if (t === null) return null;
    const from = this.rqOf(t);
    this.fair.updateCurrent(from, this.now);
    this.dequeue(from, t);
    this.fair.migrate(rq, from, t);
    return t;
  }

  private balanceTicks(rq: RunQueue): number {
    const ticks = this.rqs.length * BALANCE_PER_CPU_TICKS + rq.line.read(rq.cpu, this.now);
    this.kernel.machine.profile.add(this.balanceFn, ticks);
    return ticks;
  }

  /** resched_curr(): at once in the interrupted CPU, by interrupt from another. */
  reschedule(rq: RunQueue, here: number, leadTicks: number): void {
    const t = rq.current!;
    if (t.needResched) return;
    this.setNeedResched(t);
    if (here === rq.cpu.id) return;
    const {engine, topology, ipi} = this.kernel.machine;
    ipi.sent++;
    const arrival = this.now + leadTicks + topology.ipiDeliverTicks;
    engine.schedule(rq.reschedule!, arrival, PRIORITY.interrupt);
  }

  private setNeedResched(t: Task): void {
    t.needResched = true;
    t.se.spin?.needsResched();
  }

  private rescheduleInterrupt(rq: RunQueue): number {
    this.preemptUser(rq);
    return RESCHEDULE_BODY_TICKS;
  }

  /** The way out of an interrupt: user code that should give way does. */
  preemptUser(rq: RunQueue): void {
    const t = rq.current;
    if (t === null || !t.needResched || !t.se.inUser || t.process!.pendingKey === 0) return;
    this.kernel.machine.engine.cancel(t.process!);
    const free = this.accountUser(rq, t);
    this.requeue(t, free - this.now);
  }

  private schedulerTick(rq: RunQueue): number {
    const t = rq.current;
    if (t === null || rq.tasks.length === 0) return TICK_BODY_TICKS;
    this.fair.updateCurrent(rq, this.now);
    if (this.fair.sliceOver(rq)) this.setNeedResched(t);
    this.helpFromIdle(rq);
    this.preemptUser(rq);
    this.armTick(rq);
    return TICK_BODY_TICKS;
  }

  /** nohz_balancer_kick(): an idle CPU takes a task of this overloaded one. */
  private helpFromIdle(rq: RunQueue): void {
    const helper = this.selector.idleHelper(rq.cpu.id);
    if (helper < 0) return;
    const idle = this.rqs[helper];
    const t = this.pull(idle);
    if (t === null) return;
    const delay = this.idleExitTicks(idle, rq.cpu.id) + this.balanceTicks(idle);
    this.dispatch(idle, t, null, delay);
  }

  private armTick(rq: RunQueue): void {
    if (rq.running < 2 || rq.tick!.pendingKey !== 0) return;
    const {engine} = this.kernel.machine;
    if (engine.current === null && engine.pendingEvents <= this.backgroundTimers) {
      if (!this.dormant.includes(rq)) this.dormant.push(rq);
      return;
    }
    this.backgroundTimers++;
    const next = (Math.floor(engine.now / JIFFY_TICKS) + 1) * JIFFY_TICKS;
    engine.schedule(rq.tick!, next, PRIORITY.timer);
  }

  private stopTick(rq: RunQueue): void {
    if (rq.tick!.pendingKey === 0) return;
    this.kernel.machine.engine.cancel(rq.tick!);
    this.backgroundTimers--;
  }

  /** Ticks that stopped because nothing but ticks was left go on: something is about to happen. */
  private wakeTicks(): void {
    const asleep = this.dormant;
    this.dormant = [];
    for (const rq of asleep) this.armTick(rq);
  }
}
