// Base costs of hugetlb and DAX in ticks, and the profile numbers of their functions. Clearing and
// copying a huge page are computed from costs_mm.ts; what is here is bookkeeping. "Measured": loops
// in C over 1 to 64 pages of 2 MB on Linux 6.18 in a 2-vCPU EPYC guest, divided by that machine's
// kernelWork (docs/calibration.md).

import {nsToTicks as ns} from '../../machine/time.ts';
import {scaledCosts} from '../costs.ts';
import type {Kernel} from '../kernel.ts';

/** Base costs in ticks. Assumptions where nothing else is said. */
export const COSTS_HUGETLB = {
  /** dev_dax_huge_fault: range to pfn, no file system asked. */
  devDaxFaultTicks: ns(180),
  /** dax_iomap_fault: entry of the file, iomap of the file system. */
  daxIomapFaultTicks: ns(650),
  /** One leaf changed, moved or copied, its locks apart. Measured: mprotect. */
  leafTicks: ns(35),
  /**
   * hugetlb_fault without page and copy: fault mutex table, vma lock, walk. Measured: second
   * mapping of a file, 0.6 us a fault.
   */
  hugetlbFaultTicks: ns(40),
  /**
   * A page off or onto a free list under hugetlb_lock, with its cgroup and subpool. Measured:
   * munmap, 1.1 us a page that is freed, 0.14 one that stays.
   */
  hugetlbPageTicks: ns(290),
  /** One change of a reserve map. */
  regionTicks: ns(50),
  /** hugetlb_file_setup: inode, dentry and struct file of an anonymous mapping. Measured: mmap. */
  fileSetupTicks: ns(950),
  /** huge_pmd_share or _unshare of one table. */
  shareTicks: ns(150),
  /**
   * One small page of a fresh pool page made a tail (prep_compound_page, HVO apart); a page given
   * back to the buddy allocator. Measured: nr_hugepages up and down by 1 to 64.
   */
  prepPageTicks: ns(0.5),
  dissolveTicks: ns(1_300),
} as const;

export type CostsHugetlb = Readonly<Record<keyof typeof COSTS_HUGETLB, number>>;

const NAMES = [
  'hugetlb_fault',
  'hugetlb_no_page',
  'hugetlb_wp',
  'unmap_ref_private',
  '__unmap_hugepage_range',
  'hugetlb_change_protection',
  'move_hugetlb_page_tables',
  'copy_hugetlb_page_range',
  'hugetlb_reserve_pages',
  'hugetlb_file_setup',
  'alloc_hugetlb_folio',
  'free_huge_folio',
  'set_max_huge_pages',
  'huge_pmd_share',
  'huge_pmd_unshare',
  'remove_inode_hugepages',
  'dax_iomap_fault',
  'dev_dax_huge_fault',
  'change_huge_pud',
  'zap_huge_pud',
  'copy_huge_pud',
  'move_huge_pud',
  '__split_huge_pud',
  'dax_writeback_mapping_range',
] as const;

export type HugetlbFns = Readonly<Record<(typeof NAMES)[number], number>>;

/** Costs on this machine and profile numbers, for one kernel. */
export interface HugetlbWork {
  readonly costs: CostsHugetlb;
  readonly fns: HugetlbFns;
}

const byKernel = new WeakMap<Kernel, HugetlbWork>();

/** The costs and numbers of `k`, made when first needed. */
export function hugetlbWork(k: Kernel): HugetlbWork {
  let work = byKernel.get(k);
  if (work === undefined) {
    const costs = scaledCosts(COSTS_HUGETLB, k.machine.topology.kernelWork);
    const fns = Object.fromEntries(NAMES.map((name) => [name, k.fn(name)])) as HugetlbFns;
    work = {costs, fns};
    byKernel.set(k, work);
  }
  return work;
}
