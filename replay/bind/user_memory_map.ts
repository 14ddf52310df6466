// Bindings of mmap, munmap, brk and map. Addresses are those of the recording: a mapping goes where
// the recorded kernel put it (`ret`), because everything after it names that address; without one
// the model chooses. What a recorded mapping replaces without MAP_FIXED was never recorded as gone;
// it is taken away and counted.

import {argNumber, argSigned} from '../../formats/columns.ts';
import {setStartBrk, sys_brk} from '../../kernel/mm/brk.ts';
import {sys_mmap, vm_mmap} from '../../kernel/mm/mmap.ts';
import {MAP_ANONYMOUS, MAP_FIXED, MAP_POPULATE} from '../../kernel/mm/mmap_prot.ts';
import {mmapPages} from '../../kernel/mm/mmap_props.ts';
import {sys_munmap} from '../../kernel/mm/mmap_unmap.ts';
import type {Task} from '../../kernel/task.ts';
import type {Code} from '../../machine/process.ts';
import {
  type BindingContext,
  type BindingTable,
  flagsArg,
  isAligned,
  lengthPages,
  type Outcome,
  outcomeOf,
  vpnArg,
} from './binding.ts';
import {KIND} from '../../formats/kinds.ts';
import {isStack, propsOfMapping, recordedName, segmentPages} from './user_memory_files.ts';

const MAX_ERRNO = 4095;
const MAP_FIXED_NOREPLACE = 0x100000;

function pagesArg({events}: BindingContext, i: number, k: number): number {
  return lengthPages(events, i, k);
}

/** A recorded result that is a negative errno: the call failed, and does nothing here. */
function hasFailed({events}: BindingContext, i: number, k: number): boolean {
  const at = events.argStart[i] + k;
  return events.argHi[at] === 0xffff_ffff && events.argLo[at] >= 2 ** 32 - MAX_ERRNO;
}

function failedCall({kernel}: BindingContext, t: Task): Outcome {
  t.cpu.charge(kernel.machine.topology.syscallEntryTicks, kernel.fns.syscall_entry);
  return 'done';
}

function noteOverlap({kernel}: BindingContext, t: Task, start: number, pages: number): void {
  const {user} = t.mm!;
  if (user === null || user.space.tree.intersection(start, start + pages) === null) return;
  kernel.checks.count('mapped_over');
  kernel.checks.warn('mmap: the trace maps where something is mapped already: replaced');
}

function* mmap(context: BindingContext, t: Task, i: number): Code<Outcome> {
  const {kernel, events} = context;
  const pages = pagesArg(context, i, 1);
  if (hasFailed(context, i, 6) || t.mm === null || pages === 0) return failedCall(context, t);
  const flags = flagsArg(events, i, 3);
  const ret = vpnArg(events, i, 6);
  const anonymous = (flags & MAP_ANONYMOUS) !== 0 || argSigned(events, i, 4) < 0;
  const name = anonymous ? '//anon' : recordedName(context, i);
  const pgoff = vpnArg(events, i, 5);
  const prot = flagsArg(events, i, 2);
  const props = propsOfMapping(context, {pages, pgoff, prot, flags, name});
  const fixed = (flags & (MAP_FIXED | MAP_FIXED_NOREPLACE)) !== 0;
  if (!fixed && ret !== 0) noteOverlap(context, t, ret, pages);
  const start = ret === 0 ? vpnArg(events, i, 0) : ret;
  const populate = (flags & MAP_POPULATE) !== 0;
  const whole = mmapPages(props, pages);
  const args = {start, fixed: fixed || ret !== 0, pages: whole, pgoff, props, populate};
  return outcomeOf(yield* sys_mmap(kernel, t, args));
}

function* munmap(context: BindingContext, t: Task, i: number): Code<Outcome> {
  const {kernel, events} = context;
  const start = vpnArg(events, i, 0);
  const pages = pagesArg(context, i, 1);
  if (t.mm === null || pages === 0 || !isAligned(events, i, 0)) {
    failedCall(context, t);
    return 'failed';
  }
  return outcomeOf(yield* sys_munmap(kernel, t, start, start + pages));
}

/**
 * The recorded result is where the heap ends; the first one seen of a process that was not exec'ed
 * here is where it begins.
 */
function* brk(context: BindingContext, t: Task, i: number): Code<Outcome> {
  const {kernel, events} = context;
  if (t.mm === null) return failedCall(context, t);
  const wanted = argNumber(events, i, 0);
  const ret = argNumber(events, i, 1);
  const user = kernel.mm.userOf(t.mm);
  if (user.startBrkAddress === 0) setStartBrk(user, ret === 0 ? wanted : ret);
  const result = yield* sys_brk(kernel, t, ret !== 0 && ret !== wanted ? 0 : wanted);
  if (ret !== 0 && result !== ret) {
    kernel.checks.warn('brk: the heap ends elsewhere than in the recording');
    return 'failed';
  }
  return 'done';
}

/** A mapping made inside exec, or before the trace began. The stack of an exec is there already. */
function* map(context: BindingContext, t: Task, i: number): Code<Outcome> {
  const {kernel, events, strings} = context;
  const recorded = pagesArg(context, i, 1);
  if (t.mm === null || recorded === 0) return 'skipped';
  const start = vpnArg(events, i, 0);
  const flags = argNumber(events, i, 4);
  const pages = segmentPages(context, i, recorded);
  if (isStack(flags)) {
    const there = kernel.mm.userOf(t.mm).space.tree.lookup(start);
    if (there !== null && there.start === start && there.end === start + pages) return 'done';
  }
  const name = strings[argNumber(events, i, 5)] ?? '';
  const pgoff = argNumber(events, i, 2);
  const prot = argNumber(events, i, 3);
  const props = propsOfMapping(context, {pages, pgoff, prot, flags, name});
  const args = {start, fixed: true, pages, pgoff, props, populate: false};
  return outcomeOf(yield* vm_mmap(kernel, t, t.mm, args));
}

export const MAP_BINDINGS: BindingTable = [
  [KIND.mmap, mmap],
  [KIND.munmap, munmap],
  [KIND.brk, brk],
  [KIND.map, map],
];
