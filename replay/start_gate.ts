// Holds every adopted task until all of them exist; then the measurement begins.

import type {Kernel} from '../kernel/kernel.ts';
import type {Task} from '../kernel/task.ts';
import type {Code, Waitable} from '../machine/process.ts';
import {park} from './parked.ts';

/** The common start of a run. */
export class StartGate implements Waitable {
  readonly name = 'the start of the measurement';
  private open = false;
  private readonly held: Task[] = [];
  private expected: number;

  constructor(
    private readonly kernel: Kernel,
    adoptedTasks: number,
    /** Called once, when the last task has arrived. */
    private readonly onOpen: () => void,
  ) {
    this.expected = adoptedTasks;
  }

  /** Arrives. A task without operations only exists: it sleeps for ever. */
  *wait(t: Task, hasOperations: boolean): Code {
    t.process!.daemon = !hasOperations;
    if (hasOperations) this.held.push(t);
    this.expected--;
    if (this.expected === 0) this.release();
    if (hasOperations && this.open) return;
    while (!hasOperations || !this.open) yield* park(this.kernel, t, this);
  }

  private release(): void {
    this.onOpen();
    this.open = true;
    for (const task of this.held.splice(0)) this.kernel.sched.wake(task);
  }
}
