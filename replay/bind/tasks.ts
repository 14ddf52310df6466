// Bindings of exec, exit and wait4. fork is the driver's own: it needs the child's track.

import {argNumber, argSigned} from '../../formats/columns.ts';
import {KIND} from '../../formats/kinds.ts';
import {sys_execve} from '../../kernel/exec.ts';
import {do_exit, sys_wait4} from '../../kernel/exit.ts';
import type {Task} from '../../kernel/task.ts';
import type {Code} from '../../machine/engine.ts';
import {outcomeOf, type BindingContext, type BindingTable, type Outcome} from './binding.ts';

function* exec({kernel, events, strings}: BindingContext, t: Task, i: number): Code<Outcome> {
  const path = strings[argNumber(events, i, 0)] ?? '';
  const comm = path.slice(path.lastIndexOf('/') + 1);
  return outcomeOf(yield* sys_execve(kernel, t, comm));
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
