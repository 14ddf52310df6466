// mm/ksm.c, 6.18: making two equal pages one. write_protect_page takes write access from one page;
// replace_page points its PTE at another. Each is one page in a CLEAR pair of its own, and flushes
// where the entry needs it; neither moves a counter, for KSM pages are anonymous. A page with any
// reference besides its mappings, the swap cache's and ksmd's is left alone (a pin). The order of
// its notifications is that of each generation of the notifier.

import type {Code} from '../../machine/process.ts';
import {LEVEL_PAGES, pteSlot, pteValue, setPte, walkSlot} from '../arch/x86/mm/pgtable.ts';
import {
  PTE_DIRTY,
  PTE_SOFT_DIRTY,
  PTE_SPECIAL,
  PTE_WRITE,
  pte_present,
} from '../arch/x86/mm/pgtable_bits.ts';
import type {Task} from '../task.ts';
import {isBefore} from '../version.ts';
import {folio_mapcount, folio_mapped, folio_ref_count} from './folio_counts.ts';
import type {Ksm} from './ksm.ts';
import {handle_mm_fault} from './memory.ts';
import {mappedPte, pte_lock, pte_unlock} from './memory_pte.ts';
import type {Mm} from './mm_state.ts';
import {
  callStart,
  change_pte,
  invalidate_range_end,
  invalidate_range_start,
  invalidate_secondary_tlbs,
  mm_has_notifiers,
  mmu_notifier_invalidate_page,
  mmu_notifier_invalidate_range_end,
} from './mmu_notifier.ts';
import {MMU_NOTIFY_CLEAR, MmuNotifierRange} from './mmu_notifier_types.ts';
import {compound_head, folio_test_anon, folio_test_ksm, folio_test_large} from './page.ts';
import {folio_put} from './page_alloc.ts';
import {PG_anon_exclusive, PG_dirty, PG_locked, PG_swapcache} from './page_flags.ts';
import {folio_remove_rmap_pte} from './rmap.ts';
import {MM_ANONPAGES} from './rss.ts';
import {add_mm_counter} from './rss_stat.ts';
import type {UserMm} from './user_mm.ts';
import {FAULT_FLAG_REMOTE, FAULT_FLAG_UNSHARE, FAULT_FLAG_WRITE} from './vm_fault.ts';
import type {VmArea} from './vma.ts';
import {VM_MERGEABLE} from './vma_flags.ts';

/** find_mergeable_vma; mmap_lock is held. */
export function find_mergeable_vma(user: UserMm, vpn: number): VmArea | null {
  const vma = user.space.tree.lookup(vpn);
  if (vma === null || (vma.flags & VM_MERGEABLE) === 0 || vma.anonVma === null) return null;
  return vma;
}

/** pfn of the anonymous page at `vpn`, which may be part of a huge one; 0 for anything else. */
export function mappedAnon({mm}: Ksm, user: UserMm, vpn: number): number {
  const slot = pteSlot(user.pgd, vpn);
  return slot < 0 ? hugeAnon(mm, user, vpn) : anonOfPte(mm, slot);
}

/** The same for the page that the PTE `slot` maps. */
export function anonOfPte({pt, pages}: Mm, slot: number): number {
  const word = pt.flags[slot];
  if (!pte_present(word) || (word & PTE_SPECIAL) !== 0) return 0;
  const pfn = pt.entries[slot];
  return folio_test_anon(pages, compound_head(pages, pfn)) ? pfn : 0;
}

/** The same where no page table is. */
export function hugeAnon({pt, pages}: Mm, user: UserMm, vpn: number): number {
  const slot = walkSlot(user.pgd, vpn);
  const word = pt.flags[slot];
  if (!pte_present(word) || (word & PTE_SPECIAL) !== 0) return 0;
  const pfn = pteValue(pt, slot) + (vpn & (LEVEL_PAGES[pt.level[slot >>> 9]] - 1));
  return folio_test_anon(pages, compound_head(pages, pfn)) ? pfn : 0;
}

/**
 * try_to_merge_one_page: `target` 0 makes the page itself a KSM page (the caller gives it its
 * node), -1 replaces it by the page of zeros, else by the KSM page `target`. The caller holds
 * mmap_lock for read and a reference to the page. False: not now.
 */
export function* try_to_merge_one_page(
  ksm: Ksm,
  t: Task,
  vma: VmArea,
  user: UserMm,
  vpn: number,
  pfn: number,
  target: number,
): Code<boolean> {
  const {pages, hooks} = ksm.mm;
  if (pfn === target) return true;
  const large = compound_head(pages, pfn);
  if (!folio_test_anon(pages, large) || (pages.flags[large] & PG_locked) !== 0) return false;
  if (folio_test_large(pages, large)) {
    if (hooks.split_folio === null || !(yield* hooks.split_folio(t, large, pfn))) return false;
  }
  const word = yield* write_protect_page(ksm, t, vma, user, vpn, pfn);
  if (word < 0) return false;
  if (target === 0) {
    pages.flags[pfn] |= PG_dirty;
    return true;
  }
  t.cpu.charge(ksm.costs.compareTicks, ksm.fn);
  if (target > 0 && pages.content[pfn] !== pages.content[target]) return false;
  return yield* replace_page(ksm, t, vma, user, vpn, pfn, target, word);
}

/**
 * pte_offset_map_lock where somebody holds the lock across waiting: the slot, -1 without a table.
 */
function* lockPteSlow(ksm: Ksm, t: Task, user: UserMm, vpn: number): Code<number> {
  const {mm} = ksm;
  for (;;) {
    const slot = pteSlot(user.pgd, vpn);
    if (slot < 0 || pte_lock(mm, t, slot, ksm.fn)) return slot;
    yield* mm.ptl.spin(t, slot >>> 9, ksm.fn);
    if (t.cpu.settle()) yield;
  }
}

function notifiesUnderPtl({notifierFacts}: Mm): boolean {
  const {clearFlushNotifies, secondaryTlb, cowEndImpliesRange} = notifierFacts;
  return clearFlushNotifies || (secondaryTlb === 'range' && cowEndImpliesRange);
}

/** What ptep_clear_flush_notify does after the flush, the PTL held. */
function* notifyUnderPtl(ksm: Ksm, t: Task, user: UserMm, vpn: number): Code {
  const facts = ksm.mm.notifierFacts;
  if (facts.clearFlushNotifies) yield* mmu_notifier_invalidate_page(ksm.k, t, user.mm, vpn);
  if (facts.secondaryTlb === 'range' && facts.cowEndImpliesRange) {
    invalidate_secondary_tlbs(ksm.k, t, user.mm, vpn, vpn + 1);
  }
}

/** write_protect_page: the flags word of the read-only entry, -1 when it may not be. */
export function* write_protect_page(
  ksm: Ksm,
  t: Task,
  vma: VmArea,
  user: UserMm,
  vpn: number,
  pfn: number,
): Code<number> {
  const {k, mm} = ksm;
  const {pt, pages} = mm;
  const {cowRange: pairs, changePte} = mm.notifierFacts;
  const notifies = notifiesUnderPtl(mm);
  const range = pair(vma, user, vpn, 'write_protect_page');
  if (pairs && !invalidate_range_start(k, t, range)) yield* callStart(k, t, range);
  if (t.cpu.settle()) yield;
  let slot = pteSlot(user.pgd, vpn);
  if (slot >= 0 && !pte_lock(mm, t, slot, ksm.fn)) slot = yield* lockPteSlow(ksm, t, user, vpn);
  let result = -1;
  if (slot >= 0) {
    const word = pt.flags[slot];
    const mapped = pte_present(word) && pt.entries[slot] === pfn;
    const exclusive = (pages.flags[pfn] & PG_anon_exclusive) !== 0;
    const pending = user.tlbFlushPending > 0;
    if (!mapped) {
      result = -1;
    } else if ((word & (PTE_WRITE | PTE_DIRTY)) === 0 && !exclusive && !pending) {
      result = word;
    } else {
      mm.ptl.hold(slot >>> 9);
      yield* k.tlb.flush_tlb_mm_range(t, user.mm, vpn, vpn + 1, false);
      if (notifies) yield* notifyUnderPtl(ksm, t, user, vpn);
      mm.ptl.unhold(slot >>> 9);
      const cached = (pages.flags[pfn] & PG_swapcache) === 0 ? 0 : 1;
      if (folio_mapcount(pages, pfn) + 1 + cached === folio_ref_count(pages, pfn)) {
        pages.flags[pfn] &= ~PG_anon_exclusive;
        if ((word & PTE_DIRTY) !== 0) pages.flags[pfn] |= PG_dirty;
        result = word & ~(PTE_WRITE | PTE_DIRTY);
        if (changePte === 'before') change_pte(k, t, user.mm, vpn, pfn);
        pt.flags[slot] = result;
        if (changePte === 'after') change_pte(k, t, user.mm, vpn, pfn);
      }
    }
    t.cpu.charge(mm.costs.setPteTicks, ksm.fn);
    pte_unlock(mm, t, slot);
  }
  if (pairs && mm_has_notifiers(user.mm)) yield* mmu_notifier_invalidate_range_end(k, t, range);
  else if (pairs) invalidate_range_end(k, range);
  return result;
}

function pair(vma: VmArea, user: UserMm, vpn: number, site: string): MmuNotifierRange {
  return new MmuNotifierRange(MMU_NOTIFY_CLEAR, user.mm, vma, vpn, vpn + 1, site);
}

/** replace_page: `word` is what write_protect_page left; an entry that changed since is kept. */
function* replace_page(
  ksm: Ksm,
  t: Task,
  vma: VmArea,
  user: UserMm,
  vpn: number,
  pfn: number,
  target: number,
  word: number,
): Code<boolean> {
  const {k, mm} = ksm;
  const {pt, pages} = mm;
  const {cowRange: pairs, changePte} = mm.notifierFacts;
  const notifies = notifiesUnderPtl(mm);
  const range = pair(vma, user, vpn, 'replace_page');
  if (pairs && !invalidate_range_start(k, t, range)) yield* callStart(k, t, range);
  if (t.cpu.settle()) yield;
  let slot = pteSlot(user.pgd, vpn);
  if (slot >= 0 && !pte_lock(mm, t, slot, ksm.fn)) slot = yield* lockPteSlow(ksm, t, user, vpn);
  let same = false;
  if (slot >= 0) {
    same = pt.flags[slot] === word && pt.entries[slot] === pfn;
    if (same) {
      if (target > 0) {
        pages.refcount.increment(target);
        pages.mapcount.increment(target);
      } else {
        if (ksm.tracksZeros) {
          ksm.zeroPages++;
          user.ksmZeroPages++;
        }
        add_mm_counter(k, t, user.mm, MM_ANONPAGES, -1);
      }
      mm.ptl.hold(slot >>> 9);
      yield* k.tlb.flush_tlb_mm_range(t, user.mm, vpn, vpn + 1, false);
      if (notifies) yield* notifyUnderPtl(ksm, t, user, vpn);
      mm.ptl.unhold(slot >>> 9);
      if (changePte === 'before') change_pte(k, t, user.mm, vpn, target);
      // A zero page of ours is told from an ordinary one by its dirty bit, as in Linux.
      const plain = mappedPte(vma);
      const zeroWord = plain | PTE_SPECIAL | (ksm.tracksZeros ? PTE_DIRTY : 0);
      const soft = word & PTE_SOFT_DIRTY;
      setPte(pt, slot, target > 0 ? target : mm.zeroPfn, (target > 0 ? plain : zeroWord) | soft);
      if (changePte === 'after') change_pte(k, t, user.mm, vpn, target);
      folio_remove_rmap_pte(k, t, pfn, pfn);
      if (!folio_mapped(pages, pfn)) mm.hooks.free_swap_cache?.(t, pfn);
      folio_put(k, t, pfn);
    }
    t.cpu.charge(mm.costs.setPteTicks, ksm.fn);
    pte_unlock(mm, t, slot);
  }
  if (pairs && mm_has_notifiers(user.mm)) yield* mmu_notifier_invalidate_range_end(k, t, range);
  else if (pairs) invalidate_range_end(k, range);
  return same;
}

/** break_ksm: gives every page of [start, end) that is a KSM page (or its zero page) a copy. */
export function* unmerge_ksm_pages(
  ksm: Ksm,
  t: Task,
  vma: VmArea,
  start: number,
  end: number,
): Code<number> {
  const {k, mm} = ksm;
  const {pt, pages} = mm;
  const user = mm.byId(vma.space.mmId)!;
  const how = isBefore(k.facts.version, '6.2') ? FAULT_FLAG_WRITE : FAULT_FLAG_UNSHARE;
  for (let vpn = start; vpn < end; vpn++) {
    if (t.sigkill) return -4;
    const slot = pteSlot(user.pgd, vpn);
    if (slot < 0) continue;
    const word = pt.flags[slot];
    if (!pte_present(word)) continue;
    const zero = isKsmZero(ksm, slot);
    const merged = (word & PTE_SPECIAL) === 0 && folio_test_ksm(pages, pt.entries[slot]);
    if (!zero && !merged) continue;
    yield* handle_mm_fault(k, t, user.mm, vma, vpn, how | FAULT_FLAG_REMOTE);
    if (k.sched.needsResched(t)) yield* k.sched.condResched(t);
  }
  return 0;
}

/** is_ksm_zero_pte. */
export function isKsmZero(ksm: Ksm, slot: number): boolean {
  const {pt, zeroPfn} = ksm.mm;
  const bits = PTE_SPECIAL | PTE_DIRTY;
  return (pt.flags[slot] & bits) === bits && pt.entries[slot] === zeroPfn;
}
