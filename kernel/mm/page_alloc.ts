// mm/page_alloc.c: pages for the rest of mm, out of per-CPU lists and the buddy allocator.
import {bug} from '../../machine/assert.ts';
import type {Code} from '../../machine/engine.ts';
import type {Kernel} from '../kernel.ts';
import type {Task} from '../task.ts';

/**
 * alloc_folio without waiting: head pfn of 2^order pages with refcount 1, charged to `memcg`; -1 when direct reclaim or a memcg
 * reclaim is needed first (go on with alloc_folio_slow), 0 when there is no memory and reclaim is not wanted (`atomic`).
 */
export function alloc_folio(
  k: Kernel,
  t: Task,
  order: number,
  node: number,
  memcg: number,
  atomic = false,
): number {
  return bug(`not there yet ${k} ${t} ${order} ${node} ${memcg} ${atomic}`);
}

/** The slow path: wakes kswapd, reclaims, at last OOM. 0 when all failed. */
export function* alloc_folio_slow(
  k: Kernel,
  t: Task,
  order: number,
  node: number,
  memcg: number,
): Code<number> {
  return bug(`not there yet ${k} ${t} ${order} ${node} ${memcg}`);
}

/** folio_put: drops one reference; frees (LRU removal, uncharge, per-CPU list) with the last. Plain. */
export function folio_put(k: Kernel, t: Task, head: number): void {
  bug(`not there yet ${k} ${t} ${head}`);
}
