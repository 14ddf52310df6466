// kernel/fork.c, the mm part: mm_alloc, dup_mm, mm_init, and the two reference counts of an mm.
//
// mm_users counts tasks that use the user half; at 0 exit_mmap tears it down. mm_count counts
// everything that needs the struct and its PGD (mm_users as a whole is one, lazy CPUs are others);
// at 0 __mmdrop frees the PGD. Order of mm_init [4.1]: locks and counters, mm_alloc_pgd,
// init_new_context; [6.2+] then the percpu rss counters. Order of __mmdrop: mm_free_pgd,
// destroy_context, [6.2+] check_mm and the counters, free_mm.
//
// The user half is in mm/dup_mmap.ts and mm/exit_mmap.ts; an mm that never mapped anything has none
// (mm.user is null).

import {assert} from '../machine/assert.ts';
import type {Code} from '../machine/process.ts';
import {dup_mm_exe_file, put_mm_exe_file} from './fs/program.ts';
import type {Kernel} from './kernel.ts';
import {chargeHooks} from './life_hooks.ts';
import {dup_mmap} from './mm/dup_mmap.ts';
import {exit_mmap} from './mm/exit_mmap.ts';
import type {MmStruct} from './mm_types.ts';
import {newObject} from './refcount.ts';
import type {Task} from './task.ts';

/** mm_struct with the CPU mask and contexts that follow it, x86-64, 6.18. */
const MM_STRUCT_BYTES = 1_344;

/** mm_alloc: a new mm with nothing in its user half, mm_users 1 and mm_count 1. */
export function* mm_alloc(k: Kernel, t: Task): Code<MmStruct> {
  const mm = allocate_mm(k, t);
  yield* mm_init(k, t, mm);
  return mm;
}

/** dup_mm: a copy of `oldmm` for a child that does not share it; null when there is no memory. */
export function* dup_mm(k: Kernel, t: Task, oldmm: MmStruct): Code<MmStruct | null> {
  const mm = allocate_mm(k, t);
  yield* mm_init(k, t, mm);
  yield* dup_mm_exe_file(k, t, mm, oldmm);
  // Frames: these wait often, far below their callers.
  if ((yield dup_mmap(k, t, mm, oldmm)) === 0) return mm;
  yield* mmput(k, t, mm);
  return null;
}

function allocate_mm(k: Kernel, t: Task): MmStruct {
  const node = k.machine.topology.nodeOf[t.cpu.id];
  const mm = k.newMm(node);
  mm.line = k.machine.lines.allocate(node);
  newObject(k, t, MM_STRUCT_BYTES, k.costs.copyKibTicks, k.fns.dup_mm);
  t.cpu.stall(k.machine.lines.touch(mm.line, t.cpu), k.fns.dup_mm);
  return mm;
}

function* mm_init(k: Kernel, t: Task, mm: MmStruct): Code {
  chargeHooks(k, t, 'mm_init', k.fns.mm_init);
  yield* k.pgd.pgd_alloc(t, mm);
  if (mm.pgd !== null) mm.pgd.allocated = true;
  k.mmCounts.pgdAllocs++;
  t.cpu.charge(k.costs.initNewContextTicks, k.fns.mm_init);
  if (k.mmCounters !== null) yield* k.mmCounters.init(t, mm);
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
  yield exit_mmap(k, t, mm);
  yield* put_mm_exe_file(k, t, mm);
  yield* mmdrop(k, t, mm);
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
  chargeHooks(k, t, 'mm_free', k.fns.mmdrop);
  t.cpu.charge(k.costs.slabFreeTicks, k.fns.mmdrop);
  k.taskList.forgetMm(mm);
  if (mm.user !== null) k.mm.forget(mm);
  k.machine.lines.release(mm.line);
  mm.line = -1;
  if (!mm.pageTableLock.isHeld) mm.pageTableLock.destroy();
}
