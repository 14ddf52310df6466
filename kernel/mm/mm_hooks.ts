// The places where fault, fork and unmap hand a page-table entry to somebody else: swap, huge
// pages, NUMA, userfaultfd, KSM, reclaim. Each owner installs its functions in kernel.mm.hooks when
// its module is made; what is null is not there, and meeting such an entry is then a bug of ours.
// Plain functions run under the page-table lock and must not wait.

import type {Code} from '../../machine/process.ts';
import type {MmStruct} from '../mm_types.ts';
import type {Task} from '../task.ts';
import type {AddressSpace} from './address_space.ts';
import type {ZapDetails} from './memory_zap.ts';
import type {MmuGather} from './mmu_gather.ts';
import type {UserMm} from './user_mm.ts';
import type {VmFault} from './vm_fault.ts';
import type {VmArea} from './vma.ts';

type FaultHook = (t: Task, vmf: VmFault) => Code<number>;

/** Installed by the owners named in the comments. Fault hooks return VM_FAULT_ bits. */
export interface MmHooks {
  /**
   * SWAP: entry of kind PTE_SWAP; vmf.slot is the PTE, vmf.word its flags when the fault looked. No
   * PTL held.
   */
  do_swap_page: FaultHook | null;
  /** SWAP: one more / one less PTE refers to the swap entries [entry, entry + n). Under the PTL. */
  swap_duplicate: ((entry: number, n: number) => void) | null;
  free_swap_and_cache: ((entry: number, n: number) => void) | null;
  /**
   * SWAP: swap cache: lets go of a folio that nothing else needs there; tries to free its slot;
   * PTEs' swap references.
   */
  free_swap_cache: ((t: Task, head: number) => void) | null;
  folio_free_swap: ((t: Task, head: number) => void) | null;
  page_swapcount: ((head: number) => number) | null;
  /** SWAP: memory is below a watermark: wake kswapd of `node` (plain). */
  wakeup_kswapd: ((t: Task, node: number, order: number) => void) | null;
  /** SWAP: direct reclaim (and, when that fails, the OOM killer). False: the allocation fails. */
  try_to_free_pages:
    | ((t: Task, node: number, order: number, memcg: number) => Code<boolean>)
    | null;
  /**
   * SWAP: charge `n` pages to a memcg. False: over the limit, reclaim with memcg_reclaim and try
   * again.
   */
  try_charge: ((memcg: number, n: number) => boolean) | null;
  uncharge: ((memcg: number, n: number) => void) | null;
  memcg_reclaim: ((t: Task, memcg: number, n: number) => Code<boolean>) | null;

  /**
   * OOM: out_of_memory for an allocation of 2^order pages that reclaim could not help. False:
   * nobody can be killed, the allocation fails.
   */
  out_of_memory: ((t: Task, node: number, order: number) => Code<boolean>) | null;
  /** OOM: the same for a cgroup at its limit; true: charge again. */
  mem_cgroup_oom: ((t: Task, memcg: number, n: number) => Code<boolean>) | null;
  /** OOM: a user fault ended with VM_FAULT_OOM. True: take the fault again. */
  pagefault_out_of_memory: ((t: Task) => Code<boolean>) | null;
  /** OOM: exit_mmap of a victim begins (`torn` false), and has freed everything. */
  oom_exit_mmap: ((t: Task, user: UserMm, torn: boolean) => Code) | null;

  /** SWAP: a file page with a shadow entry came back (workingset_refault). */
  workingset_refault: ((t: Task, head: number, shadow: number) => void) | null;
  /** SWAP: a shmem page that is swapped out: brings it back into the cache. */
  shmem_swapin: ((t: Task, mapping: AddressSpace, index: number) => Code<boolean>) | null;
  /**
   * SHMEM: swapoff: brings in all entries of an area, or just `entry`. Number of them, or -errno.
   */
  shmem_unuse: ((t: Task, type: number, entry: number) => Code<number>) | null;

  /** BACKGROUND: waits until the migration of the page at vmf.slot is over. */
  migration_entry_wait: FaultHook | null;
  /** Owner of the device: device-private (migrate_to_ram) and device-exclusive entries. */
  do_device_fault: FaultHook | null;
  /** BACKGROUND: PTE_PROTNONE in an accessible VMA. */
  do_numa_page: FaultHook | null;
  /** BACKGROUND: node by the VMA's memory policy. Plain. */
  policyNode: ((t: Task, vma: VmArea, vpn: number) => number) | null;
  /** HUGE (ksm.ts): a PTE of KSM's page of zeros (special and dirty) is unmapped or copied. */
  ksm_zap: ((user: UserMm) => void) | null;
  /**
   * USERFAULTFD, installed with a kernel's first context: `reason` is VM_UFFD_MISSING, VM_UFFD_WP
   * or UFFD_REASON_MINOR. VM_FAULT_UNLOCKED: the lock of the fault has been given up.
   */
  handle_userfault: ((t: Task, vmf: VmFault, reason: number) => Code<number>) | null;
  /** Fork: the child's copy of a registered VMA; after all locks are given up. */
  dup_userfaultfd: ((t: Task, vma: VmArea, parent: VmArea) => void) | null;
  dup_userfaultfd_complete: ((t: Task, failed: boolean) => Code) | null;
  /** munmap of [start, end) of a registered VMA; after mmap_lock is given up. */
  userfaultfd_unmap_prep: ((t: Task, vma: VmArea, start: number, end: number) => void) | null;
  userfaultfd_unmap_complete: ((t: Task) => Code) | null;
  /** mremap: the new place of a registered VMA; after mmap_lock is given up (`to` < 0: failed). */
  mremap_userfaultfd_prep: ((t: Task, vma: VmArea) => void) | null;
  mremap_userfaultfd_complete: ((t: Task, from: number, to: number, pages: number) => Code) | null;
  /** The VMA's context wants to hear of mremap, and its write protection moves along. */
  keepsUffdOnRemap: ((vma: VmArea) => boolean) | null;
  /** MADV_DONTNEED and its kin, mmap_lock held for reading. False: it has been given up. */
  userfaultfd_remove:
    | ((t: Task, user: UserMm, vma: VmArea, start: number, end: number) => Code<boolean>)
    | null;

  /**
   * HUGE: thp_vma_suitable: true when a fault at this empty PMD should try create_huge_pmd. Plain,
   * hot.
   */
  wantsHugePmd: ((vma: VmArea, vpn: number) => boolean) | null;
  /** HUGE: order above 0 that an anonymous fault should try (mTHP), 0 for none. Plain, hot. */
  anonOrder: ((vma: VmArea, vpn: number) => number) | null;
  /** HUGE: VM_FAULT_FALLBACK makes the caller go on with PTEs. vmf.pmdSlot is the entry. */
  create_huge_pmd: FaultHook | null;
  wp_huge_pmd: FaultHook | null;
  do_huge_pmd_numa_page: FaultHook | null;
  huge_pmd_set_accessed: ((t: Task, vmf: VmFault) => void) | null;
  /**
   * HUGE: copies one huge PMD/PUD (swap and migration entries too). False: split it and copy PTEs.
   */
  copy_huge_pmd:
    | ((
        t: Task,
        dst: MmStruct,
        src: MmStruct,
        dstVma: VmArea,
        srcVma: VmArea,
        slot: number,
        vpn: number,
      ) => boolean)
    | null;
  /**
   * HUGE: unmaps a huge entry that lies wholly in the range: rmap, rss, deposit, queueing the folio
   * in `tlb`.
   */
  zap_huge: ((t: Task, tlb: MmuGather, vma: VmArea, slot: number, vpn: number) => void) | null;
  /** HUGE: __split_huge_pmd, with its own notification. */
  split_huge: ((t: Task, vma: VmArea, slot: number, vpn: number) => Code) | null;

  /**
   * HUGE: change_huge_pmd: a huge entry that lies wholly in the range of change_protection (with
   * other ranges: split_huge first). `protNone`: the VMA's new protection allows nothing (or NUMA
   * hinting); `tryWritable`: write access may come back (MM_CP_TRY_CHANGE_WRITABLE). Returns the
   * pages changed; what must be flushed is told to `tlb`. Plain, takes the PTL itself.
   */
  change_huge_pmd:
    | ((
        t: Task,
        tlb: MmuGather,
        vma: VmArea,
        slot: number,
        vpn: number,
        protNone: boolean,
        tryWritable: boolean,
      ) => number)
    | null;
  /**
   * HUGE: move_huge_pmd: mremap of 2 MB that both ranges have aligned; flushes. False: split it and
   * move PTEs.
   */
  move_huge_pmd:
    | ((t: Task, oldVma: VmArea, newVma: VmArea, oldVpn: number, newVpn: number) => Code<boolean>)
    | null;
  /** HUGE: dup_mmap, when the parent is on that list; exit_mmap, before page tables go. */
  khugepaged_fork: ((t: Task, child: MmStruct, parent: MmStruct) => void) | null;
  khugepaged_exit: ((t: Task, mm: MmStruct) => Code) | null;
  /** HUGE (ksm.ts): dup_mmap of an mm that is mergeable; exit_mmap, before page tables go. */
  ksm_fork: ((t: Task, child: MmStruct, parent: MmStruct) => void) | null;
  ksm_exit: ((t: Task, mm: MmStruct) => Code) | null;
  /** KSM: t is about to get the new image `mm`. */
  ksm_execve: ((t: Task, mm: MmStruct) => void) | null;

  /**
   * HUGE: may a write reuse a page of this large folio in place (__wp_can_reuse_large_anon_folio)?
   * Under the PTL.
   */
  wp_can_reuse_large: ((t: Task, vmf: VmFault, head: number) => boolean) | null;
  /**
   * HUGE: a large folio is freed: off the deferred split list; pages of it were unmapped: onto that
   * list.
   */
  undo_large_folio: ((t: Task, head: number) => void) | null;
  deferred_split_folio: ((t: Task, head: number, partiallyMapped: boolean) => void) | null;
  /**
   * HUGE: split_folio of a large anonymous folio to single pages. The caller holds a reference,
   * which goes with page `keep` of it. False: somebody else refers to it.
   */
  split_folio: ((t: Task, head: number, keep: number) => Code<boolean>) | null;

  /** HUGE: hugetlbfs mappings. */
  free_huge_folio: ((t: Task, head: number) => void) | null;
  hugetlb_fault: FaultHook | null;
  copy_hugetlb_page_range:
    | ((t: Task, dst: MmStruct, src: MmStruct, dstVma: VmArea, srcVma: VmArea) => Code<number>)
    | null;
  unmap_hugepage_range:
    | ((
        t: Task,
        tlb: MmuGather,
        vma: VmArea,
        start: number,
        end: number,
        details: ZapDetails | null,
      ) => Code)
    | null;
  /** HUGE: zap_page_range_single of hugetlb: locks, notifications and flush included. */
  zap_hugetlb_range:
    | ((t: Task, tlb: MmuGather, vma: VmArea, start: number, end: number) => Code)
    | null;
  /** HUGE: a hugetlb VMA is freed: reservations, and the file when it was the last. */
  hugetlb_vm_op_close: ((t: Task, vma: VmArea) => void) | null;
  /** HUGE: mprotect of a hugetlbfs mapping, notifications included. Pages changed. */
  hugetlb_change_protection:
    | ((t: Task, vma: VmArea, start: number, end: number, cpFlags: number) => Code<number>)
    | null;
  /** HUGE: mremap of a hugetlbfs mapping: moves its entries, notifications included. */
  move_hugetlb_page_tables:
    | ((t: Task, from: VmArea, to: VmArea, start: number, newStart: number, n: number) => Code)
    | null;
  /** HUGE: madvise(MADV_COLLAPSE) of one VMA's part: 0 or -errno. khugepaged_enter_vma. */
  madvise_collapse: ((t: Task, vma: VmArea, start: number, end: number) => Code<number>) | null;
  khugepaged_enter_vma: ((t: Task, vma: VmArea, flags: number) => void) | null;
  /**
   * BACKGROUND: ksm_madvise without the flag: __ksm_enter when `on`, else unmerge_ksm_pages. 0 or
   * -errno.
   */
  ksm_madvise:
    | ((t: Task, vma: VmArea, start: number, end: number, on: boolean) => Code<number>)
    | null;
  /** SWAP, filemap: MADV_WILLNEED brings pages in. */
  madvise_willneed: ((t: Task, vma: VmArea, start: number, end: number) => Code<number>) | null;
  /** UPROBES: [start, end) of this VMA is newly mapped; breakpoints of its file go in. */
  uprobe_mmap: ((t: Task, vma: VmArea, start: number, end: number) => Code) | null;
  /** BACKGROUND: MADV_REMOVE punches a hole into the file: pages [pgoff, pgoff + n). */
  punch_hole: ((t: Task, mapping: AddressSpace, pgoff: number, n: number) => Code<number>) | null;
  /** HUGE: DAX and pfn mappings whose fault handler is not the page cache. */
  dax_fault: FaultHook | null;
}

/** Nothing installed. */
export function noHooks(): MmHooks {
  return {
    do_swap_page: null,
    swap_duplicate: null,
    free_swap_and_cache: null,
    free_swap_cache: null,
    folio_free_swap: null,
    page_swapcount: null,
    wakeup_kswapd: null,
    try_to_free_pages: null,
    try_charge: null,
    uncharge: null,
    memcg_reclaim: null,
    out_of_memory: null,
    mem_cgroup_oom: null,
    pagefault_out_of_memory: null,
    oom_exit_mmap: null,
    workingset_refault: null,
    shmem_swapin: null,
    shmem_unuse: null,
    migration_entry_wait: null,
    do_device_fault: null,
    do_numa_page: null,
    policyNode: null,
    ksm_zap: null,
    handle_userfault: null,
    dup_userfaultfd: null,
    dup_userfaultfd_complete: null,
    userfaultfd_unmap_prep: null,
    userfaultfd_unmap_complete: null,
    mremap_userfaultfd_prep: null,
    mremap_userfaultfd_complete: null,
    keepsUffdOnRemap: null,
    userfaultfd_remove: null,
    wantsHugePmd: null,
    anonOrder: null,
    create_huge_pmd: null,
    wp_huge_pmd: null,
    do_huge_pmd_numa_page: null,
    huge_pmd_set_accessed: null,
    copy_huge_pmd: null,
    zap_huge: null,
    split_huge: null,
    change_huge_pmd: null,
    move_huge_pmd: null,
    khugepaged_fork: null,
    khugepaged_exit: null,
    ksm_fork: null,
    ksm_exit: null,
    ksm_execve: null,
    wp_can_reuse_large: null,
    undo_large_folio: null,
    deferred_split_folio: null,
    split_folio: null,
    free_huge_folio: null,
    hugetlb_fault: null,
    copy_hugetlb_page_range: null,
    unmap_hugepage_range: null,
    zap_hugetlb_range: null,
    hugetlb_vm_op_close: null,
    hugetlb_change_protection: null,
    move_hugetlb_page_tables: null,
    madvise_collapse: null,
    khugepaged_enter_vma: null,
    ksm_madvise: null,
    madvise_willneed: null,
    uprobe_mmap: null,
    punch_hole: null,
    dax_fault: null,
  };
}
