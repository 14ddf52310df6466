// What the simulated kernel would print in /sys/kernel/mm/ksm and in /proc/vmstat when a run ends, under those names. A kernel
// that did nothing of the kind prints nothing: absent is zero.

import type {Kernel} from '../kernel/kernel.ts';
import {ksm_counts} from '../kernel/mm/ksm_sysfs.ts';

/** Counters by name, in pages, scans and events; without zeros. */
export function mmCounters(kernel: Kernel): Record<string, number> {
  if (!kernel.hasMm) return {};
  const {ksm, huge} = kernel.mm;
  const counters: Record<string, number> = {};
  if (ksm !== null) {
    for (const [name, value] of Object.entries(ksm_counts(ksm))) {
      counters[name.startsWith('ksm') ? name : `ksm_${name}`] = value;
    }
    counters.ksm_pages_shared_max = ksm.trees.maxShared;
    counters.ksm_pages_sharing_max = ksm.trees.maxSharing;
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
  return Object.fromEntries(Object.entries(counters).filter(([, value]) => value !== 0));
}
