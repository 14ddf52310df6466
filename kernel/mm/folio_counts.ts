// Reference, map and pin counts of folios, where Linux keeps them: a small folio in its own words,
// a large one in its head and in the otherwise unused words of its first two tails.

import {bug} from '../../machine/assert.ts';
import {folio_order, folio_test_large, type Pages} from './page.ts';

/** FOLL_PIN references of a folio that has no pin count of its own (order 0 and 1). */
export const GUP_PIN_COUNTING_BIAS = 1024;

/** folio_ref_count; the count is in the head. */
export function folio_ref_count(pages: Pages, head: number): number {
  return pages.refcount.get(head);
}

/** folio_get. */
export function folio_get(pages: Pages, head: number): void {
  pages.refcount.increment(head);
}

/** folio_put_testzero: true when that was the last reference and the folio must be freed. */
export function folio_put_testzero(pages: Pages, head: number): boolean {
  pages.refcount.decrement(head);
  return pages.refcount.isZero(head);
}

/** How many PTEs map this very page, entire mappings of its folio not included. */
export function pageMapcount(pages: Pages, pfn: number): number {
  return pages.mapcount.get(pfn);
}

/** entire_mapcount: PMDs (PUDs) that map all of a large folio. */
export function entire_mapcount(pages: Pages, head: number): number {
  return pages.mapping[head + 1];
}

/** nr_pages_mapped: pages of a large folio that at least one PTE maps. */
export function nr_pages_mapped(pages: Pages, head: number): number {
  return pages.index[head + 1];
}

/** folio_mapcount: all mappings, an entire one counting once (large_mapcount). */
export function folio_mapcount(pages: Pages, head: number): number {
  return folio_test_large(pages, head) ? pages.prev[head + 1] : pages.mapcount.get(head);
}

/** folio_mapped. */
export function folio_mapped(pages: Pages, head: number): boolean {
  if (folio_test_large(pages, head)) return pages.prev[head + 1] > 0;
  return !pages.mapcount.isZero(head);
}

/** page_mapcount of kernels up to 6.8: PTEs that map the page plus entire mappings of its folio. */
export function page_mapcount(pages: Pages, head: number, pfn: number): number {
  const own = pages.mapcount.get(pfn);
  return folio_test_large(pages, head) ? own + pages.mapping[head + 1] : own;
}

/** Counts one more PTE that maps `pfn`. True when it is the first mapping of that page by a PTE. */
export function addPteMapping(pages: Pages, head: number, pfn: number): boolean {
  const first = pages.mapcount.isZero(pfn);
  pages.mapcount.increment(pfn);
  if (folio_test_large(pages, head)) {
    pages.prev[head + 1]++;
    if (first) pages.index[head + 1]++;
  }
  return first;
}

/** The counts of the folio for `nr` more PTEs, `first` of them each the first of its page. */
export function addPteMappings(pages: Pages, head: number, nr: number, first: number): void {
  if (!folio_test_large(pages, head)) return;
  pages.prev[head + 1] += nr;
  pages.index[head + 1] += first;
}

/** Counts one PTE less. True when no PTE maps that page any more. */
export function removePteMapping(pages: Pages, head: number, pfn: number): boolean {
  pages.mapcount.decrement(pfn);
  const last = pages.mapcount.isZero(pfn);
  if (folio_test_large(pages, head)) {
    pages.prev[head + 1]--;
    if (last) pages.index[head + 1]--;
  }
  return last;
}

/** Counts one more PMD (PUD) that maps the whole folio. True when it is the first. */
export function addEntireMapping(pages: Pages, head: number): boolean {
  pages.prev[head + 1]++;
  return pages.mapping[head + 1]++ === 0;
}

/** Counts one PMD (PUD) less. True when none is left. */
export function removeEntireMapping(pages: Pages, head: number): boolean {
  if (pages.mapping[head + 1] <= 0) bug(`folio ${head} is not mapped entirely`);
  pages.prev[head + 1]--;
  return --pages.mapping[head + 1] === 0;
}

/** __split_huge_pmd_locked: one entire mapping becomes a mapping of each page by a PTE. */
export function splitEntireMapping(pages: Pages, head: number): void {
  const end = head + (1 << folio_order(pages, head));
  for (let pfn = head; pfn < end; pfn++) addPteMapping(pages, head, pfn);
  removeEntireMapping(pages, head);
}

/** FOLL_PIN of a folio: takes references, and counts the pins where there is room for it. */
export function pinFolio(pages: Pages, head: number, pins: number): void {
  if (folio_order(pages, head) > 1) {
    pages.refcount.add(head, pins);
    pages.prev[head + 2] += pins;
  } else {
    pages.refcount.add(head, pins * GUP_PIN_COUNTING_BIAS);
  }
}

/** Undoes pinFolio; the references go with it. True when the folio must be freed. */
export function unpinFolio(pages: Pages, head: number, pins: number): boolean {
  pinFolio(pages, head, -pins);
  return pages.refcount.isZero(head);
}

/**
 * folio_maybe_dma_pinned: exact for large folios, a guess by the reference count for small ones, as
 * in Linux.
 */
export function folio_maybe_dma_pinned(pages: Pages, head: number): boolean {
  if (folio_order(pages, head) > 1) return pages.prev[head + 2] > 0;
  return pages.refcount.get(head) >= GUP_PIN_COUNTING_BIAS;
}
