// mm/mempolicy.c and mm/page_alloc.c: where a huge page comes from (vma_alloc_folio for order 9,
// __alloc_pages_slowpath as far as it compacts), 6.18: the own node first, with an asynchronous
// compaction where transparent_hugepage/defrag lets the fault wait for one; then any node; then
// compaction that waits for locks. Memory is not reclaimed for it.

import type {Code} from '../../machine/process.ts';
import type {Kernel} from '../kernel.ts';
import type {Task} from '../task.ts';
import {hasFreeBlock, try_to_compact_pages} from './compaction.ts';
import {HPAGE_PMD_ORDER} from './page.ts';
import {alloc_folio} from './page_alloc.ts';

/**
 * Head of a folio of order 9, content undefined, charged to `memcg`; 0 for none. `stalls`: it may
 * wait for compaction (a fault by the defrag mode; khugepaged by its own, which is on).
 */
export function* alloc_huge_folio(
  k: Kernel,
  t: Task,
  node: number,
  memcg: number,
  stalls: boolean,
): Code<number> {
  const {compaction, zones} = k.mm;
  if (stalls && !hasFreeBlock(zones[node], HPAGE_PMD_ORDER)) {
    yield* try_to_compact_pages(compaction, t, HPAGE_PMD_ORDER, [node], 'async');
  }
  const head = alloc_folio(k, t, HPAGE_PMD_ORDER, node, memcg, true);
  if (head > 0 || !stalls) return Math.max(head, 0);
  const {fallback} = zones[node];
  const mode = 'sync-light';
  const made = yield* try_to_compact_pages(compaction, t, HPAGE_PMD_ORDER, fallback, mode);
  return made ? Math.max(alloc_folio(k, t, HPAGE_PMD_ORDER, node, memcg, true), 0) : 0;
}
