// kernel/fork.c, the mm part: mm_alloc, dup_mm, mm_init, and the two reference counts of an mm.
//
// mm_users counts tasks that use the user half; at 0 exit_mmap tears it down. mm_count counts everything that needs the
// struct and its PGD (mm_users as a whole is one, lazy CPUs are others); at 0 __mmdrop frees the PGD.
// Order of mm_init [4.1]: locks and counters, mm_alloc_pgd, init_new_context; [6.2+] then the percpu rss counters.
// Order of __mmdrop: mm_free_pgd, destroy_context, [6.2+] check_mm and the counters, free_mm.
//
// The user half is not modelled: dup_mmap and exit_mmap charge the base cost of a small process and warn once each.
// mmap_sem is not taken, so forks of threads of one process do not wait for each other here.

import {assert} from '../machine/assert.ts';
import type {Code} from '../machine/engine.ts';
import type {Kernel} from './kernel.ts';
import type {MmStruct} from './mm_types.ts';
import type {Task} from './task.ts';

const DUP_MMAP_WARNING =
  'fork: VMAs, page tables and anon_vma/i_mmap locks are not modelled; dup_mmap charges a base cost';
const EXIT_MMAP_WARNING =
  'exit: unmapping and freeing of user pages is not modelled; exit_mmap charges a base cost';

/** mm_alloc: a new mm with nothing in its user half, mm_users 1 and mm_count 1. */
export function* mm_alloc(k: Kernel, t: Task): Code<MmStruct> {
  const mm = allocate_mm(k, t);
  yield* mm_init(k, t, mm);
  return mm;
}

/** dup_mm: a copy of `oldmm` for a child that does not share it. */
export function* dup_mm(k: Kernel, t: Task, oldmm: MmStruct): Code<MmStruct> {
  const mm = allocate_mm(k, t);
  yield* mm_init(k, t, mm);
  yield* dup_mmap(k, t, oldmm);
  return mm;
}

function allocate_mm(k: Kernel, t: Task): MmStruct {
  const node = k.machine.topology.nodeOf[t.cpu.id];
  const mm = k.newMm(node);
  mm.line = k.machine.lines.allocate(node);
  t.cpu.charge(k.costs.allocateMmTicks, k.fns.dup_mm);
  t.cpu.stall(k.machine.lines.touch(mm.line, t.cpu), k.fns.dup_mm);
  return mm;
}

function* mm_init(k: Kernel, t: Task, mm: MmStruct): Code {
  t.cpu.charge(k.costs.mmInitTicks, k.fns.mm_init);
  yield* k.pgd.pgd_alloc(t, mm);
  if (mm.pgd !== null) mm.pgd.allocated = true;
  k.mmCounts.pgdAllocs++;
  t.cpu.charge(k.costs.initNewContextTicks, k.fns.mm_init);
  if (k.mmCounters !== null) yield* k.mmCounters.init(t, mm);
}

/** The child's page tables are a copy; the parent's have lost write access, which every CPU has to learn. */
function* dup_mmap(k: Kernel, t: Task, oldmm: MmStruct): Code {
  k.checks.warn(DUP_MMAP_WARNING);
  t.cpu.charge(k.costs.dupMmapBaseTicks, k.fns.dup_mmap);
  yield* k.tlb.flush_tlb_mm(t, oldmm);
}

/** A locked operation on mm_users or mm_count. */
function* atomicOnMm(k: Kernel, t: Task, mm: MmStruct, fn: number): Code {
  if (t.cpu.settle()) yield;
  const {cpu} = t;
  const {lines, storeBuffers, engine} = k.machine;
  cpu.stall(storeBuffers.fence(cpu.id, engine.now), fn);
  if (mm.line >= 0) cpu.stall(lines.rmw(mm.line, cpu), fn);
}

/** mmget. */
export function* mmget(k: Kernel, t: Task, mm: MmStruct): Code {
  yield* atomicOnMm(k, t, mm, k.fns.copy_mm);
  assert(mm.users > 0, 'mmget of an mm without users');
  mm.users++;
}

/** mmgrab: mm_count only. */
export function* mmgrab(k: Kernel, t: Task, mm: MmStruct): Code {
  yield* atomicOnMm(k, t, mm, k.fns.mmdrop);
  mm.count++;
}

/** mmput: the last user tears the user half down and drops the reference that all users shared. */
export function* mmput(k: Kernel, t: Task, mm: MmStruct): Code {
  yield* atomicOnMm(k, t, mm, k.fns.mmput);
  assert(mm.users > 0, 'mmput of an mm without users');
  if (--mm.users > 0) return;
  yield* exit_mmap(k, t, mm);
  yield* mmdrop(k, t, mm);
}

function* exit_mmap(k: Kernel, t: Task, mm: MmStruct): Code {
  k.checks.warn(EXIT_MMAP_WARNING);
  t.cpu.charge(k.costs.exitMmapBaseTicks, k.fns.exit_mmap);
  yield* k.tlb.flush_tlb_mm(t, mm);
}

/** mmdrop: the last reference frees the PGD. */
export function* mmdrop(k: Kernel, t: Task, mm: MmStruct): Code {
  yield* atomicOnMm(k, t, mm, k.fns.mmdrop);
  assert(mm.count > 0, 'mmdrop of an mm without references');
  if (--mm.count > 0) return;
  k.tlb.dropMm(mm);
  yield* k.pgd.pgd_free(t, mm);
  k.mmCounts.pgdFrees++;
  if (mm.pcpuSlot >= 0 && k.mmCounters !== null) yield* k.mmCounters.destroy(t, mm);
  t.cpu.charge(k.costs.freeMmTicks, k.fns.mmdrop);
  k.taskList.forgetMm(mm);
  k.machine.lines.release(mm.line);
  mm.line = -1;
  if (!mm.pageTableLock.isHeld) mm.pageTableLock.destroy();
}
