// Base costs of migration and compaction in ticks, and the profile numbers of their functions.
// "Measured": Linux 6.18 in a 2-vCPU EPYC guest, divided by that machine's kernelWork;
// docs/calibration.md has the method. Of migration that is one page mapped once (2.3 us, of which
// 0.3 are the share of a batch's flush on the other CPU; here 2.0) and each further mapping (0.54
// us), by regression over compactions. The split of the first is an assumption. The copy itself is
// costs_mm.ts's copyPageTicks, and more for the memory of other nodes.

import {nsToTicks as ns} from '../../machine/time.ts';
import type {Kernel} from '../kernel.ts';

/** Base costs in ticks. */
export const COSTS_MIGRATE = {
  /**
   * migrate_pages without folios (assumption); one folio on its way through the lists (split of the
   * measured sum).
   */
  migrateBaseTicks: ns(400),
  migrateFolioTicks: ns(150),
  /**
   * rmap walk: one VMA found, its page table walked; try_to_migrate_one and remove_migration_pte:
   * one PTE. Measured: two walks and both PTEs of a mapping.
   */
  rmapVmaTicks: ns(45),
  unmapPteTicks: ns(55),
  restorePteTicks: ns(45),
  /**
   * folio_migrate_mapping and folio_migrate_flags (split of the measured sum); one slot of the page
   * cache (assumption).
   */
  moveMappingTicks: ns(120),
  cacheSlotTicks: ns(40),
  /** folio_isolate_lru. Assumption. */
  isolateTicks: ns(25),
  /**
   * lru_add_drain_all: the work item on one CPU that has something to drain. Assumption. Since 5.13
   * lru_cache_disable sends one to every CPU and waits (from 5.18 for an expedited grace period,
   * too). Measured on two CPUs: calls that move nothing take 32 to 44 us.
   */
  drainCpuTicks: ns(2_000),
  drainAllTicks: ns(12_000),
  /** move_pages: one page looked up. Measured. */
  lookupTicks: ns(90),
  /**
   * Compaction: one page looked at by the migration scanner, by the free scanner. Assumption: the
   * kernel's 3 ns a page count whole free blocks, which it steps over; here only what it stops at.
   */
  scanPageTicks: ns(4),
  scanFreeTicks: ns(4),
  /** One pageblock begun. Assumption. */
  pageblockTicks: ns(150),
  /** task_numa_work without the page tables; one VMA looked at. Assumption. */
  numaWorkTicks: ns(300),
  numaVmaTicks: ns(40),
  /** do_numa_page without migration: statistics, cpupid exchange. Assumption. */
  numaFaultTicks: ns(180),
  /** task_numa_placement: one node. Assumption. */
  numaPlacementTicks: ns(60),
} as const;

export type MigrateCosts = Readonly<Record<keyof typeof COSTS_MIGRATE, number>>;

const NAMES = [
  'migrate_pages_batch',
  'try_to_migrate',
  'remove_migration_ptes',
  'folio_migrate_mapping',
  'folio_mc_copy',
  'migration_entry_wait',
  'do_pages_move',
  'lru_add_drain_all',
  'isolate_migratepages_block',
  'isolate_freepages',
  'compact_zone',
  'task_numa_work',
  'do_numa_page',
  'task_numa_fault',
] as const;

/** Profile ids by function name. */
export type MigrateFns = Readonly<Record<(typeof NAMES)[number], number>>;

/** Interns every name. */
export function migrateFns(kernel: Kernel): MigrateFns {
  return Object.fromEntries(NAMES.map((name) => [name, kernel.fn(name)])) as MigrateFns;
}
