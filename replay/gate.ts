// Keeps operations of one copy of the trace in order: each waits, off the CPU, until those it depends on are over.

import type {Code, Waitable} from '../machine/engine.ts';
import type {Kernel} from '../kernel/kernel.ts';
import type {Task} from '../kernel/task.ts';
import type {Dependencies} from './dependencies.ts';
import {park} from './parked.ts';

/** Order of the operations of one copy. */
export class OperationGate implements Waitable {
  readonly name = 'an earlier operation of the trace';
  private readonly over: Uint8Array;
  private readonly waiters = new Map<number, Task[]>();

  constructor(
    private readonly kernel: Kernel,
    private readonly dependencies: Dependencies,
    opCount: number,
  ) {
    this.over = new Uint8Array(opCount);
  }

  /** True when `op` may start now. */
  isOpen(op: number): boolean {
    return this.firstMissing(op) < 0;
  }

  isOver(op: number): boolean {
    return this.over[op] !== 0;
  }

  /** Sleeps until every operation that `op` depends on is over. */
  *wait(t: Task, op: number): Code {
    for (let missing = this.firstMissing(op); missing >= 0; missing = this.firstMissing(op)) {
      const queue = this.waiters.get(missing);
      if (queue === undefined) this.waiters.set(missing, [t]);
      else queue.push(t);
      yield* park(this.kernel, t, this);
    }
  }

  /** `op` is over, or never will be: whoever waits for it goes on. */
  finish(op: number): void {
    if (this.over[op] !== 0) return;
    this.over[op] = 1;
    const queue = this.waiters.get(op);
    if (queue === undefined) return;
    this.waiters.delete(op);
    for (const task of queue) this.kernel.sched.wake(task);
  }

  private firstMissing(op: number): number {
    const {start, from} = this.dependencies;
    for (let i = start[op]; i < start[op + 1]; i++) if (this.over[from[i]] === 0) return from[i];
    return -1;
  }
}
