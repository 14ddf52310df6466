// for_each_process_thread(g, p), the walk of the first two lockless postings: every thread, so the
// PGD of a process with a hundred threads is visited a hundred times. The first posting holds
// nothing that keeps p->mm alive while it works on it, and loads p->mm anew for each use; the
// second takes task_lock(p).
//
// Both walk without rcu_read_lock in sync_global_pgds. With pgd_lock held that is safe only where a
// disabled preemption holds up a grace period, which preemptible RCU before 4.20 did not promise:
// reported as PROVE_RCU would, once a run.

import type {Code} from '../../../../../machine/process.ts';
import type {Kernel} from '../../../../kernel.ts';
import type {MmStruct} from '../../../../mm_types.ts';
import type {PgdVisitor} from '../../../../pgd_design.ts';
import type {Task} from '../../../../task.ts';
import type {KernelPgd} from '../pgd_pool.ts';
import {readMm} from './walk.ts';

/** Reports a walk over the task list outside an RCU read section. */
export function checkRcuHeld(kernel: Kernel, t: Task, where: string): void {
  if (t.rcuDepth > 0) return;
  const {checks} = kernel;
  checks.count('suspicious_rcu_usage');
  if (checks.counters.get('suspicious_rcu_usage') !== 1) return;
  checks.finding(`suspicious RCU usage: ${where} walks the task list without rcu_read_lock`);
}

/**
 * The task that the walk stands on was freed: a grace period ended, which no read section held up.
 */
function isFreed(kernel: Kernel, p: Task): boolean {
  if (p.listSlot >= 0) return false;
  kernel.checks.count('task_use_after_free');
  kernel.checks.finding(`use-after-free: a walk stands on ${p.comm}/${p.tid}, which was freed`);
  return true;
}

/**
 * Visits the PGD of `mm` under its page_table_lock; the mm may be gone by the time the lock is
 * there.
 */
function* visitMm(
  kernel: Kernel,
  t: Task,
  mm: MmStruct,
  visitor: PgdVisitor,
  fn: number,
): Code<boolean> {
  const {cpu} = t;
  const pgd = mm.pgd as KernelPgd | null;
  const lock = mm.pageTableLock;
  if (!lock.acquire(t, fn)) yield* lock.acquireSlow(t, fn);
  let goOn = true;
  if (pgd === null || pgd.freed) {
    kernel.checks.count('pgd_use_after_free');
    kernel.checks.finding(`use-after-free: a walk works on the PGD of mm ${mm.id}, which exited`);
  } else {
    cpu.stall(kernel.machine.lines.touch(pgd.entryLine, cpu), fn);
    if (cpu.settle()) yield;
    goOn = visitor.visit(cpu, pgd);
  }
  if (!lock.release(t)) yield* lock.releaseSlow(t);
  return goOn;
}

/**
 * Posting 1. `derefFirst`: patch 02 as reviewed, which initialises `pgd = p->mm->pgd` before it
 * tests p->mm. Returns the oops when it met a task without mm (kernel thread or zombie), else null.
 */
export function* walkThreadsUnlocked(
  kernel: Kernel,
  t: Task,
  visitor: PgdVisitor,
  derefFirst: boolean,
  fn: number,
): Code<string | null> {
  const {cpu} = t;
  const {taskList} = kernel;
  for (let g = taskList.nextProcess(cpu, null); g !== null; g = taskList.nextProcess(cpu, g)) {
    for (let p = taskList.nextThread(cpu, g, null); p !== null; ) {
      taskList.chargeStep(cpu, p, fn);
      if (cpu.settle()) yield;
      const mm = readMm(kernel, cpu, p);
      if (mm !== null) {
        if (!(yield* visitMm(kernel, t, mm, visitor, fn))) return null;
      } else if (derefFirst) {
        return `BUG: unable to handle kernel NULL pointer dereference: p->mm->pgd of ${p.comm}/${p.tid}`;
      }
      if (isFreed(kernel, p) || isFreed(kernel, g)) return null;
      p = taskList.nextThread(cpu, g, p);
    }
  }
  return null;
}

/** Posting 2: task_lock(p) around every use of p->mm. */
export function* walkThreadsLocked(kernel: Kernel, t: Task, visitor: PgdVisitor, fn: number): Code {
  const {cpu} = t;
  const {taskList} = kernel;
  let goOn = true;
  for (let g = taskList.nextProcess(cpu, null); g !== null; g = taskList.nextProcess(cpu, g)) {
    for (let p = taskList.nextThread(cpu, g, null); p !== null && goOn; ) {
      taskList.chargeStep(cpu, p, fn);
      const lock = p.allocLock!;
      if (!lock.acquire(t, fn)) yield* lock.acquireSlow(t, fn);
      const mm = readMm(kernel, cpu, p);
      if (mm !== null) goOn = yield* visitMm(kernel, t, mm, visitor, fn);
      if (!lock.release(t)) yield* lock.releaseSlow(t);
      if (isFreed(kernel, p) || isFreed(kernel, g)) return;
      p = taskList.nextThread(cpu, g, p);
    }
  }
}
