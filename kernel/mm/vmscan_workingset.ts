// mm/workingset.c: how long a page had been gone when it came back. Reclaim leaves the clock of its
// LRU (nonresident_age: evictions and activations) in the page's place; when the page returns
// before as many others were reclaimed as the workingset is large, it was thrown out too early and
// goes to the active list. The clock counts per node and cgroup, folded to 28 bits.

import type {Kernel} from '../kernel.ts';
import {
  LRU_ACTIVE_ANON,
  LRU_ACTIVE_FILE,
  LRU_INACTIVE_ANON,
  LRU_INACTIVE_FILE,
  type Lruvec,
} from './lru.ts';
import {folio_nr_pages} from './page.ts';
import {PG_active, PG_swapbacked, PG_workingset} from './page_flags.ts';

const CLOCK = 2 ** 28;

/** workingset_eviction: the shadow that stays for a folio which reclaim frees now. */
export function workingset_eviction(k: Kernel, head: number): number {
  const {pages, lruvecs} = k.mm;
  const lruvec = lruvecs.ofFolio(head);
  const clock = lruvec.nonresidentAge % CLOCK;
  lruvec.nonresidentAge += folio_nr_pages(pages, head);
  const workingset = (pages.flags[head] & PG_workingset) === 0 ? 0 : CLOCK;
  return clock + workingset;
}

/** workingset_refault: the folio, not on a list yet, comes back for `shadow`. */
export function workingset_refault(k: Kernel, head: number, shadow: number): void {
  const {pages, lruvecs, swap} = k.mm;
  const lruvec = lruvecs.ofFolio(head);
  const file = (pages.flags[head] & PG_swapbacked) === 0;
  const n = folio_nr_pages(pages, head);
  const wasWorkingset = shadow >= CLOCK;
  const distance = (lruvec.nonresidentAge - (shadow % CLOCK) + CLOCK) % CLOCK;
  swap.counts.refaults += n;
  if (distance > workingsetSize(lruvec, file, swap.areas.free > 0)) return;
  pages.flags[head] |= PG_active;
  lruvec.nonresidentAge += n;
  swap.counts.refaultsActivated += n;
  if (!wasWorkingset) return;
  pages.flags[head] |= PG_workingset;
  lru_note_cost(lruvec, file, n);
}

/** Pages that the refaulting page competes with. */
function workingsetSize(lruvec: Lruvec, file: boolean, swap: boolean): number {
  const {size} = lruvec;
  let pages = size[LRU_ACTIVE_FILE];
  if (!file) pages += size[LRU_INACTIVE_FILE];
  if (swap) {
    pages += size[LRU_ACTIVE_ANON];
    if (file) pages += size[LRU_INACTIVE_ANON];
  }
  return pages;
}

/** lru_note_cost: reclaiming this kind of page made I/O. Old cost decays as it outgrows the LRU. */
export function lru_note_cost(lruvec: Lruvec, file: boolean, cost: number): void {
  if (cost === 0) return;
  if (file) lruvec.fileCost += cost;
  else lruvec.anonCost += cost;
  const {size} = lruvec;
  const total =
    size[LRU_ACTIVE_FILE] +
    size[LRU_INACTIVE_FILE] +
    size[LRU_ACTIVE_ANON] +
    size[LRU_INACTIVE_ANON];
  if (lruvec.fileCost + lruvec.anonCost <= total / 4) return;
  lruvec.fileCost = Math.floor(lruvec.fileCost / 2);
  lruvec.anonCost = Math.floor(lruvec.anonCost / 2);
}
