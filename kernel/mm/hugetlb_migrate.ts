// mm/migrate.c: unmap_and_move_huge_page, and what try_to_migrate_one and remove_migration_pte do
// for hugetlb (6.18). A huge page moves whole: locked, its entries turned into migration entries (a
// CLEAR pair per VMA since 4.13, widened to what sharing may reach), copied, its place in the file
// changed, mapped again. In a shared mapping a table that others have is left instead, under
// i_mmap_rwsem and the vma lock for writing. The new page is a free one of the target's pool or a
// temporary one; then it is the old page that is temporary and goes back to the buddy allocator.

import type {Code} from '../../machine/process.ts';
import {pteClear, pteValue, setHuge} from '../arch/x86/mm/pgtable.ts';
import {
  is_migration_entry,
  PTE_DIRTY,
  PTE_KIND,
  PTE_MIGRATION_READ,
  PTE_MIGRATION_READ_EXCLUSIVE,
  PTE_MIGRATION_WRITE,
  PTE_PRESENT,
  PTE_PROTNONE,
  PTE_SOFT_DIRTY,
  PTE_WRITE,
  PTE_YOUNG,
} from '../arch/x86/mm/pgtable_bits.ts';
import {EAGAIN, ENOMEM} from '../errno.ts';
import type {Kernel} from '../kernel.ts';
import type {Task} from '../task.ts';
import {hugetlbWork} from './costs_hugetlb.ts';
import {
  addEntireMapping,
  folio_mapped,
  folio_maybe_dma_pinned,
  removeEntireMapping,
} from './folio_counts.ts';
import {copy_huge_page} from './hugetlb_alloc.ts';
import {alloc_hugetlb_folio_nodemask, hstateOf, move_hugetlb_state} from './hugetlb_pool.ts';
import {
  adjust_range_if_pmd_sharing_possible,
  huge_pmd_unshare,
  hugetlb_walk,
} from './hugetlb_share.ts';
import {pte_lock, pte_unlock} from './memory_pte.ts';
import {
  mmu_notifier_invalidate_page,
  mmu_notifier_invalidate_range_end,
  mmu_notifier_invalidate_range_start,
} from './mmu_notifier.ts';
import {MMU_NOTIFY_CLEAR, MmuNotifierRange} from './mmu_notifier_types.ts';
import {clearMapping, folio_test_anon, mappingId, page_pgoff} from './page.ts';
import {folio_put} from './page_alloc.ts';
import {PG_anon_exclusive, PG_dirty} from './page_flags.ts';
import {folio_lock, folio_trylock, folio_unlock} from './page_io.ts';
import {type RmapPlace, rmap_list} from './rmap.ts';
import {rmapLock} from './rmap_unmap.ts';
import {VM_ACCESS, VM_SHARED, VM_WRITE} from './vma_flags.ts';

/** isolate_hugetlb: a reference, if anybody has the page. */
export function isolate_hugetlb(k: Kernel, head: number): boolean {
  const {refcount} = k.mm.pages;
  if (refcount.isZero(head)) return false;
  refcount.increment(head);
  return true;
}

/**
 * Moves an isolated huge page to `node`, and drops the isolation's reference. 0, -ENOMEM (no page
 * there), or -EAGAIN (somebody holds the page; everything is as it was).
 */
export function* unmap_and_move_huge_page(
  k: Kernel,
  t: Task,
  src: number,
  node: number,
): Code<number> {
  const {mm} = k;
  const {pages} = mm;
  if (pages.refcount.get(src) === 1) {
    folio_put(k, t, src);
    return 0;
  }
  const h = hstateOf(k, src);
  const dst = alloc_hugetlb_folio_nodemask(k, t, h, node);
  if (dst === 0) {
    folio_put(k, t, src);
    return -ENOMEM;
  }
  if (!folio_trylock(k, src)) yield* folio_lock(k, t, src);
  folio_trylock(k, dst);
  const mapped = folio_mapped(pages, src);
  if (mapped) yield* try_to_migrate_huge(k, t, src);
  let result = folio_mapped(pages, src) ? -EAGAIN : 0;
  if (result === 0) result = yield* move_huge(k, t, dst, src);
  const now = result === 0 ? dst : src;
  if (mapped) yield* remove_huge_migration_ptes(k, t, src, now);
  folio_unlock(k, dst);
  folio_unlock(k, src);
  if (result === 0) move_hugetlb_state(k, h, dst, src);
  folio_put(k, t, src);
  folio_put(k, t, dst);
  return result;
}

/** move_to_new_folio and hugetlbfs_migrate_folio: -EAGAIN when somebody else refers to the page. */
function* move_huge(k: Kernel, t: Task, dst: number, src: number): Code<number> {
  const {mm} = k;
  const {pages, files} = mm;
  const mapping = folio_test_anon(pages, src) ? null : files.find(mappingId(pages, src));
  const expected = mapping === null ? 1 : 2;
  if (t.cpu.settle()) yield;
  if (pages.refcount.get(src) !== expected) return -EAGAIN;
  copy_huge_page(k, t, hstateOf(k, src), dst, src);
  if (t.cpu.settle()) yield;
  if (pages.refcount.get(src) !== expected) return -EAGAIN;
  pages.mapping[dst] = pages.mapping[src];
  pages.index[dst] = pages.index[src];
  pages.flags[dst] |= pages.flags[src] & PG_dirty;
  if (mapping === null) return 0;
  files.replacePage(mapping, page_pgoff(pages, src), dst);
  pages.refcount.increment(dst);
  pages.refcount.decrement(src);
  clearMapping(pages, src);
  return 0;
}

/**
 * try_to_migrate: the anon_vma's lock for reading, a file's for writing, because tables may be
 * left.
 */
function* try_to_migrate_huge(k: Kernel, t: Task, head: number): Code {
  const {fns} = hugetlbWork(k);
  const fn = fns.__unmap_hugepage_range;
  const lock = rmapLock(k, head);
  if (lock === null) return;
  const anon = folio_test_anon(k.mm.pages, head);
  if (anon) {
    if (!lock.readAcquire(t, fn)) yield* lock.readAcquireSlow(t, fn);
  } else if (!lock.writeAcquire(t, fn)) {
    yield* lock.writeAcquireSlow(t, fn);
  }
  for (const place of rmap_list(k, head)) {
    if (!(yield* try_to_migrate_one(k, t, head, place, anon))) break;
  }
  if (anon) {
    if (!lock.readRelease(t)) yield* lock.readReleaseSlow(t);
  } else if (!lock.writeRelease(t)) {
    yield* lock.writeReleaseSlow(t);
  }
}

/** One VMA. False: the page stays mapped. */
function* try_to_migrate_one(
  k: Kernel,
  t: Task,
  head: number,
  {vma, user, vpn}: RmapPlace,
  anon: boolean,
): Code<boolean> {
  const {mm} = k;
  const h = hstateOf(k, head);
  const fn = hugetlbWork(k).fns.__unmap_hugepage_range;
  const [from, to] = adjust_range_if_pmd_sharing_possible(vma, vpn, vpn + h.pages);
  const site = 'try_to_migrate_one';
  const range = new MmuNotifierRange(MMU_NOTIFY_CLEAR, user.mm, vma, from, to, site);
  const {rmapRange} = mm.notifierFacts;
  if (rmapRange) yield* mmu_notifier_invalidate_range_start(k, t, range);
  const own = anon ? null : mm.hugetlb.locks.vmaLock(vma);
  if (t.cpu.settle()) yield;
  const locked = own === null || own.tryWriteAcquire(t, fn);
  const slot = locked ? hugetlb_walk(user, h, vpn) : -1;
  let go = locked;
  if (slot >= 0) {
    while (!pte_lock(mm, t, slot, fn)) yield* mm.ptl.spin(t, slot >>> 9, fn);
    const word = mm.pt.flags[slot];
    const present = word !== 0 && (word & PTE_KIND) <= PTE_PROTNONE;
    if (present && pteValue(mm.pt, slot) === head) {
      mm.ptl.hold(slot >>> 9);
      if (!anon && huge_pmd_unshare(k, t, user, h, slot, vpn)) {
        yield* k.tlb.flush_tlb_mm_range(t, user.mm, from, to, true, 512);
      } else {
        yield* k.tlb.flush_tlb_mm_range(t, user.mm, vpn, vpn + h.pages, false, 512);
        go = setMigrationEntry(k, t, head, slot, word, anon);
      }
      mm.ptl.unhold(slot >>> 9);
    }
    pte_unlock(mm, t, slot);
  }
  if (own !== null && locked && !own.writeRelease(t)) yield* own.writeReleaseSlow(t);
  if (rmapRange) yield* mmu_notifier_invalidate_range_end(k, t, range);
  else yield* mmu_notifier_invalidate_page(k, t, user.mm, vpn);
  return go;
}

/** Under the lock. False: the page is pinned, its entry stays. */
function setMigrationEntry(
  k: Kernel,
  t: Task,
  head: number,
  slot: number,
  word: number,
  anon: boolean,
): boolean {
  const {pt, pages} = k.mm;
  const exclusive = anon && (pages.flags[head] & PG_anon_exclusive) !== 0;
  if (exclusive && folio_maybe_dma_pinned(pages, head)) return false;
  if (exclusive) pages.flags[head] &= ~PG_anon_exclusive;
  const own = exclusive ? PTE_MIGRATION_READ_EXCLUSIVE : PTE_MIGRATION_READ;
  const kind = (word & PTE_WRITE) === 0 ? own : PTE_MIGRATION_WRITE;
  if ((word & PTE_DIRTY) !== 0) pages.flags[head] |= PG_dirty;
  setHuge(pt, slot, head, kind | (word & (PTE_SOFT_DIRTY | PTE_YOUNG | PTE_DIRTY)));
  removeEntireMapping(pages, head);
  t.cpu.charge(k.mm.costs.zapPteTicks, hugetlbWork(k).fns.__unmap_hugepage_range);
  folio_put(k, t, head);
  return true;
}

/** remove_migration_ptes: entries that wait for `src` map `now`. Nobody is told. */
function* remove_huge_migration_ptes(k: Kernel, t: Task, src: number, now: number): Code {
  const {fns} = hugetlbWork(k);
  const fn = fns.__unmap_hugepage_range;
  const lock = rmapLock(k, now);
  if (lock === null) return;
  if (!lock.readAcquire(t, fn)) yield* lock.readAcquireSlow(t, fn);
  for (const place of rmap_list(k, now)) yield* restoreEntry(k, t, place, src, now);
  if (!lock.readRelease(t)) yield* lock.readReleaseSlow(t);
}

function* restoreEntry(k: Kernel, t: Task, place: RmapPlace, src: number, now: number): Code {
  const {mm} = k;
  const {vma, user, vpn} = place;
  const fn = hugetlbWork(k).fns.__unmap_hugepage_range;
  const slot = hugetlb_walk(user, hstateOf(k, now), vpn);
  if (slot < 0) return;
  if (t.cpu.settle()) yield;
  while (!pte_lock(mm, t, slot, fn)) yield* mm.ptl.spin(t, slot >>> 9, fn);
  const word = mm.pt.flags[slot];
  if (is_migration_entry(word) && pteValue(mm.pt, slot) === src) {
    const anon = folio_test_anon(mm.pages, now);
    const accessible = (vma.flags & VM_ACCESS) !== 0;
    const shared = (vma.flags & (VM_SHARED | VM_WRITE)) === (VM_SHARED | VM_WRITE);
    const writable = (word & PTE_KIND) === PTE_MIGRATION_WRITE || (shared && accessible);
    const kept = word & (PTE_SOFT_DIRTY | PTE_YOUNG | PTE_DIRTY);
    const kind = accessible ? PTE_PRESENT : PTE_PROTNONE;
    pteClear(mm.pt, slot);
    setHuge(mm.pt, slot, now, kind | kept | (writable ? PTE_WRITE : 0));
    addEntireMapping(mm.pages, now);
    mm.pages.refcount.increment(now);
    if (anon && (word & PTE_KIND) !== PTE_MIGRATION_READ) mm.pages.flags[now] |= PG_anon_exclusive;
    t.cpu.charge(mm.costs.setPteTicks, fn);
  }
  pte_unlock(mm, t, slot);
}
