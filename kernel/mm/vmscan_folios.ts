// mm/vmscan.c: shrink_folio_list: what becomes of a batch of isolated folios, one by
// one: lock, references, a swap slot, unmapping, writing, freeing. 6.18's order; older kernels
// wrote file pages here, too. A dirty page is written at once and comes back clean when the device
// is done (it is rotated to the old end of the inactive list then); only clean, unmapped folios are
// freed. A dirty file page is given to the flusher: here that is a write of its own on a disk that
// belongs to nobody else.

import {assert} from '../../machine/assert.ts';
import type {Code} from '../../machine/process.ts';
import type {Kernel} from '../kernel.ts';
import type {Task} from '../task.ts';
import {blk_flush_plug} from './blk_plug.ts';
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
import {
  blk_mq_get_tag,
  folio_trylock,
  folio_unlock,
  requests_used_up,
  type SwapDevice,
  swap_writepage,
} from './page_io.ts';
import {QuickRmap} from './rmap_quick.ts';
import {folio_referenced, type Referenced, try_to_unmap} from './rmap_unmap.ts';
import {newUnmapBatch, try_to_unmap_flush, type UnmapBatch} from './rmap_unmap_flush.ts';
import {isSwappableShmem, shmem_writeout} from './shmem.ts';
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

/** folio_check_references, given what folio_referenced found. */
function judgeReferences(k: Kernel, head: number, {ptes, vmFlags}: Referenced): References {
  const {flags} = k.mm.pages;
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
  const scan: FolioScan = {memcg, kswapd, anyway, stat, batch: newUnmapBatch(k)};
  const quick = new QuickRmap(k);
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
    let fate = shrinkFolio(k, t, head, scan, quick);
    if (fate === 'walk') {
      // It may sleep, and sleeping lets go of what is plugged.
      blk_flush_plug(k, t);
      fate = yield* shrinkMapped(k, t, head, scan);
    }
    if (fate === 'flush') {
      yield* try_to_unmap_flush(k, t, scan.batch);
      fate = pageout(k, t, head, stat);
    }
    if (fate === 'free') {
      freed.push(head);
      continue;
    }
    if (fate === 'activate') activate(k, head, stat);
    // pageout has unlocked a folio that it wrote.
    if (fate !== 'written') folio_unlock(k, head);
    else if (requests_used_up(k)) yield* blk_mq_get_tag(k, t);
    kept.push(head);
  }
  yield* try_to_unmap_flush(k, t, scan.batch);
  const {pages} = k.mm;
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

/**
 * What becomes of a folio. `walk`: its mappings must be walked with waiting (shrinkMapped);
 * `flush`: it is to be written, once the TLBs are flushed.
 */
type Fate = 'free' | 'keep' | 'activate' | 'written' | 'walk' | 'flush';

/** What of scan_control concerns single folios, and what they add up to. */
interface FolioScan {
  readonly memcg: number;
  readonly kswapd: boolean;
  readonly anyway: boolean;
  readonly stat: ReclaimStat;
  readonly batch: UnmapBatch | null;
}

/** One locked folio, as far as it goes without waiting. */
function shrinkFolio(k: Kernel, t: Task, head: number, scan: FolioScan, quick: QuickRmap): Fate {
  const {pages} = k.mm;
  const {flags} = pages;
  const {stat, batch} = scan;
  if ((flags[head] & (PG_unevictable | PG_mlocked)) !== 0) return 'activate';
  const n = folio_nr_pages(pages, head);
  if ((flags[head] & PG_dirty) !== 0) stat.dirty += n;
  if ((flags[head] & PG_writeback) !== 0) {
    // Recycled before its write was over: it goes to the tail when the write is.
    if (scan.kswapd && (flags[head] & PG_reclaim) !== 0) stat.immediate += n;
    else stat.writeback += n;
    flags[head] |= PG_reclaim;
    return 'activate';
  }
  const mapped = folio_mapped(pages, head);
  if (mapped && !quick.isQuick(t, head, batch)) return 'walk';
  const ptes = mapped && !scan.anyway ? quick.referenced(t, head, scan.memcg) : 0;
  const references = scan.anyway ? 'reclaim' : judgeReferences(k, head, {ptes, vmFlags: 0});
  const before = beforeUnmap(k, t, head, references, stat);
  if (before !== null) return before;
  if (mapped) quick.unmap(t, head, batch!);
  return afterUnmap(k, t, head, references, scan);
}

/** As shrinkFolio, for a mapped folio that may take waiting. */
function* shrinkMapped(k: Kernel, t: Task, head: number, scan: FolioScan): Code<Fate> {
  const {batch, anyway, memcg} = scan;
  const references = anyway
    ? 'reclaim'
    : judgeReferences(k, head, yield* folio_referenced(k, t, head, memcg));
  const before = beforeUnmap(k, t, head, references, scan.stat);
  if (before !== null) return before;
  yield* try_to_unmap(k, t, head, batch);
  if (t.cpu.settle()) yield;
  return afterUnmap(k, t, head, references, scan);
}

/** Keeps what was used, gives the others their swap slots; null: the folio is to be unmapped. */
function beforeUnmap(
  k: Kernel,
  t: Task,
  head: number,
  references: References,
  stat: ReclaimStat,
): Fate | null {
  const {pages} = k.mm;
  const {flags} = pages;
  if (references === 'activate') return 'activate';
  if (references === 'keep') {
    stat.referenceKept += folio_nr_pages(pages, head);
    return 'keep';
  }
  const swapCandidate = folio_test_anon(pages, head) && (flags[head] & PG_swapbacked) !== 0;
  if (swapCandidate && (flags[head] & PG_swapcache) === 0) {
    if (folio_maybe_dma_pinned(pages, head)) return 'keep';
    if (!add_to_swap(k, t, head)) return 'activate';
  }
  // A page of shared memory gets its slot when it is written.
  const outside = (flags[head] & (PG_swapbacked | PG_swapcache)) === PG_swapbacked;
  return outside && !isSwappableShmem(k, head) ? 'activate' : null;
}

/** Writes a dirty folio that nobody maps any more, or takes a clean one out of its cache. */
function afterUnmap(
  k: Kernel,
  t: Task,
  head: number,
  references: References,
  {stat, batch}: FolioScan,
): Fate {
  const {pages} = k.mm;
  if (folio_mapped(pages, head)) {
    stat.unmapFailed += folio_nr_pages(pages, head);
    return 'activate';
  }
  if (folio_maybe_dma_pinned(pages, head)) return 'activate';
  if ((pages.flags[head] & PG_dirty) !== 0 && discardable(k, head) === false) {
    if (references === 'clean') return 'keep';
    return batch?.required === true ? 'flush' : pageout(k, t, head, stat);
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
  const cached = (flags[head] & PG_swapcache) !== 0;
  if (cached && folio_free_swap(k, head)) return 'keep';
  const swapCache = (flags[head] & PG_swapbacked) !== 0;
  if (swapCache && !cached && !shmem_writeout(k, t, head)) return 'activate';
  const device = swapCache ? swap.devices[swp_type(pages.private[head])] : swap.fileDevice(k);
  assert(device !== null, 'swap entry of an area without a device');
  flags[head] = (flags[head] & ~PG_dirty) | PG_reclaim;
  stat.pageout += n;
  if (swapCache) {
    swap.counts.pswpout += n;
    save_swap_content(k, head);
  }
  swap.probe?.writeFolio(head);
  swap_writepage(k, t, device as SwapDevice, head, n, folio_rotate_reclaimable);
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
  // A clean page of shared memory is one that nobody has written: zeros, and no shadow.
  const shadow = mapping.host === 'shmem' ? -1 : workingset_eviction(k, head);
  const first = page_pgoff(pages, head);
  for (let i = 0; i < n; i++) files.removePage(mapping, first + i, shadow);
  clearMapping(pages, head);
  pages.refcount.add(head, -n);
  return true;
}
