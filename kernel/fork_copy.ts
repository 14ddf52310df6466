// What copy_process copies or shares besides the mm: task_struct, files, directories, signal
// handlers and signal state, namespaces, registers. Each CLONE_ flag makes a copy a reference; a
// copy costs an object and its bytes.
//
// Sizes are those of x86-64, 6.18 (assumption for other versions: the same).

import type {Code} from '../machine/process.ts';
import {CLONE_FILES, CLONE_FS, CLONE_SIGHAND} from './clone_flags.ts';
import {dup_fd, put_files_struct} from './fs/file.ts';
import {copy_fs_struct, put_fs} from './fs/fs_struct.ts';
import {countProcess, put_cred} from './cred.ts';
import type {Kernel} from './kernel.ts';
import {chargeHooks, chargeLsm} from './life_hooks.ts';
import {locked, lockedSlow, newLine, newObject, share, unshare} from './refcount.ts';
import type {Task} from './task.ts';

/** task_struct with the FPU state of a CPU with AVX. */
const TASK_STRUCT_BYTES = 9_408;
/** sighand_struct: 64 actions of 32 bytes, a count, a lock and a wait queue. */
export const SIGHAND_BYTES = 2_088;
/**
 * signal_struct, and in it 16 limits of 16 bytes that are copied from the leader under task_lock.
 */
const SIGNAL_BYTES = 1_152;
const RLIMIT_BYTES = 256;
/**
 * Scheduling entities (fair, real-time, deadline) with their timers, set up anew in every child.
 */
const SCHED_ENTITIES = 3;
/** struct pt_regs. */
const PT_REGS_BYTES = 168;

/** arch_dup_task_struct: a task_struct as the parent's. */
export function chargeTaskStruct(k: Kernel, t: Task, p: Task): void {
  const {costs, fns} = k;
  newObject(k, t, TASK_STRUCT_BYTES, costs.copyKibTicks, fns.dup_task_struct);
  t.cpu.stall(k.machine.lines.touch(p.line, t.cpu), fns.dup_task_struct);
}

/** sched_fork, sched_cgroup_fork, and the other parts of the kernel that look at the new task. */
export function chargeForkHooks(k: Kernel, t: Task): void {
  const {costs, fns} = k;
  t.cpu.charge(SCHED_ENTITIES * costs.schedEntityTicks, fns.sched_fork);
  chargeHooks(k, t, 'fork', fns.copy_process);
  chargeLsm(k, t, 1, fns.copy_process);
}

/** copy_files, copy_fs, copy_sighand. */
export function* copyShared(k: Kernel, t: Task, p: Task, flags: number): Code {
  const {fns} = k;
  const {files, fs, sighand} = t;
  if (files !== null) {
    const shares = (flags & CLONE_FILES) !== 0;
    p.files = shares ? share(k, t, files, fns.copy_files) : yield* dup_fd(k, t, files);
  }
  if (fs !== null) {
    const shares = (flags & CLONE_FS) !== 0;
    p.fs = shares ? share(k, t, fs, fns.copy_fs_struct) : yield* copy_fs_struct(k, t, fs);
  }
  if ((flags & CLONE_SIGHAND) !== 0 && sighand !== null) {
    p.sighand = share(k, t, sighand, fns.copy_sighand);
  } else {
    newObject(k, t, SIGHAND_BYTES, k.costs.copyKibTicks, fns.copy_sighand);
    p.sighand = {users: 1, line: newLine(k, t)};
  }
}

/** copy_signal of a new process: its limits, timers and session. */
export function* chargeSignal(k: Kernel, t: Task): Code {
  const {costs, fns, shared} = k;
  const fn = fns.copy_signal;
  newObject(k, t, SIGNAL_BYTES, costs.clearKibTicks, fn);
  t.cpu.charge(Math.round((RLIMIT_BYTES * costs.copyKibTicks) / 1024) + 2 * costs.hookTicks, fn);
  if (!locked(k, t, shared.autogroup, fn)) yield* lockedSlow(k, t, shared.autogroup, fn);
}

/**
 * copy_namespaces and copy_thread: a reference to the parent's namespaces, its registers saved and
 * copied.
 */
export function* copyThread(k: Kernel, t: Task): Code {
  const {costs, fns, shared} = k;
  const namespaces = fns.copy_namespaces;
  if (!locked(k, t, shared.nsproxy, namespaces)) {
    yield* lockedSlow(k, t, shared.nsproxy, namespaces);
  }
  const bytes = Math.round((PT_REGS_BYTES * costs.copyKibTicks) / 1024);
  t.cpu.charge(costs.fpuSwapTicks + bytes, fns.copy_thread);
}

/** exit_task_namespaces. */
export function* exit_task_namespaces(k: Kernel, t: Task): Code {
  const fn = k.fns.exit_task_namespaces;
  const {nsproxy} = k.shared;
  if (!locked(k, t, nsproxy, fn)) yield* lockedSlow(k, t, nsproxy, fn);
}

/**
 * What is freed when `p` is gone: its task_struct, its part of the signal handlers and credentials,
 * and with the last thread signal_struct. Linux does most of it after a grace period, on whatever
 * CPU; here the caller is charged at once.
 */
export function* freeTask(k: Kernel, t: Task, p: Task): Code {
  const {fns, costs} = k;
  const {sighand, cred} = p;
  let objects = p.threads.length === 0 ? 2 : 1;
  p.sighand = null;
  p.cred = null;
  if (sighand !== null && unshare(k, t, sighand, fns.release_task)) objects++;
  t.cpu.charge(objects * costs.slabFreeTicks + costs.rcuFreeTicks, fns.__put_task_struct);
  if (cred !== null) yield* put_cred(k, t, cred);
}

/** The labels after bad_fork_cleanup_: what copyShared gave to `p` goes back. */
export function* undoShared(k: Kernel, t: Task, p: Task): Code {
  const {files} = p;
  p.files = null;
  if (files !== null) yield* put_files_struct(k, t, files);
  const {fs} = p;
  p.fs = null;
  if (fs !== null) yield* put_fs(k, t, fs);
  yield* freeTask(k, t, p);
  yield* countProcess(k, t, k.fns.copy_creds);
}
