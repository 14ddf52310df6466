// Completions: wait until somebody says "done", which may have happened before.

import type {Code, Process} from '../../machine/process.ts';
import type {Kernel} from '../kernel.ts';
import type {Task} from '../task.ts';
import {WaitQueue} from './wait_queue.ts';

const ALL = Infinity;

/** struct completion. */
export class Completion {
  private done = 0;
  private readonly queue: WaitQueue;

  constructor(kernel: Kernel, name: string, node = 0) {
    this.queue = new WaitQueue(kernel, name, node);
  }

  /** Who will complete it, for the wait graph. */
  set expectedFrom(who: () => Process | null) {
    this.queue.waker = who;
  }

  /** Lets one waiter pass, now or later. The caller has settled. */
  complete(): void {
    if (this.done !== ALL) this.done++;
    this.queue.wakeOne();
  }

  /** Lets everyone pass for good. */
  completeAll(): void {
    this.done = ALL;
    this.queue.wakeAll();
  }

  /** try_wait_for_completion(). */
  tryWait(): boolean {
    if (this.done === 0) return false;
    this.done--;
    return true;
  }

  /** reinit_completion(). */
  reinit(): void {
    this.done = 0;
  }

  *wait(t: Task): Code {
    if (t.cpu.settle()) yield;
    while (this.done === 0) {
      this.queue.prepare(t);
      if (t.cpu.settle()) yield;
      if (this.done === 0) yield* this.queue.sleep(t);
      this.queue.finish(t);
    }
    this.done--;
  }
}
