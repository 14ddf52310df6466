// Bindings of I/O that a trace has for its time, not for its pages.

import {argNumber} from '../../formats/columns.ts';
import {KIND} from '../../formats/kinds.ts';
import {io_submit, NO_STOP, sys_io_submit, waitsForTime} from '../../kernel/fs/aio.ts';
import type {Task} from '../../kernel/task.ts';
import type {Code} from '../../machine/process.ts';
import {
  type BindingContext,
  type BindingTable,
  BLOCKS,
  LATER,
  type Outcome,
  type QuickBindingTable,
  type QuickOutcome,
} from './binding.ts';

/** More than any ring holds: a garbage count submits nothing. */
const MAX_REQUESTS = 65_536;

function requestsOf({events}: BindingContext, i: number): number {
  const requests = argNumber(events, i, 1);
  return requests > MAX_REQUESTS ? 0 : requests;
}

function quickSubmit(context: BindingContext, t: Task, i: number, from: number): QuickOutcome {
  const stop = io_submit(context.kernel, t, requestsOf(context, i), from);
  if (stop === NO_STOP) return 'done';
  context.resume = stop;
  return waitsForTime(stop) ? LATER : BLOCKS;
}

function* submit(context: BindingContext, t: Task, i: number): Code<Outcome> {
  yield* sys_io_submit(context.kernel, t, requestsOf(context, i), context.resume);
  return 'done';
}

export const IO_BINDINGS: BindingTable = [[KIND.io_submit, submit]];
export const QUICK_IO_BINDINGS: QuickBindingTable = [[KIND.io_submit, quickSubmit]];
