// The user half of mm_struct: everything about an address space that only user mappings need. Made
// on the first mapping (Mm.userOf), so that an mm without one, as that of an idle process of a big
// machine, costs a null pointer.
//
// Who writes what: VMAs and totals under mmap_lock for write (mmap.ts and its kind); page tables
// under their page-table locks (memory*.ts); counters in rss.ts's way; `notifierSubscriptions` by
// mmu_notifier.ts; the slots of background daemons by their own files. Addresses are virtual page
// numbers unless a name ends in `Address`.

import type {UserPgd} from '../arch/x86/mm/pgtable.ts';
import type {RwSemaphore} from '../locking/rwsem.ts';
import type {MmStruct} from '../mm_types.ts';
import type {Task} from '../task.ts';
import type {MmuNotifierSubscriptions} from './mmu_notifier.ts';
import {RssCounters} from './rss.ts';
import type {VmaSpace} from './vma_space.ts';

/** mm->flags, Linux's names (6.18). */
export const MMF_VM_MERGEABLE = 1 << 0;
export const MMF_VM_HUGEPAGE = 1 << 1;
export const MMF_OOM_SKIP = 1 << 2;
export const MMF_UNSTABLE = 1 << 3;
export const MMF_HUGE_ZERO_FOLIO = 1 << 4;
export const MMF_DISABLE_THP = 1 << 5;
export const MMF_OOM_REAP_QUEUED = 1 << 6;
export const MMF_MULTIPROCESS = 1 << 7;
export const MMF_HAS_PINNED = 1 << 8;
export const MMF_VM_MERGE_ANY = 1 << 9;
export const MMF_HAS_UPROBES = 1 << 10;
/** An OOM victim's mm (Linux: 4.15 to 5.19; here always, as exit_mmap asks). */
export const MMF_OOM_VICTIM = 1 << 11;
export const MMF_RECALC_UPROBES = 1 << 12;

/** User half of an mm. */
export class UserMm {
  /** MMF_ bits. */
  flags = 0;
  /** mm_lock_seq: a VMA whose lockSeq equals it is write-locked; 6.4+. */
  lockSeq = 1;
  /** pinned_vm; the other totals are in `space`. */
  pinnedVm = 0;
  /** rss_stat; change it only through rss_stat.ts, which traces. */
  readonly rss: RssCounters;
  /** High-water mark of total_vm in pages. */
  hiwaterVm = 0;
  /** Byte addresses of the heap (mm->start_brk, mm->brk): `space` has them rounded up to pages. */
  startBrkAddress = 0;
  brkAddress = 0;
  /** write_protect_seq: odd while fork write-protects (5.11+). */
  writeProtectSeq = 0;
  /** Ongoing MmuGathers (mm_tlb_flush_nested). */
  tlbFlushPending = 0;
  /** Page-fault readers of VMAs that a writer waits for (vma_start_write), null when none does. */
  vmaWriter: Task | null = null;
  /** Null until somebody registered a notifier; then kept until the mm is freed. */
  notifierSubscriptions: MmuNotifierSubscriptions | null = null;
  /** Memory cgroup that new pages are charged to, 0 for the root. */
  memcg = 0;
  /** task_numa_work: scan sequence, where the scan goes on, and when (ticks). */
  numaScanSeq = 0;
  numaScanOffset = 0;
  numaNextScanTick = 0;
  /** mm->hugetlb_usage, in pages of 4 KB: mapped pages of hugetlb, which rss does not count. */
  hugetlbUsage = 0;
  /** ksm: pages merged and rmap_items of this mm; zero pages placed. */
  ksmMergingPages = 0;
  ksmRmapItems = 0;
  ksmZeroPages = 0;
  /** Slots of ksmd and khugepaged, whatever those keep; null when the mm is not on their lists. */
  ksmSlot: object | null = null;
  khugepagedSlot: object | null = null;

  constructor(
    readonly mm: MmStruct,
    readonly pgd: UserPgd,
    readonly space: VmaSpace,
    readonly mmapLock: RwSemaphore,
  ) {
    this.rss = new RssCounters(mm.id);
  }
}
