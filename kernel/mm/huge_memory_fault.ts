// mm/huge_memory.c, 6.18: faults on empty and on read-only PMD entries. A write fault clears 2 MB
// and counts 512 anonymous pages at once; a read maps the huge zero folio and counts nothing. A
// write to a read-only huge page reuses it if it is exclusive or has no other reference, else
// splits the entry and leaves the rest to the 4 KB path (5.8+; before, it is copied as a whole:
// huge_memory_wp.ts). The huge zero folio is replaced by a new folio inside a CLEAR pair; from 5.8
// to 6.13 (RECALLED) it is split.

import type {Code} from '../../machine/process.ts';
import {pteClear, setHuge} from '../arch/x86/mm/pgtable.ts';
import {
  PTE_DIRTY,
  PTE_PRESENT,
  PTE_SOFT_DIRTY,
  PTE_SPECIAL,
  PTE_UFFD_WP,
  PTE_WRITE,
  PTE_YOUNG,
} from '../arch/x86/mm/pgtable_bits.ts';
import type {Kernel} from '../kernel.ts';
import type {Task} from '../task.ts';
import {isBefore} from '../version.ts';
import {addEntireMapping, folio_mapcount} from './folio_counts.ts';
import {folio_add_lru_vma} from './folio_lru.ts';
import {HPAGE_PMD_NR, type HugeMemory} from './huge_memory.ts';
import {__split_huge_pmd} from './huge_memory_split.ts';
import {do_huge_pmd_wp_page} from './huge_memory_wp.ts';
import {alloc_huge_folio} from './huge_memory_alloc.ts';
import {khugepaged_enter_vma} from './khugepaged.ts';
import {anon_vma_prepare} from './memory_anon.ts';
import {dirtyPte, pageWorkTicks, pte_lock, pte_unlock, tables_alloc} from './memory_pte.ts';
import {
  mmu_notifier_invalidate_range_end,
  mmu_notifier_invalidate_range_start,
} from './mmu_notifier.ts';
import {MMU_NOTIFY_CLEAR, MmuNotifierRange} from './mmu_notifier_types.ts';
import {folio_nr_pages, MAPPING_ANON, setMapping} from './page.ts';
import {folio_put} from './page_alloc.ts';
import {
  PG_anon_exclusive,
  PG_locked,
  PG_swapbacked,
  PG_swapcache,
  PG_uptodate,
} from './page_flags.ts';
import {folio_move_anon_rmap} from './rmap.ts';
import {MM_ANONPAGES} from './rss.ts';
import {add_mm_counter} from './rss_stat.ts';
import {
  FAULT_FLAG_UNSHARE,
  FAULT_FLAG_WRITE,
  FAULT_HUGE,
  FAULT_REUSE,
  FAULT_ZERO_PAGE,
  VM_FAULT_FALLBACK,
  type VmFault,
} from './vm_fault.ts';
import {userfaultfd_wp} from './userfaultfd_markers.ts';
import {linear_page_index, type VmArea, vma_is_anonymous} from './vma.ts';
import {VM_SHARED, VM_UFFD_MISSING, VM_UFFD_WP} from './vma_flags.ts';

/** create_huge_pmd: 0, or VM_FAULT_FALLBACK. Nothing is held but what the fault holds. */
export function* create_huge_pmd(huge: HugeMemory, t: Task, f: VmFault): Code<number> {
  const {k} = huge;
  const {mm} = k;
  const {vma} = f;
  if (vma.ops === 'dax') return yield* daxHuge(k, t, f);
  if (!vma_is_anonymous(vma) || (vma.flags & VM_SHARED) !== 0) return VM_FAULT_FALLBACK;
  if (vma.uffd !== 0 && (vma.flags & VM_UFFD_MISSING) !== 0) return VM_FAULT_FALLBACK;
  anon_vma_prepare(k, t, vma, f.flags);
  khugepaged_enter_vma(huge, t, vma);
  const slot = tables_alloc(k, t, f.user, f.vpn, 1);
  if (slot < 0) return 0;
  const write = (f.flags & FAULT_FLAG_WRITE) !== 0;
  if (!write && huge.settings.useZeroPage) return yield* mapHugeZero(huge, t, f, slot);
  const head = yield* vma_alloc_anon_folio_pmd(huge, t, f);
  if (head === 0) return VM_FAULT_FALLBACK;
  if (t.cpu.settle()) yield;
  while (!pte_lock(mm, t, slot, huge.fnFault)) yield* mm.ptl.spin(t, slot >>> 9, huge.fnFault);
  if (mm.pt.flags[slot] !== 0) {
    pte_unlock(mm, t, slot);
    folio_put(k, t, head);
    return 0;
  }
  huge.deposit(t, f.user, slot);
  map_anon_folio_pmd(k, t, f.user.mm, vma, slot, f.vpn - (f.vpn % HPAGE_PMD_NR), head);
  pte_unlock(mm, t, slot);
  f.faultClass = FAULT_HUGE;
  return 0;
}

/** vma_alloc_anon_folio_pmd: a cleared folio of order 9, 0 for none. */
function* vma_alloc_anon_folio_pmd(huge: HugeMemory, t: Task, f: VmFault): Code<number> {
  const {k} = huge;
  const {mm} = k;
  const node = mm.nodeFor(f.vma, f.vpn, t);
  const head = yield* alloc_huge_folio(k, t, node, f.user.memcg, mm.compaction.stalls(f.vma));
  if (head <= 0) {
    huge.counts.faultFallback++;
    return 0;
  }
  huge.counts.faultAlloc++;
  const ticks = pageWorkTicks(k, t, mm.costs.clearPageTicks, mm.pages.nodeOf(head), HPAGE_PMD_NR);
  t.cpu.charge(ticks, mm.fns.clear_page_erms);
  mm.pages.flags[head] |= PG_uptodate;
  return head;
}

/**
 * map_anon_folio_pmd under the PMD lock: rmap, LRU, the entry, the counter. The page table is
 * deposited already. `first` is the first virtual page.
 */
export function map_anon_folio_pmd(
  k: Kernel,
  t: Task,
  owner: VmFault['mm'],
  vma: VmArea,
  slot: number,
  first: number,
  head: number,
  count = HPAGE_PMD_NR,
): void {
  const {mm} = k;
  const {pages} = mm;
  t.cpu.charge(mm.costs.newAnonTicks + mm.costs.setPteTicks, mm.fns.handle_mm_fault);
  pages.flags[head] |= PG_swapbacked | PG_anon_exclusive;
  setMapping(pages, head, MAPPING_ANON, vma.anonVma!.id, linear_page_index(vma, first));
  addEntireMapping(pages, head);
  folio_add_lru_vma(k, t, head, vma);
  setHuge(mm.pt, slot, head, dirtyPte(vma));
  if (count > 0) add_mm_counter(k, t, owner, MM_ANONPAGES, count);
}

function* mapHugeZero(huge: HugeMemory, t: Task, f: VmFault, slot: number): Code<number> {
  const {mm} = huge.k;
  const pfn = huge.hugeZero(t, f.user);
  if (pfn === 0) {
    huge.counts.faultFallback++;
    return VM_FAULT_FALLBACK;
  }
  if (t.cpu.settle()) yield;
  while (!pte_lock(mm, t, slot, huge.fnFault)) yield* mm.ptl.spin(t, slot >>> 9, huge.fnFault);
  if (mm.pt.flags[slot] === 0) {
    huge.deposit(t, f.user, slot);
    t.cpu.charge(mm.costs.setPteTicks, huge.fnFault);
    setHuge(mm.pt, slot, pfn, PTE_PRESENT | PTE_YOUNG | PTE_SPECIAL);
    f.faultClass = FAULT_ZERO_PAGE;
  }
  pte_unlock(mm, t, slot);
  return 0;
}

function* daxHuge(k: Kernel, t: Task, f: VmFault): Code<number> {
  const {dax_fault} = k.mm.hooks;
  return dax_fault === null ? VM_FAULT_FALLBACK : yield* dax_fault(t, f);
}

/** wp_huge_pmd: do_huge_pmd_wp_page for anonymous memory; others are split. 0 or FALLBACK. */
export function* wp_huge_pmd(huge: HugeMemory, t: Task, f: VmFault): Code<number> {
  const {k} = huge;
  const {mm} = k;
  const {vma} = f;
  const slot = f.pmdSlot;
  const {pt} = mm;
  if (vma.ops === 'dax' && mm.hooks.dax_fault !== null) return yield* mm.hooks.dax_fault(t, f);
  if (pt.flags[slot] !== f.word) return 0;
  if ((f.word & PTE_UFFD_WP) !== 0 && userfaultfd_wp(vma)) {
    const unshare = (f.flags & FAULT_FLAG_UNSHARE) !== 0;
    if (!unshare) return yield* mm.hooks.handle_userfault!(t, f, VM_UFFD_WP);
  }
  if ((f.word & PTE_SPECIAL) !== 0) {
    const {version} = k.facts;
    const replaces = isBefore(version, '5.8') || !isBefore(version, '6.14');
    const zero = f.value === huge.hugeZeroPfn && replaces;
    if (zero && (yield* do_huge_zero_wp_pmd(huge, t, f, slot))) return 0;
  } else {
    while (!pte_lock(mm, t, slot, huge.fnFault)) yield* mm.ptl.spin(t, slot >>> 9, huge.fnFault);
    if (pt.flags[slot] !== f.word) {
      pte_unlock(mm, t, slot);
      return 0;
    }
    t.cpu.charge(mm.costs.wpBaseTicks, huge.fnFault);
    const reused = mayReuse(huge, t, vma, f.value);
    if (reused && (f.flags & FAULT_FLAG_UNSHARE) === 0) {
      const dirty = PTE_YOUNG | PTE_DIRTY | PTE_SOFT_DIRTY;
      pt.flags[slot] |= dirty | (dirtyPte(vma) & PTE_WRITE);
      f.faultClass = FAULT_REUSE;
    }
    pte_unlock(mm, t, slot);
    if (reused) return 0;
    const copies = isBefore(k.facts.version, '5.8') && (f.flags & FAULT_FLAG_UNSHARE) === 0;
    if (copies && (yield* do_huge_pmd_wp_page(huge, t, f))) return 0;
  }
  yield* __split_huge_pmd(huge, t, vma, slot, f.vpn - (f.vpn % HPAGE_PMD_NR));
  return VM_FAULT_FALLBACK;
}

/** Exclusive, or no reference but this mapping's (and the swap cache's). */
function mayReuse(huge: HugeMemory, t: Task, vma: VmArea, head: number): boolean {
  const {pages, hooks, cowRule} = huge.k.mm;
  if (cowRule === 'exclusive' && (pages.flags[head] & PG_anon_exclusive) !== 0) return true;
  if ((pages.flags[head] & PG_locked) !== 0) return false;
  const cached = (pages.flags[head] & PG_swapcache) !== 0;
  // reuse_swap_page, before 5.18: who maps it counts, references do not.
  if (cowRule === 'mapcount') {
    if (folio_mapcount(pages, head) !== 1 || cached) return false;
    folio_move_anon_rmap(pages, head, vma);
    return true;
  }
  const extra = cached ? folio_nr_pages(pages, head) : 0;
  if (pages.refcount.get(head) > 1 + extra) return false;
  if (cached) hooks.folio_free_swap?.(t, head);
  if (pages.refcount.get(head) !== 1) return false;
  folio_move_anon_rmap(pages, head, vma);
  if (cowRule === 'exclusive') pages.flags[head] |= PG_anon_exclusive;
  return true;
}

/** do_huge_zero_wp_pmd: false when there is no memory. */
function* do_huge_zero_wp_pmd(huge: HugeMemory, t: Task, f: VmFault, slot: number): Code<boolean> {
  const {k} = huge;
  const {mm} = k;
  const {vma} = f;
  const first = f.vpn - (f.vpn % HPAGE_PMD_NR);
  const last = first + HPAGE_PMD_NR;
  anon_vma_prepare(k, t, vma, f.flags);
  const head = yield* vma_alloc_anon_folio_pmd(huge, t, f);
  if (head === 0) return false;
  const site = 'do_huge_zero_wp_pmd';
  const range = new MmuNotifierRange(MMU_NOTIFY_CLEAR, f.mm, vma, first, last, site);
  yield* mmu_notifier_invalidate_range_start(k, t, range);
  if (t.cpu.settle()) yield;
  while (!pte_lock(mm, t, slot, huge.fnFault)) yield* mm.ptl.spin(t, slot >>> 9, huge.fnFault);
  const same = mm.pt.flags[slot] === f.word;
  if (same) {
    pteClear(mm.pt, slot);
    map_anon_folio_pmd(k, t, f.mm, vma, slot, first, head);
    mm.ptl.hold(slot >>> 9);
    yield* k.tlb.flush_tlb_mm_range(t, f.mm, first, last, false);
    mm.ptl.unhold(slot >>> 9);
    f.faultClass = FAULT_HUGE;
  }
  pte_unlock(mm, t, slot);
  yield* mmu_notifier_invalidate_range_end(k, t, range);
  if (!same) folio_put(k, t, head);
  return true;
}
