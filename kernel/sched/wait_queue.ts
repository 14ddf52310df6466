// Wait queues: tasks that sleep until something happens. Wakes are in order of arrival; exclusive
// waiters one at a time. The list and its lock are one cache line: waiter and waker write it.
//
// `wait` is for callers that have settled and found the condition false; nothing can come between
// that and the sleep. When the condition can become true while time passes, use the three steps:
//     for (;;) {
//       q.prepare(t);
//       if (t.cpu.settle()) yield;
//       if (condition) break;
//       yield* q.sleep(t);
//     }
//     q.finish(t);

import type {CacheLine} from '../../machine/cache_line.ts';
import type {Code, Process, Waitable} from '../../machine/process.ts';
import type {Kernel} from '../kernel.ts';
import type {Task} from '../task.ts';

/** struct wait_queue_head. */
export class WaitQueue implements Waitable {
  private readonly waiters: Task[] = [];
  private readonly line: CacheLine;
  private readonly fn: number;
  /** Names who is expected to wake the queue, for the wait graph. */
  waker: (() => Process | null) | null = null;

  constructor(
    readonly kernel: Kernel,
    readonly name: string,
    node = 0,
  ) {
    this.line = kernel.machine.line(name, node);
    this.fn = kernel.fn('prepare_to_wait');
  }

  holder(): Process | null {
    return this.waker?.() ?? null;
  }

  get isEmpty(): boolean {
    return this.waiters.length === 0;
  }

  get length(): number {
    return this.waiters.length;
  }

  /** Sleeps until woken. `on` is what the wait graph shows instead of this queue. */
  *wait(t: Task, on: Waitable = this, interruptible = false): Code {
    this.prepare(t, interruptible);
    if (t.cpu.settle()) yield;
    yield* this.kernel.sched.schedule(t, on);
    this.finish(t);
  }

  /** Queues `t`; from here on a wake-up counts. Queueing again is harmless. */
  prepare(t: Task, interruptible = false): void {
    this.kernel.sched.mightSleep(t, this.name);
    if (!this.waiters.includes(t)) this.waiters.push(t);
    t.cpu.stall(this.line.rmw(t.cpu, this.kernel.machine.engine.now), this.fn);
    this.kernel.sched.prepareToWait(t, interruptible);
  }

  *sleep(t: Task, on: Waitable = this): Code {
    yield* this.kernel.sched.schedule(t, on);
  }

  /** Takes `t` off the queue if a wake-up has not done so, and lets it run on. */
  finish(t: Task): void {
    const at = this.waiters.indexOf(t);
    if (at >= 0) this.waiters.splice(at, 1);
    this.kernel.sched.cancelWait(t);
  }

  /** Wakes the first waiter; the caller has settled. */
  wakeOne(): Task | null {
    this.touch();
    for (let t = this.waiters.shift(); t !== undefined; t = this.waiters.shift()) {
      if (this.kernel.sched.wake(t)) return t;
    }
    return null;
  }

  /** Wakes everyone; returns how many slept. */
  wakeAll(): number {
    let woken = 0;
    while (this.waiters.length > 0 && this.wakeOne() !== null) woken++;
    return woken;
  }

  private touch(): void {
    const cpu = this.kernel.sched.currentCpu();
    if (cpu === null) return;
    cpu.stall(this.line.rmw(cpu, this.kernel.machine.engine.now), this.fn);
  }
}
