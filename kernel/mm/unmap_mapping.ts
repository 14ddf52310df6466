// mm/memory.c: unmap_mapping_range: taking pages of a file out of all page tables. VMA by VMA in
// the order of the i_mmap tree, each overlap in a CLEAR pair, under i_mmap_rwsem (for read since
// 6.1, for write before) and without mmap_lock.

import type {Code} from '../../machine/process.ts';
import type {Kernel} from '../kernel.ts';
import type {Task} from '../task.ts';
import {isBefore} from '../version.ts';
import type {AddressSpace} from './address_space.ts';
import {type ZapDetails, zap_page_range_single} from './memory_zap.ts';
import {folio_nr_pages, page_pgoff} from './page.ts';
import type {VmArea} from './vma.ts';

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
export function* unmap_mapping_folio(
  k: Kernel,
  t: Task,
  mapping: AddressSpace,
  head: number,
): Code {
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
