// kernel/exit.c: wait4(WNOHANG) that finds no dead child, for a replay that knows that it found
// none.
//
// In the recorded run the children that it looked at were alive. In the replay one of them may be a
// zombie already, and a poll would reap it before its time: the call that did reap it would find
// another child or none. So this looks, for what looking costs, and leaves zombies where they are.

import type {Code} from '../machine/process.ts';
import {ECHILD} from './errno.ts';
import {exit_to_user_mode} from './exit.ts';
import {chargeScan, hasEligibleChild} from './exit_wait.ts';
import type {Kernel} from './kernel.ts';
import type {Task} from './task.ts';

/**
 * do_wait without a zombie: 0, or -ECHILD when there is no such child at all. `upid` as for
 * sys_wait4.
 */
export function* poll_children(k: Kernel, t: Task, upid: number): Code<number> {
  const {fns} = k;
  const {tasklist_lock: lock} = k.taskList;
  t.cpu.charge(k.machine.topology.syscallEntryTicks, fns.syscall_entry);
  if (!lock.readAcquire(t, fns.do_wait)) yield* lock.readAcquireSlow(t, fns.do_wait);
  chargeScan(k, t, upid, null);
  if (t.cpu.settle()) yield;
  const result = hasEligibleChild(k, t, upid) ? 0 : -ECHILD;
  if (!lock.readRelease(t)) yield* lock.readReleaseSlow(t);
  yield* exit_to_user_mode(k, t);
  return result;
}
