// Bindings of the expect_ operations: do what a selftest does and compare the outcome with what it
// expects. A difference is a finding, `conformance: <step>: expected ..., found ...`; every
// expectation that was looked at counts in `conformance_steps`, so that a trace whose steps were
// never reached is not taken for one that passed.
//
// What a page holds is a class of content (kernel/mm/page.ts): a store writes it after the access
// was let through, a load compares it. Reads and writes through a pin go past the page table, to
// the page frame that was pinned.

import {argNumber, argSigned} from '../../formats/columns.ts';
import {KIND} from '../../formats/kinds.ts';
import {userAccess, userAccessSlow} from '../../kernel/arch/x86/mm/user_fault.ts';
import {EFAULT, ENOSYS} from '../../kernel/errno.ts';
import type {Kernel} from '../../kernel/kernel.ts';
import {access_remote_page} from '../../kernel/mm/access_remote.ts';
import type {AddressSpace} from '../../kernel/mm/address_space.ts';
import {FOLL_PIN, get_user_page, unpin_user_page} from '../../kernel/mm/gup.ts';
import {mmap_read_lock, mmap_read_unlock} from '../../kernel/mm/mmap_lock.ts';
import {compound_head} from '../../kernel/mm/page.ts';
import {folio_put} from '../../kernel/mm/page_alloc.ts';
import type {IoVec} from '../../kernel/mm/process_madvise.ts';
import {
  FAULT_NONE,
  FAULT_OOM,
  FAULT_SIGBUS,
  FAULT_SIGSEGV,
  X86_PF_USER,
  X86_PF_WRITE,
} from '../../kernel/mm/vm_fault.ts';
import type {Task} from '../../kernel/task.ts';
import type {Code} from '../../machine/process.ts';
import {
  type BindingContext,
  type BindingTable,
  type Outcome,
  PAGE_BYTES,
  type QuickBindingTable,
  vpnArg,
} from './binding.ts';
import {errnoName} from './errno.ts';
import {pfnAt, stateOf} from './page_state.ts';
import {SYSTEM_CALLS} from './system_calls.ts';

const SIGBUS = 7;
const SIGKILL = 9;
const SIGSEGV = 11;
const SIGNALS: ReadonlyMap<number, number> = new Map([
  [FAULT_SIGSEGV, SIGSEGV],
  [FAULT_SIGBUS, SIGBUS],
  [FAULT_OOM, SIGKILL],
]);
const SIGNAL_NAMES: ReadonlyMap<number, string> = new Map([
  [0, 'no signal'],
  [SIGBUS, 'SIGBUS'],
  [SIGKILL, 'SIGKILL'],
  [SIGSEGV, 'SIGSEGV'],
]);
/** `ret` of a call whose result does not matter. */
const ANY_RESULT = Number.MAX_SAFE_INTEGER;

/** Page frames that expect_pin holds. */
interface Pins {
  readonly frames: readonly number[];
  readonly pinned: boolean;
}

/** What the expectations of one copy of a trace share. */
interface Bench {
  readonly files: Map<number, AddressSpace>;
  readonly pins: Map<number, Pins>;
  /** By task. */
  readonly vectors: Map<number, IoVec[]>;
  /** Frames that `same-frame` has met, by group. */
  readonly frames: Map<number, number>;
}

const benches = new WeakMap<BindingContext, Bench>();

function benchOf(context: BindingContext): Bench {
  let bench = benches.get(context);
  if (bench === undefined) {
    bench = {files: new Map(), pins: new Map(), vectors: new Map(), frames: new Map()};
    benches.set(context, bench);
  }
  return bench;
}

function stepOf({events, strings}: BindingContext, i: number): string {
  return strings[argNumber(events, i, 0)] ?? '';
}

/** Counts the expectation; a difference is a finding. */
export function compare(
  context: BindingContext,
  i: number,
  expected: number,
  found: number,
  name: (value: number) => string,
): Outcome {
  const {checks} = context.kernel;
  checks.count('conformance_steps');
  if (expected === found) return 'done';
  const step = stepOf(context, i);
  checks.finding(`conformance: ${step}: expected ${name(expected)}, found ${name(found)}`);
  return 'failed';
}

/** A result as people write it: an error by its name, an address in hex. */
export function resultName(value: number): string {
  return value < 0 ? errnoName(-value) : value < 2 ** 24 ? `${value}` : `0x${value.toString(16)}`;
}

function* expect_call(context: BindingContext, t: Task, i: number): Code<Outcome> {
  const {events} = context;
  const bench = benchOf(context);
  const call = SYSTEM_CALLS.get(argNumber(events, i, 1));
  const args = [2, 3, 4, 5, 6, 7].map((k) => argSigned(events, i, k));
  const vector = bench.vectors.get(t.tid) ?? [];
  bench.vectors.delete(t.tid);
  const state = {files: bench.files, vector};
  const found = call === undefined ? -ENOSYS : yield* call(context, t, args, state);
  const wanted = argSigned(events, i, 8);
  return compare(context, i, wanted === ANY_RESULT ? found : wanted, found, resultName);
}

/**
 * One access: the signal that it gets, 0 for none. As on hardware the access is made again after a
 * fault, until it needs none: what a fault brought may be gone again.
 */
function* accessPage(k: Kernel, t: Task, vpn: number, code: number): Code<number> {
  if (t.mm === null) return SIGSEGV;
  k.mm.userOf(t.mm);
  for (let tries = 0; tries < MAX_TRIES; tries++) {
    let result = userAccess(k, t, vpn, code);
    if (result < 0) result = yield* userAccessSlow(k, t, vpn, code, result);
    if (result === FAULT_NONE) return 0;
    const signal = SIGNALS.get(result);
    if (signal !== undefined) return signal;
    if (t.sigkill) return SIGKILL;
  }
  k.checks.finding(`an access to page ${vpn} faults for ever`);
  return SIGKILL;
}
/** Far more than any race needs. */
const MAX_TRIES = 1000;

function contentOf(k: Kernel, t: Task, vpn: number): number {
  const pfn = pfnAt(k, k.mm.userOf(t.mm!), vpn);
  return pfn === 0 ? 0 : k.mm.pages.content[pfn];
}

/** A run of stores or loads: the first page that does otherwise than expected is reported. */
function* run(context: BindingContext, t: Task, i: number, write: boolean): Code<Outcome> {
  const {events, kernel} = context;
  const start = vpnArg(events, i, 1);
  const [pages, stride] = [argNumber(events, i, 2), argNumber(events, i, 3)];
  const [content, contentStep] = [argNumber(events, i, 4), argNumber(events, i, 5)];
  const signal = argNumber(events, i, 6);
  const code = X86_PF_USER | (write ? X86_PF_WRITE : 0);
  const {content: contents} = kernel.mm.pages;
  for (let n = 0; n < pages; n++) {
    const vpn = start + n * stride;
    const got = yield* accessPage(kernel, t, vpn, code);
    const page = `page ${n}: `;
    if (got !== signal) {
      return compare(context, i, signal, got, (s) => page + (SIGNAL_NAMES.get(s) ?? `${s}`));
    }
    if (got !== 0) continue;
    const wanted = content + n * contentStep;
    if (write) contents[pfnAt(kernel, kernel.mm.userOf(t.mm!), vpn)] = wanted;
    const found = contentOf(kernel, t, vpn);
    if (found !== wanted) {
      return compare(context, i, wanted, found, (value) => `${page}content ${value}`);
    }
  }
  kernel.checks.count('conformance_steps');
  return 'done';
}

function* expect_store(context: BindingContext, t: Task, i: number): Code<Outcome> {
  return yield* run(context, t, i, true);
}

function* expect_load(context: BindingContext, t: Task, i: number): Code<Outcome> {
  return yield* run(context, t, i, false);
}

/**
 * `same-frame`: the first to ask for a group says which frame it is, the others must have the same.
 */
function sameFrame(context: BindingContext, group: number, pfn: number): number {
  const {frames} = benchOf(context);
  const known = frames.get(group);
  if (known === undefined) frames.set(group, pfn);
  return pfn !== 0 && (known === undefined || known === pfn) ? group : -1;
}

function* expect_state(context: BindingContext, t: Task, i: number): Code<Outcome> {
  const {events, kernel, strings} = context;
  if (t.cpu.settle()) yield;
  const what = strings[argNumber(events, i, 1)] ?? '';
  const start = vpnArg(events, i, 2);
  const wanted = argSigned(events, i, 4);
  const user = kernel.mm.userOf(t.mm!);
  const found =
    what === 'same-frame'
      ? sameFrame(context, wanted, pfnAt(kernel, user, start))
      : stateOf(kernel, user, what, start, start + argNumber(events, i, 3));
  if (found !== undefined) {
    return compare(context, i, wanted, found, (value) => `${what} ${value}`);
  }
  kernel.checks.finding(`conformance: ${stepOf(context, i)}: no state is called ${what}`);
  return 'failed';
}

/**
 * ptrace: writes whatever the protection is, page by page; the result is the pages written or an
 * error.
 */
function* expect_remote(context: BindingContext, t: Task, i: number): Code<Outcome> {
  const {events, kernel} = context;
  const target = kernel.taskList.find(context.pidOf(argNumber(events, i, 1)));
  const start = vpnArg(events, i, 2);
  const pages = argNumber(events, i, 3);
  let found = target?.mm === undefined || target.mm === null ? -EFAULT : 0;
  for (let n = 0; n < pages && found >= 0; n++) {
    const pfn = yield* access_remote_page(kernel, t, target!.mm!, start + n);
    if (pfn > 0) {
      kernel.mm.pages.content[pfn] = argNumber(events, i, 4);
      folio_put(kernel, t, compound_head(kernel.mm.pages, pfn));
      found++;
    } else {
      found = pfn;
    }
  }
  return compare(context, i, argSigned(events, i, 5), found, resultName);
}

/** get_user_pages or pin_user_pages: the result is the pages taken or an error. */
function* expect_pin(context: BindingContext, t: Task, i: number): Code<Outcome> {
  const {events, kernel} = context;
  const id = argNumber(events, i, 1);
  const start = vpnArg(events, i, 2);
  const pages = argNumber(events, i, 3);
  const foll = argNumber(events, i, 4);
  const user = kernel.mm.userOf(t.mm!);
  const frames: number[] = [];
  let found = 0;
  yield* mmap_read_lock(t, user, kernel.fn('pin_user_pages'));
  for (let n = 0; n < pages && found >= 0; n++) {
    const vma = user.space.tree.lookup(start + n);
    if (vma === null) found = -EFAULT;
    else {
      const pfn = yield* get_user_page(kernel, t, user.mm, vma, start + n, foll, true);
      if (pfn >= 0) frames.push(pfn);
      found = pfn < 0 ? pfn : n + 1;
    }
  }
  yield* mmap_read_unlock(t, user);
  benchOf(context).pins.set(id, {frames, pinned: (foll & FOLL_PIN) !== 0});
  return compare(context, i, argSigned(events, i, 5), found, resultName);
}

function* expect_pinned(context: BindingContext, t: Task, i: number): Code<Outcome> {
  const {events, kernel} = context;
  if (t.cpu.settle()) yield;
  const {frames} = benchOf(context).pins.get(argNumber(events, i, 1)) ?? {frames: []};
  const [content, contentStep] = [argNumber(events, i, 2), argNumber(events, i, 3)];
  const write = argNumber(events, i, 4) !== 0;
  const {content: contents} = kernel.mm.pages;
  if (frames.length === 0) return compare(context, i, 1, 0, (n) => `${n} pinned pages`);
  for (const [n, pfn] of frames.entries()) {
    const wanted = content + n * contentStep;
    if (write) contents[pfn] = wanted;
    const found = pfn === 0 ? 0 : contents[pfn];
    if (found !== wanted) {
      return compare(context, i, wanted, found, (value) => `pinned page ${n}: content ${value}`);
    }
  }
  kernel.checks.count('conformance_steps');
  return 'done';
}

function* unpin(context: BindingContext, t: Task, i: number): Code<Outcome> {
  const {events, kernel} = context;
  const {pins} = benchOf(context);
  const id = argNumber(events, i, 0);
  const held = pins.get(id);
  if (held === undefined) return 'failed';
  if (t.cpu.settle()) yield;
  for (const pfn of held.frames) {
    if (pfn === 0) continue;
    if (held.pinned) unpin_user_page(kernel, t, pfn);
    else folio_put(kernel, t, compound_head(kernel.mm.pages, pfn));
  }
  pins.delete(id);
  return 'done';
}

function iovec(context: BindingContext, t: Task, i: number): Outcome {
  const {events} = context;
  const {vectors} = benchOf(context);
  const element = {addr: argNumber(events, i, 0), len: argNumber(events, i, 1)};
  const vector = vectors.get(t.tid);
  if (vector === undefined) vectors.set(t.tid, [element]);
  else vector.push(element);
  return 'done';
}

function open_file(context: BindingContext, _t: Task, i: number): Outcome {
  const {events, strings, files} = context;
  const name = strings[argNumber(events, i, 1)] ?? '';
  const pages = Math.ceil(argNumber(events, i, 2) / PAGE_BYTES);
  benchOf(context).files.set(argNumber(events, i, 0), files.named(name, pages));
  return 'done';
}

export const CONFORMANCE_BINDINGS: BindingTable = [
  [KIND.expect_call, expect_call],
  [KIND.expect_store, expect_store],
  [KIND.expect_load, expect_load],
  [KIND.expect_state, expect_state],
  [KIND.expect_remote, expect_remote],
  [KIND.expect_pin, expect_pin],
  [KIND.expect_pinned, expect_pinned],
  [KIND.unpin, unpin],
];

/** What only prepares a call. */
export const QUICK_CONFORMANCE_BINDINGS: QuickBindingTable = [
  [KIND.iovec, iovec],
  [KIND.open_file, open_file],
];
