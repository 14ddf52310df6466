// Bindings of what concerns memory nodes: moving pages, NUMA hinting, policies, and walks over the
// cache lines of pages, whose time is that of the node where each page is.
//
// A walk is a loop over memory that does not fit the caches: every line comes from memory. It is
// how generated traces show where their memory is; how many lines came from the own and from other
// nodes is counted. migrate_pages of length 0 is migrate_pages(2), of a range move_pages(2) with
// MPOL_MF_MOVE.

import {argNumber} from '../../formats/columns.ts';
import {KIND} from '../../formats/kinds.ts';
import {hardwareWalk, LEAF, walkSlot} from '../../kernel/arch/x86/mm/pgtable.ts';
import {
  PTE_HUGE,
  PTE_KIND,
  PTE_PRESENT,
  PTE_SPECIAL,
} from '../../kernel/arch/x86/mm/pgtable_bits.ts';
import {userAccess, userAccessSlow} from '../../kernel/arch/x86/mm/user_fault.ts';
import type {Kernel} from '../../kernel/kernel.ts';
import {do_mbind} from '../../kernel/mm/mempolicy.ts';
import {do_migrate_pages, do_pages_move} from '../../kernel/mm/migrate_move.ts';
import {mmap_read_lock, mmap_read_unlock} from '../../kernel/mm/mmap_lock.ts';
import {change_prot_numa} from '../../kernel/mm/mprotect_walk.ts';
import type {UserMm} from '../../kernel/mm/user_mm.ts';
import {
  FAULT_NONE,
  FAULT_NUMA,
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
  outcomeOf,
  PAGE_BYTES,
  vpnArg,
} from './binding.ts';

/**
 * Pages of a walk between two looks at the clock, task work and need_resched: pages that need no
 * fault are read as they are at the beginning of such a run, some 15 us.
 */
const LOOK_PAGES = 16;

function pagesArg({events}: BindingContext, i: number, k: number): number {
  return Math.ceil(argNumber(events, i, k) / PAGE_BYTES);
}

function* migrate_pages(context: BindingContext, t: Task, i: number): Code<Outcome> {
  const {kernel, events} = context;
  const node = argNumber(events, i, 2);
  const user = t.mm?.user ?? null;
  if (user === null) return 'skipped';
  if (node >= kernel.machine.topology.nodeCount) {
    kernel.checks.warn('migrate_pages to a node that the machine does not have');
    return 'skipped';
  }
  const pages = pagesArg(context, i, 1);
  const result =
    pages === 0
      ? yield* do_migrate_pages(kernel, t, user, node)
      : yield* do_pages_move(kernel, t, user, vpnArg(events, i, 0), pages, node, false);
  return result.failed > 0 ? 'failed' : 'done';
}

function* numa_scan(context: BindingContext, t: Task, i: number): Code<Outcome> {
  const {kernel, events} = context;
  const user = t.mm?.user ?? null;
  if (user === null) return 'skipped';
  const start = vpnArg(events, i, 0);
  const end = start + pagesArg(context, i, 1);
  const {migration} = kernel.mm;
  yield* mmap_read_lock(t, user, migration.fns.task_numa_work);
  for (let at = start; at < end; ) {
    const vma = user.space.tree.find(at);
    if (vma === null || vma.start >= end) break;
    const from = Math.max(at, vma.start);
    at = Math.min(vma.end, end);
    migration.count('numa_pte_updates', yield* change_prot_numa(kernel, t, vma, from, at));
  }
  yield* mmap_read_unlock(t, user);
  return 'done';
}

function* mbind(context: BindingContext, t: Task, i: number): Code<Outcome> {
  const {kernel, events} = context;
  if (t.mm === null) return 'skipped';
  const mask = argNumber(events, i, 3);
  const nodes: number[] = [];
  for (let node = 0; node < 32; node++) if ((mask & (1 << node)) !== 0) nodes.push(node);
  const start = vpnArg(events, i, 0);
  const pages = pagesArg(context, i, 1);
  const mode = argNumber(events, i, 2);
  return outcomeOf(yield* do_mbind(kernel, t, start, pages, mode, nodes, true));
}

/** Node of the page that `vpn` maps, -1 for none. */
function nodeOfPage(k: Kernel, user: UserMm, vpn: number): number {
  const {pt, pages} = k.mm;
  const slot = walkSlot(user.pgd, vpn);
  const word = pt.flags[slot];
  if ((word & PTE_KIND) !== PTE_PRESENT || (word & PTE_SPECIAL) !== 0) return -1;
  const span = (word & PTE_HUGE) === 0 ? 0 : vpn % (pt.level[slot >>> 9] === 1 ? 512 : 2 ** 18);
  return pages.nodeOf((pt.entries[slot] & ~LEAF) + span);
}

/**
 * The rest of an access that was not over at once; a write is made again after a hinting fault, for
 * what the page moved to is mapped read-only.
 */
function* finishAccess(k: Kernel, t: Task, vpn: number, code: number, first: number): Code<number> {
  let result = first;
  for (;;) {
    if (result < 0) result = yield* userAccessSlow(k, t, vpn, code, result);
    if (result !== FAULT_NUMA || (code & X86_PF_WRITE) === 0) return result;
    result = userAccess(k, t, vpn, code);
  }
}

function* walk_lines(context: BindingContext, t: Task, i: number): Code<Outcome> {
  const {kernel, events} = context;
  const user = t.mm?.user ?? null;
  if (user === null) return 'skipped';
  const {sched, checks, mm} = kernel;
  const {topology} = kernel.machine;
  const start = vpnArg(events, i, 0);
  const pages = argNumber(events, i, 1);
  const stride = argNumber(events, i, 2);
  const write = argNumber(events, i, 3) !== 0;
  const code = X86_PF_USER | (write ? X86_PF_WRITE : 0);
  const lines = argNumber(events, i, 4);
  const share = lines / Math.max(1, argNumber(events, i, 5));
  let local = 0;
  let remote = 0;
  let outcome: Outcome = 'done';
  for (let n = 0; n < pages && !t.sigkill; n++) {
    if (n % LOOK_PAGES === 0) {
      if (sched.taskWork?.due(t)) yield* sched.taskWork.run(t);
      if (sched.needsResched(t)) yield* sched.condResched(t);
      if (t.cpu.settle()) yield;
    }
    const vpn = start + n * stride;
    let result: number = FAULT_NONE;
    if (hardwareWalk(user.pgd, vpn, write) < 0) {
      result = userAccess(kernel, t, vpn, code);
      result = yield* finishAccess(kernel, t, vpn, code, result);
    }
    if (result === FAULT_SIGSEGV || result === FAULT_SIGBUS || result === FAULT_OOM) {
      outcome = 'failed';
      continue;
    }
    const cpu = t.cpu.id;
    const own = topology.nodeOf[cpu];
    const node = nodeOfPage(kernel, user, vpn);
    if (node < 0 || node === own) local += lines;
    else remote += lines;
    t.cpu.stall(
      Math.round(topology.memoryTicks(cpu, node < 0 ? own : node) * share),
      mm.fns.user_access,
    );
  }
  if (local > 0) checks.count('user_lines_local', local);
  if (remote > 0) checks.count('user_lines_remote', remote);
  return outcome;
}

export const NUMA_BINDINGS: BindingTable = [
  [KIND.migrate_pages, migrate_pages],
  [KIND.numa_scan, numa_scan],
  [KIND.mbind, mbind],
  [KIND.walk_lines, walk_lines],
];
