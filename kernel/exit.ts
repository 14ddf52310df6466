// kernel/exit.c: do_exit and the life of a task around it.
//
//   exit_signals (PF_EXITING) -> accounting -> exit_mm -> files, fs, namespaces, cgroup ->
//   exit_notify under tasklist_lock: children get a new parent, the task becomes a zombie or is
//   dead -> its stack goes back -> it leaves the CPU for good.
//
// exit_mm drops the mm while the CPU still has its tables loaded (lazily). Linux keeps mm_count for
// that until finish_task_switch of the next task, and runs pgd_free there. Here the exiting task
// leaves the tables and drops its reference itself, as its last act: the same work on the same CPU,
// one context switch earlier. Other CPUs that hold the mm lazily leave it when it is freed; in
// Linux their reference keeps the PGD until they switch.

import type {Code} from '../machine/process.ts';
import {KernelBug} from './checks.ts';
import {
  do_notify_parent,
  mm_release,
  notifyExecTask,
  release_task,
  wakeParent,
  zap_other_threads,
} from './exit_task.ts';
import {exit_task_namespaces} from './fork_copy.ts';
import {mmdrop, mmgrab, mmput} from './fork_mm.ts';
import {exit_files} from './fs/file.ts';
import {exit_fs} from './fs/fs_struct.ts';
import {childReaper} from './init_task.ts';
import type {Kernel} from './kernel.ts';
import {chargeHooks, chargeLsm} from './life_hooks.ts';
import {TaskKilled} from './signal_struct.ts';
import type {Task} from './task.ts';
import {addChild, removeChild, thread_group_empty} from './task_tree.ts';

export {sys_wait4} from './exit_wait.ts';

/** What do_exit is told. */
export interface ExitArgs {
  /** exit_group(2): the other threads die too. */
  readonly group?: boolean;
  /** Exit status, 0 to 255, or the number of the signal that killed the task. */
  readonly code?: number;
}

/** What exit_notify looks at: ptraced tasks, orphaned process groups, whom to tell. */
const EXIT_NOTIFY_CALLS = 4;

/**
 * exit(2) and exit_group(2), oopses and fatal signals: the task ends. Never returns to its caller.
 */
export function* do_exit(k: Kernel, t: Task, args: ExitArgs = {}): Code {
  const signal = t.signal!;
  if (args.group === true) yield* do_group_exit(k, t, args.code ?? 0);
  yield* exit_signals(k, t);
  t.exitCode = signal.groupExit ? signal.groupExitCode : (args.code ?? 0);
  const groupDead = --signal.live === 0;
  t.diedBeforeThreads = t.leader === t && !groupDead;
  chargeExitHooks(k, t, groupDead);
  const mm = yield* exit_mm(k, t);
  yield* exit_files(k, t);
  yield* exit_fs(k, t);
  yield* exit_task_namespaces(k, t);
  yield* k.cgroups.cgroup_exit(t);
  yield* exit_notify(k, t);
  yield* k.stacks.free_thread_stack(t, t);
  if (mm !== null) yield* mmdrop(k, t, mm);
  k.exits++;
  yield* k.sched.exitTask(t);
}

/** exit_signals: PF_EXITING, under siglock when other threads may be choosing who gets a signal. */
function* exit_signals(k: Kernel, t: Task): Code {
  const {costs, fns} = k;
  const {siglock, groupExit} = t.signal!;
  t.cpu.charge(2 * costs.percpuRefTicks + costs.hookTicks, fns.exit_signals);
  if (thread_group_empty(t) || groupExit) {
    if (t.cpu.settle()) yield;
    t.exiting = true;
    return;
  }
  if (!siglock.acquireIrq(t, fns.exit_signals)) yield* siglock.acquireSlow(t, fns.exit_signals);
  t.exiting = true;
  if (!siglock.releaseIrq(t)) yield* siglock.releaseIrqSlow(t);
}

/**
 * What do_exit asks everybody; the last thread also walks its areas for the accounting record
 * (acct_collect).
 */
function chargeExitHooks(k: Kernel, t: Task, groupDead: boolean): void {
  const {costs, fns} = k;
  chargeHooks(k, t, 'exit', fns.do_exit);
  chargeLsm(k, t, 1, fns.do_exit);
  if (!groupDead) return;
  chargeHooks(k, t, 'exit_group', fns.do_exit);
  const areas = t.mm?.user?.space.mapCount ?? 0;
  t.cpu.charge(areas * costs.nextVmaTicks, fns.acct_collect);
}

function* do_group_exit(k: Kernel, t: Task, code: number): Code {
  const signal = t.signal!;
  const {siglock} = signal;
  if (signal.groupExit) return;
  const fn = k.fns.zap_other_threads;
  if (!siglock.acquire(t, fn)) yield* siglock.acquireSlow(t, fn);
  if (!signal.groupExit) {
    signal.groupExit = true;
    signal.groupExitCode = code;
    zap_other_threads(k, t);
  }
  if (!siglock.release(t)) yield* siglock.releaseSlow(t);
}

/**
 * exit_mm: gives the mm up. Returns it with one reference held, for the tables that are still
 * loaded.
 */
function* exit_mm(k: Kernel, t: Task): Code<Task['mm']> {
  const {mm} = t;
  yield* mm_release(k, t);
  if (mm === null) return null;
  yield* mmgrab(k, t, mm);
  const lock = t.allocLock!;
  if (!lock.acquire(t, k.fns.exit_mm)) yield* lock.acquireSlow(t, k.fns.exit_mm);
  if (t.cpu.settle()) yield;
  k.taskList.storeMm(t, t, null);
  t.activeMm = mm;
  k.sched.activateMm(t);
  if (!lock.release(t)) yield* lock.releaseSlow(t);
  yield* mmput(k, t, mm);
  return mm;
}

/**
 * exit_notify: hands the children on, and tells the parent or, for a thread, goes without a word.
 */
function* exit_notify(k: Kernel, t: Task): Code {
  const {taskList, costs, fns} = k;
  const {tasklist_lock: lock} = taskList;
  if (!lock.writeAcquireIrq(t, fns.exit_notify)) yield* lock.writeAcquireSlow(t, fns.exit_notify);
  t.cpu.charge(EXIT_NOTIFY_CALLS * costs.hookTicks, fns.exit_notify);
  if (t.cpu.settle()) yield;
  forget_original_parent(k, t);
  const isLeader = t.leader === t;
  const alone = thread_group_empty(t);
  t.exitState = isLeader && (t.parent !== null || !alone) ? 'zombie' : 'dead';
  if (t.exitState === 'zombie' && alone) do_notify_parent(k, t, t);
  notifyExecTask(k, t);
  if (!lock.writeReleaseIrq(t)) yield* lock.writeReleaseIrqSlow(t);
  if (t.exitState === 'dead') yield* release_task(k, t, t);
}

/**
 * forget_original_parent: a thread of the group, the nearest subreaper, or init takes the children.
 */
function forget_original_parent(k: Kernel, father: Task): void {
  if (father.children.length === 0) return;
  const reaper = find_new_reaper(k, father);
  const inherited = reaper.signal !== father.signal;
  for (const child of [...father.children]) {
    father.cpu.charge(k.costs.reparentChildTicks, k.fns.forget_original_parent);
    removeChild(child);
    addChild(reaper, child);
  }
  if (!inherited) return;
  if (reaper === k.init) k.sched.wake(reaper);
  const zombies = father.signal!.zombies.splice(0);
  if (zombies.length === 0) return;
  reaper.signal!.zombies.push(...zombies);
  wakeParent(k, reaper.signal!);
}

function find_new_reaper(k: Kernel, father: Task): Task {
  const thread = father.threads.find((other) => !other.exiting);
  if (thread !== undefined) return thread;
  for (let t = father.leader.parent; t !== null; t = t.leader.parent) {
    if (!t.signal!.isChildSubreaper) continue;
    const alive = t.threads.find((other) => !other.exiting);
    if (alive !== undefined) return alive;
  }
  return childReaper(k, father);
}

/** exit_to_user_mode_loop: a task with a fatal signal pending does not go back to its program. */
export function* exit_to_user_mode(k: Kernel, t: Task): Code {
  if (t.cpu.settle()) yield;
  if (t.sigkill && !t.exiting) throw new TaskKilled();
  if (k.sched.needsResched(t)) yield* k.sched.condResched(t);
}

/**
 * All of a task's life in user mode: its program, then exit. An oops or a fatal signal ends the
 * program early.
 */
export function* task_main(k: Kernel, t: Task, program: () => Code<unknown>): Code<unknown> {
  let args: ExitArgs = {group: t.leader === t};
  try {
    yield* program();
    args = {group: t.leader === t};
  } catch (error) {
    if (error instanceof TaskKilled) args = {group: t.signal!.groupExit, code: 9};
    else if (error instanceof KernelBug) args = makeTaskDead(k, t);
    else throw error;
  }
  return yield* do_exit(k, t, args);
}

/** make_task_dead: the task that hit a BUG or an oops exits with what it holds. */
function makeTaskDead(k: Kernel, t: Task): ExitArgs {
  if (t.exiting) throw new KernelBug(`${t.comm}/${t.tid} hits a second bug while it exits`);
  if (t.preemptCount > 0 || t.rcuDepth > 0) {
    k.checks.warn('a task died from a kernel bug with locks held: they stay held');
  }
  t.preemptCount = 0;
  t.rcuDepth = 0;
  t.nonBlockCount = 0;
  while (t.cpu.irqDisabledDepth > 0) t.cpu.enableInterrupts();
  return {group: false, code: 11};
}
