// mm/compaction.c: the two scanners (isolate_migratepages, isolate_freepages), 6.18. Plain code;
// the free scanner works under zone->lock, the other takes lru_lock for each page it isolates.

import type {Kernel} from '../kernel.ts';
import type {Task} from '../task.ts';
import type {CompactControl} from './compaction.ts';
import {folio_mapcount} from './folio_counts.ts';
import {folio_isolate_lru} from './migrate_folio.ts';
import {folio_nr_pages, folio_order, folio_test_anon, MAX_ORDER} from './page.ts';
import {
  ORDER_SHIFT,
  PG_buddy,
  PG_head,
  PG_hugetlb,
  PG_lru,
  PG_swapcache,
  PG_writeback,
} from './page_flags.ts';

const PAGEBLOCK_PAGES = 512;
/** COMPACT_CLUSTER_MAX. */
const CLUSTER = 32;

/**
 * isolate_migratepages: from the next pageblock that has any, up to 32 pages that can be moved. The
 * scanner stands behind the last page it looked at. Empty: it has met the free scanner.
 */
export function isolate_migratepages(k: Kernel, t: Task, cc: CompactControl): number[] {
  const {state} = cc;
  const folios: number[] = [];
  while (!cc.met && folios.length === 0) {
    const block = cc.migratePfn - (cc.migratePfn % PAGEBLOCK_PAGES);
    const end = Math.min(block + PAGEBLOCK_PAGES, cc.end);
    if (state.skip.has(block)) {
      cc.migratePfn = end;
      continue;
    }
    const whole = cc.migratePfn === block;
    isolate_migratepages_block(k, t, cc, end, folios);
    if (whole && folios.length === 0 && cc.migratePfn >= end) state.skip.add(block);
  }
  k.mm.migration.count('compact_isolated', folios.length);
  return folios;
}

function isolate_migratepages_block(
  k: Kernel,
  t: Task,
  cc: CompactControl,
  end: number,
  folios: number[],
): void {
  const {pages, migration} = k.mm;
  let pfn = cc.migratePfn;
  let scanned = 0;
  while (pfn < end && folios.length < CLUSTER) {
    scanned++;
    const word = pages.flags[pfn];
    if ((word & PG_buddy) !== 0) {
      pfn += 2 ** (word >>> ORDER_SHIFT);
      continue;
    }
    const step = (word & PG_head) === 0 ? 1 : folio_nr_pages(pages, pfn);
    if (movable(k, cc, pfn) && folio_isolate_lru(k, t, pfn)) folios.push(pfn);
    pfn += step;
  }
  cc.migratePfn = Math.min(pfn, end);
  migration.count('compact_migrate_scanned', scanned);
  const {costs, fns} = migration;
  t.cpu.charge(scanned * costs.scanPageTicks, fns.isolate_migratepages_block);
}

/** On the LRU, smaller than what is wanted, and without references that nobody knows of. */
function movable(k: Kernel, cc: CompactControl, head: number): boolean {
  const {pages} = k.mm;
  const word = pages.flags[head];
  if ((word & PG_lru) === 0 || (word & PG_hugetlb) !== 0) return false;
  if (folio_order(pages, head) >= cc.order) return false;
  // skip_isolation of writeback in asynchronous mode.
  if (cc.mode === 'async' && (word & PG_writeback) !== 0) return false;
  const owned = folio_test_anon(pages, head) && (word & PG_swapcache) === 0;
  return !owned || pages.refcount.get(head) <= folio_mapcount(pages, head);
}

/**
 * isolate_freepages: takes free blocks out of the buddy lists, pageblock by pageblock from the end
 * of the zone down, until it has as many pages as were isolated or meets the other scanner.
 */
export function isolate_freepages(k: Kernel, t: Task, cc: CompactControl): void {
  const {mm} = k;
  const {pages, migration} = mm;
  const {costs, fns} = migration;
  const {buddy, node} = cc.zone;
  const low = cc.migratePfn - (cc.migratePfn % PAGEBLOCK_PAGES) + PAGEBLOCK_PAGES;
  let got = 0;
  let scanned = 0;
  mm.zoneLocks.lock(t.cpu, node, node, fns.isolate_freepages);
  while (got < CLUSTER && cc.freePfn - PAGEBLOCK_PAGES >= low) {
    const block = Math.ceil(cc.freePfn / PAGEBLOCK_PAGES) * PAGEBLOCK_PAGES - PAGEBLOCK_PAGES;
    for (let pfn = block; pfn < block + PAGEBLOCK_PAGES; ) {
      scanned++;
      const word = pages.flags[pfn];
      if ((word & PG_buddy) === 0) {
        pfn++;
        continue;
      }
      const order = word >>> ORDER_SHIFT;
      // suitable_migration_target: a free pageblock is what is wanted, not what is used up.
      if (order < MAX_ORDER - 1 && buddy.take(pfn, order)) {
        cc.free[order].push(pfn);
        got += 2 ** order;
      }
      pfn += 2 ** order;
    }
    cc.freePfn = block;
  }
  t.cpu.charge(scanned * costs.scanFreeTicks, fns.isolate_freepages);
  mm.zoneLocks.unlock(t.cpu, node);
  migration.count('compact_free_scanned', scanned);
}

/** release_all_freepages: what was not used goes back. */
export function release_freepages(k: Kernel, t: Task, cc: CompactControl): void {
  const {mm} = k;
  const {buddy, node} = cc.zone;
  mm.zoneLocks.lock(t.cpu, node, node, mm.fns.free_pcppages_bulk);
  let highest = 0;
  cc.free.forEach((list, order) => {
    for (const pfn of list.splice(0)) {
      buddy.free(pfn, order);
      highest = Math.max(highest, pfn);
    }
  });
  t.cpu.charge(mm.costs.buddyTicks, mm.fns.free_pcppages_bulk);
  mm.zoneLocks.unlock(t.cpu, node);
  // The free scanner goes back to the highest page that it did not use.
  if (highest > cc.freePfn) cc.freePfn = highest - (highest % PAGEBLOCK_PAGES) + PAGEBLOCK_PAGES;
}
