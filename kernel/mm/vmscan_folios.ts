// mm/vmscan.c: shrink_folio_list: what becomes of a batch of isolated folios, one by one (kernel.md
// E.3): lock, references, a swap slot, unmapping, writing, freeing. 6.18's order; older kernels
// wrote file pages here, too. A dirty page is written at once and comes back clean when the device
// is done (it is rotated to the old end of the inactive list then); only clean, unmapped folios are
// freed. A dirty file page is given to the flusher: here that is a write of its own on a disk that
// belongs to nobody else.

import {assert} from '../../machine/assert.ts';
import type {Code} from '../../machine/engine.ts';
import type {Kernel} from '../kernel.ts';
import type {Task} from '../task.ts';
import {folio_mapped, folio_maybe_dma_pinned} from './folio_counts.ts';
import {clearMapping, folio_nr_pages, folio_test_anon, mappingId, page_pgoff} from './page.ts';
import {__folio_put} from './page_alloc.ts';
import {
  PG_active,
  PG_dirty,
  PG_locked,
  PG_lru,
  PG_mlocked,
  PG_reclaim,
  PG_referenced,
  PG_swapbacked,
  PG_swapcache,
  PG_unevictable,
  PG_workingset,
  PG_writeback,
} from './page_flags.ts';
import {folio_trylock, folio_unlock, type SwapDevice, swap_writepage} from './page_io.ts';
import {QuickRmap} from './rmap_quick.ts';
import {folio_referenced, try_to_unmap} from './rmap_unmap.ts';
import {newUnmapBatch, try_to_unmap_flush, type UnmapBatch} from './rmap_unmap_flush.ts';
import {swp_type} from './swap_map.ts';
import {
  add_to_swap,
  delete_from_swap_cache,
  folio_free_swap,
  save_swap_content,
} from './swap_state.ts';
import {VM_EXEC, VM_LOCKED} from './vma_flags.ts';
import {workingset_eviction} from './vmscan_workingset.ts';

/** struct reclaim_stat. */
export class ReclaimStat {
  dirty = 0;
  writeback = 0;
  immediate = 0;
  pageout = 0;
  activated = 0;
  referenceKept = 0;
  unmapFailed = 0;
}

type References = 'reclaim' | 'clean' | 'keep' | 'activate';

/** folio_check_references. */
function* folio_check_references(
  k: Kernel,
  t: Task,
  head: number,
  memcg: number,
): Code<References> {
  const {flags} = k.mm.pages;
  const {ptes, vmFlags} = yield* folio_referenced(k, t, head, memcg);
  if ((vmFlags & VM_LOCKED) !== 0) return 'activate';
  if (ptes < 0) return 'keep';
  const before = (flags[head] & PG_referenced) !== 0;
  const file = (flags[head] & PG_swapbacked) === 0;
  flags[head] &= ~PG_referenced;
  if (ptes > 0) {
    flags[head] |= PG_referenced;
    if (before || ptes > 1) return 'activate';
    return file && (vmFlags & VM_EXEC) !== 0 ? 'activate' : 'keep';
  }
  return before && file ? 'clean' : 'reclaim';
}

/** folio_check_references of an anonymous page whose mappings `quick` knows. */
function checkQuickly(
  k: Kernel,
  t: Task,
  head: number,
  memcg: number,
  quick: QuickRmap,
): References {
  const {flags} = k.mm.pages;
  const ptes = quick.referenced(t, head, memcg);
  const before = (flags[head] & PG_referenced) !== 0;
  flags[head] &= ~PG_referenced;
  if (ptes === 0) return 'reclaim';
  flags[head] |= PG_referenced;
  return before || ptes > 1 ? 'activate' : 'keep';
}

/**
 * shrink_folio_list: `folios` are isolated (off the LRU, one reference of the caller's each). Those
 * that could be freed are; the others are returned, to be put back. `anyway` (ignore_references):
 * used or not.
 */
export function* shrink_folio_list(
  k: Kernel,
  t: Task,
  folios: readonly number[],
  memcg: number,
  kswapd: boolean,
  stat: ReclaimStat,
  anyway = false,
): Code<number[]> {
  const {pages} = k.mm;
  const batch = newUnmapBatch(k);
  const quick = new QuickRmap(k);
  const scan = {memcg, kswapd, anyway};
  const kept: number[] = [];
  const freed: number[] = [];
  for (const head of folios) {
    if (t.cpu.settle()) yield;
    if (k.sched.needsResched(t)) yield* k.sched.condResched(t);
    t.cpu.charge(k.mm.swap.costs.scanFolioTicks, k.mm.swap.fns.shrink_folio_list);
    if (!folio_trylock(k, head)) {
      kept.push(head);
      continue;
    }
    const fate = yield* shrinkFolio(k, t, head, scan, quick, batch, stat);
    if (fate === 'free') {
      freed.push(head);
      continue;
    }
    if (fate === 'activate') activate(k, head, stat);
    // pageout has unlocked a folio that it wrote.
    if (fate !== 'written') folio_unlock(k, head);
    kept.push(head);
  }
  yield* try_to_unmap_flush(k, t, batch);
  for (const head of freed) {
    folio_unlock(k, head);
    pages.flags[head] &= ~(PG_active | PG_referenced | PG_workingset | PG_reclaim | PG_dirty);
    pages.refcount.decrement(head);
    assert(pages.refcount.isZero(head), `reclaimed folio ${head} has references`);
    __folio_put(k, t, head);
  }
  return kept;
}

/** activate_locked: the folio is worth keeping; its slot is not, when swap is short. */
function activate(k: Kernel, head: number, stat: ReclaimStat): void {
  const {pages, swap} = k.mm;
  if ((pages.flags[head] & PG_swapcache) !== 0 && swap.isFull) folio_free_swap(k, head);
  if ((pages.flags[head] & PG_mlocked) !== 0) {
    pages.flags[head] |= PG_unevictable;
    return;
  }
  pages.flags[head] |= PG_active;
  const n = folio_nr_pages(pages, head);
  stat.activated += n;
  swap.counts.activated += n;
}

type Fate = 'free' | 'keep' | 'activate' | 'written';

/** What of scan_control concerns single folios. */
interface FolioScan {
  readonly memcg: number;
  readonly kswapd: boolean;
  readonly anyway: boolean;
}

/** One locked folio. */
function* shrinkFolio(
  k: Kernel,
  t: Task,
  head: number,
  {memcg, kswapd, anyway}: FolioScan,
  quick: QuickRmap,
  batch: UnmapBatch | null,
  stat: ReclaimStat,
): Code<Fate> {
  const {pages} = k.mm;
  const {flags} = pages;
  if ((flags[head] & (PG_unevictable | PG_mlocked)) !== 0) return 'activate';
  const n = folio_nr_pages(pages, head);
  if ((flags[head] & PG_dirty) !== 0) stat.dirty += n;
  if ((flags[head] & PG_writeback) !== 0) {
    // Recycled before its write was over: it goes to the tail when the write is.
    if (kswapd && (flags[head] & PG_reclaim) !== 0) stat.immediate += n;
    else stat.writeback += n;
    flags[head] |= PG_reclaim;
    return 'activate';
  }
  const known = folio_mapped(pages, head) && quick.isQuick(t, head, batch);
  const references = anyway
    ? 'reclaim'
    : known
      ? checkQuickly(k, t, head, memcg, quick)
      : yield* folio_check_references(k, t, head, memcg);
  if (references === 'activate') return 'activate';
  if (references === 'keep') {
    stat.referenceKept += n;
    return 'keep';
  }
  const swapCandidate = folio_test_anon(pages, head) && (flags[head] & PG_swapbacked) !== 0;
  if (swapCandidate && (flags[head] & PG_swapcache) === 0) {
    if (folio_maybe_dma_pinned(pages, head)) return 'keep';
    if (!add_to_swap(k, t, head)) return 'activate';
  }
  // A page of shared memory would need its slot in the page cache: not modelled, it stays.
  if ((flags[head] & PG_swapbacked) !== 0 && (flags[head] & PG_swapcache) === 0) return 'activate';
  if (folio_mapped(pages, head)) {
    if (known) quick.unmap(t, head, batch!);
    else {
      yield* try_to_unmap(k, t, head, batch);
      if (t.cpu.settle()) yield;
    }
    if (folio_mapped(pages, head)) {
      stat.unmapFailed += n;
      return 'activate';
    }
  }
  if (folio_maybe_dma_pinned(pages, head)) return 'activate';
  if ((flags[head] & PG_dirty) !== 0 && discardable(k, head) === false) {
    if (references === 'clean') return 'keep';
    yield* try_to_unmap_flush(k, t, batch);
    return pageout(k, t, head, stat);
  }
  return remove_mapping(k, t, head) ? 'free' : 'keep';
}

/** A MADV_FREE page that nobody wrote to since. */
function discardable(k: Kernel, head: number): boolean {
  const {pages} = k.mm;
  return folio_test_anon(pages, head) && (pages.flags[head] & PG_swapbacked) === 0;
}

/** pageout: starts writing a dirty, unmapped folio. */
function pageout(k: Kernel, t: Task, head: number, stat: ReclaimStat): Fate {
  const {pages, swap} = k.mm;
  const {flags} = pages;
  const n = folio_nr_pages(pages, head);
  // is_page_cache_freeable: the caller's reference and the cache's.
  if (pages.refcount.get(head) !== 1 + n) return 'keep';
  const swapCache = (flags[head] & PG_swapcache) !== 0;
  if (swapCache && folio_free_swap(k, head)) return 'keep';
  const device = swapCache ? swap.devices[swp_type(pages.private[head])] : swap.fileDevice(k);
  assert(device !== null, 'swap entry of an area without a device');
  flags[head] = (flags[head] & ~PG_dirty) | PG_reclaim;
  t.cpu.charge(swap.costs.swapIoTicks, swap.fns.swap_writepage);
  stat.pageout += n;
  if (swapCache) {
    swap.counts.pswpout += n;
    save_swap_content(k, head);
  }
  swap.probe?.writeFolio(head);
  swap_writepage(k, t.cpu, device as SwapDevice, head, n, (folio) =>
    folio_rotate_reclaimable(k, folio),
  );
  return 'written';
}

/** folio_rotate_reclaimable, in the completion interrupt: to the old end of the inactive list. */
function folio_rotate_reclaimable(k: Kernel, head: number): void {
  const {pages, lruvecs} = k.mm;
  const bits = PG_locked | PG_dirty | PG_unevictable | PG_lru;
  if ((pages.flags[head] & bits) !== PG_lru) return;
  const lruvec = lruvecs.ofFolio(head);
  lruvec.delFolio(head);
  pages.flags[head] &= ~PG_active;
  lruvec.addFolioTail(head);
}

/** __remove_mapping: the folio leaves its cache if nobody else refers to it. */
function remove_mapping(k: Kernel, t: Task, head: number): boolean {
  const {pages, files, swap} = k.mm;
  const n = folio_nr_pages(pages, head);
  t.cpu.charge(swap.costs.removeMappingTicks, swap.fns.__remove_mapping);
  if (folio_test_anon(pages, head) && (pages.flags[head] & PG_swapcache) === 0) {
    return pages.refcount.get(head) === 1;
  }
  if (pages.refcount.get(head) !== 1 + n) return false;
  if ((pages.flags[head] & PG_swapcache) !== 0) {
    delete_from_swap_cache(k, head, workingset_eviction(k, head));
    return true;
  }
  const mapping = files.find(mappingId(pages, head));
  if (mapping === null) return false;
  const shadow = workingset_eviction(k, head);
  const first = page_pgoff(pages, head);
  for (let i = 0; i < n; i++) files.removePage(mapping, first + i, shadow);
  clearMapping(pages, head);
  pages.refcount.add(head, -n);
  return true;
}
