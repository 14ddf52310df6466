// The interface of the `pgd` axis: how PGDs come and go, and how changes of the kernel half reach
// all of them. Every choice is one file in arch/x86/mm/pgd/ that reads like the patch it stands
// for, defects included.
//
// Kernel virtual addresses are page numbers here: address >>> 12 as an unsigned 52-bit integer,
// exact in a double. Every method is simulated code: it takes the locks, charges the costs and
// yields as the kernel would.

import type {Cpu} from '../machine/cpu.ts';
import type {Code} from '../machine/process.ts';
import type {KernelPgd} from './arch/x86/mm/pgd_pool.ts';
import type {SpinLock} from './locking/spinlock.ts';
import type {MmStruct} from './mm_types.ts';
import type {Task} from './task.ts';

/** What a walk over PGDs does at each of them. */
export interface PgdVisitor {
  /** The walk takes mm->page_table_lock around each visit. */
  readonly locksPageTable: boolean;
  /** Acts on `pgd`, whose lines are here. False ends the walk. */
  visit(cpu: Cpu, pgd: KernelPgd): boolean;
}

/** A choice of the `pgd` axis. */
export interface PgdDesign {
  readonly name: string;
  /**
   * mm_init: allocates mm->pgd, with whatever of the kernel half and of the list the design does
   * here.
   */
  pgd_alloc(t: Task, mm: MmStruct): Code;
  /** __mmdrop: unlists and frees mm->pgd. */
  pgd_free(t: Task, mm: MmStruct): Code;
  /**
   * Called by fork after the child is on the task list (after write_unlock of tasklist_lock), and
   * by exec_mmap under task_lock after tsk->mm is set. Null in designs without it.
   */
  arch_pgd_init_late: ((t: Task, mm: MmStruct) => Code) | null;
  /**
   * Copies reference entries of [startVpn, endVpn] to every PGD; `removed` clears instead (kernels
   * up to 4.7).
   */
  sync_global_pgds(t: Task, startVpn: number, endVpn: number, removed: boolean): Code;
  /** vmalloc_sync_all over the vmalloc range. */
  vmalloc_sync_all(t: Task): Code;
  /** Called by vmalloc after it populated a new top-level reference entry. */
  arch_sync_kernel_mappings(t: Task, startVpn: number, endVpn: number): Code;
  /**
   * Context switch to `mm` on the task's CPU: extra work of count-at-switch; null in the others.
   */
  switch_mm: ((t: Task, mm: MmStruct) => void) | null;
  /** Guards walks over PGDs, and in the list designs the list. */
  readonly pgd_lock: SpinLock;
  /** Visits every PGD that the design can find; the caller holds pgd_lock. For CPA and Xen. */
  walkAll(t: Task, visitor: PgdVisitor, fn: number): Code;
}
