// From mmap's arguments to the properties of a VMA, for every kind of file: ordinary ones,
// hugetlbfs, DAX, and the file that MAP_ANONYMOUS | MAP_HUGETLB makes. Shared anonymous memory is
// the caller's.

import type {Kernel} from '../kernel.ts';
import type {AddressSpace} from './address_space.ts';
import {daxProps} from './dax.ts';
import {hstateOfFlags, hugetlb_anon_setup, hugetlbProps, unitOf} from './hugetlb_file.ts';
import {MAP_HUGETLB, propsFor} from './mmap_prot.ts';
import type {VmaProps} from './vma.ts';

/**
 * Properties of a mapping of `pages` pages of `file` (null: anonymous). `vm`: VM_ flags, `flags`:
 * MAP_ flags.
 */
export function mmapProps(
  k: Kernel,
  vm: number,
  flags: number,
  file: AddressSpace | null,
  pages: number,
): VmaProps {
  if (file === null) {
    if ((flags & MAP_HUGETLB) === 0) return propsFor(vm, null);
    const h = hstateOfFlags(k, flags) ?? k.mm.hugetlb.default;
    return hugetlbProps(vm, hugetlb_anon_setup(k, h, pages));
  }
  if (file.hugetlb !== null) return hugetlbProps(vm, file);
  const props = propsFor(vm, file);
  return file.dax === null ? props : daxProps(k, props);
}

/** Length of the mapping: of hugetlb it is rounded up to whole huge pages (ksys_mmap_pgoff). */
export function mmapPages(props: VmaProps, pages: number): number {
  if (props.ops !== 'hugetlb') return pages;
  const unit = unitOf(props);
  return Math.ceil(pages / unit) * unit;
}
