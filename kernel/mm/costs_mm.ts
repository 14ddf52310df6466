// Base costs of the user half of mm: straight-line work on a quiet CPU with warm caches, in ticks.
// Lock words, shared lines, shootdowns and memory traffic between nodes are not here: they are
// computed where they happen.
//
// Where a number comes from is said at each; "split" means that only a sum was measured
// (hardware.md: a minor anonymous fault on bare metal 0.25 to 0.5 us, fork 76 ns a mapped page, a
// COW fault 770 ns with its trap) and the parts are an assumption, made from the instructions and
// lines each part touches. The exception itself is the machine's pageFaultEntry.

import {nsToTicks as ns} from '../../machine/time.ts';

/** Base costs in ticks. */
export const COSTS_MM = {
  // --- faults
  /** do_user_addr_fault, finding the VMA and its lock, without the atomics. Split. */
  faultBaseTicks: ns(55),
  /** mmap_lock taken because the VMA's lock was not to be had, or did not exist. Split. */
  faultMmapLockTicks: ns(15),
  /** handle_mm_fault: walk of the page table and dispatch. Split. */
  handleFaultTicks: ns(45),
  /** Setting one PTE under its lock. Split. */
  setPteTicks: ns(6),
  /** rmap, counters and LRU batch of one new anonymous page. Split. */
  newAnonTicks: ns(35),
  /** clear_page of 4 KiB, ERMS, destination not in cache: about 40 GB/s. Assumption. */
  clearPageTicks: ns(100),
  /** Copy of 4 KiB from cache to fresh memory. Assumption. */
  copyPageTicks: ns(160),
  /**
   * filemap_map_pages: start (xarray walk), and one page mapped (trylock, refcount, rmap, PTE).
   * Split.
   */
  mapPagesBaseTicks: ns(80),
  mapPageTicks: ns(22),
  /** filemap_fault for one cached page. Split. */
  filemapFaultTicks: ns(180),
  /** page_mkwrite of a disk file system: block reservation, journal. Assumption. */
  pageMkwriteTicks: ns(900),
  /** do_wp_page without the copy. Split. */
  wpBaseTicks: ns(40),
  /** __anon_vma_prepare: two slab objects and a tree insertion. Split. */
  anonVmaPrepareTicks: ns(210),
  /** A page table: the page comes from the allocator, this is clearing it and linking it. */
  pteAllocTicks: ns(130),
  /** expand_stack. Assumption. */
  expandStackTicks: ns(150),
  /** get_user_pages-free signal delivery for a fault that cannot be handled. Assumption. */
  sigsegvTicks: ns(1_200),
  /** A page fault that found nothing to do. */
  spuriousTicks: ns(20),

  // --- pages
  /** __alloc_pages from a per-CPU list. */
  allocPcpTicks: ns(40),
  /** rmqueue_bulk or free_pcppages_bulk: one page, under zone->lock. */
  pcpBulkPageTicks: ns(14),
  /** Buddy allocator directly: one block. */
  buddyTicks: ns(90),
  /** Freeing one page to a per-CPU list, uncharge included. */
  freePageTicks: ns(22),
  /** Charging one page to a memory cgroup. */
  memcgChargeTicks: ns(20),
  /** Moving one folio from a batch onto an LRU list, or off it, under lru_lock. */
  lruMoveTicks: ns(12),

  // --- fork
  /** copy_page_range of one VMA and of one PTE table in it, without PTEs. Split. */
  copyVmaTicks: ns(60),
  copyTableTicks: ns(90),
  /**
   * One present PTE: struct page, refcount, mapcount. Split of the 76 ns a page that fork costs in
   * all.
   */
  copyPteTicks: ns(24),
  copyOtherPteTicks: ns(8),
  scanPteTicks: ns(0.6),

  // --- unmapping
  unmapVmaTicks: ns(40),
  zapTableTicks: ns(70),
  zapPteTicks: ns(16),
  zapOtherPteTicks: ns(10),
  /** free_pgtables: one VMA unlinked, one page table freed. Split. */
  unlinkVmaTicks: ns(80),
  unlinkAnonNodeTicks: ns(60),
  freeTableTicks: ns(70),
  /** tlb_gather_mmu and tlb_finish_mmu without flush. */
  gatherTicks: ns(40),
} as const;

export type CostsMm = Readonly<Record<keyof typeof COSTS_MM, number>>;
