// mmap of hugetlb (fs/hugetlbfs/inode.c). mmap reserves at once what the mapping may need, unless
// MAP_NORESERVE: for a shared file what its map lacks, for a private mapping all of it; without
// enough pages it fails. MAP_ANONYMOUS | MAP_HUGETLB makes a file of its own.

import type {Kernel} from '../kernel.ts';
import type {Task} from '../task.ts';
import {isBefore} from '../version.ts';
import type {AddressSpace} from './address_space.ts';
import {hugetlbWork} from './costs_hugetlb.ts';
import {hugetlb_file_setup} from './hugetlb_inode.ts';
import {type HState, hugetlb_acct_memory} from './hugetlb_pool.ts';
import {ResvMap} from './hugetlb_resv.ts';
import {propsFor} from './mmap_prot.ts';
import type {VmArea, VmaProps} from './vma.ts';
import {
  VM_ACCOUNT,
  VM_DONTEXPAND,
  VM_HUGETLB,
  VM_MAYSHARE,
  VM_NORESERVE,
  VM_SOFTDIRTY,
} from './vma_flags.ts';
import {split_vma} from './vma_ops.ts';
import type {VmaSpace} from './vma_space.ts';

/** MAP_HUGE_SHIFT and the two sizes of x86. */
const MAP_HUGE_SHIFT = 26;
const MAP_HUGE_MASK = 0x3f;
export const MAP_HUGE_2MB = 21 << MAP_HUGE_SHIFT;
export const MAP_HUGE_1GB = 30 << MAP_HUGE_SHIFT;

/** hstate_sizelog of mmap's flags: the pool, null for a size that there is none of. */
export function hstateOfFlags(k: Kernel, flags: number): HState | null {
  const log = (flags >>> MAP_HUGE_SHIFT) & MAP_HUGE_MASK;
  return log === 0 ? k.mm.hugetlb.default : k.mm.hugetlb.byOrder(log - 12);
}

/** Properties of a mapping of `mapping`, whose VM_ flags from mmap are `flags`. */
export function hugetlbProps(flags: number, mapping: AddressSpace): VmaProps {
  const vm = (flags & ~VM_ACCOUNT) | VM_HUGETLB | VM_DONTEXPAND | VM_SOFTDIRTY;
  return propsFor(vm, mapping);
}

/**
 * MAP_ANONYMOUS | MAP_HUGETLB: a file that goes with the mapping. `pages`: 4 KB pages, rounded up
 * by it.
 */
export function hugetlb_anon_setup(k: Kernel, h: HState, pages: number): AddressSpace {
  const mapping = hugetlb_file_setup(k, h, pages);
  mapping.unlinked = true;
  return mapping;
}

/**
 * hugetlbfs_file_mmap and hugetlb_reserve_pages for [pgoff, pgoff + pages) of the file. False: not
 * enough huge pages (ENOMEM). A private mapping's reserve map goes into `props`.
 */
export function hugetlbfs_file_mmap(
  k: Kernel,
  t: Task,
  space: VmaSpace,
  props: VmaProps,
  pgoff: number,
  pages: number,
): boolean {
  const {h, resvMap} = props.mapping!.hugetlb!;
  const from = pgoff / h.pages;
  const to = from + pages / h.pages;
  const {costs, fns} = hugetlbWork(k);
  if (props.mapping!.unlinked) t.cpu.charge(costs.fileSetupTicks, fns.hugetlb_file_setup);
  if ((props.flags & VM_NORESERVE) !== 0) return true;
  t.cpu.charge(costs.regionTicks, fns.hugetlb_reserve_pages);
  if ((props.flags & VM_MAYSHARE) !== 0) {
    if (!hugetlb_acct_memory(k, t, h, resvMap.missing(from, to))) return false;
    resvMap.add(from, to);
  } else {
    if (!hugetlb_acct_memory(k, t, h, to - from)) return false;
    props.privateData = new ResvMap(space);
  }
  return true;
}

/**
 * May the VMA be split (munmap, mprotect, ...) at this page? hugetlb_vm_op_split,
 * dev_dax_may_split.
 */
export function may_split(vma: VmArea, at: number): boolean {
  if (at <= vma.start || at >= vma.end || vma.mapping === null) return true;
  return at % unitOf(vma) === 0;
}

/** What a mapping must be aligned to, in pages: a huge page, or the unit of a DAX device. */
export function unitOf({mapping}: Pick<VmaProps, 'mapping'>): number {
  if (mapping === null) return 1;
  if (mapping.hugetlb !== null) return mapping.hugetlb.h.pages;
  return mapping.dax?.kind === 'device' ? mapping.dax.alignPages : 1;
}

/**
 * clear_vma_resv_huge_pages after mremap: the copy has the reservations now, and unmapping the old
 * place must not give them back. Linux clears the whole old VMA, and so loses count of reservations
 * when a part of it moves; here the part is split off first, as its unmapping does anyway.
 */
export function clear_vma_resv_huge_pages(vma: VmArea, start: number, end: number): void {
  if (vma.privateData === null) return;
  if (vma.start < start) split_vma(vma, start, true);
  if (vma.end > end) split_vma(vma, end, false);
  vma.privateData = null;
}

/**
 * MADV_DONTNEED of hugetlb: since 5.18, from the beginning of a huge page; the end is rounded down.
 * Pages, -1: EINVAL.
 */
export function dontneedPages(k: Kernel, vma: VmArea, start: number, end: number): number {
  const {h} = vma.mapping!.hugetlb!;
  if (isBefore(k.facts.version, '5.18') || start % h.pages !== 0) return -1;
  return end - (end % h.pages) - start;
}
