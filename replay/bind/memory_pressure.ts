// Bindings of the OOM killer, clear_refs, truncation, and breakpoints in files.
//
// oom_score_adj and clear_refs are writes to the calling process's own files in /proc. oom_kill is
// the kill alone, of the process that it names: its memory comes back as after any OOM kill.
// truncate with a length punches a hole of that length; without one the file ends at `start`. From
// then on the file's length is known, and mappings do not make it longer any more.

import {argNumber, argSigned} from '../../formats/columns.ts';
import {KIND} from '../../formats/kinds.ts';
import {uprobesOf} from '../../kernel/events/uprobes.ts';
import {clear_refs_write} from '../../kernel/fs/proc/task_mmu.ts';
import {OOM_SCORE_ADJ_MAX, OOM_SCORE_ADJ_MIN} from '../../kernel/mm/oom_badness.ts';
import {oom_kill_process} from '../../kernel/mm/oom_kill.ts';
import {do_truncate, punch_hole} from '../../kernel/mm/truncate.ts';
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

function* oom_score_adj(context: BindingContext, t: Task, i: number): Code<Outcome> {
  const {kernel, events} = context;
  const adj = argSigned(events, i, 0);
  t.cpu.charge(kernel.machine.topology.syscallEntryTicks, kernel.fns.syscall_entry);
  if (adj < OOM_SCORE_ADJ_MIN || adj > OOM_SCORE_ADJ_MAX) return 'failed';
  if (t.cpu.settle()) yield;
  t.signal!.oomScoreAdj = adj;
  return 'done';
}

function* oom_kill(context: BindingContext, t: Task, i: number): Code<Outcome> {
  const {kernel, events} = context;
  const {oom} = kernel.mm;
  const victim = kernel.taskList.find(context.pidOf(argNumber(events, i, 0)));
  if (victim === null || victim.isKernelThread) return 'failed';
  const fn = oom.fns.oom_kill_process;
  if (!oom.lock.acquire(t, fn)) yield* oom.lock.acquireSlow(t, fn);
  yield* oom_kill_process(oom, t, victim, 0, 0, 0);
  if (!oom.lock.release(t)) yield* oom.lock.releaseSlow(t);
  return 'done';
}

function* clear_refs({kernel, events}: BindingContext, t: Task, i: number): Code<Outcome> {
  if (t.mm === null) return 'skipped';
  t.cpu.charge(kernel.machine.topology.syscallEntryTicks, kernel.fns.syscall_entry);
  const user = kernel.mm.userOf(t.mm);
  return outcomeOf(yield* clear_refs_write(kernel, t, user, argNumber(events, i, 0)));
}

function* truncate(context: BindingContext, t: Task, i: number): Code<Outcome> {
  const {kernel, events, strings, files} = context;
  const name = strings[argNumber(events, i, 0)] ?? '';
  const start = argNumber(events, i, 1);
  const length = argNumber(events, i, 2);
  t.cpu.charge(kernel.machine.topology.syscallEntryTicks, kernel.fns.syscall_entry);
  // Whole pages go; what is left of a page at either end is only cleared.
  const first = Math.ceil(start / PAGE_BYTES);
  if (length === 0) {
    return outcomeOf(yield* do_truncate(kernel, t, files.sized(name), first));
  }
  const end = Math.floor((start + length) / PAGE_BYTES);
  if (end <= first) return 'done';
  return outcomeOf(yield* punch_hole(kernel, t, files.named(name, 0), first, end));
}

/** A breakpoint at an address of the caller goes into the file that is mapped there, for all. */
function* uprobe(context: BindingContext, t: Task, i: number): Code<Outcome> {
  const {kernel, events} = context;
  const vpn = vpnArg(events, i, 0);
  const vma = t.mm?.user?.space.tree.lookup(vpn) ?? null;
  if (vma === null || vma.mapping === null) return 'failed';
  const page = vma.pgoff + (vpn - vma.start);
  const offset = page * PAGE_BYTES + (argNumber(events, i, 0) % PAGE_BYTES);
  t.cpu.charge(kernel.machine.topology.syscallEntryTicks, kernel.fns.syscall_entry);
  const probes = uprobesOf(kernel);
  const result =
    argNumber(events, i, 1) === 0
      ? yield* probes.unregister(t, vma.mapping, offset)
      : yield* probes.register(t, vma.mapping, offset);
  return outcomeOf(result);
}

export const MEMORY_PRESSURE_BINDINGS: BindingTable = [
  [KIND.oom_score_adj, oom_score_adj],
  [KIND.oom_kill, oom_kill],
  [KIND.clear_refs, clear_refs],
  [KIND.truncate, truncate],
  [KIND.uprobe, uprobe],
];
