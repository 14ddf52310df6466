// mm/truncate.c and unmap_mapping_range of mm/memory.c: taking pages out of a file that processes
// map. ftruncate, fallocate(FALLOC_FL_PUNCH_HOLE), MADV_REMOVE; disk files and shared memory.
//
// Mappings go first (unmap_mapping.ts). Then the pages leave the cache one by one under their lock;
// one that was mapped again meanwhile is unmapped alone. A file that shrinks takes private copies
// along (even_cows), and is unmapped a second time, because a copy may have been made from a page
// on its way out; a hole leaves private copies alone. Faults beyond the end are SIGBUS, faults in a
// hole get new pages of zeros, which takes no disk. A large folio at an end of the range is cut
// (truncate_folio.ts).

import type {Code} from '../../machine/process.ts';
import {EINVAL, EOPNOTSUPP} from '../errno.ts';
import type {Kernel} from '../kernel.ts';
import type {Task} from '../task.ts';
import type {AddressSpace} from './address_space.ts';
import {hugetlb_vmtruncate, hugetlbfs_punch_hole} from './hugetlb_truncate.ts';
import type {Mm} from './mm_state.ts';
import {compound_head, folio_nr_pages, page_pgoff} from './page.ts';
import {truncate_inode_folio, truncate_inode_partial_folio} from './truncate_folio.ts';
import {unmap_mapping_pages} from './unmap_mapping.ts';

/** setattr or fallocate without the pages. */
function baseTicks({costs}: Mm, {host}: AddressSpace): number {
  return host === 'file' ? costs.truncateFileTicks : costs.truncateShmemTicks;
}

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
  t.cpu.charge(baseTicks(mm, mapping), mm.fns.truncate_inode_pages_range);
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
  t.cpu.charge(baseTicks(mm, mapping), mm.fns.truncate_inode_pages_range);
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
 * truncate_inode_pages_range, shmem_truncate_range: pages, swap entries and shadows of [start, end)
 * leave the cache. Whole folios first; then those at the ends are cut, and what the cuts made whole
 * leaves. Cost: one step for each.
 */
export function* truncate_inode_pages_range(
  k: Kernel,
  t: Task,
  mapping: AddressSpace,
  start: number,
  end: number,
): Code<Truncated> {
  const done = {pages: 0, swapEntries: 0};
  const cut: number[] = [];
  yield* truncateFolios(k, t, mapping, start, end, done, cut);
  for (const index of cut) {
    const head = compound_head(k.mm.pages, k.mm.files.page(mapping, index));
    if (head === 0) continue;
    const first = page_pgoff(k.mm.pages, head);
    const last = first + folio_nr_pages(k.mm.pages, head);
    done.pages += yield* truncate_inode_partial_folio(k, t, mapping, head, start, end);
    const [from, to] = [Math.max(start, first), Math.min(end, last)];
    yield* truncateFolios(k, t, mapping, from, to, done, []);
  }
  return done;
}

/** Removes what lies wholly in the range; `cut` gets an index of every folio that does not. */
function* truncateFolios(
  k: Kernel,
  t: Task,
  mapping: AddressSpace,
  start: number,
  end: number,
  done: Truncated,
  cut: number[],
): Code {
  const {mm} = k;
  const {files, costs, fns} = mm;
  const last = Math.min(end, 2 ** 31) - 1;
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
      if (first < start || first + n > end) cut.push(index);
      else done.pages += yield* truncate_inode_folio(k, t, mapping, head);
      next = first + n;
    }
    if (t.cpu.settle()) yield;
    if (k.sched.needsResched(t)) yield* k.sched.condResched(t);
    index = files.nextIndex(mapping, next, last);
  }
}
