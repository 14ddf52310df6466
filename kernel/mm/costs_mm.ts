// Base costs of the user half of mm: straight-line work on a quiet CPU with warm caches, in ticks.
// Lock words, shared lines, shootdowns and memory traffic between nodes are not here: they are
// computed where they happen.
//
// Where a number comes from is said at each; "split" means that only a sum was measured
// (a minor anonymous fault on bare metal 0.25 to 0.5 us, fork 76 ns a mapped page, a
// COW fault 770 ns with its trap) and the parts are an assumption, made from the instructions and
// lines each part touches. "Measured": per page, in loops in C on Linux 6.18 in a 2-vCPU EPYC
// guest, divided by that machine's kernelWork; docs/calibration.md has the table and the method.
// The exception itself is the machine's pageFaultEntry.

import {nsToTicks as ns} from '../../machine/time.ts';
import type {MachineCosts} from '../../machine/topology_costs.ts';
import {scaledCosts} from '../costs.ts';

/** Base costs in ticks. */
export const COSTS_MM = {
  // --- faults
  /** do_user_addr_fault, finding the VMA and its lock, without the atomics. Split. */
  faultBaseTicks: ns(70),
  /** mmap_lock taken because the VMA's lock was not to be had, or did not exist. Split. */
  faultMmapLockTicks: ns(15),
  /** handle_mm_fault: walk of the page table and dispatch. Split. */
  handleFaultTicks: ns(45),
  /** Setting one PTE under its lock. Split. */
  setPteTicks: ns(6),
  /** rmap, counters and LRU batch of one new anonymous page. Split. */
  newAnonTicks: ns(50),
  /** clear_page of 4 KiB, ERMS, destination not in cache: about 40 GB/s. Assumption. */
  clearPageTicks: ns(150),
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
  /**
   * page_mkwrite of a disk file system: block reservation. Measured: ext4 with delayed allocation,
   * a write to a hole against one to tmpfs.
   */
  pageMkwriteTicks: ns(130),
  /** do_wp_page without the copy. Split. */
  wpBaseTicks: ns(80),
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
  copyVmaTicks: ns(90),
  copyTableTicks: ns(90),
  /**
   * One present PTE: struct page, refcount, mapcount. Split of the 76 ns a page that fork costs in
   * all.
   */
  copyPteTicks: ns(40),
  copyOtherPteTicks: ns(8),
  scanPteTicks: ns(0.6),

  /** vm_area_dup, maple tree store, accounting of one VMA. Split. */
  dupVmaTicks: ns(520),
  /** One anon_vma_chain: slab object and interval tree insertion. Split. */
  anonVmaChainTicks: ns(130),
  /** Entering one VMA in a file's i_mmap tree. Split. */
  linkFileTicks: ns(70),

  // --- mappings, without the page tables; measured sums are in docs/verification.md. Split.
  mmapTicks: ns(330),
  munmapTicks: ns(400),
  brkTicks: ns(30),
  /** do_brk_flags: limits, accounting, the record for perf. */
  brkGrowTicks: ns(220),
  /** vm_area_alloc and its place in the maple tree; growing a neighbour instead. */
  newVmaTicks: ns(350),
  vmaMergeTicks: ns(250),
  splitVmaTicks: ns(450),
  detachVmaTicks: ns(200),
  freeVmaTicks: ns(110),
  /** One page of a file that goes. Measured: tmpfs; ext4 0.14 us (large folios) to 0.65 us. */
  truncatePageTicks: ns(125),
  /**
   * setattr or fallocate without the pages. Measured: tmpfs; ext4 with blocks that are only
   * reserved (57 to 80 us where they are on the disk and a transaction must free them).
   */
  truncateShmemTicks: ns(730),
  truncateFileTicks: ns(1_600),

  // --- unmapping
  unmapVmaTicks: ns(70),
  zapTableTicks: ns(70),
  zapPteTicks: ns(26),
  zapOtherPteTicks: ns(10),
  /** free_pgtables: one VMA unlinked, one page table freed. Split. */
  unlinkVmaTicks: ns(80),
  unlinkAnonNodeTicks: ns(100),
  freeTableTicks: ns(70),
  /** tlb_gather_mmu and tlb_finish_mmu without flush. */
  gatherTicks: ns(40),

  // --- mprotect, mremap, madvise, mlock
  /**
   * System call work of each without VMAs and pages, locks apart. Assumption; mprotect's sum is
   * that of the recordings, where it is twice that of a loop in C.
   */
  protectBaseTicks: ns(210),
  /**
   * madvise that changes nothing takes 360 ns on the recordings' kind of guest, entry and lock
   * included.
   */
  adviseBaseTicks: ns(50),
  moveBaseTicks: ns(80),
  /** One VMA given other properties, split or merged: two maple tree stores. Assumption. */
  modifyVmaTicks: ns(350),
  /** One PTE table looked at; one PTE changed (ptep_modify_prot: a locked exchange). Measured. */
  changeTableTicks: ns(140),
  changePteTicks: ns(21),
  /** One PTE moved to another table; a table, or a huge page, moved as a whole. Measured. */
  movePteTicks: ns(2),
  moveTableTicks: ns(50),
  /** One marker or PTE looked at and rewritten by madvise. Measured: guard markers, FREE, COLD. */
  advisePteTicks: ns(8),
  /** One page locked or unlocked, its move between lists apart. Measured. */
  mlockPageTicks: ns(44),
  /** Populating: one page that is there already. Measured. */
  populatePageTicks: ns(45),
  /** clear_refs: one PTE made old. Measured. */
  clearRefsPteTicks: ns(14),
} as const;

/**
 * Costs that forkWork scales: they are split from lmbench sums (fork+exit, fork+exec); kernelWork
 * scales the others, which are split from faults on bare metal.
 */
const FORK_COSTS: readonly (keyof typeof COSTS_MM)[] = [
  'copyVmaTicks',
  'copyTableTicks',
  'copyPteTicks',
  'copyOtherPteTicks',
  'scanPteTicks',
  'dupVmaTicks',
  'anonVmaChainTicks',
  'linkFileTicks',
  'unlinkVmaTicks',
  'unlinkAnonNodeTicks',
];

/** The base costs on a machine whose kernel code takes this many times as long. */
export function costsMmOn({kernelWork, forkWork}: MachineCosts): CostsMm {
  const scaled: Record<string, number> = {...scaledCosts(COSTS_MM, kernelWork)};
  const fork = scaledCosts(COSTS_MM, forkWork);
  for (const name of FORK_COSTS) scaled[name] = fork[name];
  return scaled as CostsMm;
}

export type CostsMm = Readonly<Record<keyof typeof COSTS_MM, number>>;
