// mm/hugetlb.c, 6.18: unmapping. A page goes with the gather's next flush; the reservation that the
// owner of a private mapping has used for it is his again, unless the pool has surplus pages (6.9+;
// before, a page unmapped by DONTNEED was lost to the reservation). Linux gives it back even if a
// child still has the page, and HugePages_Rsvd is below zero until the child lets go; here it is
// then not given back. Locks: vma lock and i_mmap_rwsem for writing, since a shared table may be
// left; then everything is flushed at once.

import type {Code} from '../../machine/process.ts';
import {pteClear, pteValue, setHuge} from '../arch/x86/mm/pgtable.ts';
import {
  is_migration_entry,
  MARKER_UFFD_WP,
  PTE_DIRTY,
  PTE_KIND,
  PTE_MARKER,
  PTE_PROTNONE,
  PTE_UFFD_WP,
} from '../arch/x86/mm/pgtable_bits.ts';
import type {Kernel} from '../kernel.ts';
import type {Task} from '../task.ts';
import {isBefore} from '../version.ts';
import {hugetlbWork} from './costs_hugetlb.ts';
import {folio_mapped, removeEntireMapping} from './folio_counts.ts';
import type {HState} from './hugetlb_pool.ts';
import {is_resv_owner, vma_add_reservation, vma_needs_reservation} from './hugetlb_resv.ts';
import {
  adjust_range_if_pmd_sharing_possible,
  afterTable,
  huge_pmd_unshare,
  hugetlb_walk,
} from './hugetlb_share.ts';
import {pte_lock, pte_unlock} from './memory_pte.ts';
import type {ZapDetails} from './memory_zap.ts';
import {
  type MmuGather,
  tlb_finish_mmu,
  tlb_flush_mmu,
  tlb_flush_mmu_tlbonly,
  tlb_gather_mmu,
} from './mmu_gather.ts';
import {
  mmu_notifier_invalidate_range_end,
  mmu_notifier_invalidate_range_start,
} from './mmu_notifier.ts';
import {MMU_NOTIFY_CLEAR, MMU_NOTIFY_UNMAP, MmuNotifierRange} from './mmu_notifier_types.ts';
import {folio_test_anon} from './page.ts';
import {PG_dirty} from './page_flags.ts';
import type {UserMm} from './user_mm.ts';
import {is_uffd_wp_marker, userfaultfd_wp} from './userfaultfd_markers.ts';
import type {VmArea} from './vma.ts';

/**
 * __unmap_hugepage_range with the locks held. `only`: this folio alone, which the VMA then misses
 * (unmap_ref_private). `keepsMarkers`: the mapping stays, and with it what userfaultfd has
 * protected.
 */
export function* __unmap_hugepage_range(
  k: Kernel,
  t: Task,
  tlb: MmuGather,
  vma: VmArea,
  start: number,
  end: number,
  only: number,
  keepsMarkers = false,
): Code {
  const keeps = keepsMarkers && userfaultfd_wp(vma);
  const {mm} = k;
  const user = tlb.mm.user!;
  const {h} = vma.mapping!.hugetlb!;
  const {fns, costs} = hugetlbWork(k);
  const fn = fns.__unmap_hugepage_range;
  let unshared = false;
  for (let vpn = start; vpn < end; ) {
    if (t.cpu.settle()) yield;
    const slot = hugetlb_walk(user, h, vpn);
    if (slot < 0) {
      vpn = afterTable(h, vpn);
      continue;
    }
    while (!pte_lock(mm, t, slot, fn)) yield* mm.ptl.spin(t, slot >>> 9, fn);
    if (huge_pmd_unshare(k, t, user, h, slot, vpn)) {
      pte_unlock(mm, t, slot);
      const next = afterTable(h, vpn);
      tlb.adjust(vpn - (vpn % 2 ** 18), 2 ** 18);
      tlb.clearedPmds = true;
      unshared = true;
      vpn = next;
      continue;
    }
    const was = mm.pt.flags[slot];
    const marked = keeps && wasProtected(was, mm.pt.entries[slot]);
    const head = was === 0 ? 0 : clearEntry(k, t, tlb, user, vma, h, slot, vpn, only);
    if (marked && mm.pt.flags[slot] === 0) setHuge(mm.pt, slot, MARKER_UFFD_WP, PTE_MARKER);
    pte_unlock(mm, t, slot);
    if (head > 0) {
      t.cpu.charge(costs.leafTicks, fn);
      restoreReservation(k, vma, h, vpn, head);
      tlb.addFolio(head, 1);
      if (only !== 0) break;
    }
    if (k.sched.needsResched(t)) yield* k.sched.condResched(t);
    vpn += h.pages;
  }
  if (unshared) yield* tlb_flush_mmu_tlbonly(k, t, tlb);
}

/** pte_swp_uffd_wp_any, and a present entry that is write-protected. */
function wasProtected(word: number, value: number): boolean {
  if ((word & PTE_KIND) === PTE_MARKER) return is_uffd_wp_marker(word, value);
  return (word & PTE_UFFD_WP) !== 0;
}

/** One entry, under its lock. Head of the page whose reference is to be dropped, 0 for none. */
function clearEntry(
  k: Kernel,
  t: Task,
  tlb: MmuGather,
  user: UserMm,
  vma: VmArea,
  h: HState,
  slot: number,
  vpn: number,
  only: number,
): number {
  const {mm} = k;
  const word = mm.pt.flags[slot];
  const head = pteValue(mm.pt, slot);
  const present = (word & PTE_KIND) <= PTE_PROTNONE;
  if (only !== 0) {
    if (!present || head !== only) return 0;
    mm.hugetlb.lostPages.add(vma);
  }
  pteClear(mm.pt, slot);
  if (!present && !is_migration_entry(word)) return 0;
  user.hugetlbUsage -= h.pages;
  if (!present) return 0;
  tlb.adjust(vpn, h.pages);
  tlb.clearedPmds = true;
  if ((word & PTE_DIRTY) !== 0) mm.pages.flags[head] |= PG_dirty;
  removeEntireMapping(mm.pages, head);
  t.cpu.charge(mm.costs.zapPteTicks, hugetlbWork(k).fns.__unmap_hugepage_range);
  return head;
}

/** A page of the owner goes: the reservation that it used is there again. */
function restoreReservation(k: Kernel, vma: VmArea, h: HState, vpn: number, head: number): void {
  if (isBefore(k.facts.version, '6.9') || h.surplusHugePages > 0 || !is_resv_owner(vma)) return;
  if (!folio_test_anon(k.mm.pages, head) || folio_mapped(k.mm.pages, head)) return;
  k.mm.hugetlb.restoreReserve.add(head);
  if (vma_needs_reservation(h, vma, vpn) > 0) vma_add_reservation(h, vma, vpn);
}

/**
 * unmap_single_vma's case of hugetlb: hugetlb_zap_begin, the pages, hugetlb_zap_end. The caller
 * sends S and E.
 */
export function* unmap_hugetlb_vma(
  k: Kernel,
  t: Task,
  tlb: MmuGather,
  vma: VmArea,
  start: number,
  end: number,
  details: ZapDetails | null,
): Code {
  const {locks} = k.mm.hugetlb;
  const held = yield* locks.lock_write(t, vma, hugetlbWork(k).fns.__unmap_hugepage_range);
  const drops = details?.dropMarkers === true;
  yield* __unmap_hugepage_range(k, t, tlb, vma, start, end, 0, !drops);
  yield* locks.unlock_write(t, vma, held, drops);
}

/**
 * zap_page_range_single's case: the range told is widened first, the locks are held until all is
 * freed.
 */
export function* zap_hugetlb_range_single(
  k: Kernel,
  t: Task,
  tlb: MmuGather,
  vma: VmArea,
  start: number,
  end: number,
): Code {
  const {locks} = k.mm.hugetlb;
  const [from, to] = adjust_range_if_pmd_sharing_possible(vma, start, end);
  const held = yield* locks.lock_write(t, vma, hugetlbWork(k).fns.__unmap_hugepage_range);
  const site = 'zap_page_range_single';
  const range = new MmuNotifierRange(MMU_NOTIFY_CLEAR, tlb.mm, vma, from, to, site);
  yield* mmu_notifier_invalidate_range_start(k, t, range);
  yield* __unmap_hugepage_range(k, t, tlb, vma, start, end, 0, true);
  yield* mmu_notifier_invalidate_range_end(k, t, range);
  yield* tlb_flush_mmu(k, t, tlb);
  yield* locks.unlock_write(t, vma, held, false);
}

/**
 * unmap_hugepage_range: with a pair and a gather of its own; the caller holds i_mmap_rwsem for
 * writing.
 */
export function* unmap_hugepage_range(
  k: Kernel,
  t: Task,
  vma: VmArea,
  start: number,
  end: number,
  only: number,
): Code {
  const user = k.mm.byId(vma.space.mmId)!;
  const [from, to] = adjust_range_if_pmd_sharing_possible(vma, start, end);
  const event = isBefore(k.facts.version, '6.1') ? MMU_NOTIFY_UNMAP : MMU_NOTIFY_CLEAR;
  const site = 'unmap_hugepage_range';
  const range = new MmuNotifierRange(event, user.mm, vma, from, to, site);
  yield* mmu_notifier_invalidate_range_start(k, t, range);
  const tlb = tlb_gather_mmu(user.mm);
  yield* __unmap_hugepage_range(k, t, tlb, vma, start, end, only);
  yield* mmu_notifier_invalidate_range_end(k, t, range);
  yield* tlb_finish_mmu(k, t, tlb);
}
