// Bindings of access (one recorded page fault) and touch (a run of pages, in generated traces). The
// access is made as the hardware makes it: what the page table allows is no fault. An uncontended
// minor fault is over in the quick half.

import {argNumber} from '../../formats/columns.ts';
import {KIND} from '../../formats/kinds.ts';
import {
  faultSlow,
  mustYield,
  userAccess,
  userAccessSlow,
} from '../../kernel/arch/x86/mm/user_fault.ts';
import {
  FAULT_NUMA,
  FAULT_KILLED,
  FAULT_OOM,
  FAULT_SIGBUS,
  FAULT_SIGSEGV,
  X86_PF_USER,
  X86_PF_WRITE,
} from '../../kernel/mm/vm_fault.ts';
import type {Task} from '../../kernel/task.ts';
import type {Code} from '../../machine/process.ts';
import {FIRST_INFERRED, type PageContents} from '../contents.ts';
import {isBeforeProgram} from './before_program.ts';
import {
  type BindingContext,
  type BindingTable,
  BLOCKS,
  LATER,
  type Outcome,
  type QuickBindingTable,
  type QuickOutcome,
  vpnArg,
} from './binding.ts';

const OUTSIDE =
  'access: outside every mapping that the trace has; no page is mapped (SIGSEGV is not delivered)';
const UNKNOWN =
  'accesses of a process that is older than the recording, which does not say what it maps: ' +
  'none is modelled; record the program from its start';
const BEFORE_PROGRAM =
  'accesses of the recorder before it started the program were left out: ' +
  'what it maps is in no recording';

/** What became of a fault. */
function outcomeOf({kernel}: BindingContext, faultClass: number): Outcome {
  if (faultClass === FAULT_OOM || faultClass === FAULT_KILLED) return 'failed';
  if (faultClass === FAULT_SIGBUS) {
    kernel.checks.count('sigbus');
    kernel.checks.warn('access: beyond the end of a file (SIGBUS is not delivered)');
    return 'failed';
  }
  if (faultClass !== FAULT_SIGSEGV) return 'done';
  kernel.checks.count('outside_vma');
  kernel.checks.warn(OUTSIDE);
  return 'failed';
}

/**
 * A process of which no mapping is known: what it mapped before the trace began was never written
 * down.
 */
function unknownProcess({kernel, events}: BindingContext, t: Task, i: number): Outcome {
  const {checks, fns, machine} = kernel;
  t.cpu.charge(machine.topology.pageFaultEntryTicks, fns.do_user_addr_fault);
  checks.count('outside_vma');
  if (isBeforeProgram(events, i)) checks.note(BEFORE_PROGRAM);
  else checks.warn(UNKNOWN);
  return 'failed';
}

function isUnknown(t: Task): boolean {
  return t.mm === null || t.mm.user === null;
}

/**
 * userAccess and, where the clock had to catch up first, once more: others may have mapped the
 * page.
 */
function quickAccess(context: BindingContext, t: Task, i: number, from: number): QuickOutcome {
  if (from === 0 && isUnknown(t)) return unknownProcess(context, t, i);
  const {events, kernel} = context;
  const errorCode = argNumber(events, i, 1) & ~PROTECTION;
  const vpn = vpnArg(events, i, 0);
  const result = userAccess(kernel, t, vpn, errorCode);
  if (result < 0) {
    const again = mustYield(t, result);
    context.resume = again && from !== 0 ? from : result;
    return again && from === 0 ? LATER : BLOCKS;
  }
  if (context.contents !== null) noteWrite(context.contents, t, vpn, errorCode);
  return outcomeOf(context, result);
}

function noteWrite(contents: PageContents, t: Task, vpn: number, errorCode: number): void {
  if ((errorCode & X86_PF_WRITE) !== 0) contents.wrote(t, vpn);
}

/** X86_PF_PROT says what the recorded page table held; here the model's own decides. */
const PROTECTION = 1;

function* access(context: BindingContext, t: Task, i: number): Code<Outcome> {
  const {events, kernel, resume} = context;
  const errorCode = argNumber(events, i, 1) & ~PROTECTION;
  const vpn = vpnArg(events, i, 0);
  const result = yield* faultSlow(kernel, t, vpn, errorCode, resume);
  if (context.contents !== null) noteWrite(context.contents, t, vpn, errorCode);
  return outcomeOf(context, result);
}

/** Pages of a run between two looks at task work, less one. */
const LOOK_MASK = 63;

function* touch(context: BindingContext, t: Task, i: number): Code<Outcome> {
  if (isUnknown(t)) return unknownProcess(context, t, i);
  const {events, kernel, contents} = context;
  const start = vpnArg(events, i, 0);
  const pages = argNumber(events, i, 1);
  const stride = argNumber(events, i, 2);
  const code = X86_PF_USER | (argNumber(events, i, 3) === 0 ? 0 : X86_PF_WRITE);
  const {taskWork} = kernel.sched;
  let outcome: Outcome = 'done';
  for (let n = 0; n < pages; n++) {
    if (taskWork !== null && (n & LOOK_MASK) === 0 && taskWork.due(t)) yield* taskWork.run(t);
    const vpn = start + n * stride;
    let result = userAccess(kernel, t, vpn, code);
    if (result < 0) result = yield* userAccessSlow(kernel, t, vpn, code, result);
    // A page that moved is mapped read-only: the write is made again.
    if (result === FAULT_NUMA && (code & X86_PF_WRITE) !== 0) {
      result = userAccess(kernel, t, vpn, code);
      if (result < 0) result = yield* userAccessSlow(kernel, t, vpn, code, result);
    }
    if (contents !== null) noteWrite(contents, t, vpn, code);
    const one = outcomeOf(context, result);
    if (one !== 'done') outcome = one;
    if (t.sigkill) break;
  }
  return outcome;
}

/** As touch for writing, with what the pages hold afterwards. */
function* write_content(context: BindingContext, t: Task, i: number): Code<Outcome> {
  if (isUnknown(t)) return unknownProcess(context, t, i);
  const {events, kernel, contents} = context;
  const start = vpnArg(events, i, 0);
  const pages = argNumber(events, i, 1);
  const stride = argNumber(events, i, 2);
  const content = argNumber(events, i, 3);
  const step = argNumber(events, i, 4);
  const code = X86_PF_USER | X86_PF_WRITE;
  let outcome: Outcome = 'done';
  for (let n = 0; n < pages; n++) {
    const vpn = start + n * stride;
    let result = userAccess(kernel, t, vpn, code);
    if (result < 0) result = yield* userAccessSlow(kernel, t, vpn, code, result);
    contents!.set(t, vpn, (content + n * step) % FIRST_INFERRED);
    const one = outcomeOf(context, result);
    if (one !== 'done') outcome = one;
    if (t.sigkill) break;
  }
  return outcome;
}

export const ACCESS_BINDINGS: BindingTable = [
  [KIND.access, access],
  [KIND.touch, touch],
  [KIND.write_content, write_content],
];

export const QUICK_ACCESS_BINDINGS: QuickBindingTable = [[KIND.access, quickAccess]];
