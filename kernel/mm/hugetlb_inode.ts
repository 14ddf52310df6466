// fs/hugetlbfs: what an inode of hugetlbfs has besides its pages: the pool that they are of and the
// reserve map of its shared mappings. The page cache has one entry for a huge page, at the index of
// its first small page.

import type {Kernel} from '../kernel.ts';
import type {Task} from '../task.ts';
import {isBefore} from '../version.ts';
import type {AddressSpace} from './address_space.ts';
import {hugetlbWork} from './costs_hugetlb.ts';
import {type HState, hugetlb_acct_memory} from './hugetlb_pool.ts';
import {ResvMap, vma_resv_map} from './hugetlb_resv.ts';
import {folio_put} from './page_alloc.ts';
import {PG_dirty} from './page_flags.ts';
import type {VmArea} from './vma.ts';

/** Part of the AddressSpace of a hugetlbfs file. */
export interface HugetlbInode {
  readonly h: HState;
  readonly resvMap: ResvMap;
  /** fork copies its shared mappings, too (up to 5.19). */
  readonly copiesAtFork: boolean;
}

/** A new file of hugetlbfs (hugetlb_file_setup, memfd with MFD_HUGETLB, a file of a mount). */
export function hugetlb_file_setup(k: Kernel, h: HState, sizePages: number): AddressSpace {
  const mapping = k.mm.files.create('hugetlb', Math.ceil(sizePages / h.pages) * h.pages);
  const copiesAtFork = isBefore(k.facts.version, '6.0');
  mapping.hugetlb = {h, resvMap: new ResvMap(null), copiesAtFork};
  return mapping;
}

/** Page of the file at huge-page offset `index`: head pfn, 0 for none. */
export function hugetlb_page(k: Kernel, mapping: AddressSpace, index: number): number {
  return k.mm.files.page(mapping, index * mapping.hugetlb!.h.pages);
}

/**
 * hugetlb_unreserve_pages: reservations of [from, to) end; `freed` of them were consumed by pages
 * that went.
 */
export function hugetlb_unreserve_pages(
  k: Kernel,
  t: Task,
  mapping: AddressSpace,
  from: number,
  to: number,
  freed: number,
): void {
  const {h, resvMap} = mapping.hugetlb!;
  const removed = resvMap.remove(from, to);
  t.cpu.charge(hugetlbWork(k).costs.regionTicks, hugetlbWork(k).fns.hugetlb_reserve_pages);
  hugetlb_acct_memory(k, t, h, -(removed - freed));
}

/**
 * remove_inode_hugepages for huge pages [from, to) that nobody maps any more. Returns how many
 * went.
 */
export function remove_inode_hugepages(
  k: Kernel,
  t: Task,
  mapping: AddressSpace,
  from: number,
  to: number,
): number {
  const {files, pages} = k.mm;
  const {h} = mapping.hugetlb!;
  const {costs, fns} = hugetlbWork(k);
  let freed = 0;
  const last = to * h.pages - 1;
  let index = files.nextIndex(mapping, from * h.pages, last);
  while (index >= 0) {
    const head = files.removePage(mapping, index, -1);
    pages.flags[head] &= ~PG_dirty;
    t.cpu.charge(costs.hugetlbPageTicks, fns.remove_inode_hugepages);
    folio_put(k, t, head);
    freed++;
    index = files.nextIndex(mapping, index + h.pages, last);
  }
  return freed;
}

/** LLONG_MAX, as far as files go here: huge pages. */
const EVERYTHING = 2 ** 24;

/**
 * hugetlbfs_evict_inode: the file goes with its pages and reservations. Nothing maps it. A fault
 * that met a truncation may have left pages beyond the end.
 */
export function hugetlbfs_evict_inode(k: Kernel, t: Task, mapping: AddressSpace): void {
  const end = EVERYTHING;
  const freed = remove_inode_hugepages(k, t, mapping, 0, end);
  hugetlb_unreserve_pages(k, t, mapping, 0, end, freed);
  k.mm.files.destroy(mapping);
}

/**
 * hugetlb_vm_op_close, when the VMA is freed: what a private mapping had reserved and not consumed
 * is given back; a file without a name goes with its last mapping.
 */
export function hugetlb_vm_op_close(k: Kernel, t: Task, vma: VmArea): void {
  const {mapping} = vma;
  if (mapping === null || mapping.hugetlb === null) return;
  const {h} = mapping.hugetlb;
  const map = vma_resv_map(vma);
  if (map !== null && map.owner !== null) {
    const from = Math.floor(vma.pgoff / h.pages);
    const to = Math.floor((vma.pgoff + vma.pages) / h.pages);
    const unused = map.missing(from, to);
    if (unused > 0) hugetlb_acct_memory(k, t, h, -unused);
  }
  if (mapping.unlinked && mapping.nrMaps === 0) hugetlbfs_evict_inode(k, t, mapping);
}
