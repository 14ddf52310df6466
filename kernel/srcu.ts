// SRCU (kernel/rcu/srcutree.c) as mmu_notifier uses it: readers may sleep, a grace period waits for
// all readers that were inside when it began, of whatever mm. Readers of the other index do not
// hold it up.
//
// Times: a grace period on a structure that has been idle for longer than the hold-off
// (srcutree.exp_holdoff, 25 us) is expedited and takes under a microsecond; else it takes a jiffy
// (4 ms with HZ=250), and then as long as its readers stay.

import type {Code} from '../machine/process.ts';
import {nsToTicks} from '../machine/time.ts';
import type {Kernel} from './kernel.ts';
import {JIFFY_TICKS} from './sched/tunables.ts';
import {WaitQueue} from './sched/wait_queue.ts';
import type {Task} from './task.ts';

const EXP_HOLDOFF_TICKS = nsToTicks(25_000);
const EXPEDITED_TICKS = nsToTicks(800);

/** One srcu_struct. */
export class Srcu {
  /** Grace periods completed. */
  completed = 0;
  private readonly readers = [0, 0];
  private index = 0;
  private lastEndTick = -EXP_HOLDOFF_TICKS;
  private readonly drained: WaitQueue;
  private readonly kernel: Kernel;

  constructor(kernel: Kernel, name: string) {
    this.kernel = kernel;
    this.drained = new WaitQueue(kernel, `${name} grace period`);
  }

  /** srcu_read_lock; give the result to readUnlock. */
  readLock(): number {
    this.readers[this.index]++;
    return this.index;
  }

  readUnlock(index: number): void {
    this.readers[index]--;
    if (this.readers[index] === 0 && !this.drained.isEmpty) this.drained.wakeAll();
  }

  /** Readers inside now. */
  get active(): number {
    return this.readers[0] + this.readers[1];
  }

  /** synchronize_srcu. */
  *synchronize(t: Task): Code {
    this.kernel.sched.mightSleep(t, 'synchronize_srcu');
    if (t.cpu.settle()) yield;
    const {engine} = this.kernel.machine;
    const expedited = this.active === 0 && engine.now - this.lastEndTick >= EXP_HOLDOFF_TICKS;
    if (expedited) {
      t.cpu.stall(EXPEDITED_TICKS, this.kernel.fn('synchronize_srcu'));
      if (t.cpu.settle()) yield;
    } else {
      yield* this.kernel.sched.sleep(t, JIFFY_TICKS);
    }
    const old = this.index;
    this.index = 1 - old;
    while (this.readers[old] > 0) yield* this.drained.wait(t);
    this.lastEndTick = engine.now;
    this.completed++;
  }
}
