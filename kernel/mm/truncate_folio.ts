// mm/truncate.c: one folio on its way out of the page cache. One that lies wholly in the range
// leaves it; one that the range cuts is split first (huge_memory_split_file.ts), so that the pages
// in the range can leave. A pin or another reference keeps it from being split: then it stays
// whole, with zeros in the range; a clean one leaves whole instead and is read again.

import type {Code} from '../../machine/process.ts';
import type {Kernel} from '../kernel.ts';
import type {Task} from '../task.ts';
import type {AddressSpace} from './address_space.ts';
import {folio_mapped} from './folio_counts.ts';
import {split_file_folio} from './huge_memory_split_file.ts';
import {pageWorkTicks} from './memory_pte.ts';
import {
  clearMapping,
  compound_head,
  folio_nr_pages,
  folio_test_large,
  mappingId,
  page_pgoff,
} from './page.ts';
import {folio_put} from './page_alloc.ts';
import {PG_dirty} from './page_flags.ts';
import {folio_lock, folio_trylock, folio_unlock, folio_wait_writeback} from './page_io.ts';
import {unmap_mapping_folio} from './unmap_mapping.ts';

/**
 * truncate_inode_folio, with the lock of its caller: unmap, not dirty any more, out of the cache.
 * Pages removed.
 */
export function* truncate_inode_folio(
  k: Kernel,
  t: Task,
  mapping: AddressSpace,
  head: number,
): Code<number> {
  const {pages} = k.mm;
  pages.refcount.increment(head);
  yield* folio_lock(k, t, head);
  yield* folio_wait_writeback(k, t, head);
  let removed = 0;
  if (isCached(k, mapping, head)) removed = yield* removeLocked(k, t, mapping, head);
  folio_unlock(k, head);
  folio_put(k, t, head);
  return removed;
}

/** The locked folio is still of this file. */
function isCached(k: Kernel, mapping: AddressSpace, head: number): boolean {
  const {pages, files} = k.mm;
  return (
    mappingId(pages, head) === mapping.id && files.page(mapping, page_pgoff(pages, head)) === head
  );
}

function* removeLocked(k: Kernel, t: Task, mapping: AddressSpace, head: number): Code<number> {
  const {pages, files} = k.mm;
  const first = page_pgoff(pages, head);
  if (folio_mapped(pages, head)) yield* unmap_mapping_folio(k, t, mapping, head);
  pages.flags[head] &= ~PG_dirty;
  const n = folio_nr_pages(pages, head);
  for (let i = 0; i < n; i++) files.removePage(mapping, first + i, -1);
  // Whoever still has a reference (a pin) keeps a page of no file.
  clearMapping(pages, head);
  pages.refcount.add(head, -n);
  return n;
}

/**
 * truncate_inode_partial_folio: a folio that is cut by the range is split, so that what lies in it
 * can leave. If somebody else refers to it, it stays whole, with zeros there, or, when the disk has
 * it all, leaves whole and is read again. Pages that this has removed.
 */
export function* truncate_inode_partial_folio(
  k: Kernel,
  t: Task,
  mapping: AddressSpace,
  head: number,
  start: number,
  end: number,
): Code<number> {
  const {mm} = k;
  const {pages} = mm;
  pages.refcount.increment(head);
  yield* folio_lock(k, t, head);
  yield* folio_wait_writeback(k, t, head);
  let removed = 0;
  if (isCached(k, mapping, head)) {
    const before = mapping.nrpages;
    const first = page_pgoff(pages, head);
    const n = folio_nr_pages(pages, head);
    const from = Math.max(start - first, 0);
    const to = Math.min(end - first, n);
    yield* zeroRange(k, t, head, from, to);
    if (yield* split_file_folio(k, t, mapping, head, from)) {
      if (to < n) yield* splitAtEnd(k, t, mapping, compound_head(pages, head + to), head + to);
      removed = before - mapping.nrpages;
    } else if ((pages.flags[head] & PG_dirty) === 0) {
      removed = yield* removeLocked(k, t, mapping, head);
      if (mapping.host === 'file') mm.uncached.mark(mapping, first, first + n);
    }
  }
  folio_unlock(k, head);
  folio_put(k, t, head);
  return removed;
}

/** folio_zero_range over pages [from, to) of a folio. */
function* zeroRange(k: Kernel, t: Task, head: number, from: number, to: number): Code {
  const {mm} = k;
  const ticks = pageWorkTicks(k, t, mm.costs.clearPageTicks, mm.pages.nodeOf(head), to - from);
  t.cpu.charge(ticks, mm.fns.clear_page_erms);
  if (t.cpu.settle()) yield;
  if (mm.pages.hasContent) mm.pages.content.fill(0, head + from, head + to);
}

/**
 * The piece that the end of a hole lies in is split too (6.15+: the first split leaves it large).
 */
function* splitAtEnd(k: Kernel, t: Task, mapping: AddressSpace, piece: number, pfn: number): Code {
  const {pages} = k.mm;
  if (!folio_test_large(pages, piece)) return;
  pages.refcount.increment(piece);
  if (t.cpu.settle()) yield;
  if (folio_trylock(k, piece)) {
    if (folio_test_large(pages, piece) && isCached(k, mapping, piece)) {
      yield* split_file_folio(k, t, mapping, piece, pfn - piece);
    }
    folio_unlock(k, piece);
  }
  folio_put(k, t, piece);
}
