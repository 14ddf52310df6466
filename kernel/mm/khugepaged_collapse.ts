// mm/khugepaged.c, 6.18: is it worth while to make 2 MB huge (hpage_collapse_scan_pmd), and doing
// it (collapse_huge_page).
//
// Order: look at the PTEs under mmap_lock for read; drop it; allocate; mmap_lock for write; VMA and
// anon_vma for write; S; take the PMD away and flush; E; only then check the pages again, copy
// them, and map the new folio. So a secondary MMU that looks between E and the end finds no entry.
// A collapse counts one anonymous page for each PTE that was none or the page of zeros, one
// rss_stat record each. Limits hold for the daemon; MADV_COLLAPSE ignores them. Swapped pages are
// brought in by do_swap_page first. Page caches (collapse_file) are not modelled.

import type {Code} from '../../machine/process.ts';
import {pteClear, removeTable, slotAt} from '../arch/x86/mm/pgtable.ts';
import {
  PTE_DIRTY,
  PTE_HUGE,
  PTE_KIND,
  PTE_PRESENT,
  PTE_SPECIAL,
  PTE_SWAP,
  PTE_TABLE,
  PTE_UFFD_WP,
  PTE_WRITE,
  PTE_YOUNG,
} from '../arch/x86/mm/pgtable_bits.ts';
import {EAGAIN, EINVAL, ENOMEM} from '../errno.ts';
import type {Kernel} from '../kernel.ts';
import type {Task} from '../task.ts';
import {isBefore} from '../version.ts';
import {folio_mapcount, folio_ref_count} from './folio_counts.ts';
import {lru_add_drain_all} from './folio_lru.ts';
import {HPAGE_PMD_NR, type HugeMemory, suitable} from './huge_memory.ts';
import {alloc_huge_folio} from './huge_memory_alloc.ts';
import {map_anon_folio_pmd} from './huge_memory_fault.ts';
import {mappingsIn} from './huge_memory_reuse.ts';
import {handle_mm_fault, is_fault_error} from './memory.ts';
import {pageWorkTicks, pte_lock, pte_unlock} from './memory_pte.ts';
import {
  mmu_notifier_invalidate_range_end,
  mmu_notifier_invalidate_range_start,
} from './mmu_notifier.ts';
import {MMU_NOTIFY_CLEAR, MmuNotifierRange} from './mmu_notifier_types.ts';
import {compound_head, folio_nr_pages, folio_test_anon} from './page.ts';
import {folio_put} from './page_alloc.ts';
import {PG_locked, PG_lru, PG_swapcache, PG_uptodate} from './page_flags.ts';
import {folio_remove_rmap_pte} from './rmap.ts';
import {MM_ANONPAGES} from './rss.ts';
import {add_mm_counter} from './rss_stat.ts';
import type {UserMm} from './user_mm.ts';
import {userfaultfd_armed, type VmArea, vma_is_anonymous} from './vma.ts';
import {vma_end_write_all, vma_start_write} from './vma_lock.ts';

/** enum scan_result, as far as it is told apart here. mmap_lock is still held for read up to 19. */
export const SCAN_SUCCEED_LOOK = 0;
export const SCAN_PMD_NULL = 1;
export const SCAN_PMD_MAPPED = 2;
export const SCAN_EXCEED_NONE_PTE = 3;
export const SCAN_EXCEED_SWAP_PTE = 4;
export const SCAN_EXCEED_SHARED_PTE = 5;
export const SCAN_PTE_NON_PRESENT = 6;
export const SCAN_PTE_UFFD_WP = 7;
export const SCAN_PAGE_NULL = 8;
export const SCAN_PAGE_ANON = 9;
export const SCAN_PAGE_LRU = 10;
export const SCAN_PAGE_LOCK = 11;
export const SCAN_PAGE_COUNT = 12;
export const SCAN_LACK_REFERENCED_PAGE = 13;
export const SCAN_PAGE_RO = 14;
export const SCAN_PAGE_COMPOUND = 15;
/** From here on mmap_lock has been dropped. */
export const SCAN_FAILED_AFTER_UNLOCK = 20;
export const SCAN_ALLOC_HUGE_PAGE_FAIL = 21;
export const SCAN_VMA_CHECK = 22;
export const SCAN_SUCCEED = 23;

/** What a look at a PTE table found. */
interface Findings {
  result: number;
  none: number;
  swapped: number;
  referenced: number;
}

/** What a kernel's khugepaged can take. */
interface CollapseRules {
  /** Swapped pages (4.8+). */
  readonly swapped: boolean;
  /** Pages that others map, too, and parts of huge pages (5.8+). */
  readonly shared: boolean;
  /** 2 MB without a writable page (6.18+). */
  readonly readOnly: boolean;
}

function rulesOf(k: Kernel): CollapseRules {
  const {version} = k.facts;
  return {
    swapped: !isBefore(version, '4.8'),
    shared: !isBefore(version, '5.8'),
    readOnly: !isBefore(version, '6.18'),
  };
}

/**
 * hpage_collapse_scan_pmd at the aligned page `address`; mmap_lock is held for read. `daemon`: the
 * limits of khugepaged hold. Returns a SCAN_ number.
 */
export function* hpage_collapse_scan_pmd(
  huge: HugeMemory,
  t: Task,
  vma: VmArea,
  address: number,
  daemon: boolean,
): Code<number> {
  const {k} = huge;
  const {mm} = k;
  const user = mm.byId(vma.space.mmId)!;
  const slot = slotAt(user.pgd, address, 1);
  if (slot < 0 || mm.pt.flags[slot] === 0) return SCAN_PMD_NULL;
  if ((mm.pt.flags[slot] & PTE_HUGE) !== 0) return SCAN_PMD_MAPPED;
  if ((mm.pt.flags[slot] & PTE_KIND) !== PTE_TABLE) return SCAN_PMD_NULL;
  if (t.cpu.settle()) yield;
  const table = mm.pt.entries[slot];
  const first = table << 9;
  while (!pte_lock(mm, t, first, huge.fnFault)) yield* mm.ptl.spin(t, table, huge.fnFault);
  const found = scanTable(huge, user, vma, first, daemon);
  t.cpu.charge(HPAGE_PMD_NR * mm.costs.zapOtherPteTicks, huge.fnFault);
  pte_unlock(mm, t, first);
  if (found.result !== SCAN_SUCCEED_LOOK) return found.result;
  return yield* collapse_huge_page(huge, t, user, vma, address, found, daemon);
}

function scanTable(
  huge: HugeMemory,
  user: UserMm,
  vma: VmArea,
  first: number,
  daemon: boolean,
): Findings {
  const {k, khugepaged} = huge;
  const {pt} = k.mm;
  const {maxPtesNone, maxPtesSwap, maxPtesShared} = khugepaged.settings;
  const found: Findings = {result: SCAN_SUCCEED_LOOK, none: 0, swapped: 0, referenced: 0};
  const rules = rulesOf(k);
  let writable = rules.readOnly;
  let shared = 0;
  for (let at = first; at < first + HPAGE_PMD_NR; at++) {
    const word = pt.flags[at];
    const zero = (word & PTE_SPECIAL) !== 0 && pt.entries[at] === k.mm.zeroPfn;
    if (word === 0 || zero) {
      found.none++;
      if (userfaultfd_armed(vma) || (daemon && found.none > maxPtesNone)) {
        return {...found, result: SCAN_EXCEED_NONE_PTE};
      }
      continue;
    }
    if ((word & PTE_UFFD_WP) !== 0) return {...found, result: SCAN_PTE_UFFD_WP};
    if ((word & PTE_KIND) === PTE_SWAP) {
      if (!rules.swapped) return {...found, result: SCAN_PTE_NON_PRESENT};
      found.swapped++;
      if (daemon && found.swapped > maxPtesSwap) return {...found, result: SCAN_EXCEED_SWAP_PTE};
      continue;
    }
    const result = rules.shared ? checkPage(k, at) : checkOldPage(k, at);
    if (result !== SCAN_SUCCEED_LOOK) return {...found, result};
    if ((word & PTE_WRITE) !== 0) writable = true;
    if ((word & PTE_YOUNG) !== 0) found.referenced++;
    if (mappedShared(k, user, pt.entries[at])) shared++;
    if (daemon && shared > maxPtesShared) return {...found, result: SCAN_EXCEED_SHARED_PTE};
  }
  if (!writable) return {...found, result: SCAN_PAGE_RO};
  const few = found.swapped > 0 && found.referenced < HPAGE_PMD_NR / 2;
  if (daemon && (found.referenced === 0 || few)) found.result = SCAN_LACK_REFERENCED_PAGE;
  return found;
}

/** A page that could be copied: anonymous, on the LRU, unlocked, without a pin. */
function checkPage(k: Kernel, slot: number): number {
  const {pt, pages} = k.mm;
  const word = pt.flags[slot];
  if ((word & PTE_KIND) !== PTE_PRESENT) return SCAN_PTE_NON_PRESENT;
  if ((word & PTE_SPECIAL) !== 0) return SCAN_PAGE_NULL;
  const head = compound_head(pages, pt.entries[slot]);
  if (!folio_test_anon(pages, head)) return SCAN_PAGE_ANON;
  if ((pages.flags[head] & PG_lru) === 0) return SCAN_PAGE_LRU;
  if ((pages.flags[head] & PG_locked) !== 0) return SCAN_PAGE_LOCK;
  const cached = (pages.flags[head] & PG_swapcache) === 0 ? 0 : folio_nr_pages(pages, head);
  const expected = folio_mapcount(pages, head) + cached;
  return folio_ref_count(pages, head) === expected ? SCAN_SUCCEED_LOOK : SCAN_PAGE_COUNT;
}

/** Before 5.8: a small page, and no reference but this mapping's (and the swap cache's). */
function checkOldPage(k: Kernel, slot: number): number {
  const {pt, pages} = k.mm;
  const result = checkPage(k, slot);
  if (result !== SCAN_SUCCEED_LOOK) return result;
  const head = compound_head(pages, pt.entries[slot]);
  if (folio_nr_pages(pages, head) > 1) return SCAN_PAGE_COMPOUND;
  return folio_mapcount(pages, head) === 1 ? SCAN_SUCCEED_LOOK : SCAN_PAGE_COUNT;
}

/** folio_maybe_mapped_shared. */
function mappedShared(k: Kernel, user: UserMm, pfn: number): boolean {
  const {pages} = k.mm;
  const head = compound_head(pages, pfn);
  const mapped = folio_mapcount(pages, head);
  if (mapped === 1) return false;
  return head === pfn && folio_nr_pages(pages, head) === 1
    ? true
    : mappingsIn(k, head, user) !== mapped;
}

/** collapse_huge_page: mmap_lock is held for read and dropped. */
function* collapse_huge_page(
  huge: HugeMemory,
  t: Task,
  user: UserMm,
  vma: VmArea,
  address: number,
  found: Findings,
  daemon: boolean,
): Code<number> {
  const {k, khugepaged} = huge;
  const {mm} = k;
  const {mmapLock} = user;
  if (!mmapLock.readRelease(t)) yield* mmapLock.readReleaseSlow(t);
  const node = mm.nodeFor(vma, address, t);
  const head = yield* alloc_huge_folio(k, t, node, user.memcg, true);
  if (head <= 0) {
    khugepaged.allocFailed = daemon;
    return SCAN_ALLOC_HUGE_PAGE_FAIL;
  }
  huge.counts.collapseAlloc++;
  mm.pages.flags[head] |= PG_uptodate;
  if (found.swapped > 0 && !(yield* swapin(huge, t, user, address))) {
    folio_put(k, t, head);
    return SCAN_FAILED_AFTER_UNLOCK;
  }
  const fn = huge.fnFault;
  if (!mmapLock.writeAcquire(t, fn)) yield* mmapLock.writeAcquireSlow(t, fn);
  let result = SCAN_VMA_CHECK;
  const now = revalidate(huge, user, address, daemon);
  if (now !== null) result = yield* collapseLocked(huge, t, user, now, address, head, daemon);
  vma_end_write_all(user);
  if (!mmapLock.writeRelease(t)) yield* mmapLock.writeReleaseSlow(t);
  if (result !== SCAN_SUCCEED) folio_put(k, t, head);
  return result;
}

/** hugepage_vma_revalidate: the VMA that covers the 2 MB, if huge pages may still be there. */
function revalidate(
  huge: HugeMemory,
  user: UserMm,
  address: number,
  daemon: boolean,
): VmArea | null {
  const vma = user.space.tree.lookup(address);
  if (vma === null || !vma_is_anonymous(vma) || vma.anonVma === null) return null;
  if (!suitable(vma, address, HPAGE_PMD_NR) || (daemon && !huge.allowed(vma))) return null;
  return vma;
}

/** __collapse_huge_page_swapin: do_swap_page for every swap entry, mmap_lock for read. */
function* swapin(huge: HugeMemory, t: Task, user: UserMm, address: number): Code<boolean> {
  const {k} = huge;
  const {pt} = k.mm;
  const {mmapLock} = user;
  const fn = huge.fnFault;
  if (!mmapLock.readAcquire(t, fn)) yield* mmapLock.readAcquireSlow(t, fn);
  let good = true;
  for (let i = 0; i < HPAGE_PMD_NR && good; i++) {
    const vma = user.space.tree.lookup(address + i);
    const slot = slotAt(user.pgd, address + i, 0);
    if (vma === null || slot < 0) good = false;
    else if ((pt.flags[slot] & PTE_KIND) === PTE_SWAP && pt.flags[slot] !== 0) {
      good = !is_fault_error(yield* handle_mm_fault(k, t, user.mm, vma, address + i, 0));
    }
  }
  if (!mmapLock.readRelease(t)) yield* mmapLock.readReleaseSlow(t);
  lru_add_drain_all(k, t);
  return good;
}

/** From vma_start_write to the new entry, mmap_lock held for write. */
function* collapseLocked(
  huge: HugeMemory,
  t: Task,
  user: UserMm,
  vma: VmArea,
  address: number,
  head: number,
  daemon: boolean,
): Code<number> {
  const {k} = huge;
  const {mm} = k;
  const {pt} = mm;
  yield* vma_start_write(k, t, user, vma);
  const slot = slotAt(user.pgd, address, 1);
  if (slot < 0 || (pt.flags[slot] & PTE_KIND) !== PTE_TABLE) return SCAN_FAILED_AFTER_UNLOCK;
  const anonLock = mm.anonVmaLock(vma.anonVma!);
  const fn = huge.fnFault;
  if (!anonLock.writeAcquire(t, fn)) yield* anonLock.writeAcquireSlow(t, fn);
  const last = address + HPAGE_PMD_NR;
  const site = 'collapse_huge_page';
  const range = new MmuNotifierRange(MMU_NOTIFY_CLEAR, user.mm, vma, address, last, site);
  yield* mmu_notifier_invalidate_range_start(k, t, range);
  if (t.cpu.settle()) yield;
  while (!pte_lock(mm, t, slot, fn)) yield* mm.ptl.spin(t, slot >>> 9, fn);
  mm.ptl.hold(slot >>> 9);
  // pmdp_collapse_flush: nobody but us can look at the PTEs now, mmap_lock, the VMA and the rmap
  // are ours; so the table stays where it is in the arena.
  yield* k.tlb.flush_tlb_mm_range(t, user.mm, address, last, true);
  mm.ptl.unhold(slot >>> 9);
  pte_unlock(mm, t, slot);
  yield* mmu_notifier_invalidate_range_end(k, t, range);
  if (t.cpu.settle()) yield;
  const first = pt.entries[slot] << 9;
  const good = scanTable(huge, user, vma, first, daemon).result === SCAN_SUCCEED_LOOK;
  if (!anonLock.writeRelease(t)) yield* anonLock.writeReleaseSlow(t);
  if (!good) return SCAN_FAILED_AFTER_UNLOCK;
  if (t.cpu.settle()) yield;
  copyAndMap(huge, t, user, vma, address, slot, head);
  return SCAN_SUCCEED;
}

/** __collapse_huge_page_copy and what follows: under mmap_lock for write, without waiting. */
function copyAndMap(
  huge: HugeMemory,
  t: Task,
  user: UserMm,
  vma: VmArea,
  address: number,
  slot: number,
  head: number,
): void {
  const {k} = huge;
  const {mm} = k;
  const {pt, pages, costs, fns} = mm;
  const node = pages.nodeOf(head);
  const table = pt.entries[slot];
  const first = table << 9;
  for (let i = 0; i < HPAGE_PMD_NR; i++) {
    const at = first + i;
    const word = pt.flags[at];
    const pfn = pt.entries[at];
    const empty = word === 0 || (word & PTE_SPECIAL) !== 0;
    const base = empty ? costs.clearPageTicks : costs.copyPageTicks;
    const workFn = empty ? fns.clear_page_erms : fns.copy_mc_to_kernel;
    t.cpu.charge(pageWorkTicks(k, t, base, node, 1), workFn);
    if (pages.hasContent) pages.content[head + i] = empty ? 0 : pages.content[pfn];
    pteClear(pt, at);
    if (empty) {
      if ((word & PTE_DIRTY) !== 0) mm.hooks.ksm_zap?.(user);
      add_mm_counter(k, t, user.mm, MM_ANONPAGES, 1);
      continue;
    }
    const old = compound_head(pages, pfn);
    folio_remove_rmap_pte(k, t, old, pfn);
    if ((pages.flags[old] & PG_swapcache) !== 0) mm.hooks.free_swap_cache?.(t, old);
    folio_put(k, t, old);
  }
  const frame = pt.pfn[table];
  pt.pfn[table] = 0;
  removeTable(user.pgd, slot);
  mm.ptl.forget(table);
  huge.depositFrame(user, slot, frame);
  mm.ptl.lock(t.cpu, slot >>> 9, 0, huge.fnFault);
  map_anon_folio_pmd(k, t, user.mm, vma, slot, address, head, 0);
  mm.ptl.unlock(t.cpu, slot >>> 9);
  huge.counts.collapsed++;
}

/**
 * madvise_collapse: [start, end) of a VMA; mmap_lock is held for read and is held again at the end.
 * 0, or -errno of the last 2 MB that could not be made huge.
 */
export function* madvise_collapse(
  huge: HugeMemory,
  t: Task,
  vma: VmArea,
  start: number,
  end: number,
): Code<number> {
  const {k} = huge;
  const user = k.mm.byId(vma.space.mmId)!;
  const first = Math.ceil(start / HPAGE_PMD_NR) * HPAGE_PMD_NR;
  const last = end - (end % HPAGE_PMD_NR);
  if (!vma_is_anonymous(vma) || huge.settings.enabled === 'never') return -EINVAL;
  lru_add_drain_all(k, t);
  let errno = 0;
  for (let at = first; at < last; at += HPAGE_PMD_NR) {
    if (k.sched.needsResched(t)) yield* k.sched.condResched(t);
    const now = user.space.tree.lookup(at);
    if (now === null || !suitable(now, at, HPAGE_PMD_NR)) return -EINVAL;
    const result = yield* hpage_collapse_scan_pmd(huge, t, now, at, false);
    if (result >= SCAN_FAILED_AFTER_UNLOCK) {
      const {mmapLock} = user;
      if (!mmapLock.readAcquire(t, huge.fnFault)) yield* mmapLock.readAcquireSlow(t, huge.fnFault);
    }
    if (result === SCAN_SUCCEED || result === SCAN_PMD_MAPPED) continue;
    errno = errnoOf(result);
  }
  return errno;
}

/** madvise_collapse_errno. */
function errnoOf(result: number): number {
  if (result === SCAN_ALLOC_HUGE_PAGE_FAIL) return -ENOMEM;
  const later = [SCAN_PAGE_COUNT, SCAN_PAGE_LOCK, SCAN_PAGE_LRU, SCAN_FAILED_AFTER_UNLOCK];
  return later.includes(result) ? -EAGAIN : -EINVAL;
}
