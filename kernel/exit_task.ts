// kernel/exit.c, the parts that exec and wait need too: killing the other threads, leaving an mm,
// notifying the parent, and release_task.

import type {Code} from '../machine/process.ts';
import {countProcess} from './cred.ts';
import {freeTask} from './fork_copy.ts';
import type {Kernel} from './kernel.ts';
import {chargeHooks} from './life_hooks.ts';
import {pidLinks} from './pid.ts';
import type {SignalStruct} from './signal_struct.ts';
import type {Task} from './task.ts';
import {removeChild, thread_group_empty} from './task_tree.ts';

/** Counters of a task that its group keeps: times, faults, switches, blocks, I/O. */
export const SUMMED_COUNTERS = 15;

/** mm_release: a vfork parent may go on. */
export function* mm_release(k: Kernel, t: Task): Code {
  chargeHooks(k, t, 'mm_release', k.fns.mm_release);
  const parent = t.vforkParent;
  if (parent === null) return;
  if (t.cpu.settle()) yield;
  t.vforkParent = null;
  k.sched.wake(parent);
}

/** Sends SIGKILL to one thread (signal_wake_up with TASK_WAKEKILL); the caller holds siglock. */
function sendSigkill(k: Kernel, t: Task, target: Task): void {
  if (target.exiting || target.sigkill) return;
  t.cpu.charge(k.costs.zapThreadTicks, k.fns.zap_other_threads);
  target.sigkill = true;
  const {interruptible, killable} = target.se;
  if (target.state === 'sleeping' && (interruptible || killable)) k.sched.wake(target);
  else k.sched.cutUser(target);
}

/** zap_other_threads: every other thread is told to die. The caller holds siglock. */
export function zap_other_threads(k: Kernel, t: Task): void {
  for (const thread of t.threads) if (thread !== t) sendSigkill(k, t, thread);
}

/** kill(2) with SIGKILL: the whole group of `target` dies. */
export function* kill_group(k: Kernel, t: Task, target: Task): Code {
  const {siglock} = target.signal!;
  const fn = k.fns.zap_other_threads;
  if (!siglock.acquire(t, fn)) yield* siglock.acquireSlow(t, fn);
  if (t.cpu.settle()) yield;
  target.signal!.groupExit = true;
  for (const thread of target.threads) sendSigkill(k, t, thread);
  if (!siglock.release(t)) yield* siglock.releaseSlow(t);
}

/** do_notify_parent: `leader` is a zombie whose whole group is gone; its parent may reap it. */
export function do_notify_parent(k: Kernel, t: Task, leader: Task): void {
  const signal = leader.parent?.signal;
  if (signal === undefined || signal === null) return;
  signal.zombies.push(leader);
  t.cpu.charge(k.costs.sendSignalTicks, k.fns.exit_notify);
  wakeParent(k, signal);
}

/** __wake_up_parent. */
export function wakeParent(k: Kernel, signal: SignalStruct): void {
  signal.childEvents++;
  for (const waiter of signal.waiters) k.sched.wake(waiter);
}

/** Wakes the thread that waits in de_thread for this group to shrink. */
export function notifyExecTask(k: Kernel, t: Task): void {
  const waiter = t.signal!.groupExecTask;
  if (waiter !== null && waiter !== t) k.sched.wake(waiter);
}

/**
 * release_task: `p` leaves the task list; its struct is freed after a grace period. When it was the
 * last thread beside a leader that is a zombie already, the leader is announced to its parent now.
 */
export function* release_task(k: Kernel, t: Task, p: Task): Code {
  const {taskList, fns, inputPool, pids} = k;
  const {tasklist_lock: lock} = taskList;
  const {tid} = p;
  yield* countProcess(k, t, fns.release_task);
  chargeHooks(k, t, 'release', fns.release_task);
  yield* k.cgroups.cgroup_release(t, p);
  if (!lock.writeAcquireIrq(t, fns.release_task)) yield* lock.writeAcquireSlow(t, fns.release_task);
  const siglock = p.signal!.siglock;
  if (!siglock.acquire(t, fns.release_task)) yield* siglock.acquireSlow(t, fns.release_task);
  if (inputPool.atExit === 'under_tasklist_lock') yield* inputPool.add_device_randomness(t);
  chargeExitSignal(k, t, p);
  if (t.cpu.settle()) yield;
  unhash(k, t, p);
  if (!siglock.release(t)) yield* siglock.releaseSlow(t);
  if (!pids.freesLate) yield* pids.free_pid(t, tid);
  const {leader} = p;
  const last = leader !== p && thread_group_empty(leader) && leader.exitState === 'zombie';
  const orphan = last && leader.parent === null;
  if (orphan) leader.exitState = 'dead';
  else if (last) do_notify_parent(k, t, leader);
  if (!lock.writeReleaseIrq(t)) yield* lock.writeReleaseIrqSlow(t);
  if (inputPool.atExit === 'after') yield* inputPool.add_device_randomness(t);
  if (pids.freesLate) yield* pids.free_pid(t, tid);
  yield* freeTask(k, t, p);
  k.rcu.callRcu(() => delayed_put_task_struct(k, p));
  if (orphan) yield* release_task(k, t, leader);
}

/**
 * __exit_signal adds the counters of the task to the group's; __unhash_process takes it from its
 * struct pids.
 */
function chargeExitSignal(k: Kernel, t: Task, p: Task): void {
  const {costs, fns} = k;
  t.cpu.charge(SUMMED_COUNTERS * costs.counterTicks, fns.__exit_signal);
  t.cpu.charge(pidLinks(p.leader === p) * costs.pidLinkTicks, fns.__exit_signal);
}

/** __exit_signal and __unhash_process. */
function unhash(k: Kernel, t: Task, p: Task): void {
  k.taskList.remove(t, p);
  if (p.leader === p) removeChild(p);
  const {threads} = p;
  threads.splice(threads.indexOf(p), 1);
  notifyExecTask(k, p);
}

function delayed_put_task_struct(k: Kernel, p: Task): void {
  k.taskList.releaseSlot(p.listSlot);
  k.machine.lines.release(p.line);
  p.allocLock!.destroy();
  if (p.threads.length === 0 && p.leader === p) {
    k.taskList.releaseSlot(p.signal!.listSlot);
    p.signal!.siglock.destroy();
  }
  p.listSlot = -1;
  p.line = -1;
  k.reaped++;
}
