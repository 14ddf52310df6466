// mm/huge_memory.c, 6.18: splits. __split_huge_pmd turns one entry into 512 PTEs of the same folio;
// split_folio makes 512 folios of one, which every mapper sees split first.
//
// Order of a split entry: S (CLEAR, 2 MB), PMD lock, invalidate and flush the entry, PTEs into the
// deposited table, U, E. The flush is of 512 pages and so of everything. Counters do not move. A
// split folio: anon_vma lock for write; its entries are taken away (try_to_migrate, S and E per
// VMA) and put back page by page; a pin or any other reference more than the caller's makes it
// fail. Leaves of files (DAX) are just taken away, the file has them.

import type {Code} from '../../machine/process.ts';
import {LEVEL_PAGES, pteSlot, pteValue, walkSlot} from '../arch/x86/mm/pgtable.ts';
import {is_migration_entry, PTE_HUGE, PTE_SPECIAL} from '../arch/x86/mm/pgtable_bits.ts';
import {splitHuge} from '../arch/x86/mm/pgtable_huge.ts';
import type {Kernel} from '../kernel.ts';
import type {Task} from '../task.ts';
import {
  folio_mapcount,
  folio_maybe_dma_pinned,
  folio_ref_count,
  splitEntireMapping,
} from './folio_counts.ts';
import {HPAGE_PMD_NR, type HugeMemory} from './huge_memory.ts';
import {clear_file_leaf} from './huge_memory_pud.ts';
import {pte_lock, pte_unlock} from './memory_pte.ts';
import {
  mmu_notifier_invalidate_range_end,
  mmu_notifier_invalidate_range_only_end,
  mmu_notifier_invalidate_range_start,
} from './mmu_notifier.ts';
import {MMU_NOTIFY_CLEAR, MmuNotifierRange} from './mmu_notifier_types.ts';
import {
  compound_head,
  dissolve_compound,
  folio_nr_pages,
  folio_test_anon,
  MAPPING_ANON,
  mappingId,
  page_pgoff,
  setMapping,
} from './page.ts';
import {folio_put} from './page_alloc.ts';
import {PG_anon_exclusive, PG_hwpoison, PG_lru, PG_tail} from './page_flags.ts';
import {type RmapPlace, rmap_list} from './rmap.ts';
import type {UserMm} from './user_mm.ts';
import {type VmArea, vma_is_anonymous} from './vma.ts';

/**
 * __split_huge_pmd (and __split_huge_pud): the huge entry at `slot` becomes a table of PTEs. `vpn`
 * is any page in it. Nothing happens when it is no longer huge. The caller holds mmap_lock, the
 * VMA's lock or a rmap lock.
 */
export function* __split_huge_pmd(
  huge: HugeMemory,
  t: Task,
  vma: VmArea,
  slot: number,
  vpn: number,
): Code {
  const {k} = huge;
  const {mm} = k;
  const user = mm.byId(vma.space.mmId)!;
  const span = LEVEL_PAGES[mm.pt.level[slot >>> 9]];
  const first = vpn - (vpn % span);
  const pud = span > HPAGE_PMD_NR;
  const site = pud ? '__split_huge_pud' : '__split_huge_pmd';
  const range = new MmuNotifierRange(MMU_NOTIFY_CLEAR, user.mm, vma, first, first + span, site);
  yield* mmu_notifier_invalidate_range_start(k, t, range);
  if (t.cpu.settle()) yield;
  while (!pte_lock(mm, t, slot, huge.fnSplit)) yield* mm.ptl.spin(t, slot >>> 9, huge.fnSplit);
  const word = mm.pt.flags[slot];
  if ((word & PTE_HUGE) !== 0) {
    mm.ptl.hold(slot >>> 9);
    if (pud || !vma_is_anonymous(vma)) clear_file_leaf(k, t, user, slot);
    else splitLocked(huge, t, user, slot);
    if (!is_migration_entry(word)) {
      yield* k.tlb.flush_tlb_mm_range(t, user.mm, first, first + span, false);
    }
    mm.ptl.unhold(slot >>> 9);
  }
  pte_unlock(mm, t, slot);
  if (mm.notifierFacts.cowEndImpliesRange) yield* mmu_notifier_invalidate_range_end(k, t, range);
  else yield* mmu_notifier_invalidate_range_only_end(k, t, range);
}

/** __split_huge_pmd_locked and __split_huge_zero_page_pmd, without the flush. */
function splitLocked(huge: HugeMemory, t: Task, user: UserMm, slot: number): void {
  const {k} = huge;
  const {mm} = k;
  const {pt, pages} = mm;
  const word = pt.flags[slot];
  const value = pteValue(pt, slot);
  const zero = (word & PTE_SPECIAL) !== 0 && value === huge.hugeZeroPfn;
  const frame = huge.withdraw(user, slot);
  const table = splitHuge(user.pgd, slot);
  pt.pfn[table] = frame;
  huge.counts.splitPmd++;
  t.cpu.charge(HPAGE_PMD_NR * mm.costs.setPteTicks, huge.fnSplit);
  const first = table << 9;
  if (zero) {
    pt.entries.fill(mm.zeroPfn, first, first + HPAGE_PMD_NR);
    return;
  }
  if ((word & PTE_SPECIAL) !== 0 || is_migration_entry(word)) return;
  const head = compound_head(pages, value);
  pages.refcount.add(head, HPAGE_PMD_NR - 1);
  splitEntireMapping(pages, head);
  if ((pages.flags[head] & PG_anon_exclusive) === 0) return;
  for (let pfn = head + 1; pfn < head + HPAGE_PMD_NR; pfn++) pages.flags[pfn] |= PG_anon_exclusive;
}

/**
 * split_folio of a large anonymous folio; the caller holds a reference (and, in Linux, its lock).
 * False when somebody else refers to it. Afterwards all are folios of one page; the caller's
 * reference is one to `keep`.
 */
export function* split_folio(huge: HugeMemory, t: Task, head: number, keep = head): Code<boolean> {
  const {k} = huge;
  const {mm} = k;
  const {pages} = mm;
  if (!folio_test_anon(pages, head) || folio_maybe_dma_pinned(pages, head)) return false;
  const anon = mm.anon.find(mappingId(pages, head));
  if (anon === null) return false;
  const lock = mm.anonVmaLock(anon);
  if (!lock.writeAcquire(t, huge.fnSplit)) yield* lock.writeAcquireSlow(t, huge.fnSplit);
  const places = rmap_list(k, head);
  for (const place of places) yield* unmapFolio(huge, t, place, head);
  if (t.cpu.settle()) yield;
  const free = folio_mapcount(pages, head) === folio_ref_count(pages, head) - 1;
  if (free) {
    huge.counts.splitPage++;
    splitPages(k, t, head, keep);
  }
  if (!lock.writeRelease(t)) yield* lock.writeReleaseSlow(t);
  return free;
}

/** unmap_folio for one VMA: S, split of a huge entry, flush, E. Entries come back at once. */
function* unmapFolio(huge: HugeMemory, t: Task, place: RmapPlace, head: number): Code {
  const {k} = huge;
  const {vma, user, vpn} = place;
  const slot = walkSlot(user.pgd, vpn);
  if ((k.mm.pt.flags[slot] & PTE_HUGE) !== 0) yield* __split_huge_pmd(huge, t, vma, slot, vpn);
  const end = Math.min(vma.end, vpn + folio_nr_pages(k.mm.pages, head));
  const site = 'try_to_migrate_one';
  const range = new MmuNotifierRange(MMU_NOTIFY_CLEAR, user.mm, vma, vpn, end, site);
  yield* mmu_notifier_invalidate_range_start(k, t, range);
  let mapped = 0;
  for (let at = vpn; at < end; at++) {
    const pte = pteSlot(user.pgd, at);
    if (pte >= 0 && k.mm.pt.flags[pte] !== 0) mapped++;
  }
  t.cpu.charge(mapped * (k.mm.costs.zapPteTicks + k.mm.costs.setPteTicks), huge.fnSplit);
  if (mapped > 0) yield* k.tlb.flush_tlb_mm_range(t, user.mm, vpn, end, false);
  yield* mmu_notifier_invalidate_range_end(k, t, range);
}

/**
 * __split_folio_to_order, order 0: every page is a folio with its own references; those that nobody
 * maps are freed. The caller's reference stays with `kept`.
 */
function splitPages(k: Kernel, t: Task, head: number, kept: number): void {
  const {mm} = k;
  const {pages} = mm;
  const nr = folio_nr_pages(pages, head);
  const index = page_pgoff(pages, head);
  const owner = mappingId(pages, head);
  const headWord = pages.flags[head];
  const keep = PG_anon_exclusive | PG_hwpoison;
  const memcg = pages.hasMemcgs ? pages.memcg[head] : 0;
  const wasOnLru = (headWord & PG_lru) !== 0;
  if (wasOnLru) mm.lruvecs.ofFolio(head).delFolio(head);
  mm.hooks.undo_large_folio?.(t, head);
  dissolve_compound(pages, head);
  const shared = pages.flags[head] & ~keep & ~PG_lru & ~PG_tail;
  for (let i = 0; i < nr; i++) {
    const pfn = head + i;
    pages.flags[pfn] = shared | (pages.flags[pfn] & keep);
    setMapping(pages, pfn, MAPPING_ANON, owner, index + i);
    pages.refcount.set(pfn, pages.mapcount.get(pfn) + 1);
    if (memcg !== 0) pages.memcg[pfn] = memcg;
    if (wasOnLru && !pages.mapcount.isZero(pfn)) mm.lruvecs.ofFolio(pfn).addFolio(pfn);
  }
  if (wasOnLru && pages.mapcount.isZero(kept)) mm.lruvecs.ofFolio(kept).addFolio(kept);
  t.cpu.charge(nr * mm.costs.lruMoveTicks, mm.fns.folio_batch_move_lru);
  for (let pfn = head; pfn < head + nr; pfn++) if (pfn !== kept) folio_put(k, t, pfn);
}

/**
 * deferred_split_scan, the shrinker: splits folios of which pages are unmapped, and so frees those.
 * At most `nr`, of those that are `wanted` (a node's, a cgroup's). Returns how many folios were
 * split.
 */
export function* deferred_split_scan(
  huge: HugeMemory,
  t: Task,
  nr: number,
  wanted: (head: number) => boolean = () => true,
): Code<number> {
  const {k} = huge;
  let done = 0;
  for (const head of [...huge.deferredSplit].filter(wanted).slice(0, nr)) {
    if (!huge.deferredSplit.delete(head)) continue;
    k.mm.pages.refcount.increment(head);
    if (yield* split_folio(huge, t, head)) done++;
    else huge.deferredSplit.add(head);
    folio_put(k, t, head);
  }
  return done;
}
