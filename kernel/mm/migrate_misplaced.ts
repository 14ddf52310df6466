// mm/migrate.c: migrate_misplaced_folio: a hinting fault brings its page to the node that uses it,
// 6.18. Asynchronous, one folio, nothing waits; a node that is nearly full (high watermark) gets
// nothing, dirty file pages and executable pages of several processes stay.

import type {Code} from '../../machine/engine.ts';
import type {Kernel} from '../kernel.ts';
import type {Task} from '../task.ts';
import {migrate_pages} from './migrate.ts';
import {folio_isolate_lru, putback_movable_pages} from './migrate_folio.ts';
import {alloc_on_node, folio_maybe_mapped_shared} from './migrate_move.ts';
import {folio_nr_pages, folio_order} from './page.ts';
import {PG_dirty, PG_swapbacked} from './page_flags.ts';
import type {VmArea} from './vma.ts';
import {VM_EXEC} from './vma_flags.ts';

/** migrate_misplaced_folio_prepare, under the PTL: true when the folio is isolated. Plain. */
export function migrate_misplaced_folio_prepare(
  k: Kernel,
  t: Task,
  head: number,
  vma: VmArea,
  node: number,
): boolean {
  const {pages, zones, hooks} = k.mm;
  const {flags} = pages;
  if ((flags[head] & PG_swapbacked) === 0) {
    if ((vma.flags & VM_EXEC) !== 0 && folio_maybe_mapped_shared(k, head)) return false;
    if ((flags[head] & PG_dirty) !== 0) return false;
  }
  const {buddy, watermarks} = zones[node];
  if (buddy.freePages - folio_nr_pages(pages, head) < watermarks.high) {
    hooks.wakeup_kswapd?.(t, node, 0);
    return false;
  }
  return folio_isolate_lru(k, t, head);
}

/** migrate_misplaced_folio of an isolated folio: true when it is on `node` now. */
export function* migrate_misplaced_folio(
  k: Kernel,
  t: Task,
  head: number,
  node: number,
): Code<boolean> {
  const order = folio_order(k.mm.pages, head);
  const target = (): number => alloc_on_node(k, t, order, node, 'high');
  const {succeeded, remaining, failed} = yield* migrate_pages(k, t, [head], target, 'async');
  putback_movable_pages(k, t, remaining);
  k.mm.migration.count('numa_pages_migrated', succeeded);
  return failed === 0;
}
