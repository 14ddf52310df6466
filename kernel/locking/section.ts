// What many small parts of the kernel do: take a spinlock with interrupts off, work, give it back.

import type {Code} from '../../machine/process.ts';
import type {Task} from '../task.ts';
import type {SpinLock} from './spinlock.ts';

/** `ticks` of work under `lock`, by the function `fn` (profile id), with interrupts off. */
export function* sectionIrq(lock: SpinLock, t: Task, ticks: number, fn: number): Code {
  if (!lock.acquireIrq(t, fn)) yield* lock.acquireSlow(t, fn);
  t.cpu.charge(ticks, fn);
  if (!lock.releaseIrq(t)) yield* lock.releaseIrqSlow(t);
}
