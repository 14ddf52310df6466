// mm_struct: the PGD's kernel half and what guards it; the user half is in mm/user_mm.ts.

import type {ExeFile} from './fs/program.ts';
import type {CpuMask} from '../machine/cpumask.ts';
import type {BulkLock} from './locking/bulk_lock.ts';
import type {UserMm} from './mm/user_mm.ts';

/** Numbers of simulated mms; 0 is init_mm. */
export type MmId = number;

/** A page-global directory, or on PAE the level that matters there. */
export interface Pgd {
  /**
   * Kernel-half entries, as the number of the next-level table, 0 for none. Only ever accessed
   * through the machine's store buffers, because creators and walkers race on them.
   */
  readonly cells: Uint32Array;
  /** LineArena line of the PGD page's kernel entries, and of its struct page (list link). */
  readonly entryLine: number;
  readonly pageLine: number;
  /** Owner, for pgd_page_get_mm. */
  mm: MmStruct | null;
  /** Links of pgd_list, null when not listed. */
  next: Pgd | null;
  prev: Pgd | null;
  listed: boolean;
  freed: boolean;
  /** Xen: pinned read-only in the hypervisor. */
  pinned: boolean;
  /** count-at-switch: number of kernel entries this PGD has seen. */
  kernelCount: number;
  /** pgd_alloc has returned: from here on the user half may be filled. */
  allocated: boolean;
}

/** An address space. */
export class MmStruct {
  pgd: Pgd | null = null;
  /** mm_users and mm_count. */
  users = 1;
  count = 1;
  /** tlb_gen: raised by every change that needs a flush. */
  tlbGeneration = 0;
  /** mm_cpumask: CPUs that may hold translations of this mm; null until one has loaded it. */
  cpumask: CpuMask | null = null;
  /** mm->exe_file: the program it runs; null for none. */
  exe: ExeFile | null = null;
  /** LineArena line of mm_users, mm_count and cpumask; -1 before mm_init. */
  line = -1;
  /** Slot of rss_stat in the percpu area, -1 without percpu counters (before 6.2). */
  pcpuSlot = -1;
  /** VMAs, page tables, counters; null until there was a mapping (kernel.mm.userOf). */
  user: UserMm | null = null;

  constructor(
    readonly id: MmId,
    /** mm->page_table_lock. */
    readonly pageTableLock: BulkLock,
  ) {}
}
