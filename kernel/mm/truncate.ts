// mm/truncate.c and unmap_mapping_range of mm/memory.c: taking pages out of a file that processes
// map. ftruncate, fallocate(FALLOC_FL_PUNCH_HOLE), MADV_REMOVE; disk files and shared memory.
//
// Mappings go first, VMA by VMA in the order of the i_mmap tree, each overlap in a CLEAR pair,
// under i_mmap_rwsem (for read since 6.1, for write before) and without mmap_lock. Then the pages
// leave the cache one by one under their lock; one that was mapped again meanwhile is unmapped
// alone. A file that shrinks takes private copies along (even_cows), and is unmapped a second time,
// because a copy may have been made from a page on its way out; a hole leaves private copies alone.
// Faults beyond the end are SIGBUS, faults in a hole get new pages of zeros, which takes no disk. A
// large folio that only partly lies in the range stays whole in the cache, as in Linux when it
// cannot be split.

import type {Code} from '../../machine/engine.ts';
import {nsToTicks} from '../../machine/time.ts';
import {EINVAL, EOPNOTSUPP} from '../errno.ts';
import type {Kernel} from '../kernel.ts';
import type {Task} from '../task.ts';
import {isBefore} from '../version.ts';
import type {AddressSpace} from './address_space.ts';
import {folio_mapped} from './folio_counts.ts';
import {hugetlb_vmtruncate, hugetlbfs_punch_hole} from './hugetlb_truncate.ts';
import {type ZapDetails, zap_page_range_single} from './memory_zap.ts';
import type {Mm} from './mm_state.ts';
import {clearMapping, compound_head, folio_nr_pages, mappingId, page_pgoff} from './page.ts';
import {folio_put} from './page_alloc.ts';
import {PG_dirty} from './page_flags.ts';
import {folio_lock, folio_unlock, folio_wait_writeback} from './page_io.ts';
import type {VmArea} from './vma.ts';

/** setattr or fallocate of a file system without its pages: journal, extents. Assumption. */
const TRUNCATE_TICKS = nsToTicks(2_500);

/** What one truncation did. */
export interface Truncated {
  /** Pages that left the cache, and swap slots given back. */
  pages: number;
  swapEntries: number;
}

/** Installs MADV_REMOVE. */
export function install_truncate(k: Kernel, mm: Mm): void {
  mm.hooks.punch_hole = (t, mapping, pgoff, n) => punch_hole(k, t, mapping, pgoff, pgoff + n);
}

/**
 * ftruncate(2) to `sizePages` pages; growing leaves a hole. 0 or -errno. Of hugetlbfs whole huge
 * pages (hugetlb_truncate.ts).
 */
export function* do_truncate(
  k: Kernel,
  t: Task,
  mapping: AddressSpace,
  sizePages: number,
): Code<number> {
  const {mm} = k;
  t.cpu.charge(TRUNCATE_TICKS, mm.fns.truncate_inode_pages_range);
  if (mapping.hugetlb !== null) {
    yield* hugetlb_vmtruncate(k, t, mapping, sizePages);
    return 0;
  }
  if (!isTruncatable(mapping)) return -EINVAL;
  if (t.cpu.settle()) yield;
  const before = mapping.sizePages;
  mapping.sizePages = sizePages;
  if (mapping.host === 'file') mm.holes.mark(mapping, Math.min(before, sizePages), Infinity);
  if (sizePages >= before) return 0;
  yield* unmap_mapping_pages(k, t, mapping, sizePages, Infinity, true);
  yield* truncate_inode_pages_range(k, t, mapping, sizePages, Infinity);
  yield* unmap_mapping_pages(k, t, mapping, sizePages, Infinity, true);
  return 0;
}

/** fallocate(2) with PUNCH_HOLE | KEEP_SIZE over the pages [start, end). 0 or -errno. */
export function* punch_hole(
  k: Kernel,
  t: Task,
  mapping: AddressSpace,
  start: number,
  end: number,
): Code<number> {
  if (start >= end) return -EINVAL;
  if (mapping.hugetlb !== null) {
    yield* hugetlbfs_punch_hole(k, t, mapping, start, end);
    return 0;
  }
  if (!isTruncatable(mapping)) return -EOPNOTSUPP;
  const {mm} = k;
  t.cpu.charge(TRUNCATE_TICKS, mm.fns.truncate_inode_pages_range);
  if (t.cpu.settle()) yield;
  if (mapping.host === 'file') mm.holes.mark(mapping, start, end);
  yield* unmap_mapping_pages(k, t, mapping, start, end, false);
  yield* truncate_inode_pages_range(k, t, mapping, start, end);
  return 0;
}

function isTruncatable({host}: AddressSpace): boolean {
  return host === 'file' || host === 'shmem';
}

/**
 * unmap_mapping_pages: no process maps pages [start, end) of the file afterwards; with `evenCows`
 * no private copy of them is left either.
 */
export function* unmap_mapping_pages(
  k: Kernel,
  t: Task,
  mapping: AddressSpace,
  start: number,
  end: number,
  evenCows: boolean,
): Code {
  yield* unmapTree(k, t, mapping, start, end, {singleFolio: 0, evenCows, dropMarkers: false});
}

/** unmap_mapping_folio: a locked folio that is still mapped somewhere. */
function* unmap_mapping_folio(k: Kernel, t: Task, mapping: AddressSpace, head: number): Code {
  const first = page_pgoff(k.mm.pages, head);
  const end = first + folio_nr_pages(k.mm.pages, head);
  const details = {singleFolio: head, evenCows: false, dropMarkers: true};
  yield* unmapTree(k, t, mapping, first, end, details);
}

/** unmap_mapping_range_tree under i_mmap_rwsem. */
function* unmapTree(
  k: Kernel,
  t: Task,
  mapping: AddressSpace,
  start: number,
  end: number,
  details: ZapDetails,
): Code {
  const {mm} = k;
  const {files, fns} = mm;
  const fn = fns.unmap_mapping_range;
  const lock = mm.iMmapLock(mapping);
  const reads = !isBefore(k.facts.version, '6.1');
  if (reads) {
    if (!lock.readAcquire(t, fn)) yield* lock.readAcquireSlow(t, fn);
  } else if (!lock.writeAcquire(t, fn)) {
    yield* lock.writeAcquireSlow(t, fn);
  }
  const last = end - 1;
  const vmas: VmArea[] = [];
  for (let node = files.forest.iterFirst(mapping, start, last); node !== 0; ) {
    vmas.push(files.forest.item[node]!);
    node = files.forest.iterNext(node, start, last);
  }
  for (const vma of vmas) {
    const from = vma.start + Math.max(start - vma.pgoff, 0);
    const to = Math.min(vma.end, vma.start + end - vma.pgoff);
    if (from < to) yield* zap_page_range_single(k, t, vma, from, to, details);
  }
  if (reads) {
    if (!lock.readRelease(t)) yield* lock.readReleaseSlow(t);
  } else if (!lock.writeRelease(t)) {
    yield* lock.writeReleaseSlow(t);
  }
}

/**
 * truncate_inode_pages_range, shmem_truncate_range: pages, swap entries and shadows of [start, end)
 * leave the cache. Cost: one step for each.
 */
export function* truncate_inode_pages_range(
  k: Kernel,
  t: Task,
  mapping: AddressSpace,
  start: number,
  end: number,
): Code<Truncated> {
  const {mm} = k;
  const {files, costs, fns} = mm;
  const last = Math.min(end, 2 ** 31) - 1;
  const done = {pages: 0, swapEntries: 0};
  for (let index = files.nextIndex(mapping, start, last); index >= 0; ) {
    t.cpu.charge(costs.truncatePageTicks, fns.truncate_inode_pages_range);
    const pfn = files.page(mapping, index);
    let next = index + 1;
    if (pfn === 0) {
      const value = files.removeValue(mapping, index);
      if (value >= 0 && mapping.host === 'shmem') {
        mm.hooks.free_swap_and_cache?.(value, 1);
        done.swapEntries++;
      }
    } else {
      const head = compound_head(mm.pages, pfn);
      const first = page_pgoff(mm.pages, head);
      const n = folio_nr_pages(mm.pages, head);
      if (first >= start && first + n <= end) {
        done.pages += yield* truncate_inode_folio(k, t, mapping, head);
      }
      next = first + n;
    }
    if (t.cpu.settle()) yield;
    if (k.sched.needsResched(t)) yield* k.sched.condResched(t);
    index = files.nextIndex(mapping, next, last);
  }
  return done;
}

/** truncate_inode_folio: lock, unmap, not dirty any more, out of the cache. Pages removed. */
function* truncate_inode_folio(
  k: Kernel,
  t: Task,
  mapping: AddressSpace,
  head: number,
): Code<number> {
  const {pages, files} = k.mm;
  pages.refcount.increment(head);
  yield* folio_lock(k, t, head);
  yield* folio_wait_writeback(k, t, head);
  const first = page_pgoff(pages, head);
  let removed = 0;
  if (mappingId(pages, head) === mapping.id && files.page(mapping, first) === head) {
    if (folio_mapped(pages, head)) yield* unmap_mapping_folio(k, t, mapping, head);
    pages.flags[head] &= ~PG_dirty;
    const n = folio_nr_pages(pages, head);
    for (let i = 0; i < n; i++) files.removePage(mapping, first + i, -1);
    // Whoever still has a reference (a pin) keeps a page of no file.
    clearMapping(pages, head);
    pages.refcount.add(head, -n);
    removed = n;
  }
  folio_unlock(k, head);
  folio_put(k, t, head);
  return removed;
}
