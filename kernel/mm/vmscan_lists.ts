// mm/vmscan.c: taking folios off the old end of an LRU list and putting back what stays
// (shrink_inactive_list, shrink_active_list).

import type {Code} from '../../machine/process.ts';
import type {Kernel} from '../kernel.ts';
import type {Task} from '../task.ts';
import {lru_add_drain} from './folio_lru.ts';
import {LRU_INACTIVE_FILE, type Lruvec} from './lru.ts';
import {folio_nr_pages} from './page.ts';
import {folio_put} from './page_alloc.ts';
import {PG_active, PG_lru, PG_swapbacked, PG_unevictable, PG_workingset} from './page_flags.ts';
import {folio_referenced} from './rmap_unmap.ts';
import {VM_EXEC} from './vma_flags.ts';
import type {ScanControl} from './vmscan.ts';
import {ReclaimStat, shrink_folio_list} from './vmscan_folios.ts';
import {lru_note_cost} from './vmscan_workingset.ts';

/** isolate_lru_folios: at most `n` pages from the tail, with a reference each. */
function isolate_lru_folios(
  k: Kernel,
  t: Task,
  n: number,
  lruvec: Lruvec,
  lru: number,
): {folios: number[]; pages: number} {
  const {mm} = k;
  const {pages, swap} = mm;
  const lock = mm.lruLock(lruvec);
  const folios: number[] = [];
  let taken = 0;
  mm.lruLocks.lock(t.cpu, lock, lruvec.node, swap.fns.isolate_lru_folios);
  while (taken < n) {
    const head = lruvec.oldest(lru);
    if (head === 0) break;
    lruvec.delFolio(head);
    pages.refcount.increment(head);
    folios.push(head);
    taken += folio_nr_pages(pages, head);
  }
  t.cpu.charge(folios.length * swap.costs.isolateTicks, swap.fns.isolate_lru_folios);
  mm.lruLocks.unlock(t.cpu, lock);
  return {folios, pages: taken};
}

/** move_folios_to_lru: back to the young end of the lists they belong to; drops the references. */
export function move_folios_to_lru(k: Kernel, t: Task, folios: readonly number[]): void {
  const {mm} = k;
  const {pages, swap} = mm;
  if (folios.length === 0) return;
  let lock = -1;
  const last: number[] = [];
  for (const head of folios) {
    if (pages.refcount.get(head) === 1) {
      last.push(head);
      continue;
    }
    const lruvec = mm.lruvecs.ofFolio(head);
    const wanted = mm.lruLock(lruvec);
    if (wanted !== lock) {
      if (lock >= 0) mm.lruLocks.unlock(t.cpu, lock);
      lock = wanted;
      mm.lruLocks.lock(t.cpu, lock, lruvec.node, swap.fns.move_folios_to_lru);
    }
    if ((pages.flags[head] & PG_lru) === 0) lruvec.addFolio(head);
    if ((pages.flags[head] & PG_active) !== 0) {
      lruvec.nonresidentAge += folio_nr_pages(pages, head);
    }
    pages.refcount.decrement(head);
  }
  t.cpu.charge(folios.length * swap.costs.isolateTicks, swap.fns.move_folios_to_lru);
  if (lock >= 0) mm.lruLocks.unlock(t.cpu, lock);
  for (const head of last) {
    pages.flags[head] &= ~(PG_active | PG_unevictable);
    folio_put(k, t, head);
  }
}

/** shrink_inactive_list: up to 32 pages. Returns the pages freed. */
export function* shrink_inactive_list(
  k: Kernel,
  t: Task,
  n: number,
  lruvec: Lruvec,
  sc: ScanControl,
  lru: number,
): Code<number> {
  const {pages, swap} = k.mm;
  if (t.cpu.settle()) yield;
  lru_add_drain(k, t);
  const {folios, pages: taken} = isolate_lru_folios(k, t, n, lruvec, lru);
  if (taken === 0) return 0;
  const stat = new ReclaimStat();
  const kept = yield* shrink_folio_list(k, t, folios, sc.memcg, sc.who === 'kswapd', stat);
  let left = 0;
  for (const head of kept) left += folio_nr_pages(pages, head);
  if (t.cpu.settle()) yield;
  move_folios_to_lru(k, t, kept);
  const freed = taken - left;
  sc.nrScanned += taken;
  sc.taken += taken;
  sc.writeback += stat.writeback;
  swap.counts.pgscan[sc.who] += taken;
  swap.counts.pgsteal[sc.who] += freed;
  lru_note_cost(lruvec, lru >= LRU_INACTIVE_FILE, stat.pageout + (stat.activated >> 1));
  swap.probe?.shrinkInactive(lruvec.node, taken, freed);
  return freed;
}

/** shrink_active_list: folios that nobody used become inactive; executed file pages stay. */
export function* shrink_active_list(
  k: Kernel,
  t: Task,
  n: number,
  lruvec: Lruvec,
  memcg: number,
  lru: number,
): Code {
  const {pages, swap} = k.mm;
  const {flags} = pages;
  if (t.cpu.settle()) yield;
  lru_add_drain(k, t);
  const {folios} = isolate_lru_folios(k, t, n, lruvec, lru);
  for (const head of folios) {
    if (t.cpu.settle()) yield;
    t.cpu.charge(swap.costs.isolateTicks, swap.fns.shrink_active_list);
    if ((flags[head] & PG_unevictable) !== 0) continue;
    const {ptes, vmFlags} = yield* folio_referenced(k, t, head, memcg);
    const file = (flags[head] & PG_swapbacked) === 0;
    if (ptes > 0 && file && (vmFlags & VM_EXEC) !== 0) continue;
    flags[head] = (flags[head] & ~PG_active) | PG_workingset;
    swap.counts.deactivated += folio_nr_pages(pages, head);
  }
  if (t.cpu.settle()) yield;
  move_folios_to_lru(k, t, folios);
}
