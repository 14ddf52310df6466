// kernel/fork.c: copy_process and what clone(2) does around it, in the kernel's order (4.1 to
// 6.18).
//
//   dup_task_struct (with the stack) -> creds -> sched_fork, hooks -> files, fs, sighand, signal ->
//   copy_mm -> namespaces, thread -> alloc_pid -> cgroup_can_fork -> tasklist_lock for write: the
//   child becomes visible -> unlock -> [lockless pgd designs] arch_pgd_init_late ->
//   cgroup_post_fork -> wake_up_new_task -> [CLONE_VFORK] wait.
// Each part is where its objects are: cred.ts, fs/file.ts, fs/fs_struct.ts, fork_copy.ts, pid.ts,
// cgroup.ts.
//
// The child is a copy on the parent's node (NUMA_NO_NODE is local). tsk->mm is stored before the
// links of the task list, by the same CPU, so whoever sees the child sees its mm.
// arch_pgd_init_late runs after write_unlock_irq: a release does not drain the store buffer, so at
// that point the child may be visible to nobody else yet. Condition of the late init: v1 `p->mm !=
// current->mm`, later !(clone_flags & CLONE_VM); the same for what can happen here.

import type {Callee, Code} from '../machine/process.ts';
import {areInvalid, CLONE_PARENT, CLONE_THREAD, CLONE_VFORK, CLONE_VM} from './clone_flags.ts';
import {copy_creds} from './cred.ts';
import {exit_to_user_mode, task_main} from './exit.ts';
import {
  chargeForkHooks,
  chargeSignal,
  chargeTaskStruct,
  copyShared,
  copyThread,
  exit_task_namespaces,
  undoShared,
} from './fork_copy.ts';
import {dup_mm, mmget, mmput} from './fork_mm.ts';
import type {Kernel} from './kernel.ts';
import {chargeHooks} from './life_hooks.ts';
import {pidLinks} from './pid.ts';
import {SignalStruct} from './signal_struct.ts';
import {Task} from './task.ts';
import {addChild} from './task_tree.ts';

/** What clone(2) is asked for, with the numbers the child shall get. */
export interface CloneArgs {
  readonly flags: number;
  readonly childTid: number;
  /** Ignored with CLONE_THREAD: then it is the caller's. */
  readonly childTgid?: number;
  /** Default: the parent's. */
  readonly comm?: string;
  /** CPU the child may only run on; default: as the parent. */
  readonly pinnedCpu?: number;
  /**
   * What the child does in user mode. When it returns, the thread (or, for a leader, the process)
   * exits.
   */
  readonly program: (child: Task) => Callee;
}

/**
 * clone(2), fork(2), vfork(2): returns the child, or null when it failed (bad flags, or the caller
 * is being killed).
 */
export function* sys_clone(k: Kernel, t: Task, args: CloneArgs): Code<Task | null> {
  t.cpu.charge(k.machine.topology.syscallEntryTicks, k.fns.syscall_entry);
  const child = yield* kernel_clone(k, t, args);
  yield* exit_to_user_mode(k, t);
  return child;
}

/** kernel_clone (_do_fork): copies, wakes the child, and waits for it with CLONE_VFORK. */
export function* kernel_clone(k: Kernel, t: Task, args: CloneArgs): Code<Task | null> {
  // A frame: it waits often, far below its callers.
  const child = (yield copy_process(k, t, args)) as Task | null;
  if (child === null) return null;
  if ((args.flags & CLONE_VFORK) !== 0) child.vforkParent = t;
  k.sched.startTask(child, task_main(k, child, childProgram(k, child, args.program)));
  if ((args.flags & CLONE_VFORK) !== 0) yield* wait_for_vfork_done(k, t, child);
  return child;
}

/** copy_process: a child that is visible to walkers of the task list and has not run yet. */
export function* copy_process(k: Kernel, t: Task, args: CloneArgs): Code<Task | null> {
  if (areInvalid(args.flags)) return null;
  const p = yield* dup_task_struct(k, t, args);
  yield* copy_creds(k, t, p, args.flags);
  chargeForkHooks(k, t);
  yield* copyShared(k, t, p, args.flags);
  p.signal = yield* copy_signal(k, t, p, args.flags);
  if (!(yield* copy_mm(k, t, p, args.flags))) {
    yield* undoCopy(k, t, p);
    return null;
  }
  yield* copyThread(k, t);
  yield* k.pids.alloc_pid(t, p.tid);
  yield* k.cgroups.cgroup_can_fork(t);
  if (!(yield* makeVisible(k, t, p, args.flags))) {
    yield* k.cgroups.cgroup_cancel_fork(t);
    yield* k.pids.free_pid(t, p.tid);
    yield* exit_task_namespaces(k, t);
    yield* undoCopy(k, t, p);
    return null;
  }
  if (k.pgd.arch_pgd_init_late !== null && p.mm !== null && (args.flags & CLONE_VM) === 0) {
    yield* k.pgd.arch_pgd_init_late(t, p.mm);
  }
  yield* k.cgroups.cgroup_post_fork(t);
  return p;
}

function* dup_task_struct(k: Kernel, t: Task, args: CloneArgs): Code<Task> {
  const node = k.machine.topology.nodeOf[t.cpu.id];
  const tgid = (args.flags & CLONE_THREAD) !== 0 ? t.tgid : (args.childTgid ?? args.childTid);
  const p = newTask(k, {tid: args.childTid, tgid, comm: args.comm ?? t.comm, cpu: t.cpu, node});
  p.pinnedCpu = args.pinnedCpu ?? t.pinnedCpu;
  p.isKernelThread = t.isKernelThread;
  chargeTaskStruct(k, t, p);
  yield* k.stacks.alloc_thread_stack_node(t, p);
  return p;
}

/** A task that nothing points to yet, with its line, lock and place in the task list. */
export function newTask(
  k: Kernel,
  spec: {tid: number; tgid: number; comm: string; cpu: Task['cpu']; node: number},
): Task {
  const p = new Task(spec.tid, spec.tgid, spec.comm, spec.cpu, null);
  p.node = spec.node;
  p.line = k.machine.lines.allocate(spec.node);
  p.allocLock = k.locks.bulk('alloc_lock', spec.node);
  p.listSlot = k.taskList.takeSlot();
  return p;
}

function* copy_signal(k: Kernel, t: Task, p: Task, flags: number): Code<SignalStruct> {
  if ((flags & CLONE_THREAD) !== 0) return t.signal!;
  yield* chargeSignal(k, t);
  const signal = new SignalStruct(p, k.locks.bulk('siglock', p.node), k.taskList.takeSlot());
  signal.oomScoreAdj = t.signal!.oomScoreAdj;
  return signal;
}

/** False: no memory. */
function* copy_mm(k: Kernel, t: Task, p: Task, flags: number): Code<boolean> {
  const oldmm = t.mm;
  if (oldmm === null) return true;
  if ((flags & CLONE_VM) !== 0) {
    yield* mmget(k, t, oldmm);
    k.taskList.storeMm(t, p, oldmm);
  } else {
    const mm = yield* dup_mm(k, t, oldmm);
    if (mm === null) return false;
    if (t.cpu.settle()) yield;
    k.taskList.storeMm(t, p, mm);
  }
  p.activeMm = p.mm;
  return true;
}

/** The tasklist_lock section. False when the caller is to die: then there is no child. */
function* makeVisible(k: Kernel, t: Task, p: Task, flags: number): Code<boolean> {
  const {taskList, costs, fns} = k;
  const {siglock} = t.signal!;
  const {tasklist_lock: lock} = taskList;
  if (!lock.writeAcquireIrq(t, fns.copy_process)) yield* lock.writeAcquireSlow(t, fns.copy_process);
  if (!siglock.acquire(t, fns.copy_process)) yield* siglock.acquireSlow(t, fns.copy_process);
  const alive = !t.sigkill;
  if (alive) {
    t.cpu.charge(pidLinks((flags & CLONE_THREAD) === 0) * costs.pidLinkTicks, fns.copy_process);
    if (t.cpu.settle()) yield;
    link(k, t, p, flags);
  }
  if (!siglock.release(t)) yield* siglock.releaseSlow(t);
  if (!lock.writeReleaseIrq(t)) yield* lock.writeReleaseIrqSlow(t);
  return alive;
}

function link(k: Kernel, t: Task, p: Task, flags: number): void {
  const sibling = (flags & (CLONE_PARENT | CLONE_THREAD)) !== 0;
  const parent = sibling ? t.leader.parent : t;
  if ((flags & CLONE_THREAD) !== 0) {
    p.leader = t.leader;
    p.threads = t.threads;
    p.threads.push(p);
    p.parent = parent;
    p.signal!.live++;
  } else if (parent !== null) {
    addChild(parent, p);
  }
  k.taskList.add(t, p);
  k.forks++;
}

/** bad_fork_cancel_cgroup and the labels after it. */
function* undoCopy(k: Kernel, t: Task, p: Task): Code {
  if (p.mm !== null) {
    const {mm} = p;
    k.taskList.storeMm(t, p, null);
    yield* mmput(k, t, mm);
  }
  yield* undoShared(k, t, p);
  yield* k.stacks.free_thread_stack(t, p);
  p.allocLock!.destroy();
  if (p.signal !== t.signal) {
    k.taskList.releaseSlot(p.signal!.listSlot);
    p.signal!.siglock.destroy();
  }
  k.taskList.releaseSlot(p.listSlot);
  k.machine.lines.release(p.line);
}

function childProgram(k: Kernel, child: Task, program: CloneArgs['program']): () => Code<unknown> {
  return function* (): Code<unknown> {
    chargeHooks(k, child, 'ret_from_fork', k.fns.ret_from_fork);
    child.cpu.charge(k.costs.fpuSwapTicks + k.costs.putUserTicks, k.fns.ret_from_fork);
    return yield program(child);
  };
}

/** Sleeps until the child has execed or exited (its mm_release), or this task is killed. */
function* wait_for_vfork_done(k: Kernel, t: Task, child: Task): Code {
  if (t.cpu.settle()) yield;
  while (child.vforkParent === t && !t.sigkill) {
    yield* k.sched.block(t, {name: `vfork of ${child.comm}/${child.tid}`}, true);
    if (t.cpu.settle()) yield;
  }
  if (child.vforkParent === t) child.vforkParent = null;
}
