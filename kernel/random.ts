// drivers/char/random.c, as far as dying tasks come to it: __exit_signal feeds their run time into
// the input pool, under the pool's spinlock (in 4.13, not in 4.4; what is between was not looked
// up). Until 6.14 that happened under tasklist_lock and siglock, so whoever waited for the pool
// held both; since 6.15 it comes after them.

import type {Code} from '../machine/process.ts';
import type {Kernel} from './kernel.ts';
import {sectionIrq} from './locking/section.ts';
import type {SpinLock} from './locking/spinlock.ts';
import type {Task} from './task.ts';
import {isBefore} from './version.ts';

/** The input pool of one kernel. */
export class InputPool {
  /** When a dying task adds to it. */
  readonly atExit: 'never' | 'under_tasklist_lock' | 'after';
  private readonly lock: SpinLock;

  constructor(readonly kernel: Kernel) {
    const {version} = kernel.facts;
    this.lock = kernel.locks.spinlock('input_pool.lock');
    if (isBefore(version, '4.13')) this.atExit = 'never';
    else this.atExit = isBefore(version, '6.15') ? 'under_tasklist_lock' : 'after';
  }

  /** add_device_randomness of a task's run time and a time stamp: 16 bytes. */
  add_device_randomness(t: Task): Code {
    const {costs, fns} = this.kernel;
    return sectionIrq(this.lock, t, costs.mixRandomTicks, fns.add_device_randomness);
  }
}
