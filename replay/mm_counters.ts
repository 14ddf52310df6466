// What the simulated kernel would print in /sys/kernel/mm/ksm and in /proc/vmstat when a run ends,
// under those names; of KSM also what it would have printed after the full scan that left most
// pages saved (`ksm_peak_`), since processes have exited at the end of most runs. A kernel that did
// nothing of the kind prints nothing: absent is zero.

import type {Kernel} from '../kernel/kernel.ts';
import {hugetlb_counts} from '../kernel/mm/hugetlb_sysfs.ts';
import {ksm_counts} from '../kernel/mm/ksm_sysfs.ts';

/** Counters by name, in pages, scans and events; without zeros. */
export function mmCounters(kernel: Kernel): Record<string, number> {
  if (!kernel.hasMm) return {};
  const {ksm, huge, swap} = kernel.mm;
  const counters: Record<string, number> = {};
  if (ksm !== null) {
    for (const [name, value] of Object.entries(ksm_counts(ksm))) {
      counters[name.startsWith('ksm') ? name : `ksm_${name}`] = value;
    }
    for (const [name, value] of Object.entries(ksm.peak)) {
      counters[`ksm_peak_pages_${name}`] = value;
    }
  }
  if (huge !== null) {
    const {counts, khugepaged} = huge;
    counters.thp_fault_alloc = counts.faultAlloc;
    counters.thp_fault_fallback = counts.faultFallback;
    counters.thp_collapse_alloc = counts.collapseAlloc;
    counters.thp_split_page = counts.splitPage;
    counters.thp_split_pmd = counts.splitPmd;
    counters.thp_zero_page_alloc = counts.zeroPageAlloc;
    counters.khugepaged_pages_collapsed = khugepaged.pagesCollapsed;
    counters.khugepaged_full_scans = khugepaged.fullScans;
  }
  Object.assign(counters, hugetlb_counts(kernel.mm.hugetlb));
  const {counts} = swap;
  counters.pswpin = counts.pswpin;
  counters.pswpout = counts.pswpout;
  counters.swap_ra = counts.readahead;
  counters.swap_ra_hit = counts.readaheadHits;
  for (const [who, pages] of Object.entries(counts.pgscan)) counters[`pgscan_${who}`] = pages;
  for (const [who, pages] of Object.entries(counts.pgsteal)) counters[`pgsteal_${who}`] = pages;
  counters.swapoff_slots = counts.unuseSlots;
  counters.swapoff_ptes = counts.unusePtes;
  counters.swapoff_pages = counts.unused;
  return Object.fromEntries(Object.entries(counters).filter(([, value]) => value !== 0));
}
