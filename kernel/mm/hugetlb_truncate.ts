// fs/hugetlbfs/inode.c: truncation and hole punching (6.18). First every mapping of the range is
// unmapped under i_mmap_rwsem, but those whose vma lock somebody has; then huge page by huge page
// under its fault mutex, so that none is faulted in meanwhile: what is mapped (still or again) is
// unmapped with both locks, the page leaves the file, its reservation with it. Each VMA hears CLEAR
// for its part, widened to what sharing may reach. Parts of huge pages at the ends of a hole stay
// (Linux clears them, which nobody is told).

import type {Code} from '../../machine/process.ts';
import type {Kernel} from '../kernel.ts';
import type {Task} from '../task.ts';
import type {AddressSpace} from './address_space.ts';
import {hugetlbWork} from './costs_hugetlb.ts';
import {folio_mapped} from './folio_counts.ts';
import {hugetlb_page, hugetlb_unreserve_pages, remove_inode_hugepages} from './hugetlb_inode.ts';
import {unmap_hugepage_range} from './hugetlb_unmap.ts';
import type {VmArea} from './vma.ts';

/** ftruncate to `sizePages` (4 KB); growing makes nothing. */
export function* hugetlb_vmtruncate(
  k: Kernel,
  t: Task,
  mapping: AddressSpace,
  sizePages: number,
): Code {
  const {h} = mapping.hugetlb!;
  const before = mapping.sizePages;
  mapping.sizePages = Math.ceil(sizePages / h.pages) * h.pages;
  if (mapping.sizePages >= before) return;
  const from = mapping.sizePages / h.pages;
  const to = before / h.pages;
  yield* hugetlb_vmdelete_list(k, t, mapping, from, to);
  for (let index = from; index < to; index++) yield* removeOne(k, t, mapping, index);
  hugetlb_unreserve_pages(k, t, mapping, from, to, 0);
}

/** hugetlbfs_punch_hole of the whole huge pages in small pages [start, end). */
export function* hugetlbfs_punch_hole(
  k: Kernel,
  t: Task,
  mapping: AddressSpace,
  start: number,
  end: number,
): Code {
  const {h} = mapping.hugetlb!;
  const from = Math.ceil(start / h.pages);
  const to = Math.min(Math.floor(end / h.pages), mapping.sizePages / h.pages);
  if (from >= to) return;
  yield* hugetlb_vmdelete_list(k, t, mapping, from, to);
  for (let index = from; index < to; index++) yield* removeOne(k, t, mapping, index);
}

/** Mappings of huge pages [from, to) of the file, in the order of its tree. */
function mappingsOf(k: Kernel, mapping: AddressSpace, from: number, to: number): VmArea[] {
  const {h} = mapping.hugetlb!;
  const {forest} = k.mm.files;
  const last = to * h.pages - 1;
  const vmas: VmArea[] = [];
  for (let node = forest.iterFirst(mapping, from * h.pages, last); node !== 0; ) {
    vmas.push(forest.item[node]!);
    node = forest.iterNext(node, from * h.pages, last);
  }
  return vmas;
}

function* unmapIn(
  k: Kernel,
  t: Task,
  vma: VmArea,
  h: {readonly pages: number},
  from: number,
  to: number,
): Code {
  const first = Math.max(vma.start, vma.start + (from * h.pages - vma.pgoff));
  const end = Math.min(vma.end, vma.start + (to * h.pages - vma.pgoff));
  yield* unmap_hugepage_range(k, t, vma, first, end, 0);
}

/** hugetlb_vmdelete_list: mappings whose lock is to be had at once. */
function* hugetlb_vmdelete_list(
  k: Kernel,
  t: Task,
  mapping: AddressSpace,
  from: number,
  to: number,
): Code {
  const {mm} = k;
  const fn = hugetlbWork(k).fns.remove_inode_hugepages;
  const lock = mm.iMmapLock(mapping);
  if (!lock.writeAcquire(t, fn)) yield* lock.writeAcquireSlow(t, fn);
  for (const vma of mappingsOf(k, mapping, from, to)) {
    const own = mm.hugetlb.locks.vmaLock(vma);
    if (t.cpu.settle()) yield;
    if (own !== null && !own.tryWriteAcquire(t, fn)) continue;
    yield* unmapIn(k, t, vma, mapping.hugetlb!.h, from, to);
    if (own !== null && !own.writeRelease(t)) yield* own.writeReleaseSlow(t);
  }
  if (!lock.writeRelease(t)) yield* lock.writeReleaseSlow(t);
}

/** remove_inode_single_folio under the page's fault mutex, and its reservation. */
function* removeOne(k: Kernel, t: Task, mapping: AddressSpace, index: number): Code {
  const fn = hugetlbWork(k).fns.remove_inode_hugepages;
  const {locks} = k.mm.hugetlb;
  const mutex = locks.faultMutex(mapping, index);
  if (!mutex.acquire(t, fn)) yield* mutex.acquireSlow(t, fn);
  const head = hugetlb_page(k, mapping, index);
  if (head !== 0) {
    if (folio_mapped(k.mm.pages, head)) yield* hugetlb_unmap_file_folio(k, t, mapping, index);
    const freed = remove_inode_hugepages(k, t, mapping, index, index + 1);
    hugetlb_unreserve_pages(k, t, mapping, index, index + 1, freed);
  }
  if (!mutex.release(t)) yield* mutex.releaseSlow(t);
}

/** hugetlb_unmap_file_folio: every mapping of one huge page, waiting for their locks. */
function* hugetlb_unmap_file_folio(k: Kernel, t: Task, mapping: AddressSpace, index: number): Code {
  const fn = hugetlbWork(k).fns.remove_inode_hugepages;
  const {locks} = k.mm.hugetlb;
  for (const vma of mappingsOf(k, mapping, index, index + 1)) {
    const held = yield* locks.lock_write(t, vma, fn);
    if (vma.iMmapNode !== 0) yield* unmapIn(k, t, vma, mapping.hugetlb!.h, index, index + 1);
    yield* locks.unlock_write(t, vma, held, false);
  }
}
