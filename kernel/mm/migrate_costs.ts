// Base costs of migration and compaction in ticks, and the profile numbers of their functions.
// Migrating one small page takes 1.5 to 3 us on servers in all (move_pages of a large range);
// nobody has published a split. The parts here are assumptions; they follow the parts of reclaim
// (vmscan_costs.ts), which does the same up to the unmapping, so that the sum falls into that range.
// The copy itself is costs_mm.ts's copyPageTicks, and more for the memory of other nodes.

import {nsToTicks as ns} from '../../machine/time.ts';
import type {Kernel} from '../kernel.ts';

/** Base costs in ticks. */
export const COSTS_MIGRATE = {
  /** migrate_pages without folios; one folio on its way through the lists. Assumption. */
  migrateBaseTicks: ns(400),
  migrateFolioTicks: ns(150),
  /** rmap walk: one VMA found, its page table walked. Assumption. */
  rmapVmaTicks: ns(90),
  /** try_to_migrate_one and remove_migration_pte: one PTE. Assumption. */
  unmapPteTicks: ns(110),
  restorePteTicks: ns(90),
  /** folio_migrate_mapping and folio_migrate_flags; one slot of the page cache. Assumption. */
  moveMappingTicks: ns(120),
  cacheSlotTicks: ns(40),
  /** folio_isolate_lru. Assumption. */
  isolateTicks: ns(25),
  /** lru_cache_disable: the work item on one CPU that has something to drain. Assumption. */
  drainCpuTicks: ns(2_000),
  /** move_pages, migrate_pages, mbind: one page looked up. Assumption. */
  lookupTicks: ns(60),
  /** Compaction: one page looked at by the migration scanner, by the free scanner. Assumption. */
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
