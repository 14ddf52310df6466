// Bindings of I/O that a trace has for its time, not for its pages.

import {argNumber} from '../../formats/columns.ts';
import {KIND} from '../../formats/kinds.ts';
import {sys_io_submit} from '../../kernel/fs/aio.ts';
import type {Task} from '../../kernel/task.ts';
import type {Code} from '../../machine/engine.ts';
import type {BindingContext, BindingTable, Outcome} from './binding.ts';

/** More than any ring holds: a garbage count submits nothing. */
const MAX_REQUESTS = 65_536;

function* io_submit({kernel, events}: BindingContext, t: Task, i: number): Code<Outcome> {
  const requests = argNumber(events, i, 1);
  yield* sys_io_submit(kernel, t, requests > MAX_REQUESTS ? 0 : requests);
  return 'done';
}

export const IO_BINDINGS: BindingTable = [[KIND.io_submit, io_submit]];
