// mm/rmap.c and mm/migrate.c: taking a folio's mappings away for a migration (try_to_migrate) and
// putting them back on the folio that took its place (remove_migration_ptes), 6.18.
//
// On the way out, per VMA: a CLEAR pair around its part of the folio; under the PTL the entry is
// cleared and flushed (or the flush deferred to the batch's), what the entry could do goes into a
// migration entry, rmap and reference are dropped. Counters of the mm do not move. A pinned
// exclusive page stays (folio_try_share_anon_rmap_pte). Order by generation as in rmap_unmap.ts.
// On the way back no notification is sent and nothing is flushed: what was absent becomes present.

import type {Code} from '../../machine/process.ts';
import {pteClear, setHuge, setPte} from '../arch/x86/mm/pgtable.ts';
import {
  is_migration_entry,
  PTE_DIRTY,
  PTE_HUGE,
  PTE_KIND,
  PTE_MIGRATION_READ,
  PTE_MIGRATION_READ_EXCLUSIVE,
  PTE_MIGRATION_WRITE,
  PTE_PRESENT,
  PTE_PROTNONE,
  PTE_SOFT_DIRTY,
  PTE_UFFD_WP,
  PTE_WRITE,
  PTE_YOUNG,
  pte_present,
} from '../arch/x86/mm/pgtable_bits.ts';
import type {Kernel} from '../kernel.ts';
import type {Task} from '../task.ts';
import {
  addEntireMapping,
  folio_mapped,
  folio_maybe_dma_pinned,
  removeEntireMapping,
} from './folio_counts.ts';
import {type KsmPlace, ksm_places} from './ksm_rmap.ts';
import {pte_lock, pte_unlock} from './memory_pte.ts';
import {
  invalidate_secondary_tlbs,
  mmu_notifier_invalidate_page,
  mmu_notifier_invalidate_range_end,
  mmu_notifier_invalidate_range_start,
} from './mmu_notifier.ts';
import {MMU_NOTIFY_CLEAR, MmuNotifierRange} from './mmu_notifier_types.ts';
import {flush_tlb_range, vma_wants_writenotify} from './mprotect_walk.ts';
import {folio_nr_pages, folio_test_anon, folio_test_ksm, page_pgoff} from './page.ts';
import {folio_put} from './page_alloc.ts';
import {PG_anon_exclusive, PG_dirty} from './page_flags.ts';
import {
  folio_add_anon_rmap_pte,
  folio_add_file_rmap_pte,
  folio_remove_rmap_pte,
  page_mapped_slot,
  type RmapPlace,
  rmap_list,
} from './rmap.ts';
import {rmapLock} from './rmap_unmap.ts';
import {clear_flush_or_defer, type UnmapBatch} from './rmap_unmap_flush.ts';
import type {VmArea} from './vma.ts';
import {VM_ACCESS, VM_SHARED, VM_WRITE} from './vma_flags.ts';

const HPAGE_PMD_NR = 512;

/**
 * try_to_migrate of a locked folio on which the caller holds a reference. `batch` null: every entry
 * is flushed at once. The folio may stay mapped: look at folio_mapped.
 */
export function* try_to_migrate(k: Kernel, t: Task, head: number, batch: UnmapBatch | null): Code {
  const fn = k.mm.migration.fns.try_to_migrate;
  if (folio_test_ksm(k.mm.pages, head)) {
    for (const place of ksm_places(k, head)) {
      const go = yield* atKsmPlace(
        t,
        place,
        fn,
        try_to_migrate_one(k, t, head, place, batch),
        true,
      );
      if (!go || !folio_mapped(k.mm.pages, head)) break;
    }
    return;
  }
  const lock = rmapLock(k, head);
  if (lock === null) return;
  if (!lock.readAcquire(t, fn)) yield* lock.readAcquireSlow(t, fn);
  for (const place of rmap_list(k, head)) {
    const go = yield* try_to_migrate_one(k, t, head, place, batch);
    if (!go || !folio_mapped(k.mm.pages, head)) break;
  }
  if (!lock.readRelease(t)) yield* lock.readReleaseSlow(t);
}

/** Runs `visit` under the place's lock, unless its VMA has gone meanwhile: `otherwise` then. */
function* atKsmPlace<T>(
  t: Task,
  {lock, vma}: KsmPlace,
  fn: number,
  visit: Code<T>,
  otherwise: T,
): Code<T> {
  if (!lock.readAcquire(t, fn)) yield* lock.readAcquireSlow(t, fn);
  const result = vma.attached ? yield* visit : otherwise;
  if (!lock.readRelease(t)) yield* lock.readReleaseSlow(t);
  return result;
}

/** First page after the VMA's part of the folio (vma_address_end). */
function placeEnd(k: Kernel, head: number, {vma, vpn}: RmapPlace): number {
  const {pages} = k.mm;
  if (folio_test_ksm(pages, head)) return vpn + 1;
  const last = page_pgoff(pages, head) + folio_nr_pages(pages, head);
  return Math.max(vpn + 1, Math.min(vma.start + (last - vma.pgoff), vma.end));
}

/** One VMA. False: the walk ends, the folio stays mapped. */
function* try_to_migrate_one(
  k: Kernel,
  t: Task,
  head: number,
  place: RmapPlace,
  batch: UnmapBatch | null,
): Code<boolean> {
  const {mm} = k;
  const {costs, fns, unmapSite} = mm.migration;
  const {vma, user, vpn} = place;
  const end = placeEnd(k, head, place);
  t.cpu.charge(costs.rmapVmaTicks, fns.try_to_migrate);
  const range = new MmuNotifierRange(MMU_NOTIFY_CLEAR, user.mm, vma, vpn, end, unmapSite);
  const {rmapRange} = mm.notifierFacts;
  if (rmapRange) yield* mmu_notifier_invalidate_range_start(k, t, range);
  let go = true;
  for (let at = vpn; at < end && go; at++) {
    if (t.cpu.settle()) yield;
    let slot = page_mapped_slot(k, user.pgd, at, head);
    if (slot < 0) continue;
    while (!pte_lock(mm, t, slot, fns.try_to_migrate)) {
      yield* mm.ptl.spin(t, slot >>> 9, fns.try_to_migrate);
      slot = page_mapped_slot(k, user.pgd, at, head);
      if (slot < 0) break;
    }
    if (slot < 0) continue;
    const huge = (mm.pt.flags[slot] & PTE_HUGE) !== 0;
    const mapped = pte_present(mm.pt.flags[slot]);
    if (mapped) {
      go = huge
        ? yield* setHugeMigrationEntry(k, t, head, place, slot, at)
        : yield* setMigrationEntry(k, t, head, place, slot, at, batch);
    }
    pte_unlock(mm, t, slot);
    if (mm.notifierFacts.invalidatePage === 'after-ptl' && mapped && go) {
      yield* mmu_notifier_invalidate_page(k, t, user.mm, at);
    }
    if (huge) break;
  }
  if (rmapRange) yield* mmu_notifier_invalidate_range_end(k, t, range);
  return go;
}

/** Kind and bits of the migration entry for a mapping with these flags. */
function entryFlags(k: Kernel, word: number, exclusive: boolean): number {
  const own = exclusive ? PTE_MIGRATION_READ_EXCLUSIVE : PTE_MIGRATION_READ;
  const kind = (word & PTE_WRITE) === 0 ? own : PTE_MIGRATION_WRITE;
  const access = k.mm.migration.keepsAccessBits ? PTE_YOUNG | PTE_DIRTY : 0;
  return kind | (word & (PTE_SOFT_DIRTY | PTE_UFFD_WP | access));
}

/** Takes PG_anon_exclusive away. False: the page is pinned, its mapping must stay. */
function share(k: Kernel, head: number, pfn: number, exclusive: boolean): boolean {
  if (!exclusive) return true;
  const {pages} = k.mm;
  if (folio_maybe_dma_pinned(pages, head)) return false;
  pages.flags[pfn] &= ~PG_anon_exclusive;
  return true;
}

function isExclusive(k: Kernel, head: number, pfn: number): boolean {
  const {pages} = k.mm;
  return folio_test_anon(pages, head) && (pages.flags[pfn] & PG_anon_exclusive) !== 0;
}

/** Clear, flush or defer, migration entry, rmap: one PTE, under the PTL. */
function* setMigrationEntry(
  k: Kernel,
  t: Task,
  head: number,
  {user}: RmapPlace,
  slot: number,
  vpn: number,
  batch: UnmapBatch | null,
): Code<boolean> {
  const {mm} = k;
  const {pt, pages, notifierFacts} = mm;
  const pfn = pt.entries[slot];
  const word = pt.flags[slot];
  t.cpu.charge(mm.migration.costs.unmapPteTicks, mm.migration.fns.try_to_migrate);
  yield* clear_flush_or_defer(k, t, user.mm, slot, vpn, batch);
  if ((word & PTE_DIRTY) !== 0) pages.flags[head] |= PG_dirty;
  const exclusive = isExclusive(k, head, pfn);
  if (!share(k, head, pfn, exclusive)) {
    setPte(pt, slot, pfn, word);
    return false;
  }
  setPte(pt, slot, pfn, entryFlags(k, word, exclusive));
  if (notifierFacts.secondaryTlb === 'range') {
    invalidate_secondary_tlbs(k, t, user.mm, vpn, vpn + 1);
  }
  folio_remove_rmap_pte(k, t, head, pfn);
  folio_put(k, t, head);
  return true;
}

/** set_pmd_migration_entry: 2 MB at once; its page table stays deposited. */
function* setHugeMigrationEntry(
  k: Kernel,
  t: Task,
  head: number,
  {user}: RmapPlace,
  slot: number,
  vpn: number,
): Code<boolean> {
  const {mm} = k;
  const {pt, pages, notifierFacts} = mm;
  const word = pt.flags[slot];
  const first = vpn - (vpn % HPAGE_PMD_NR);
  t.cpu.charge(mm.migration.costs.unmapPteTicks, mm.migration.fns.try_to_migrate);
  pteClear(pt, slot);
  mm.ptl.hold(slot >>> 9);
  yield* flush_tlb_range(k, t, user, first, first + HPAGE_PMD_NR);
  mm.ptl.unhold(slot >>> 9);
  if ((word & PTE_DIRTY) !== 0) pages.flags[head] |= PG_dirty;
  const exclusive = isExclusive(k, head, head);
  if (!share(k, head, head, exclusive)) {
    setHuge(pt, slot, head, word);
    return false;
  }
  setHuge(pt, slot, head, entryFlags(k, word, exclusive));
  if (notifierFacts.secondaryTlb === 'range') {
    invalidate_secondary_tlbs(k, t, user.mm, first, first + HPAGE_PMD_NR);
  }
  removeEntireMapping(pages, head);
  folio_put(k, t, head);
  return true;
}

/**
 * remove_migration_ptes: migration entries of `src` map `dst` from now on; `src` again when the
 * migration failed. Both are locked.
 */
export function* remove_migration_ptes(k: Kernel, t: Task, src: number, dst: number): Code {
  const fn = k.mm.migration.fns.remove_migration_ptes;
  if (folio_test_ksm(k.mm.pages, dst)) {
    for (const place of ksm_places(k, dst)) {
      yield* atKsmPlace(t, place, fn, remove_migration_pte(k, t, src, dst, place), undefined);
    }
    return;
  }
  const lock = rmapLock(k, dst);
  if (lock === null) return;
  if (!lock.readAcquire(t, fn)) yield* lock.readAcquireSlow(t, fn);
  for (const place of rmap_list(k, dst)) yield* remove_migration_pte(k, t, src, dst, place);
  if (!lock.readRelease(t)) yield* lock.readReleaseSlow(t);
}

/** One VMA. */
function* remove_migration_pte(
  k: Kernel,
  t: Task,
  src: number,
  dst: number,
  place: RmapPlace,
): Code {
  const {mm} = k;
  const {costs, fns} = mm.migration;
  const fn = fns.remove_migration_ptes;
  const {vma, user, vpn} = place;
  t.cpu.charge(costs.rmapVmaTicks, fn);
  const end = placeEnd(k, dst, place);
  for (let at = vpn; at < end; at++) {
    if (t.cpu.settle()) yield;
    let slot = page_mapped_slot(k, user.pgd, at, src);
    while (slot >= 0 && !pte_lock(mm, t, slot, fn)) {
      yield* mm.ptl.spin(t, slot >>> 9, fn);
      slot = page_mapped_slot(k, user.pgd, at, src);
    }
    if (slot < 0) continue;
    const word = mm.pt.flags[slot];
    if (is_migration_entry(word)) restore(k, t, vma, slot, at, src, dst);
    pte_unlock(mm, t, slot);
    if ((word & PTE_HUGE) !== 0) break;
  }
}

/** The entry itself, of 4 KB or 2 MB, under the PTL. */
function restore(
  k: Kernel,
  t: Task,
  vma: VmArea,
  slot: number,
  vpn: number,
  src: number,
  dst: number,
): void {
  const {mm} = k;
  const {pt, pages} = mm;
  const word = pt.flags[slot];
  const anon = folio_test_anon(pages, dst);
  const pfn = dst + ((pt.entries[slot] & 0x7fff_ffff) - src);
  const exclusive = anon && (word & PTE_KIND) !== PTE_MIGRATION_READ && mm.cowRule === 'exclusive';
  const flags = restoredFlags(k, vma, word, dst);
  t.cpu.charge(mm.migration.costs.restorePteTicks, mm.migration.fns.remove_migration_ptes);
  pages.refcount.increment(dst);
  if ((word & PTE_HUGE) !== 0) {
    addEntireMapping(pages, dst);
    if (exclusive) pages.flags[dst] |= PG_anon_exclusive;
    setHuge(pt, slot, dst, flags);
    return;
  }
  if (anon) folio_add_anon_rmap_pte(k, pfn, vma, vpn, exclusive);
  else folio_add_file_rmap_pte(pages, dst, pfn);
  setPte(pt, slot, pfn, flags);
}

/**
 * mk_pte with the VMA's protection, and what the entry kept. Write access comes back only where the
 * entry had it or the mapping is shared and nobody wants to be told of writes.
 */
function restoredFlags(k: Kernel, vma: VmArea, word: number, dst: number): number {
  const {flags} = k.mm.pages;
  const accessible = (vma.flags & VM_ACCESS) !== 0;
  let made = accessible ? PTE_PRESENT : PTE_PROTNONE;
  made |= word & (PTE_YOUNG | PTE_SOFT_DIRTY);
  if ((flags[dst] & PG_dirty) !== 0) made |= word & PTE_DIRTY;
  const shared = (vma.flags & (VM_SHARED | VM_WRITE)) === (VM_SHARED | VM_WRITE);
  const writable = (word & PTE_KIND) === PTE_MIGRATION_WRITE && (vma.flags & VM_WRITE) !== 0;
  if (accessible && (writable || (shared && !vma_wants_writenotify(vma)))) {
    made |= PTE_WRITE;
  } else if ((word & PTE_UFFD_WP) !== 0) {
    made |= PTE_UFFD_WP;
  }
  return made;
}
