// kernel/exit.c, the parts that exec and wait need too: killing the other threads, leaving an mm, notifying the parent,
// and release_task.

import type {Code} from '../machine/engine.ts';
import type {Kernel} from './kernel.ts';
import type {SignalStruct} from './signal_struct.ts';
import type {Task} from './task.ts';
import {removeChild, thread_group_empty} from './task_tree.ts';

/** mm_release: a vfork parent may go on. */
export function* mm_release(k: Kernel, t: Task): Code {
  t.cpu.charge(k.costs.mmReleaseTicks, k.fns.mm_release);
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
export function do_notify_parent(k: Kernel, leader: Task): void {
  const signal = leader.parent?.signal;
  if (signal === undefined || signal === null) return;
  signal.zombies.push(leader);
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
 * release_task: `p` leaves the task list; its struct is freed after a grace period. When it was the last thread beside a
 * leader that is a zombie already, the leader is announced to its parent now.
 */
export function* release_task(k: Kernel, t: Task, p: Task): Code {
  const {taskList, costs, fns, pidmap_lock} = k;
  const {tasklist_lock: lock} = taskList;
  t.cpu.charge(costs.releaseTaskTicks, fns.release_task);
  if (!lock.writeAcquireIrq(t, fns.release_task)) yield* lock.writeAcquireSlow(t, fns.release_task);
  const siglock = p.signal!.siglock;
  if (!siglock.acquire(t, fns.release_task)) yield* siglock.acquireSlow(t, fns.release_task);
  t.cpu.charge(costs.unhashProcessTicks, fns.release_task);
  if (t.cpu.settle()) yield;
  unhash(k, t, p);
  if (!siglock.release(t)) yield* siglock.releaseSlow(t);
  if (!pidmap_lock.acquireIrq(t, fns.free_pid)) yield* pidmap_lock.acquireSlow(t, fns.free_pid);
  t.cpu.charge(costs.pidmapTicks, fns.free_pid);
  if (!pidmap_lock.releaseIrq(t)) yield* pidmap_lock.releaseIrqSlow(t);
  const {leader} = p;
  const last = leader !== p && thread_group_empty(leader) && leader.exitState === 'zombie';
  const orphan = last && leader.parent === null;
  if (orphan) leader.exitState = 'dead';
  else if (last) do_notify_parent(k, leader);
  if (!lock.writeReleaseIrq(t)) yield* lock.writeReleaseIrqSlow(t);
  t.cpu.charge(costs.freePidTicks, fns.free_pid);
  k.rcu.callRcu(() => delayed_put_task_struct(k, p));
  if (orphan) yield* release_task(k, t, leader);
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
