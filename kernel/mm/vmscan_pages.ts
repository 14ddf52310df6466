// mm/vmscan.c: reclaim of pages that somebody names, instead of those at the old end of an LRU
// list: folio_isolate_lru and reclaim_pages (MADV_PAGEOUT, 5.4+). Named pages go whether they were
// used or not (ignore_references); everything else is shrink_folio_list's work as always.

import type {Code} from '../../machine/process.ts';
import {pteSlot} from '../arch/x86/mm/pgtable.ts';
import {PTE_KIND, PTE_PRESENT, PTE_SPECIAL} from '../arch/x86/mm/pgtable_bits.ts';
import type {Kernel} from '../kernel.ts';
import type {Task} from '../task.ts';
import {folio_mapped} from './folio_counts.ts';
import {lru_add_drain_all} from './folio_lru.ts';
import {compound_head, folio_nr_pages, folio_test_large} from './page.ts';
import {PG_locked, PG_lru, PG_swapcache, PG_unevictable, PG_writeback} from './page_flags.ts';
import type {UserMm} from './user_mm.ts';
import {ReclaimStat, shrink_folio_list} from './vmscan_folios.ts';
import {move_folios_to_lru} from './vmscan_lists.ts';

/** folio_isolate_lru: off its list, with a reference of the caller's. False: it is on none. */
export function folio_isolate_lru(k: Kernel, t: Task, head: number): boolean {
  const {mm} = k;
  if ((mm.pages.flags[head] & PG_lru) === 0) return false;
  const lruvec = mm.lruvecs.ofFolio(head);
  const lock = mm.lruLock(lruvec);
  mm.lruLocks.lock(t.cpu, lock, lruvec.node, mm.swap.fns.isolate_lru_folios);
  lruvec.delFolio(head);
  mm.pages.refcount.increment(head);
  t.cpu.charge(mm.swap.costs.isolateTicks, mm.swap.fns.isolate_lru_folios);
  mm.lruLocks.unlock(t.cpu, lock);
  return true;
}

/** reclaim_pages of isolated folios: what cannot go is put back. Returns the pages freed. */
export function* reclaim_pages(k: Kernel, t: Task, folios: readonly number[]): Code<number> {
  const {pages} = k.mm;
  let pagesLeft = 0;
  for (const head of folios) pagesLeft += folio_nr_pages(pages, head);
  const stat = new ReclaimStat();
  const kept = yield* shrink_folio_list(k, t, folios, 0, false, stat, true);
  let freed = pagesLeft;
  for (const head of kept) freed -= folio_nr_pages(pages, head);
  if (t.cpu.settle()) yield;
  move_folios_to_lru(k, t, kept);
  return freed;
}

/** A folio that reclaim wrote to a swap slot. */
export interface WrittenFolio {
  readonly head: number;
  readonly entry: number;
}

/** What became of named pages. */
export interface ReclaimedPages {
  /** Not mapped any more, by anybody. */
  readonly unmapped: number;
  /** Of these, still in the swap cache: reclaim_written frees them when the device is done. */
  readonly written: WrittenFolio[];
}

/** Reclaims the small folios that `user` maps at `vpns`. */
export function* reclaim_mapped(
  k: Kernel,
  t: Task,
  user: UserMm,
  vpns: readonly number[],
): Code<ReclaimedPages> {
  const {pages, pt} = k.mm;
  if (t.cpu.settle()) yield;
  const folios: number[] = [];
  for (const vpn of vpns) {
    const slot = pteSlot(user.pgd, vpn);
    if (slot < 0 || (pt.flags[slot] & (PTE_KIND | PTE_SPECIAL)) !== PTE_PRESENT) continue;
    const head = compound_head(pages, pt.entries[slot]);
    if ((pages.flags[head] & PG_unevictable) !== 0 || folio_test_large(pages, head)) continue;
    if ((pages.flags[head] & PG_lru) === 0) lru_add_drain_all(k, t);
    if (folio_isolate_lru(k, t, head)) folios.push(head);
  }
  yield* reclaim_pages(k, t, folios);
  const written: WrittenFolio[] = [];
  let unmapped = 0;
  for (const head of folios) {
    if (folio_mapped(pages, head)) continue;
    unmapped++;
    if ((pages.flags[head] & PG_swapcache) !== 0) written.push({head, entry: pages.private[head]});
  }
  return {unmapped, written};
}

/**
 * The second pass of reclaim: frees those of `written` that the device is done with and nobody has
 * brought back. Returns those still being written.
 */
export function* reclaim_written(
  k: Kernel,
  t: Task,
  written: readonly WrittenFolio[],
): Code<WrittenFolio[]> {
  const {pages} = k.mm;
  if (t.cpu.settle()) yield;
  const busy: WrittenFolio[] = [];
  const folios: number[] = [];
  for (const folio of written) {
    const {head, entry} = folio;
    const word = pages.flags[head];
    if ((word & PG_swapcache) === 0 || pages.private[head] !== entry) continue;
    if (folio_mapped(pages, head)) continue;
    if ((word & (PG_writeback | PG_locked)) !== 0) busy.push(folio);
    else if (folio_isolate_lru(k, t, head)) folios.push(head);
  }
  if (folios.length > 0) yield* reclaim_pages(k, t, folios);
  return busy;
}
