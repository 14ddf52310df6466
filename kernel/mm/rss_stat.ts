// mm_struct.rss_stat: pages of an mm by kind, and the tracepoint that says so after every change
// (6.2+: percpu_counter, the traced value is the exact sum). Updates of one operation are batched
// where Linux batches them: zap and fork per page-table.

import type {Kernel} from '../kernel.ts';
import type {MmStruct} from '../mm_types.ts';
import type {Task} from '../task.ts';
import {MM_ANONPAGES, MM_FILEPAGES, MM_SHMEMPAGES, NR_MM_COUNTERS} from './rss.ts';

/** add_mm_counter, inc_mm_counter, dec_mm_counter: adds and traces, even a change of 0. */
export function add_mm_counter(
  k: Kernel,
  t: Task,
  mm: MmStruct,
  member: number,
  pages: number,
): void {
  const {counts} = mm.user!.rss;
  const value = counts[member] + pages;
  counts[member] = value;
  const {probe} = k.mm;
  if (probe !== null) probe.rssStat(mm, member, Math.max(value, 0), t.mm === mm);
}

/** add_mm_rss_vec: adds what is not 0 of four counts, in member order; clears the vector. */
export function add_mm_rss_vec(k: Kernel, t: Task, mm: MmStruct, vec: Int32Array): void {
  if ((vec[0] | vec[1] | vec[2] | vec[3]) !== 0) addCounts(k, t, mm, vec);
}

function addCounts(k: Kernel, t: Task, mm: MmStruct, vec: Int32Array): void {
  for (let member = 0; member < NR_MM_COUNTERS; member++) {
    if (vec[member] === 0) continue;
    add_mm_counter(k, t, mm, member, vec[member]);
    vec[member] = 0;
  }
}

/** get_mm_counter, in pages. */
export function get_mm_counter(mm: MmStruct, member: number): number {
  return mm.user === null ? 0 : Math.max(mm.user.rss.counts[member], 0);
}

/** get_mm_rss: file, anonymous and shmem pages. */
export function get_mm_rss(mm: MmStruct): number {
  return (
    get_mm_counter(mm, MM_FILEPAGES) +
    get_mm_counter(mm, MM_ANONPAGES) +
    get_mm_counter(mm, MM_SHMEMPAGES)
  );
}
