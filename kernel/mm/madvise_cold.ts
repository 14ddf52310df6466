// mm/madvise.c: MADV_COLD and MADV_PAGEOUT (5.4+; madvise_cold_or_pageout_pte_range), 6.18. The
// pages of the range that nobody else maps lose their accessed bits; COLD puts them on the inactive
// list, PAGEOUT reclaims them at once, whatever was used lately. A large folio goes as a whole when
// the range holds all of it, else it is split first.

import type {Code} from '../../machine/process.ts';
import {PTE_HUGE, PTE_SPECIAL, PTE_YOUNG, pte_present} from '../arch/x86/mm/pgtable_bits.ts';
import {PgtableCursor, startRange} from '../arch/x86/mm/pgtable_range.ts';
import type {Kernel} from '../kernel.ts';
import type {Task} from '../task.ts';
import {folio_get, folio_mapcount} from './folio_counts.ts';
import {lru_add_drain} from './folio_lru.ts';
import {next_settled, pte_lock, pte_unlock} from './memory_pte.ts';
import {folio_isolate_lru} from './migrate_folio.ts';
import {relist_folios} from './mlock_folio.ts';
import {type MmuGather, tlb_finish_mmu, tlb_gather_mmu} from './mmu_gather.ts';
import {compound_head, folio_nr_pages, folio_test_large} from './page.ts';
import {folio_put} from './page_alloc.ts';
import {PG_active, PG_locked, PG_referenced, PG_unevictable, PG_workingset} from './page_flags.ts';
import type {UserMm} from './user_mm.ts';
import type {VmArea} from './vma.ts';
import {ReclaimStat, shrink_folio_list} from './vmscan_folios.ts';
import {move_folios_to_lru} from './vmscan_lists.ts';

/** What one call has gathered. */
interface ColdWalk {
  readonly user: UserMm;
  readonly vma: VmArea;
  readonly tlb: MmuGather;
  readonly end: number;
  /** Folios in the order they were met. */
  readonly folios: number[];
  /** Large folios that were to be split: tried once. */
  readonly split: Set<number>;
}

/** madvise_cold or madvise_pageout of [start, end) of one VMA: 0. mmap_lock is held for read. */
export function* madvise_cold_or_pageout(
  k: Kernel,
  t: Task,
  user: UserMm,
  vma: VmArea,
  start: number,
  end: number,
  pageout: boolean,
): Code<number> {
  lru_add_drain(k, t);
  const tlb = tlb_gather_mmu(user.mm);
  const walk: ColdWalk = {user, vma, tlb, end, folios: [], split: new Set()};
  const {mm} = k;
  const cursor = new PgtableCursor();
  startRange(cursor, start, end);
  while (yield* next_settled(t, user, cursor)) {
    const {slot} = cursor;
    while (!pte_lock(mm, t, slot, mm.fns.do_madvise)) {
      yield* mm.ptl.spin(t, slot >>> 9, mm.fns.do_madvise);
    }
    const before = walk.folios.length;
    const split = coldRun(k, t, walk, cursor);
    pte_unlock(mm, t, slot);
    const folios = walk.folios.slice(before);
    if (!pageout) deactivate(k, t, folios);
    if (split > 0) {
      yield* splitFolio(k, t, split);
      cursor.next = cursor.vpn;
    } else if (split < 0 && mm.hooks.split_huge !== null) {
      yield* mm.hooks.split_huge(t, vma, cursor.slot, cursor.vpn);
      cursor.next = cursor.vpn;
    }
    if (k.sched.needsResched(t)) yield* k.sched.condResched(t);
  }
  if (pageout) yield* pageOut(k, t, walk.folios);
  yield* tlb_finish_mmu(k, t, tlb);
  return 0;
}

/**
 * One run of PTEs, or a huge entry; its lock is held. 0: done; a pfn: this folio is only in part in
 * the range and must be split; -1: so must the huge entry.
 */
function coldRun(k: Kernel, t: Task, walk: ColdWalk, cursor: PgtableCursor): number {
  const {mm} = k;
  const {pt, pages} = mm;
  const {slot, count, vpn, level} = cursor;
  if (level > 0 && ((pt.flags[slot] & PTE_HUGE) === 0 || !pte_present(pt.flags[slot]))) return 0;
  if (level === 1 && (vpn % 512 !== 0 || walk.end < vpn + 512)) return -1;
  let split = 0;
  for (let at = slot; at < slot + count && split === 0; at++) {
    const word = pt.flags[at];
    if (!pte_present(word) || (word & PTE_SPECIAL) !== 0) continue;
    const pfn = pt.entries[at] & 0x7fff_ffff;
    const head = compound_head(pages, pfn);
    if (level === 0 && folio_test_large(pages, head)) {
      if (!inRange(k, walk, cursor, at, pfn - head, head)) {
        if ((pages.flags[head] & PG_locked) === 0 && !walk.split.has(head)) split = head;
        walk.split.add(head);
        continue;
      }
    } else if (folio_mapcount(pages, head) !== 1) continue;
    if ((word & PTE_YOUNG) !== 0) {
      pt.flags[at] = word & ~PTE_YOUNG;
      walk.tlb.adjust(vpn + (at - slot), level === 0 ? 1 : 512);
      walk.tlb.clearedPtes = true;
    }
    if (walk.folios[walk.folios.length - 1] !== head) walk.folios.push(head);
  }
  t.cpu.charge(count * mm.costs.advisePteTicks, mm.fns.do_madvise);
  return split;
}

/** All of the folio is mapped here, by nobody else, and lies in the range. */
function inRange(
  k: Kernel,
  {end}: ColdWalk,
  {slot, count, vpn}: PgtableCursor,
  at: number,
  into: number,
  head: number,
): boolean {
  const {pages} = k.mm;
  const n = folio_nr_pages(pages, head);
  const first = at - into;
  const fits = first >= slot && first + n <= slot + count && vpn + (first - slot) + n <= end;
  return fits && folio_mapcount(pages, head) === n;
}

function* splitFolio(k: Kernel, t: Task, head: number): Code {
  const {split_folio} = k.mm.hooks;
  if (split_folio === null) return;
  folio_get(k.mm.pages, head);
  yield* split_folio(t, head, head);
  folio_put(k, t, head);
}

/** folio_deactivate for each. */
function deactivate(k: Kernel, t: Task, folios: readonly number[]): void {
  const {flags} = k.mm.pages;
  const active = folios.filter((head) => (flags[head] & PG_active) !== 0);
  for (const head of active) flags[head] |= PG_workingset;
  relist_folios(k, t, folios, 0, PG_active | PG_referenced);
}

/** reclaim_pages: what could be isolated goes, or back to its list. */
function* pageOut(k: Kernel, t: Task, folios: readonly number[]): Code {
  const {flags} = k.mm.pages;
  if (t.cpu.settle()) yield;
  const isolated: number[] = [];
  for (const head of folios) {
    flags[head] &= ~PG_referenced;
    if ((flags[head] & PG_unevictable) === 0 && folio_isolate_lru(k, t, head)) isolated.push(head);
  }
  if (isolated.length === 0) return;
  const kept = yield* shrink_folio_list(k, t, isolated, 0, false, new ReclaimStat(), true);
  if (t.cpu.settle()) yield;
  move_folios_to_lru(k, t, kept);
}
