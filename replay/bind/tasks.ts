// Bindings of exec, exit and wait4. fork is the driver's own: it needs the child's track.

import {argNumber, argSigned} from '../../formats/columns.ts';
import {KIND} from '../../formats/kinds.ts';
import {sys_execve} from '../../kernel/exec.ts';
import {do_exit, sys_wait4} from '../../kernel/exit.ts';
import {DEFAULT_STACK, type StackPlan} from '../../kernel/mm/exec_mmap.ts';
import type {Task} from '../../kernel/task.ts';
import type {Code} from '../../machine/engine.ts';
import {
  outcomeOf,
  vpnArg,
  type BindingContext,
  type BindingTable,
  type Outcome,
} from './binding.ts';
import {stackMapping} from './user_memory_files.ts';

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

function* exec(context: BindingContext, t: Task, i: number): Code<Outcome> {
  const {kernel, events, strings} = context;
  const path = strings[argNumber(events, i, 0)] ?? '';
  const comm = path.slice(path.lastIndexOf('/') + 1);
  return outcomeOf(yield* sys_execve(kernel, t, comm, stackOf(context, i)));
}

function* exit({kernel, events}: BindingContext, t: Task, i: number): Code<Outcome> {
  yield* do_exit(kernel, t, {group: argNumber(events, i, 0) !== 0});
  return 'done';
}

function* wait4(context: BindingContext, t: Task, i: number, op: number): Code<Outcome> {
  const {kernel, events} = context;
  const recorded = argSigned(events, i, 0) | 0;
  const named = recorded > 0 ? context.pidOf(recorded) : context.reapedPid(op);
  const upid = named > 0 ? named : recorded;
  return outcomeOf(yield* sys_wait4(kernel, t, upid, argNumber(events, i, 1)));
}

export const TASK_BINDINGS: BindingTable = [
  [KIND.exec, exec],
  [KIND.exit, exit],
  [KIND.wait4, wait4],
];
