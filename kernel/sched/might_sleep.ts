// __might_sleep() and schedule_debug(): sleeping with preemption or interrupts off, inside an RCU
// reader, or in a non_block section (5.4 on). Every violation counts; the text
// is shown once per simulated second.

import {nsToTicks} from '../../machine/time.ts';
import type {Kernel} from '../kernel.ts';
import type {Task} from '../task.ts';
import {isBefore} from '../version.ts';

const RATE_TICKS = nsToTicks(1e9);

/** The sleep-in-atomic detector. */
export class SleepChecker {
  private nextReport = 0;
  private readonly knowsNonBlock: boolean;

  constructor(readonly kernel: Kernel) {
    this.knowsNonBlock = !isBefore(kernel.facts.version, '5.4');
  }

  /** A point at which `t` may sleep; `what` is the function. True when it must not. */
  check(t: Task, what: string): boolean {
    const depth = t.preemptCount + t.rcuDepth + t.nonBlockCount + t.cpu.irqDisabledDepth;
    return depth !== 0 && this.complain(t, what);
  }

  private complain(t: Task, what: string): boolean {
    if (this.atomicDepth(t) + t.cpu.irqDisabledDepth === 0) return false;
    this.report(
      `BUG: sleeping function called from invalid context at ${what} ` +
        `(in_atomic(): ${t.preemptCount}, irqs_disabled(): ${t.cpu.irqDisabledDepth}, ` +
        `non_block: ${t.nonBlockCount}, rcu: ${t.rcuDepth}, ${t.comm}/${t.tid})`,
    );
    return true;
  }

  /** schedule() itself: here interrupts do not count, as schedule() turns them off anyway. */
  checkSchedule(t: Task): void {
    if (this.atomicDepth(t) === 0) return;
    this.report(
      `BUG: scheduling while atomic: ${t.comm}/${t.tid} ` +
        `(in_atomic(): ${t.preemptCount}, non_block: ${t.nonBlockCount}, rcu: ${t.rcuDepth})`,
    );
  }

  private atomicDepth(t: Task): number {
    return t.preemptCount + t.rcuDepth + (this.knowsNonBlock ? t.nonBlockCount : 0);
  }

  private report(text: string): void {
    const {checks, machine} = this.kernel;
    checks.sleepInAtomic++;
    const {now} = machine.engine;
    if (now < this.nextReport) return;
    this.nextReport = now + RATE_TICKS;
    checks.finding(text);
  }
}
