// What migration keeps for the whole kernel: numbers of /proc/vmstat, costs, and what its
// generation can do. kernel.mm.migration is made with the mm; it takes no part in anything until
// somebody migrates.
//
// Generations: migration entries for huge pages 4.14+ (CONFIG_ARCH_ENABLE_THP_MIGRATION, x86-64);
// before, huge pages are split. Batches, with one TLB flush for up to 512 pages, 6.3+ (5dfab109d519
// and its series); before, every page is unmapped, flushed and moved by itself. Accessed and dirty
// bits survive in the migration entry 6.1+ (5154e6079476 RECALLED); before, a migrated page is old
// and its entry clean.

import {scaledCosts} from '../costs.ts';
import type {Kernel} from '../kernel.ts';
import {isBefore} from '../version.ts';
import {COSTS_MIGRATE, type MigrateCosts, type MigrateFns, migrateFns} from './migrate_costs.ts';

/** Names of /proc/vmstat. */
export type MigrateCount =
  | 'pgmigrate_success'
  | 'pgmigrate_fail'
  | 'thp_migration_success'
  | 'thp_migration_fail'
  | 'thp_migration_split'
  | 'compact_migrate_scanned'
  | 'compact_free_scanned'
  | 'compact_isolated'
  | 'compact_stall'
  | 'compact_success'
  | 'compact_fail'
  | 'compact_daemon_wake'
  | 'numa_pte_updates'
  | 'numa_huge_pte_updates'
  | 'numa_hint_faults'
  | 'numa_hint_faults_local'
  | 'numa_pages_migrated';

/** Migration of one kernel. */
export class Migration {
  readonly costs: MigrateCosts;
  readonly fns: MigrateFns;
  /** Huge pages move whole. */
  readonly thpMigration: boolean;
  readonly batched: boolean;
  readonly keepsAccessBits: boolean;
  /** Function that takes mappings away: try_to_migrate was split off in 5.14. */
  readonly unmapSite: string;
  private readonly values = new Map<MigrateCount, number>();

  constructor(readonly kernel: Kernel) {
    const {version} = kernel.facts;
    this.costs = scaledCosts(COSTS_MIGRATE, kernel.machine.topology.kernelWork);
    this.fns = migrateFns(kernel);
    this.thpMigration = !isBefore(version, '4.14');
    this.unmapSite = isBefore(version, '5.14') ? 'try_to_unmap_one' : 'try_to_migrate_one';
    this.batched = !isBefore(version, '6.3');
    this.keepsAccessBits = !isBefore(version, '6.1');
  }

  /** count_vm_events: here, and in the counters of the run's report. */
  count(name: MigrateCount, n = 1): void {
    if (n === 0) return;
    this.values.set(name, this.value(name) + n);
    this.kernel.checks.count(name, n);
  }

  /** A number of /proc/vmstat since boot. */
  value(name: MigrateCount): number {
    return this.values.get(name) ?? 0;
  }
}
