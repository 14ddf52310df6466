// Waiting for things that are no part of the simulated kernel: the order of a replay, its start,
// its end. In the kernel of the recording such a task ran its program or slept somewhere else. So
// the OOM killer can end it there.
//
// Other fatal signals do not: what a recorded task did before it died of them, the recording says.

import type {Kernel} from '../kernel/kernel.ts';
import {TaskKilled} from '../kernel/signal_struct.ts';
import type {Task} from '../kernel/task.ts';
import type {Code, Waitable} from '../machine/process.ts';

/** The OOM killer has killed it, and it has not begun to exit. */
export function isKilled(t: Task): boolean {
  return t.sigkill && t.signal!.oomMm !== null && !t.exiting;
}

/** The border to user mode: a killed task goes no further. Throws TaskKilled. */
export function dieIfKilled(t: Task): void {
  if (isKilled(t)) throw new TaskKilled();
}

/** Sleeps until woken. Throws TaskKilled when the OOM killer did it. */
export function* park(k: Kernel, t: Task, on: Waitable): Code {
  t.parked = true;
  yield* k.sched.block(t, on);
  t.parked = false;
  if (t.sigkill) dieIfKilled(t);
}
