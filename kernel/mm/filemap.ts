// mm/filemap.c and mm/shmem.c as far as page faults see them: which page of a file is in the page
// cache, and reading one that is not. A file is taken to be fully cached when a run begins: a page
// that nobody has touched yet gets its frame, without cost, when it is first looked at.
// kernel.mm.uncached says otherwise for ranges, and reclaim does (it leaves a shadow entry behind).
// A page marked PG_readahead (the same bit as PG_reclaim) is passed over by fault-around; a fault
// on it reads ahead and clears it.

import type {Code} from '../../machine/process.ts';
import {nsToTicks} from '../../machine/time.ts';
import type {Kernel} from '../kernel.ts';
import type {Task} from '../task.ts';
import type {AddressSpace} from './address_space.ts';
import {folio_add_lru} from './folio_lru.ts';
import type {Mm} from './mm_state.ts';
import {MAPPING_FILE, prep_compound_page, setMapping} from './page.ts';
import {alloc_folio, alloc_folio_slow, folio_put} from './page_alloc.ts';
import {PG_readahead, PG_swapbacked, PG_uptodate} from './page_flags.ts';

/** ra_pages of a disk: 128 KB. */
export const READAHEAD_PAGES = 32;

/** A read from an NVMe disk: latency, and one more page of it. Assumption. */
const READ_TICKS = nsToTicks(80_000);
const READ_PAGE_TICKS = nsToTicks(600);
/**
 * VM_READAHEAD's async part: reading the page this far before the window's end starts the next
 * window.
 */
const ASYNC_PAGES = READAHEAD_PAGES / 4;

/** Ranges of files that are not in the page cache when the run begins. */
export class UncachedRanges {
  private readonly byFile = new Map<number, [start: number, end: number][]>();

  get any(): boolean {
    return this.byFile.size > 0;
  }

  /**
   * The pages [start, end) of a file must be read before they can be used. Overlaps with others are
   * fine.
   */
  mark(mapping: AddressSpace, start: number, end: number): void {
    const ranges = this.byFile.get(mapping.id) ?? [];
    ranges.push([start, end]);
    this.byFile.set(mapping.id, ranges);
  }

  has(mapping: AddressSpace, index: number): boolean {
    const ranges = this.byFile.get(mapping.id);
    return ranges?.some(([start, end]) => index >= start && index < end) ?? false;
  }
}

/** Pages that carry PG_readahead when the run begins: the last read of the file stopped there. */
export class ReadaheadMarks {
  private readonly byFile = new Map<number, Set<number>>();

  /** Page `index` of a file starts the next readahead. */
  mark(mapping: AddressSpace, index: number): void {
    const marks = this.byFile.get(mapping.id);
    if (marks === undefined) this.byFile.set(mapping.id, new Set([index]));
    else marks.add(index);
  }

  clear(mapping: AddressSpace, index: number): void {
    this.byFile.get(mapping.id)?.delete(index);
  }

  has(mapping: AddressSpace, index: number): boolean {
    return this.byFile.get(mapping.id)?.has(index) ?? false;
  }
}

/**
 * Large folios that files have in the page cache when the run begins, naturally aligned as all are.
 */
export class LargeFolios {
  private readonly byFile = new Map<number, Map<number, number>>();

  /**
   * The 2^order pages from `index` on, a multiple of 2^order, are one folio, unless some of them
   * are in another.
   */
  mark(mapping: AddressSpace, index: number, order: number): void {
    let folios = this.byFile.get(mapping.id);
    if (folios === undefined) {
      folios = new Map();
      this.byFile.set(mapping.id, folios);
    }
    const end = index + 2 ** order;
    for (let page = index; page < end; page++) if (folios.has(page)) return;
    for (let page = index; page < end; page++) folios.set(page, order);
  }

  /** Order of the folio that holds page `index`. */
  orderOf(mapping: AddressSpace, index: number): number {
    return this.byFile.get(mapping.id)?.get(index) ?? 0;
  }
}

/**
 * pfn of the cached page at `index`, 0 when it is not in memory or past the end of the file. Plain
 * and free of cost.
 */
export function filemap_get_page(k: Kernel, t: Task, mapping: AddressSpace, index: number): number {
  if (index >= mapping.sizePages) return 0;
  const {mm} = k;
  const entry = mm.files.arrays.load(mapping.pages, index);
  if (entry > 0) return entry;
  if (entry < 0 || mapping.host !== 'file') return 0;
  if (mm.uncached.any && mm.uncached.has(mapping, index)) return 0;
  if (mm.holes.any && mm.holes.has(mapping, index)) return 0;
  return cachedBefore(k, t, mapping, index);
}

/** Nothing of these pages is in the page cache. */
function isUncached(mm: Mm, mapping: AddressSpace, index: number, count: number): boolean {
  return mm.files.nextIndex(mapping, index, index + count - 1) < 0;
}

/** A page that was in the page cache when the run began. */
function cachedBefore(k: Kernel, t: Task, mapping: AddressSpace, index: number): number {
  const {mm} = k;
  const {pages} = mm;
  const {fallback} = mm.zones[k.machine.topology.nodeOf[t.cpu.id]];
  let order = mm.largeFolios.orderOf(mapping, index);
  const whole = 2 ** order;
  if (order > 0 && !isUncached(mm, mapping, index - (index % whole), whole)) order = 0;
  if (order > 0 && mm.holes.any) {
    const start = index - (index % whole);
    if (mm.holes.overlaps(mapping, start, start + whole)) order = 0;
  }
  const first = index - (index % 2 ** order);
  for (const node of fallback) {
    const head = mm.zones[node].buddy.alloc(order);
    if (head === 0) continue;
    if (order > 0) prep_compound_page(pages, head, order);
    pages.flags[head] |= PG_uptodate | (mm.readahead.has(mapping, index) ? PG_readahead : 0);
    pages.refcount.set(head, 2 ** order);
    setMapping(pages, head, MAPPING_FILE, mapping.id, first);
    for (let n = 0; n < 2 ** order; n++) mm.files.addPage(mapping, first + n, head + n);
    mm.lruvecs.of(node, 0).addFolio(head);
    return head + index - first;
  }
  return 0;
}

/** filemap_add_folio for one new page whose reference the cache takes over. */
export function filemap_add_folio(
  k: Kernel,
  t: Task,
  mapping: AddressSpace,
  index: number,
  pfn: number,
): void {
  const {mm} = k;
  const {pages} = mm;
  const swapBacked = mapping.host === 'shmem' ? PG_swapbacked : 0;
  pages.flags[pfn] |= PG_uptodate | swapBacked;
  setMapping(pages, pfn, MAPPING_FILE, mapping.id, index);
  const shadow = mm.files.addPage(mapping, index, pfn);
  if (shadow >= 0 && mapping.host === 'file') mm.hooks.workingset_refault?.(t, pfn, shadow);
  folio_add_lru(k, t, pfn);
}

/**
 * Reads the pages around `index` (do_sync_mmap_readahead: 32 pages, half of them before it) that
 * are not cached. The task sleeps for the device. False: no memory.
 */
export function* filemap_read(
  k: Kernel,
  t: Task,
  mapping: AddressSpace,
  index: number,
): Code<boolean> {
  const {mm} = k;
  const first = Math.max(index - READAHEAD_PAGES / 2, 0);
  const end = Math.min(first + READAHEAD_PAGES, mapping.sizePages);
  const node = k.machine.topology.nodeOf[t.cpu.id];
  let fresh = 0;
  /** Pages that are read; those in holes are only cleared. */
  let read = 0;
  for (let at = first; at < end; at++) {
    if (filemap_get_page(k, t, mapping, at) !== 0) continue;
    let pfn = alloc_folio(k, t, 0, node, 0);
    if (pfn < 0 && at === index) pfn = yield* alloc_folio_slow(k, t, 0, node, 0);
    if (pfn <= 0) {
      if (at === index) return false;
      continue;
    }
    if (mm.files.page(mapping, at) !== 0) {
      folio_put(k, t, pfn);
      continue;
    }
    filemap_add_folio(k, t, mapping, at, pfn);
    if (at === first + READAHEAD_PAGES - ASYNC_PAGES) mm.pages.flags[pfn] |= PG_readahead;
    fresh++;
    if (!mm.holes.any || !mm.holes.has(mapping, at)) read++;
  }
  t.cpu.charge((fresh - read) * mm.costs.clearPageTicks, mm.fns.clear_page_erms);
  if (read > 0 || fresh === 0) yield* k.sched.sleep(t, READ_TICKS + read * READ_PAGE_TICKS);
  return true;
}

/**
 * shmem_get_folio for a hole: a new page of zeros in the cache. -1: needs reclaim; 0: no memory.
 */
export function shmem_add_page(
  k: Kernel,
  t: Task,
  mapping: AddressSpace,
  index: number,
  prealloc: number,
): number {
  const {mm} = k;
  const node = k.machine.topology.nodeOf[t.cpu.id];
  const pfn = prealloc !== 0 ? prealloc : alloc_folio(k, t, 0, node, t.mm?.user?.memcg ?? 0);
  if (pfn <= 0) return pfn;
  t.cpu.charge(mm.costs.clearPageTicks, mm.fns.clear_page_erms);
  filemap_add_folio(k, t, mapping, index, pfn);
  return pfn;
}
