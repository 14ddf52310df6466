// Bindings of exec, exit, wait4 and open_files. fork is the driver's own: it needs the child's
// track.
//
// What exec runs is read from the trace: the program's path, and the dynamic linker among the
// mappings that exec made. A trace that has no mappings of an exec gets the usual dynamic linker.

import {argNumber, argSigned} from '../../formats/columns.ts';
import {KIND} from '../../formats/kinds.ts';
import {WNOHANG} from '../../kernel/clone_flags.ts';
import {sys_execve} from '../../kernel/exec.ts';
import {type ExecImage, imageOf} from '../../kernel/exec_image.ts';
import {do_exit, sys_wait4} from '../../kernel/exit.ts';
import {poll_children} from '../../kernel/exit_poll.ts';
import {setOpenFiles} from '../../kernel/fs/file.ts';
import {DEFAULT_STACK, type StackPlan} from '../../kernel/mm/exec_mmap.ts';
import type {Task} from '../../kernel/task.ts';
import {thread_group_empty} from '../../kernel/task_tree.ts';
import type {Code} from '../../machine/process.ts';
import {
  NO_CHILD_YET,
  outcomeOf,
  vpnArg,
  type BindingContext,
  type BindingTable,
  type Outcome,
} from './binding.ts';
import {execMappings, stackMapping} from './user_memory_files.ts';

/** STACK_EXPAND: the recorded stack is its pages of arguments and 128 KB more. */
const STACK_EXPAND_PAGES = 32;

/** Where the recording says that the new image's stack came to lie. */
function stackOf(context: BindingContext, i: number): StackPlan {
  const {events} = context;
  const at = stackMapping(context, i);
  if (at < 0) return DEFAULT_STACK;
  const pages = argNumber(events, at, 1) / 4096;
  const argPages = Math.max(1, pages - STACK_EXPAND_PAGES);
  return {argPages, end: vpnArg(events, at, 0) + pages};
}

/** Names of dynamic linkers: ld-linux-x86-64.so.2, ld-2.31.so, ld-musl-x86_64.so.1. */
const DYNAMIC_LINKER = /\/ld-[^/]*\.so/;

/** The program of the exec that event `i` is, and what links it. */
function execImage(context: BindingContext, i: number, path: string, comm: string): ExecImage {
  const usual = imageOf(comm);
  const mapped = execMappings(context, i);
  const interpreter = mapped.find((name) => DYNAMIC_LINKER.test(name)) ?? null;
  return {
    path: path.includes('/') ? path : usual.path,
    interpreter: mapped.length === 0 ? usual.interpreter : interpreter,
  };
}

function* exec(context: BindingContext, t: Task, i: number): Code<Outcome> {
  const {kernel, events, strings} = context;
  const path = strings[argNumber(events, i, 0)] ?? '';
  const comm = path.slice(path.lastIndexOf('/') + 1);
  const image = execImage(context, i, path, comm);
  return outcomeOf(yield* sys_execve(kernel, t, comm, stackOf(context, i), image));
}

function* exit({kernel, events}: BindingContext, t: Task, i: number): Code<Outcome> {
  yield* do_exit(kernel, t, {group: argNumber(events, i, 0) !== 0});
  return 'done';
}

/**
 * wait4. A poll (WNOHANG) is an order between parent and child: one that found no dead child reaps
 * none, and one that reaped a child waits for that child here if it is not dead yet.
 */
function* wait4(context: BindingContext, t: Task, i: number, op: number): Code<Outcome> {
  const {kernel, events} = context;
  const options = argNumber(events, i, 1);
  const recorded = argSigned(events, i, 0) | 0;
  const wanted = recorded > 0 ? context.pidOf(recorded) : recorded;
  const reaped = context.reapedPid(op);
  if (reaped === NO_CHILD_YET) {
    const found = yield* poll_children(kernel, t, wanted);
    if (found !== 0) kernel.checks.count(NOT_FOLLOWED);
    return outcomeOf(found);
  }
  if (reaped === 0) return outcomeOf(yield* sys_wait4(kernel, t, wanted, options));
  const polls = (options & WNOHANG) !== 0;
  if (polls && isAlive(kernel.taskList.find(reaped))) kernel.checks.count(WAITED);
  const found = yield* sys_wait4(kernel, t, reaped, options & ~WNOHANG);
  if (polls && found !== reaped) kernel.checks.count(NOT_FOLLOWED);
  return outcomeOf(found);
}

/**
 * Counters: polls whose recorded answer was not to be had, and polls that had to wait for the
 * child.
 */
const NOT_FOLLOWED = 'polls_not_followed';
const WAITED = 'polls_waited';

function isAlive(child: Task | null): boolean {
  return child !== null && (child.exitState === 'none' || !thread_group_empty(child));
}

/** No system call of its own: each open and close is one. */
function* open_files({kernel, events}: BindingContext, t: Task, i: number): Code<Outcome> {
  yield* setOpenFiles(kernel, t, argNumber(events, i, 0), argNumber(events, i, 1));
  return 'done';
}

export const TASK_BINDINGS: BindingTable = [
  [KIND.exec, exec],
  [KIND.exit, exit],
  [KIND.wait4, wait4],
  [KIND.open_files, open_files],
];
