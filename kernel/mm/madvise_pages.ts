// mm/madvise.c: MADV_DONTNEED and MADV_FREE, 6.18. DONTNEED unmaps the pages of the range, one
// CLEAR pair per VMA, and since 6.14 frees the page tables that this empties (pt_reclaim.ts). FREE
// (4.5+, anonymous memory) marks them old and clean and moves them to the inactive file list
// without PG_swapbacked: reclaim may then drop a page unless it was written again; swap entries go
// at once. Its pair is CLEAR as well.

import type {Code} from '../../machine/process.ts';
import {
  PTE_DIRTY,
  PTE_HUGE,
  PTE_KIND,
  PTE_PRESENT,
  PTE_SPECIAL,
  PTE_SWAP,
  PTE_YOUNG,
} from '../arch/x86/mm/pgtable_bits.ts';
import {PgtableCursor, startRange} from '../arch/x86/mm/pgtable_range.ts';
import {EINVAL, ENOMEM} from '../errno.ts';
import type {Kernel} from '../kernel.ts';
import type {Task} from '../task.ts';
import {folio_mapcount} from './folio_counts.ts';
import {lru_add_drain} from './folio_lru.ts';
import {dontneedPages} from './hugetlb_file.ts';
import {MADV_DONTNEED_LOCKED, MADV_FREE} from './madvise_numbers.ts';
import {next_settled, pte_lock, pte_unlock} from './memory_pte.ts';
import {zap_page_range_single, zap_page_range_single_batched} from './memory_zap.ts';
import {relist_folios} from './mlock_folio.ts';
import {mmap_read_lock} from './mmap_lock.ts';
import {type MmuGather, tlb_finish_mmu, tlb_gather_mmu} from './mmu_gather.ts';
import {
  mmu_notifier_invalidate_range_end,
  mmu_notifier_invalidate_range_start,
} from './mmu_notifier.ts';
import {MMU_NOTIFY_CLEAR, MmuNotifierRange} from './mmu_notifier_types.ts';
import {compound_head, folio_nr_pages, folio_test_anon} from './page.ts';
import {
  PG_active,
  PG_dirty,
  PG_referenced,
  PG_swapbacked,
  PG_swapcache,
  PG_unevictable,
} from './page_flags.ts';
import {reclaim_ptes, reclaimsTables} from './pt_reclaim.ts';
import {MM_SWAPENTS} from './rss.ts';
import {add_mm_counter} from './rss_stat.ts';
import type {UserMm} from './user_mm.ts';
import {type VmArea, vma_is_anonymous} from './vma.ts';
import {VM_HUGETLB, VM_LOCKED, VM_PFNMAP} from './vma_flags.ts';

/**
 * madvise_dontneed_free for [start, end) of one VMA. `tlb`: the call's gather, null before 6.17.
 */
export function* madvise_dontneed_free(
  k: Kernel,
  t: Task,
  user: UserMm,
  vma: VmArea,
  start: number,
  end: number,
  advice: number,
  tlb: MmuGather | null,
): Code<number> {
  const forbidden = advice === MADV_DONTNEED_LOCKED ? VM_PFNMAP : VM_PFNMAP | VM_LOCKED;
  if ((vma.flags & forbidden) !== 0) return -EINVAL;
  if ((vma.flags & VM_HUGETLB) !== 0 && advice !== MADV_FREE) {
    const pages = dontneedPages(k, vma, start, end);
    if (pages < 0) return -EINVAL;
    end = start + pages;
    if (pages === 0) return 0;
  }
  const {userfaultfd_remove} = k.mm.hooks;
  if (vma.uffd !== 0 && userfaultfd_remove !== null) {
    if (!(yield* userfaultfd_remove(t, user, vma, start, end))) {
      // mmap_lock was given up while the event was read.
      yield* mmap_read_lock(t, user, k.mm.fns.do_madvise);
      const again = user.space.tree.lookup(start);
      if (again === null) return -ENOMEM;
      if ((again.flags & forbidden) !== 0) return -EINVAL;
      return yield* zapRange(k, t, user, again, start, Math.min(end, again.end), advice, tlb);
    }
  }
  return yield* zapRange(k, t, user, vma, start, end, advice, tlb);
}

function* zapRange(
  k: Kernel,
  t: Task,
  user: UserMm,
  vma: VmArea,
  start: number,
  end: number,
  advice: number,
  tlb: MmuGather | null,
): Code<number> {
  if (advice === MADV_FREE) {
    if (!vma_is_anonymous(vma) || (vma.flags & VM_HUGETLB) !== 0) return -EINVAL;
    yield* madvise_free_single_vma(k, t, user, vma, start, end, tlb);
    return 0;
  }
  if (!reclaimsTables(k)) {
    yield* zap_page_range_single(k, t, vma, start, end, null);
    return 0;
  }
  const gather = tlb ?? tlb_gather_mmu(user.mm);
  yield* zap_page_range_single_batched(k, t, gather, vma, start, end, null);
  const small = (vma.flags & VM_HUGETLB) === 0 && vma.ops !== 'dax';
  if (small) yield* reclaim_ptes(k, t, gather, start, end);
  if (tlb === null) yield* tlb_finish_mmu(k, t, gather);
  return 0;
}

function* madvise_free_single_vma(
  k: Kernel,
  t: Task,
  user: UserMm,
  vma: VmArea,
  start: number,
  end: number,
  batched: MmuGather | null,
): Code {
  const range = new MmuNotifierRange(
    MMU_NOTIFY_CLEAR,
    user.mm,
    vma,
    start,
    end,
    'madvise_free_single_vma',
  );
  const tlb = batched ?? tlb_gather_mmu(user.mm);
  lru_add_drain(k, t);
  yield* mmu_notifier_invalidate_range_start(k, t, range);
  yield* freeWalk(k, t, user, vma, tlb, start, end);
  yield* mmu_notifier_invalidate_range_end(k, t, range);
  if (batched === null) yield* tlb_finish_mmu(k, t, tlb);
}

function* freeWalk(
  k: Kernel,
  t: Task,
  user: UserMm,
  vma: VmArea,
  tlb: MmuGather,
  start: number,
  end: number,
): Code {
  const {mm} = k;
  const cursor = new PgtableCursor();
  startRange(cursor, start, end);
  while (yield* next_settled(t, user, cursor)) {
    const {slot, vpn, level} = cursor;
    if (level > 0) {
      // madvise_free_huge_pmd keeps a huge page that goes as a whole; here it is split all the
      // same.
      if ((mm.pt.flags[slot] & PTE_HUGE) === 0 || mm.hooks.split_huge === null) continue;
      yield* mm.hooks.split_huge(t, vma, slot, vpn);
      cursor.next = vpn;
      continue;
    }
    while (!pte_lock(mm, t, slot, mm.fns.madvise_free_pte_range))
      yield* mm.ptl.spin(t, slot >>> 9, mm.fns.madvise_free_pte_range);
    const lazy = madvise_free_pte_range(k, t, user, tlb, cursor);
    pte_unlock(mm, t, slot);
    relist_folios(k, t, lazy, 0, PG_active | PG_referenced | PG_swapbacked);
    if (k.sched.needsResched(t)) yield* k.sched.condResched(t);
  }
}

/** One run of PTEs, under its lock. Returns the folios that become lazily freed. */
function madvise_free_pte_range(
  k: Kernel,
  t: Task,
  user: UserMm,
  tlb: MmuGather,
  cursor: PgtableCursor,
): number[] {
  const {mm} = k;
  const {pt, costs, fns, hooks} = mm;
  const {slot, count, vpn} = cursor;
  const lazy: number[] = [];
  let swapped = 0;
  let last = 0;
  for (let at = slot; at < slot + count; at++) {
    const word = pt.flags[at];
    if ((word & PTE_KIND) === PTE_SWAP) {
      hooks.free_swap_and_cache?.(pt.entries[at], 1);
      pt.flags[at] = 0;
      pt.entries[at] = 0;
      pt.population[slot >>> 9]--;
      swapped++;
      continue;
    }
    if ((word & PTE_KIND) !== PTE_PRESENT || (word & PTE_SPECIAL) !== 0) continue;
    const head = compound_head(mm.pages, pt.entries[at]);
    if (!mayFree(k, t, head)) continue;
    if ((word & (PTE_YOUNG | PTE_DIRTY)) !== 0) {
      pt.flags[at] = word & ~(PTE_YOUNG | PTE_DIRTY);
      tlb.adjust(vpn + (at - slot), 1);
      tlb.clearedPtes = true;
    }
    if (head !== last) lazy.push(head);
    last = head;
  }
  if (swapped > 0) add_mm_counter(k, t, user.mm, MM_SWAPENTS, -swapped);
  const scan = Math.round(count * costs.scanPteTicks);
  t.cpu.charge(scan + (lazy.length + swapped) * costs.advisePteTicks, fns.madvise_free_pte_range);
  return lazy.filter((head) => isLazyFreeable(mm.pages.flags[head]));
}

/** A folio somebody else maps, too, or that was written to and is in the swap cache, is kept. */
function mayFree(k: Kernel, t: Task, head: number): boolean {
  const {pages, hooks} = k.mm;
  if (!folio_test_anon(pages, head)) return false;
  if (folio_nr_pages(pages, head) > 1) return false;
  const word = pages.flags[head];
  if ((word & (PG_swapcache | PG_dirty)) !== 0) {
    if (folio_mapcount(pages, head) !== 1) return false;
    if ((word & PG_swapcache) !== 0) hooks.folio_free_swap?.(t, head);
    if ((pages.flags[head] & PG_swapcache) !== 0) return false;
    pages.flags[head] &= ~PG_dirty;
  }
  return true;
}

/** folio_mark_lazyfree's condition. */
function isLazyFreeable(word: number): boolean {
  return (word & (PG_swapbacked | PG_swapcache | PG_unevictable)) === PG_swapbacked;
}
