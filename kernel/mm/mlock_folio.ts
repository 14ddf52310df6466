// mm/mlock.c: folios that are locked into memory (mlock_folio, munlock_folio), 6.18, and moving
// folios between LRU lists for madvise. Folios go through per-CPU batches in Linux; here the folios
// of one page table are one batch: one lru_lock section per lruvec.
//
// Linux counts locked mappings in mlock_count; here a folio is munlocked when no other locked VMA
// maps it, which is the same but for the cost of looking.

import type {Kernel} from '../kernel.ts';
import type {Task} from '../task.ts';
import type {Lruvec} from './lru.ts';
import {PG_active, PG_lru, PG_mlocked, PG_unevictable} from './page_flags.ts';
import {rmap_list} from './rmap.ts';
import type {VmArea} from './vma.ts';
import {VM_LOCKED} from './vma_flags.ts';

/** Changes the flags of folios (`set`, then `clear`) that say which LRU list they are on. */
export function relist_folios(
  k: Kernel,
  t: Task,
  heads: readonly number[],
  set: number,
  clear: number,
): void {
  const {mm} = k;
  const {pages, costs, fns} = mm;
  let lruvec: Lruvec | null = null;
  let lock = -1;
  for (const head of heads) {
    const changed = (pages.flags[head] | set) & ~clear;
    if ((pages.flags[head] & PG_lru) === 0) {
      pages.flags[head] = changed;
      continue;
    }
    const next = mm.lruvecs.ofFolio(head);
    if (next !== lruvec) {
      if (lruvec !== null) mm.lruLocks.unlock(t.cpu, lock);
      lruvec = next;
      lock = mm.lruLock(next);
      mm.lruLocks.lock(t.cpu, lock, next.node, fns.folio_batch_move_lru);
    }
    lruvec.delFolio(head);
    pages.flags[head] = changed & ~PG_lru;
    lruvec.addFolio(head);
  }
  t.cpu.charge(heads.length * costs.lruMoveTicks, fns.folio_batch_move_lru);
  if (lruvec !== null) mm.lruLocks.unlock(t.cpu, lock);
}

/** mlock_folio for each: to the unevictable list. */
export function mlock_folios(k: Kernel, t: Task, heads: readonly number[]): void {
  const {flags} = k.mm.pages;
  const fresh = heads.filter((head) => (flags[head] & PG_mlocked) === 0);
  relist_folios(k, t, fresh, PG_mlocked | PG_unevictable, PG_active);
}

/** munlock_folio for each, unless another locked VMA than `vma` maps it. */
export function munlock_folios(k: Kernel, t: Task, vma: VmArea, heads: readonly number[]): void {
  const {flags} = k.mm.pages;
  const free = heads.filter((head) => {
    if ((flags[head] & PG_mlocked) === 0) return false;
    const others = rmap_list(k, head);
    return !others.some((place) => place.vma !== vma && (place.vma.flags & VM_LOCKED) !== 0);
  });
  relist_folios(k, t, free, 0, PG_mlocked | PG_unevictable);
}
