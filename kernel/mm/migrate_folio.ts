// mm/migrate.c: one folio on its way: off the LRU, its place in the page cache or swap cache and
// its state handed to the new folio (__migrate_folio, folio_migrate_mapping, folio_migrate_flags),
// back on the LRU.
//
// A folio may move only when every reference to it is accounted for: the caches' (one a page) and
// the isolation's. A pin, a fault that has just looked it up, or a CPU's LRU batch makes the move
// fail with -EAGAIN and it is tried again.

import type {Code} from '../../machine/process.ts';
import {EAGAIN} from '../errno.ts';
import type {Kernel} from '../kernel.ts';
import type {Task} from '../task.ts';
import {folio_add_lru} from './folio_lru.ts';
import {folio_migrate_ksm} from './ksm_rmap.ts';
import {
  clearMapping,
  folio_nr_pages,
  folio_test_anon,
  folio_test_ksm,
  mappingId,
  page_pgoff,
} from './page.ts';
import {folio_put} from './page_alloc.ts';
import {
  PG_active,
  PG_dirty,
  PG_idle,
  PG_lru,
  PG_mlocked,
  PG_referenced,
  PG_swapbacked,
  PG_swapcache,
  PG_unevictable,
  PG_uptodate,
  PG_workingset,
  PG_young,
} from './page_flags.ts';
import {swp_offset} from './swap_map.ts';

/** What folio_migrate_flags carries over. */
const MOVED =
  PG_referenced |
  PG_uptodate |
  PG_active |
  PG_unevictable |
  PG_mlocked |
  PG_workingset |
  PG_dirty |
  PG_young |
  PG_idle |
  PG_swapbacked |
  PG_swapcache;
/** What the old folio loses: it is about to be freed. */
const GONE = PG_active | PG_unevictable | PG_mlocked | PG_dirty | PG_swapcache;

/** folio_isolate_lru: off its list with a reference. False: it is on no list, but in some batch. */
export function folio_isolate_lru(k: Kernel, t: Task, head: number): boolean {
  const {mm} = k;
  const {pages} = mm;
  if ((pages.flags[head] & PG_lru) === 0) return false;
  const lruvec = mm.lruvecs.ofFolio(head);
  const lock = mm.lruLock(lruvec);
  mm.lruLocks.lock(t.cpu, lock, lruvec.node, mm.fns.folio_batch_move_lru);
  lruvec.delFolio(head);
  pages.refcount.increment(head);
  t.cpu.charge(mm.migration.costs.isolateTicks, mm.fns.folio_batch_move_lru);
  mm.lruLocks.unlock(t.cpu, lock);
  return true;
}

/**
 * folio_putback_lru: back on its list, through this CPU's batch. Drops the isolation's reference.
 */
export function folio_putback_lru(k: Kernel, t: Task, head: number): void {
  folio_add_lru(k, t, head);
  folio_put(k, t, head);
}

/** putback_movable_pages. */
export function putback_movable_pages(k: Kernel, t: Task, folios: readonly number[]): void {
  for (const head of folios) folio_putback_lru(k, t, head);
}

/** References that the caches hold (folio_expected_ref_count of an unmapped folio). */
function cacheRefs(k: Kernel, head: number): number {
  const {pages} = k.mm;
  const cached = !folio_test_anon(pages, head) && mappingId(pages, head) !== 0;
  return cached || (pages.flags[head] & PG_swapcache) !== 0 ? folio_nr_pages(pages, head) : 0;
}

/**
 * move_to_new_folio: `dst`, locked and new, takes the place of `src`, locked, isolated and
 * unmapped. 0, or -EAGAIN when somebody else refers to `src`.
 */
export function* move_to_new_folio(k: Kernel, t: Task, dst: number, src: number): Code<number> {
  const {mm} = k;
  const {pages} = mm;
  const {fns} = mm.migration;
  const expected = 1 + cacheRefs(k, src);
  if (t.cpu.settle()) yield;
  if (pages.refcount.get(src) !== expected) return -EAGAIN;
  t.cpu.charge(copyTicks(k, t, src, dst), fns.folio_mc_copy);
  if (t.cpu.settle()) yield;
  if (pages.refcount.get(src) !== expected) return -EAGAIN;
  replace_folio(k, t, dst, src);
  return 0;
}

/** What is in the page, where it belongs, and its state go over to `dst`. */
export function replace_folio(k: Kernel, t: Task, dst: number, src: number): void {
  const {costs, fns} = k.mm.migration;
  t.cpu.charge(costs.moveMappingTicks, fns.folio_migrate_mapping);
  copyContent(k, src, dst);
  moveMapping(k, t, dst, src);
  moveFlags(k, dst, src);
}

/** folio_mc_copy: the base cost, and more where source or target are another node's memory. */
export function copyTicks(k: Kernel, t: Task, src: number, dst: number): number {
  const {mm} = k;
  const {topology} = k.machine;
  const cpu = t.cpu.id;
  const own = topology.memoryTicks(cpu, topology.nodeOf[cpu]);
  let excess = 0;
  for (const pfn of [src, dst]) excess += topology.memoryTicks(cpu, mm.pages.nodeOf(pfn)) - own;
  const page = mm.costs.copyPageTicks + Math.round(excess * LINES_PER_PAGE * REMOTE_SHARE);
  return page * folio_nr_pages(mm.pages, src);
}
const LINES_PER_PAGE = 64;
/** Ten lines are in flight at a time (fill buffers), as in memory_pte.ts. Assumption. */
const REMOTE_SHARE = 0.1;

function copyContent(k: Kernel, src: number, dst: number): void {
  const {pages} = k.mm;
  if (!pages.hasContent) return;
  const {content} = pages;
  content.copyWithin(dst, src, src + folio_nr_pages(pages, src));
}

/** folio_migrate_mapping: nobody else has the folio, so nothing is seen half done. */
function moveMapping(k: Kernel, t: Task, dst: number, src: number): void {
  const {mm} = k;
  const {pages, files, swap} = mm;
  const n = folio_nr_pages(pages, src);
  const {costs, fns} = mm.migration;
  pages.mapping[dst] = pages.mapping[src];
  pages.index[dst] = pages.index[src];
  if (pages.hasMemcgs) {
    pages.memcg[dst] = pages.memcg[src];
    pages.memcg[src] = 0;
  }
  if ((pages.flags[src] & PG_swapcache) !== 0) {
    const entry = pages.private[src];
    const area = swap.areas.of(entry);
    for (let i = 0; i < n; i++) area.addToCache(swp_offset(entry) + i, dst + i);
    pages.private.copyWithin(dst, src, src + n);
    pages.private.fill(0, src, src + n);
  } else if (!folio_test_anon(pages, src)) {
    const mapping = files.find(mappingId(pages, src));
    if (mapping === null) return;
    const first = page_pgoff(pages, src);
    for (let i = 0; i < n; i++) files.replacePage(mapping, first + i, dst + i);
    clearMapping(pages, src);
  } else {
    if (folio_test_ksm(pages, src)) folio_migrate_ksm(k, dst, src);
    return;
  }
  t.cpu.charge(n * costs.cacheSlotTicks, fns.folio_migrate_mapping);
  pages.refcount.add(dst, n);
  pages.refcount.add(src, -n);
}

/**
 * folio_migrate_flags; the anonymous owner stays in the old folio until it is freed, as in Linux.
 */
function moveFlags(k: Kernel, dst: number, src: number): void {
  const {pages} = k.mm;
  pages.flags[dst] |= pages.flags[src] & MOVED;
  pages.flags[src] &= ~GONE;
  if (pages.hasCpupids) {
    pages.cpupid[dst] = pages.cpupid[src];
    pages.cpupid[src] = 0;
  }
}
