// mm/mlock.c: folios that are locked into memory (mlock_folio, munlock_folio), 6.18, and moving
// folios between LRU lists for madvise. Folios go through per-CPU batches in Linux; here the folios
// of one page table are one batch: one lru_lock section per lruvec.
//
// Linux counts locked mappings in mlock_count; here a folio is munlocked when no other locked VMA
// maps it, which is the same but for the cost of looking. That is when a VMA is unlocked, unmapped,
// or gets a copy of its own.

import {pteValue} from '../arch/x86/mm/pgtable.ts';
import {PTE_SPECIAL, pte_present} from '../arch/x86/mm/pgtable_bits.ts';
import {nextRange, PgtableCursor, startRange} from '../arch/x86/mm/pgtable_range.ts';
import type {Kernel} from '../kernel.ts';
import type {Task} from '../task.ts';
import {folio_mapcount, folio_mapped} from './folio_counts.ts';
import type {Lruvec} from './lru.ts';
import {compound_head, folio_nr_pages} from './page.ts';
import {PG_active, PG_lru, PG_mlocked, PG_unevictable} from './page_flags.ts';
import {page_mapped_slot, type RmapPlace, rmap_list} from './rmap.ts';
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
    return !rmap_list(k, head).some((place) => place.vma !== vma && locks(k, place, head));
  });
  relist_folios(k, t, free, 0, PG_mlocked | PG_unevictable);
}

/** The VMA is locked and maps a page of the folio. */
function locks(k: Kernel, {vma, user, vpn}: RmapPlace, head: number): boolean {
  if ((vma.flags & VM_LOCKED) === 0) return false;
  const end = Math.min(vma.end, vpn + folio_nr_pages(k.mm.pages, head));
  for (let at = vpn; at < end; at++) if (page_mapped_slot(k, user.pgd, at, head) >= 0) return true;
  return false;
}

/**
 * Before [start, end) of a locked VMA is unmapped: locked folios in it that are mapped more than
 * once. `before`: what was noted of other VMAs.
 */
export function noteLocked(
  k: Kernel,
  vma: VmArea,
  start: number,
  end: number,
  before: LockedFolios[] | null,
): LockedFolios[] {
  const {pt, pages} = k.mm;
  const {pgd} = k.mm.byId(vma.space.mmId)!;
  const heads: number[] = [];
  const cursor = new PgtableCursor();
  startRange(cursor, start, end);
  while (nextRange(pgd, cursor)) {
    for (let slot = cursor.slot; slot < cursor.slot + cursor.count; slot++) {
      if (!pte_present(pt.flags[slot]) || (pt.flags[slot] & PTE_SPECIAL) !== 0) continue;
      const head = compound_head(pages, pteValue(pt, slot));
      if ((pages.flags[head] & PG_mlocked) === 0 || head === heads[heads.length - 1]) continue;
      if (folio_mapcount(pages, head) > 1) heads.push(head);
    }
  }
  const noted = before ?? [];
  if (heads.length > 0) noted.push({vma, heads});
  return noted;
}

/** Folios of a locked VMA. */
export interface LockedFolios {
  readonly vma: VmArea;
  readonly heads: readonly number[];
}

/**
 * munlock_vma_folio of __folio_remove_rmap, after the VMAs' pages are unmapped: others map them
 * still.
 */
export function munlockUnmapped(k: Kernel, t: Task, noted: readonly LockedFolios[]): void {
  for (const {vma, heads} of noted) {
    const left = heads.filter((head) => folio_mapped(k.mm.pages, head));
    if (left.length > 0) munlock_folios(k, t, vma, left);
  }
}
