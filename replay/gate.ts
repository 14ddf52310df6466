// Keeps operations of one copy of the trace in order: each waits, off the CPU, until those it
// depends on are over.

import type {Code, Waitable} from '../machine/process.ts';
import type {Kernel} from '../kernel/kernel.ts';
import type {Task} from '../kernel/task.ts';
import type {Dependencies} from './dependencies.ts';
import {park} from './parked.ts';

/** What `over` says of an operation: 0 while it is to come, and these. */
const AWAITED = 1;
const OVER = 2;

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
    return this.over[op] === OVER;
  }

  /** Sleeps until every operation that `op` depends on is over. */
  *wait(t: Task, op: number): Code {
    for (let missing = this.firstMissing(op); missing >= 0; missing = this.firstMissing(op)) {
      this.over[missing] = AWAITED;
      const queue = this.waiters.get(missing);
      if (queue === undefined) this.waiters.set(missing, [t]);
      else queue.push(t);
      yield* park(this.kernel, t, this);
    }
  }

  /** `op` is over, or never will be: whoever waits for it goes on. */
  finish(op: number): void {
    const before = this.over[op];
    this.over[op] = OVER;
    if (before === AWAITED) this.wakeWaiters(op);
  }

  private wakeWaiters(op: number): void {
    const queue = this.waiters.get(op)!;
    this.waiters.delete(op);
    for (const task of queue) this.kernel.sched.wake(task);
  }

  private firstMissing(op: number): number {
    const {start, from} = this.dependencies;
    const end = start[op + 1];
    for (let i = start[op]; i < end; i++) if (this.over[from[i]] !== OVER) return from[i];
    return -1;
  }
}
