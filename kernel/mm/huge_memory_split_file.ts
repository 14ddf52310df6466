// mm/huge_memory.c: __folio_split of a large folio in the page cache, 6.18.
//
// The caller holds the folio's lock and a reference; the file's i_mmap_rwsem is taken for read. A
// folio with any other reference than the cache's and its mappings' is left alone. What is still
// mapped is unmapped (try_to_unmap, a CLEAR pair for each VMA) and not mapped again: resident
// counts fall, and the next access is a fault that finds the page in the cache. The split itself is
// under the cache's lock, with all references taken away for its time; one that came between makes
// it fail, and the folio stays unmapped. Pieces beyond the end of the file leave the cache at once.
//
// Since 6.15 the folio is halved towards one page, and the other halves stay large; before, 2^order
// single pages came of it. Cost: one step for each new folio, and what unmapping costs.

import type {Code} from '../../machine/process.ts';
import type {Kernel} from '../kernel.ts';
import type {Task} from '../task.ts';
import {isBefore} from '../version.ts';
import type {AddressSpace} from './address_space.ts';
import {folio_mapcount, folio_mapped, folio_ref_count} from './folio_counts.ts';
import {relist_folios} from './mlock_folio.ts';
import {
  clearMapping,
  dissolve_compound,
  folio_nr_pages,
  MAPPING_FILE,
  page_pgoff,
  prep_compound_page,
  setMapping,
} from './page.ts';
import {__folio_put} from './page_alloc.ts';
import {
  PG_dirty,
  PG_hwpoison,
  PG_locked,
  PG_lru,
  PG_mlocked,
  PG_readahead,
  PG_unevictable,
} from './page_flags.ts';
import {try_to_unmap_held} from './rmap_unmap.ts';
import {newUnmapBatch, try_to_unmap_flush} from './rmap_unmap_flush.ts';

/** A folio that comes of a split: first page, counted from the old head, and how many. */
interface Piece {
  readonly start: number;
  readonly pages: number;
}

/**
 * __split_unmapped_folio: what a folio of `pages` becomes, in order; page `at` is a folio of its
 * own.
 */
export function splitPieces(version: string, pages: number, at: number): Piece[] {
  if (isBefore(version, '6.15')) {
    return Array.from({length: pages}, (_, start) => ({start, pages: 1}));
  }
  const pieces: Piece[] = [];
  let start = 0;
  for (let half = pages / 2; half >= 1; half /= 2) {
    const upper = at >= start + half;
    pieces.push({start: upper ? start : start + half, pages: half});
    if (upper) start += half;
  }
  pieces.push({start, pages: 1});
  return pieces.sort((a, b) => a.start - b.start);
}

/**
 * try_folio_split_to_order, order 0, of a large folio of `mapping` around its page `at`. False when
 * somebody else refers to it. Afterwards the caller's lock and reference are those of the piece
 * that begins at `head`.
 */
export function* split_file_folio(
  k: Kernel,
  t: Task,
  mapping: AddressSpace,
  head: number,
  at: number,
): Code<boolean> {
  const {mm} = k;
  const {pages} = mm;
  const fn = k.fn('__folio_split');
  const lock = mm.iMmapLock(mapping);
  if (!lock.readAcquire(t, fn)) yield* lock.readAcquireSlow(t, fn);
  const own = folio_nr_pages(pages, head) + 1;
  // can_split_folio: a look before anything is unmapped for nothing.
  let splits = folio_mapcount(pages, head) === folio_ref_count(pages, head) - own;
  if (splits && folio_mapped(pages, head)) {
    const batch = newUnmapBatch(k);
    yield* try_to_unmap_held(k, t, head, batch, true);
    yield* try_to_unmap_flush(k, t, batch);
    // munlock_vma_folio, of every locked mapping that is gone.
    if ((pages.flags[head] & PG_mlocked) !== 0 && !folio_mapped(pages, head)) {
      relist_folios(k, t, [head], 0, PG_mlocked | PG_unevictable);
    }
  }
  if (t.cpu.settle()) yield;
  splits &&= folio_ref_count(pages, head) === own;
  if (splits) splitUnmapped(k, t, mapping, head, at, fn);
  if (!lock.readRelease(t)) yield* lock.readReleaseSlow(t);
  return splits;
}

/** __split_unmapped_folio and what follows it, at one time. */
function splitUnmapped(
  k: Kernel,
  t: Task,
  mapping: AddressSpace,
  head: number,
  at: number,
  fn: number,
): void {
  const {mm} = k;
  const {pages} = mm;
  const index = page_pgoff(pages, head);
  const pieces = splitPieces(k.facts.version, folio_nr_pages(pages, head), at);
  const memcg = pages.hasMemcgs ? pages.memcg[head] : 0;
  const onLru = (pages.flags[head] & PG_lru) !== 0;
  mm.hooks.undo_large_folio?.(t, head);
  const own = pages.flags[head] & (PG_lru | PG_readahead | PG_locked);
  dissolve_compound(pages, head);
  const shared = pages.flags[head] & ~(PG_lru | PG_locked | PG_readahead | PG_hwpoison);
  for (const piece of pieces) {
    const first = head + piece.start;
    pages.flags[first] = shared | (first === head ? own : 0) | (pages.flags[first] & PG_hwpoison);
    if (piece.pages > 1) prep_compound_page(pages, first, Math.log2(piece.pages));
    setMapping(pages, first, MAPPING_FILE, mapping.id, index + piece.start);
    pages.refcount.set(first, piece.pages + (first === head ? 1 : 0));
    if (memcg !== 0) pages.memcg[first] = memcg;
    if (onLru && first !== head) mm.lruvecs.ofFolio(first).addSplitTail(head, first);
    if (index + piece.start >= mapping.sizePages) drop(k, t, mapping, first, piece.pages);
  }
  t.cpu.charge(pieces.length * mm.costs.lruMoveTicks, fn);
}

/** A piece beyond the end of the file leaves the cache. */
function drop(k: Kernel, t: Task, mapping: AddressSpace, first: number, n: number): void {
  const {files, pages} = k.mm;
  const index = page_pgoff(pages, first);
  pages.flags[first] &= ~PG_dirty;
  for (let i = 0; i < n; i++) files.removePage(mapping, index + i, -1);
  clearMapping(pages, first);
  pages.refcount.add(first, -n);
  if (pages.refcount.isZero(first)) __folio_put(k, t, first);
}
