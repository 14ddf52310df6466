// Walks over PGDs, in the two ways there are: along pgd_list, and along the task list. Each visit
// pays for what it touches, one line at a time, and settles before it looks, so that other CPUs act
// at their own times between two visits.
//
// What a visit costs: the struct page of the PGD (the list link) or the task_struct, task_lock and
// mm_struct; the locked operation on mm->page_table_lock ("only for Xen", but always taken); the
// line of the entry. A walk over more PGDs than a cache holds finds even its own lines evicted:
// `evictedTicks` is the floor for that.
//
// Per visit nothing is allocated. The caller holds pgd_lock, so its CPU does not change during the
// walk.

import type {Cpu} from '../../../../../machine/cpu.ts';
import type {Code} from '../../../../../machine/process.ts';
import {nsToTicks} from '../../../../../machine/time.ts';
import type {Kernel} from '../../../../kernel.ts';
import type {MmStruct} from '../../../../mm_types.ts';
import type {PgdVisitor} from '../../../../pgd_design.ts';
import type {Task} from '../../../../task.ts';
import type {KernelPgd} from '../pgd_pool.ts';
import type {PgdList} from './list.ts';

/**
 * Lines that a visit touches, and the sizes of L1 and L2 in lines (32 KiB, 1 MiB): assumption, for
 * the floor below.
 */
const LINES_PER_VISIT = 3;
const L1_LINES = 512;
const L2_LINES = 16_384;
const L2_TICKS = nsToTicks(4);
const L3_TICKS = nsToTicks(18);

/**
 * Least ticks of a line in a walk over `visits` PGDs: from L2 or L3 once the walk is larger than
 * what is nearer.
 */
function evictedTicks(visits: number): number {
  const lines = visits * LINES_PER_VISIT;
  if (lines <= L1_LINES) return 0;
  return lines <= L2_LINES ? L2_TICKS : L3_TICKS;
}

/** list_for_each_entry(page, &pgd_list, lru). */
export function* walkPgdList(
  kernel: Kernel,
  t: Task,
  list: PgdList,
  visitor: PgdVisitor,
  fn: number,
): Code {
  const {cpu} = t;
  const {lines} = kernel.machine;
  const stepTicks = kernel.costs.walkStepTicks;
  const floor = evictedTicks(list.count);
  const locks = visitor.locksPageTable;
  let goOn = true;
  for (let pgd = list.first; pgd !== null && goOn; pgd = pgd.next) {
    const pageTicks = lines.touch(pgd.pageLine, cpu);
    cpu.stall(stepTicks + Math.max(floor, pageTicks), fn);
    const lock = pgd.page_table_lock!;
    if (locks && !lock.acquire(t, fn)) yield* lock.acquireSlow(t, fn);
    const entryTicks = lines.touch(pgd.entryLine, cpu);
    cpu.stall(Math.max(floor, entryTicks), fn);
    if (cpu.settle()) yield;
    goOn = visitor.visit(cpu, pgd);
    if (locks && !lock.release(t)) yield* lock.releaseSlow(t);
  }
}

/**
 * READ_ONCE(p->mm): while no store waits in any store buffer, what the task object says is what
 * memory says.
 */
export function readMm(kernel: Kernel, cpu: Cpu, p: Task): MmStruct | null {
  return kernel.machine.storeBuffers.pending === 0 ? p.mm : kernel.taskList.loadMm(cpu, p);
}

/**
 * for_each_process(g) with find_lock_task_mm(g), as in the posting of September 2015: one visit per
 * process, a leader that is gone does not hide its threads, and task_lock keeps the mm. The caller
 * is in an RCU read section.
 */
export function* walkProcesses(kernel: Kernel, t: Task, visitor: PgdVisitor, fn: number): Code {
  const {cpu} = t;
  const {taskList} = kernel;
  const {lines} = kernel.machine;
  const locks = visitor.locksPageTable;
  let goOn = true;
  for (let g = taskList.nextProcess(cpu, null); g !== null && goOn; ) {
    taskList.chargeStep(cpu, g, fn);
    if (cpu.settle()) yield;
    const p = yield* lockFirstWithMm(kernel, t, g, fn);
    if (p !== null) {
      const pgd = readMm(kernel, cpu, p)!.pgd as KernelPgd;
      const lock = pgd.page_table_lock!;
      if (locks && !lock.acquire(t, fn)) yield* lock.acquireSlow(t, fn);
      cpu.stall(lines.touch(pgd.entryLine, cpu), fn);
      if (cpu.settle()) yield;
      goOn = visitor.visit(cpu, pgd);
      if (locks && !lock.release(t)) yield* lock.releaseSlow(t);
      const taskLock = p.allocLock!;
      if (!taskLock.release(t)) yield* taskLock.releaseSlow(t);
    }
    g = taskList.nextProcess(cpu, g);
  }
}

/**
 * find_lock_task_mm: the leader in the usual case, which goes without the general loop over its
 * threads.
 */
function* lockFirstWithMm(kernel: Kernel, t: Task, g: Task, fn: number): Code<Task | null> {
  const {taskList} = kernel;
  if (readMm(kernel, t.cpu, g) !== null && taskList.nextThread(t.cpu, g, null) === g) {
    const lock = g.allocLock!;
    if (!lock.acquire(t, fn)) yield* lock.acquireSlow(t, fn);
    if (readMm(kernel, t.cpu, g) !== null) return g;
    if (!lock.release(t)) yield* lock.releaseSlow(t);
  }
  return yield* taskList.find_lock_task_mm(t, g, fn);
}
