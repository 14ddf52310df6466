// What is written to /proc/sys/vm/nr_hugepages, nr_overcommit_hugepages, and to the files of
// /sys/kernel/mm/hugepages/hugepages-2048kB and -1048576kB (Documentation/admin-
// guide/mm/hugetlbpage).

import {EINVAL} from '../errno.ts';
import type {Kernel} from '../kernel.ts';
import type {Task} from '../task.ts';
import type {Hugetlb} from './hugetlb.ts';
import {type HState, set_max_huge_pages} from './hugetlb_pool.ts';

const SYSCTL = /^(?:\/proc\/sys\/)?vm[/.](nr_hugepages|nr_overcommit_hugepages)$/;
const SYSFS =
  /^(?:\/sys\/kernel\/mm\/)?hugepages\/hugepages-(\d+)kB\/(nr_hugepages|nr_overcommit_hugepages)$/;

function target(k: Kernel, path: string): {h: HState; file: string} | null {
  const plain = SYSCTL.exec(path);
  if (plain !== null) return {h: k.mm.hugetlb.default, file: plain[1]};
  const sized = SYSFS.exec(path);
  if (sized === null) return null;
  const h = k.mm.hugetlb.byOrder(Math.log2(Number(sized[1]) / 4));
  return h === null ? null : {h, file: sized[2]};
}

/** Is this a file of hugetlb's? */
export function isHugetlbPath(k: Kernel, path: string): boolean {
  return target(k, path) !== null;
}

/**
 * Writes `value` to one of them: 0 or -EINVAL. A pool that cannot grow so far keeps what it got, as
 * in Linux.
 */
export function hugetlb_store(k: Kernel, t: Task, path: string, value: string): number {
  const found = target(k, path);
  const count = Number(value);
  if (found === null || !Number.isInteger(count) || count < 0) return -EINVAL;
  const {h, file} = found;
  if (file === 'nr_hugepages') {
    set_max_huge_pages(k, t, h, count);
    return 0;
  }
  if (h.isGigantic) return -EINVAL;
  h.nrOvercommit = count;
  return 0;
}

/**
 * What /proc/meminfo would say when a run ends, and what it does not: the most pages in use at a
 * time, tables joined, by names as HugePages_Total in lower case; those of 1 GB with `1g`.
 */
export function hugetlb_counts({hstates, shared}: Hugetlb): Record<string, number> {
  const counters: Record<string, number> = {huge_pmd_shares: shared.joined};
  for (const h of hstates) {
    const name = h.order === 9 ? 'huge_pages' : 'huge_pages_1g';
    counters[`${name}_total`] = h.nrHugePages;
    counters[`${name}_free`] = h.freeHugePages;
    counters[`${name}_rsvd`] = h.resvHugePages;
    counters[`${name}_surp`] = h.surplusHugePages;
    counters[`${name}_peak_used`] = h.peakUsed;
  }
  return counters;
}
