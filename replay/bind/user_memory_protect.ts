// Bindings of mprotect, mremap, madvise, mlock, munlock and remap_file_pages. A mapping that moved
// goes where the recorded kernel put it (`ret`): later operations name that address. Results of the
// others are not recorded; what fails here is counted as failed.

import {argNumber} from '../../formats/columns.ts';
import {KIND} from '../../formats/kinds.ts';
import {do_madvise} from '../../kernel/mm/madvise.ts';
import {isKnownAdvice} from '../../kernel/mm/madvise_numbers.ts';
import {do_mlock, do_munlock} from '../../kernel/mm/mlock.ts';
import {do_mprotect} from '../../kernel/mm/mprotect.ts';
import {do_mremap, MREMAP_FIXED, MREMAP_MAYMOVE} from '../../kernel/mm/mremap.ts';
import {do_remap_file_pages} from '../../kernel/mm/remap_file_pages.ts';
import type {Task} from '../../kernel/task.ts';
import type {Code} from '../../machine/process.ts';
import {
  type BindingContext,
  type BindingTable,
  flagsArg,
  lengthPages,
  type Outcome,
  outcomeOf,
  PAGE_BYTES,
  vpnArg,
} from './binding.ts';

const MAX_ERRNO = 4095;
const PROT_BITS = 7;

/** Pages that [address, address + length) touches. */
function pagesArg({events}: BindingContext, i: number, length: number): number {
  const offset = flagsArg(events, i, 0) % PAGE_BYTES;
  return lengthPages(events, i, length, offset);
}

function* mprotect(context: BindingContext, t: Task, i: number): Code<Outcome> {
  if (t.mm === null) return 'skipped';
  const start = vpnArg(context.events, i, 0);
  const prot = flagsArg(context.events, i, 2) & PROT_BITS;
  return outcomeOf(yield* do_mprotect(context.kernel, t, start, pagesArg(context, i, 1), prot));
}

function* mremap(context: BindingContext, t: Task, i: number): Code<Outcome> {
  if (t.mm === null) return 'skipped';
  const {events, kernel} = context;
  const at = events.argStart[i] + 5;
  const failed = events.argHi[at] === 0xffff_ffff && events.argLo[at] >= 2 ** 32 - MAX_ERRNO;
  if (failed) {
    t.cpu.charge(kernel.machine.topology.syscallEntryTicks, kernel.fns.syscall_entry);
    return 'done';
  }
  const start = vpnArg(events, i, 0);
  const oldPages = lengthPages(events, i, 1);
  const newPages = lengthPages(events, i, 2);
  const recorded = vpnArg(events, i, 5);
  let flags = flagsArg(events, i, 3);
  let target = vpnArg(events, i, 4);
  if (recorded !== 0 && recorded !== start) {
    flags |= MREMAP_FIXED | MREMAP_MAYMOVE;
    target = recorded;
  } else if (recorded === start) {
    flags = 0;
  }
  const result = yield* do_mremap(kernel, t, start, oldPages, newPages, flags, target);
  return outcomeOf(result);
}

function* madvise(context: BindingContext, t: Task, i: number): Code<Outcome> {
  if (t.mm === null) return 'skipped';
  const {events, kernel} = context;
  const advice = flagsArg(events, i, 2);
  if (!isKnownAdvice(kernel.facts.version, advice)) {
    kernel.checks.warn(`madvise: kernel ${kernel.facts.version} does not know advice ${advice}`);
  }
  const start = vpnArg(events, i, 0);
  return outcomeOf(yield* do_madvise(kernel, t, start, pagesArg(context, i, 1), advice));
}

function* mlock(context: BindingContext, t: Task, i: number): Code<Outcome> {
  if (t.mm === null) return 'skipped';
  const start = vpnArg(context.events, i, 0);
  return outcomeOf(yield* do_mlock(context.kernel, t, start, pagesArg(context, i, 1)));
}

function* munlock(context: BindingContext, t: Task, i: number): Code<Outcome> {
  if (t.mm === null) return 'skipped';
  const start = vpnArg(context.events, i, 0);
  return outcomeOf(yield* do_munlock(context.kernel, t, start, pagesArg(context, i, 1)));
}

function* remap_file_pages(context: BindingContext, t: Task, i: number): Code<Outcome> {
  if (t.mm === null) return 'skipped';
  const {events, kernel} = context;
  const start = vpnArg(events, i, 0);
  const pages = pagesArg(context, i, 1);
  const pgoff = argNumber(events, i, 2);
  return outcomeOf(yield* do_remap_file_pages(kernel, t, start, pages, 0, pgoff, 0));
}

export const PROTECT_BINDINGS: BindingTable = [
  [KIND.mprotect, mprotect],
  [KIND.mremap, mremap],
  [KIND.madvise, madvise],
  [KIND.mlock, mlock],
  [KIND.munlock, munlock],
  [KIND.remap_file_pages, remap_file_pages],
];
