// fs/exec.c: execve, as far as it concerns address spaces and threads.
//
//   open the program -> bprm_mm_init: mm_alloc (PGD) -> arguments -> header, interpreter ->
//   begin_new_exec (flush_old_exec to 5.7): de_thread, exec_mmap, files and signals -> load the
//   file. What is not address space is in exec_image.ts. exec_mmap: mm_release (wakes a vfork
//   parent), then under task_lock: tsk->mm = mm, [lockless pgd designs] arch_pgd_init_late,
//   active_mm, activate_mm; after task_unlock the old mm is put.
//
// tsk->mm changes without tasklist_lock: it is a store-buffered cell of the task list. The
// task_lock section makes the late init safe on x86: task_lock is a locked operation before, not
// after, the store; the walker takes the same task_lock. The stack with its arguments is made here
// (mm/exec_mmap.ts). What load_elf_binary maps, and the faults that it takes, come as operations of
// their own: a trace has one for each mapping.

import type {Code} from '../machine/process.ts';
import {EAGAIN} from './errno.ts';
import {
  chargeStrings,
  type ExecImage,
  finishExec,
  imageOf,
  openInterpreter,
  prepareBinprm,
  resetForExec,
  search_binary_handler,
  undoExec,
  unshareForExec,
} from './exec_image.ts';
import {exit_to_user_mode} from './exit.ts';
import {mm_release, release_task, zap_other_threads} from './exit_task.ts';
import {mm_alloc, mmput} from './fork_mm.ts';
import type {Kernel} from './kernel.ts';
import {
  acct_arg_size,
  bprm_stack,
  DEFAULT_STACK,
  type StackPlan,
  setup_arg_pages,
} from './mm/exec_mmap.ts';
import type {MmStruct} from './mm_types.ts';
import type {Task} from './task.ts';
import {replaceChild} from './task_tree.ts';

/**
 * execve(2): 0, or -EAGAIN when the group is already being killed. `stack` says where the new stack
 * comes to lie and how many pages of arguments it has, `image` which files are run.
 */
export function* sys_execve(
  k: Kernel,
  t: Task,
  comm: string,
  stack: StackPlan = DEFAULT_STACK,
  image: ExecImage = imageOf(comm),
): Code<number> {
  t.cpu.charge(k.machine.topology.syscallEntryTicks, k.fns.syscall_entry);
  const bprm = yield* prepareBinprm(k, t, image);
  const mm = yield* mm_alloc(k, t);
  const vma = yield* bprm_stack(k, t, mm, stack);
  k.mm.hooks.ksm_execve?.(t, mm);
  chargeStrings(k, t, stack.argPages);
  yield* search_binary_handler(k, t, bprm);
  const interpreter = yield* openInterpreter(k, t, bprm);
  if (!(yield* de_thread(k, t))) {
    acct_arg_size(k, t, -stack.argPages);
    yield* mmput(k, t, mm);
    yield* undoExec(k, t, bprm, interpreter);
    yield* exit_to_user_mode(k, t);
    return -EAGAIN;
  }
  acct_arg_size(k, t, -stack.argPages);
  yield* unshareForExec(k, t, bprm, mm);
  yield* exec_mmap(k, t, mm);
  yield* resetForExec(k, t, bprm);
  yield* setup_arg_pages(k, t, vma, stack);
  t.comm = comm;
  k.execs++;
  yield* finishExec(k, t, bprm, stack.argPages, interpreter);
  yield* exit_to_user_mode(k, t);
  return 0;
}

/** Gives `t` the address space `mm` in place of the one it has, or of none (kernel thread). */
export function* exec_mmap(k: Kernel, t: Task, mm: MmStruct): Code {
  const {taskList, fns} = k;
  const old = t.mm;
  yield* mm_release(k, t);
  const lock = t.allocLock!;
  if (!lock.acquire(t, fns.exec_mmap)) yield* lock.acquireSlow(t, fns.exec_mmap);
  if (t.cpu.settle()) yield;
  taskList.storeMm(t, t, mm);
  if (k.pgd.arch_pgd_init_late !== null) yield* k.pgd.arch_pgd_init_late(t, mm);
  k.sched.activateMm(t);
  if (!lock.release(t)) yield* lock.releaseSlow(t);
  t.isKernelThread = false;
  if (old !== null) yield* mmput(k, t, old);
}

/**
 * de_thread: the other threads die, and the caller becomes the leader under the leader's number.
 * False when the group is being killed already.
 */
function* de_thread(k: Kernel, t: Task): Code<boolean> {
  const signal = t.signal!;
  const {siglock} = signal;
  if (t.threads.length === 1) return true;
  if (!siglock.acquire(t, k.fns.de_thread)) yield* siglock.acquireSlow(t, k.fns.de_thread);
  const first = !signal.groupExit && signal.groupExecTask === null;
  if (first) {
    signal.groupExecTask = t;
    zap_other_threads(k, t);
  }
  if (!siglock.release(t)) yield* siglock.releaseSlow(t);
  if (!first) return false;
  while (t.threads.some((other) => other !== t && !isDeadLeader(other))) {
    yield* k.sched.block(t, {name: `other threads of ${t.comm}/${t.tgid}`});
    if (t.cpu.settle()) yield;
  }
  if (t.leader !== t) yield* becomeLeader(k, t);
  signal.groupExecTask = null;
  return true;
}

function isDeadLeader(other: Task): boolean {
  return other.leader === other && other.exitState === 'zombie';
}

function* becomeLeader(k: Kernel, t: Task): Code {
  const {leader} = t;
  const {tasklist_lock: lock} = k.taskList;
  if (!lock.writeAcquireIrq(t, k.fns.de_thread)) yield* lock.writeAcquireSlow(t, k.fns.de_thread);
  if (t.cpu.settle()) yield;
  k.taskList.replaceLeader(t, leader, t);
  replaceChild(leader, t);
  t.leader = t;
  leader.leader = t;
  t.signal!.leader = t;
  leader.exitState = 'dead';
  if (!lock.writeReleaseIrq(t)) yield* lock.writeReleaseIrqSlow(t);
  yield* release_task(k, t, leader);
}
