// mm/rmap.c: folio_referenced and try_to_unmap, what reclaim does to all mappings of a folio.
//
// try_to_unmap, per VMA (6.18): a CLEAR pair around its part of the folio; under the PTL the entry
// is cleared and flushed, the page handed to its new state (swap entry, or nothing for file pages),
// counters ANON -1 SWAP +1 or FILE -1, rmap and reference dropped. With TTU_BATCH_FLUSH (4.3+,
// RECALLED) an mm that other CPUs may use is only noted (rmap_unmap_flush.ts): its CPUs are
// interrupted once for the whole batch, before anything is written or freed.
// By generation: invalidate_page before 4.13 after the PTL, with 4.11 and 4.12
// under it; pair from 4.13; invalidate_range under the PTL 3.19 to 6.5; out of the flush since 6.6.

import type {Code} from '../../machine/process.ts';
import {setPte} from '../arch/x86/mm/pgtable.ts';
import {
  PTE_DIRTY,
  PTE_HUGE,
  PTE_KIND,
  PTE_PRESENT,
  PTE_PROTNONE,
  PTE_SOFT_DIRTY,
  PTE_SWAP,
  PTE_SWP_EXCLUSIVE,
  PTE_UFFD_WP,
  PTE_YOUNG,
} from '../arch/x86/mm/pgtable_bits.ts';
import type {Kernel} from '../kernel.ts';
import type {RwSemaphore} from '../locking/rwsem.ts';
import type {Task} from '../task.ts';
import {folio_mapcount, folio_mapped, folio_maybe_dma_pinned} from './folio_counts.ts';
import {mm_counter_file} from './memory_file.ts';
import {pte_lock, pte_unlock} from './memory_pte.ts';
import {
  invalidate_secondary_tlbs,
  mmu_notifier_invalidate_page,
  mmu_notifier_invalidate_range_end,
  mmu_notifier_invalidate_range_start,
  mmu_notifier_young,
} from './mmu_notifier.ts';
import {MMU_NOTIFY_CLEAR, MmuNotifierRange} from './mmu_notifier_types.ts';
import {folio_nr_pages, folio_test_anon, MAPPING_FILE, mappingId, mappingKind} from './page.ts';
import {folio_put} from './page_alloc.ts';
import {PG_anon_exclusive, PG_dirty, PG_mlocked, PG_swapbacked} from './page_flags.ts';
import {folio_remove_rmap_pte, page_mapped_slot, type RmapPlace, rmap_list} from './rmap.ts';
import {clear_flush_or_defer, type UnmapBatch} from './rmap_unmap_flush.ts';
import {MM_ANONPAGES, MM_SWAPENTS} from './rss.ts';
import {add_mm_counter} from './rss_stat.ts';
import {page_swap_entry} from './swap_state.ts';
import type {UserMm} from './user_mm.ts';
import {install_uffd_wp_marker, keepsUffdWp} from './userfaultfd_markers.ts';
import {VM_LOCKED} from './vma_flags.ts';

/** The rwsem under which a folio's VMAs are walked; null when nothing can map it. */
export function rmapLock(k: Kernel, head: number): RwSemaphore | null {
  const {mm} = k;
  const id = mappingId(mm.pages, head);
  if (id === 0) return null;
  if (mappingKind(mm.pages, head) === MAPPING_FILE) {
    const mapping = mm.files.find(id);
    return mapping === null ? null : mm.iMmapLock(mapping);
  }
  const anon = mm.anon.find(id);
  return anon === null ? null : mm.anonVmaLock(anon);
}

/** Result of folio_referenced. */
export interface Referenced {
  /** PTEs that were young; -1: the rmap lock was contended. */
  readonly ptes: number;
  /** Flags of the VMAs where they were, VM_LOCKED of any. */
  readonly vmFlags: number;
}

const UNREFERENCED: Referenced = {ptes: 0, vmFlags: 0};

/**
 * folio_referenced: takes the accessed bits of all mappings (only those of `memcg` unless 0). No
 * flush on x86. The folio is locked, or isolated.
 */
export function* folio_referenced(
  k: Kernel,
  t: Task,
  head: number,
  memcg: number,
): Code<Referenced> {
  const {mm} = k;
  const {swap} = mm;
  if (!folio_mapped(mm.pages, head)) return UNREFERENCED;
  const lock = rmapLock(k, head);
  if (lock === null) return UNREFERENCED;
  if (t.cpu.settle()) yield;
  if (!lock.tryReadAcquire(t, swap.fns.folio_referenced)) return {ptes: -1, vmFlags: 0};
  let ptes = 0;
  let vmFlags = 0;
  const n = folio_nr_pages(mm.pages, head);
  for (const {vma, user, vpn} of rmap_list(k, head)) {
    if (memcg !== 0 && user.memcg !== memcg) continue;
    let young = false;
    t.cpu.charge(swap.costs.rmapVmaTicks, swap.fns.folio_referenced);
    for (let at = vpn; at < Math.min(vpn + n, vma.end); at++) {
      const slot = page_mapped_slot(k, user.pgd, at, head);
      if (slot < 0) continue;
      if ((vma.flags & VM_LOCKED) !== 0) {
        vmFlags |= VM_LOCKED;
        continue;
      }
      while (!pte_lock(mm, t, slot, swap.fns.folio_referenced))
        yield* mm.ptl.spin(t, slot >>> 9, swap.fns.folio_referenced);
      if ((mm.pt.flags[slot] & PTE_YOUNG) !== 0) young = true;
      mm.pt.flags[slot] &= ~PTE_YOUNG;
      if (mmu_notifier_young(t, user.mm, 'clear_flush_young', at, at + 1)) young = true;
      pte_unlock(mm, t, slot);
      if ((mm.pt.flags[slot] & PTE_HUGE) !== 0) break;
    }
    if (!young) continue;
    ptes++;
    vmFlags |= vma.flags;
  }
  if (!lock.readRelease(t)) yield* lock.readReleaseSlow(t);
  return {ptes, vmFlags};
}

/**
 * try_to_unmap of a locked folio. `batch` null: every entry is flushed at once. The folio may stay
 * mapped: look at folio_mapped.
 */
export function* try_to_unmap(k: Kernel, t: Task, head: number, batch: UnmapBatch | null): Code {
  const lock = rmapLock(k, head);
  if (lock === null) return;
  const {swap} = k.mm;
  if (!lock.readAcquire(t, swap.fns.try_to_unmap))
    yield* lock.readAcquireSlow(t, swap.fns.try_to_unmap);
  yield* try_to_unmap_held(k, t, head, batch, false);
  if (!lock.readRelease(t)) yield* lock.readReleaseSlow(t);
}

/**
 * try_to_unmap with TTU_RMAP_LOCKED: the caller holds the rmap lock. `ignoreMlock`
 * (TTU_IGNORE_MLOCK): locked mappings are no reason to stay.
 */
export function* try_to_unmap_held(
  k: Kernel,
  t: Task,
  head: number,
  batch: UnmapBatch | null,
  ignoreMlock: boolean,
): Code {
  for (const place of rmap_list(k, head)) {
    const go = yield* try_to_unmap_one(k, t, head, place, batch, ignoreMlock);
    if (!go || !folio_mapped(k.mm.pages, head)) break;
  }
}

/** One VMA. False: the walk ends, the folio stays mapped. */
function* try_to_unmap_one(
  k: Kernel,
  t: Task,
  head: number,
  place: RmapPlace,
  batch: UnmapBatch | null,
  ignoreMlock: boolean,
): Code<boolean> {
  const {mm} = k;
  const {vma, user, vpn} = place;
  const end = Math.min(vpn + folio_nr_pages(mm.pages, head), vma.end);
  t.cpu.charge(mm.swap.costs.rmapVmaTicks, mm.swap.fns.try_to_unmap);
  const range = new MmuNotifierRange(MMU_NOTIFY_CLEAR, user.mm, vma, vpn, end, 'try_to_unmap_one');
  const {rmapRange} = mm.notifierFacts;
  if (rmapRange) yield* mmu_notifier_invalidate_range_start(k, t, range);
  let go = true;
  for (let at = vpn; at < end && go; at++) {
    if (t.cpu.settle()) yield;
    let slot = page_mapped_slot(k, user.pgd, at, head);
    if (slot < 0) continue;
    if ((vma.flags & VM_LOCKED) !== 0 && !ignoreMlock) {
      mm.pages.flags[head] |= PG_mlocked;
      go = false;
      break;
    }
    if ((mm.pt.flags[slot] & PTE_HUGE) !== 0) {
      if (mm.hooks.split_huge === null) return false;
      yield* mm.hooks.split_huge(t, vma, slot, at);
      slot = page_mapped_slot(k, user.pgd, at, head);
      if (slot < 0) continue;
    }
    while (!pte_lock(mm, t, slot, mm.swap.fns.try_to_unmap))
      yield* mm.ptl.spin(t, slot >>> 9, mm.swap.fns.try_to_unmap);
    const word = mm.pt.flags[slot];
    const kind = word & PTE_KIND;
    const mapped = page_mapped_slot(k, user.pgd, at, head) === slot;
    if (mapped && (kind === PTE_PRESENT || kind === PTE_PROTNONE)) {
      go = yield* unmapLocked(k, t, head, place, slot, at, batch);
    }
    pte_unlock(mm, t, slot);
    if (mm.notifierFacts.invalidatePage === 'after-ptl' && go) {
      yield* mmu_notifier_invalidate_page(k, t, user.mm, at);
    }
  }
  if (rmapRange) yield* mmu_notifier_invalidate_range_end(k, t, range);
  return go;
}

/** Clear, flush or defer, new state, counters, rmap: under the PTL. */
function* unmapLocked(
  k: Kernel,
  t: Task,
  head: number,
  place: RmapPlace,
  slot: number,
  vpn: number,
  batch: UnmapBatch | null,
): Code<boolean> {
  const {mm} = k;
  const {pages, pt, notifierFacts} = mm;
  const {user} = place;
  const pfn = pt.entries[slot];
  const word = pt.flags[slot];
  t.cpu.charge(mm.swap.costs.unmapPteTicks, mm.swap.fns.try_to_unmap);
  yield* clear_flush_or_defer(k, t, user.mm, slot, vpn, batch);
  if ((word & PTE_DIRTY) !== 0) pages.flags[head] |= PG_dirty;
  if (!folio_test_anon(pages, head)) {
    add_mm_counter(k, t, user.mm, mm_counter_file(k, head), -1);
    if (keepsUffdWp(place.vma)) install_uffd_wp_marker(pt, slot, word);
  } else if (!replaceAnon(k, t, head, user, slot, pfn, word)) {
    setPte(pt, slot, pfn, word);
    return false;
  }
  if (notifierFacts.secondaryTlb === 'range') {
    invalidate_secondary_tlbs(k, t, user.mm, vpn, vpn + 1);
  }
  folio_remove_rmap_pte(k, t, head, pfn);
  folio_put(k, t, head);
  return true;
}

/** An anonymous page leaves a swap entry, a clean MADV_FREE page nothing. False: it must stay. */
export function replaceAnon(
  k: Kernel,
  t: Task,
  head: number,
  user: UserMm,
  slot: number,
  pfn: number,
  word: number,
): boolean {
  const {mm} = k;
  const {pages, swap} = mm;
  if ((pages.flags[head] & PG_swapbacked) === 0) {
    // MADV_FREE: given up unless written or referenced since; the caller has one reference.
    const refs = folio_mapcount(pages, head) + 1;
    if ((pages.flags[head] & PG_dirty) !== 0 || pages.refcount.get(head) !== refs) {
      pages.flags[head] |= PG_swapbacked;
      return false;
    }
    add_mm_counter(k, t, user.mm, MM_ANONPAGES, -1);
    return true;
  }
  const exclusive = (pages.flags[pfn] & PG_anon_exclusive) !== 0;
  if (exclusive && folio_maybe_dma_pinned(pages, head)) return false;
  const entry = page_swap_entry(k, head, pfn);
  mm.hooks.swap_duplicate?.(entry, 1);
  if (exclusive) pages.flags[pfn] &= ~PG_anon_exclusive;
  if (!swap.mmlist.includes(user.mm.id)) swap.mmlist.push(user.mm.id);
  add_mm_counter(k, t, user.mm, MM_ANONPAGES, -1);
  add_mm_counter(k, t, user.mm, MM_SWAPENTS, 1);
  const keep = word & (PTE_SOFT_DIRTY | PTE_UFFD_WP);
  setPte(mm.pt, slot, entry, PTE_SWAP | keep | (exclusive ? PTE_SWP_EXCLUSIVE : 0));
  return true;
}
