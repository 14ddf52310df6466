// mm/memory.c: write faults on present, read-only PTEs (do_wp_page and wp_page_copy).
//
// An anonymous page that nobody else has is reused in place: since 5.19 because it is marked
// exclusive or has no other reference (a reference in another CPU's LRU batch counts), 5.9 to 5.18
// because its reference count is 1, before because it is mapped once. Else it is copied. Order of
// the copy by generation, S and E being the invalidation pair:
//   G0      L clear flush IP set change_pte remove-rmap U
//   G1      S L clear flush change_pte set remove-rmap U E
//   G2, G3  S L clear flush IR change_pte set remove-rmap U E(+IR); G3b to G6 with only_end
//   G7      as G1, IR comes out of the flush
//   G8      as G7 without change_pte

import type {Code} from '../../machine/process.ts';
import {pteClear, pteSlot, setPte} from '../arch/x86/mm/pgtable.ts';
import {
  PTE_DIRTY,
  PTE_SOFT_DIRTY,
  PTE_SPECIAL,
  PTE_UFFD_WP,
  PTE_WRITE,
  PTE_YOUNG,
} from '../arch/x86/mm/pgtable_bits.ts';
import type {Kernel} from '../kernel.ts';
import type {Task} from '../task.ts';
import {page_mapcount} from './folio_counts.ts';
import {folio_add_lru_vma, lru_add_drain} from './folio_lru.ts';
import {alloc_anon_page, anon_vma_prepare} from './memory_anon.ts';
import {fault_dirty_shared_page, mm_counter_file} from './memory_file.ts';
import {NEED_COW, NEED_HOOK, NEED_MEMORY, NEED_PTL} from './memory_need.ts';
import {
  dirtyPte,
  mappedPte,
  PTE_DIRTIED,
  pageWorkTicks,
  pte_lock,
  pte_unlock,
} from './memory_pte.ts';
import {munlockUnmapped} from './mlock_folio.ts';
import {
  change_pte,
  invalidate_secondary_tlbs,
  mm_has_notifiers,
  mmu_notifier_invalidate_page,
  mmu_notifier_invalidate_range_end,
  mmu_notifier_invalidate_range_only_end,
  mmu_notifier_invalidate_range_start,
} from './mmu_notifier.ts';
import {MMU_NOTIFY_CLEAR, MmuNotifierRange} from './mmu_notifier_types.ts';
import {
  compound_head,
  folio_nr_pages,
  folio_test_anon,
  folio_test_ksm,
  folio_test_large,
} from './page.ts';
import {alloc_folio_slow, folio_put} from './page_alloc.ts';
import {PG_anon_exclusive, PG_locked, PG_lru, PG_swapcache, PG_uptodate} from './page_flags.ts';
import {folio_add_new_anon_rmap, folio_move_anon_rmap, folio_remove_rmap_pte} from './rmap.ts';
import {MM_ANONPAGES} from './rss.ts';
import {add_mm_counter} from './rss_stat.ts';
import {
  FAULT_COW,
  FAULT_FLAG_UNSHARE,
  FAULT_REUSE,
  VM_FAULT_OOM,
  type VmFault,
} from './vm_fault.ts';
import {VM_LOCKED, VM_MAYSHARE, VM_SHARED, VM_UFFD_WP} from './vma_flags.ts';

/** do_wp_page: f.slot is present and not writable. */
export function do_wp_page(k: Kernel, t: Task, f: VmFault): number {
  const {mm} = k;
  const {slot, vma} = f;
  const {pt} = mm;
  const word = pt.flags[slot];
  const protectedByUffd = (word & PTE_UFFD_WP) !== 0 && (vma.flags & VM_UFFD_WP) !== 0;
  if (protectedByUffd && vma.uffd !== 0 && (f.flags & FAULT_FLAG_UNSHARE) === 0) {
    f.uffdReason = VM_UFFD_WP;
    return NEED_HOOK;
  }
  if (!pte_lock(mm, t, slot, mm.fns.do_wp_page)) return NEED_PTL;
  t.cpu.charge(mm.costs.wpBaseTicks, mm.fns.do_wp_page);
  const special = (word & PTE_SPECIAL) !== 0;
  if ((vma.flags & (VM_SHARED | VM_MAYSHARE)) !== 0) {
    wp_page_reuse(k, t, f);
    pte_unlock(mm, t, slot);
    if (!special) fault_dirty_shared_page(k, t, pt.entries[slot], vma);
    return 0;
  }
  if (!special) {
    const pfn = pt.entries[slot];
    const head = compound_head(mm.pages, pfn);
    if (folio_test_anon(mm.pages, head) && mayReuse(k, t, f, head, pfn)) {
      if ((f.flags & FAULT_FLAG_UNSHARE) === 0) wp_page_reuse(k, t, f);
      pte_unlock(mm, t, slot);
      return 0;
    }
  }
  pte_unlock(mm, t, slot);
  return wp_page_copy(k, t, f);
}

function mayReuse(k: Kernel, t: Task, f: VmFault, head: number, pfn: number): boolean {
  const {mm} = k;
  const {pages} = mm;
  if (mm.cowRule === 'exclusive') {
    if ((pages.flags[pfn] & PG_anon_exclusive) !== 0) return true;
    if (!wp_can_reuse_anon_folio(k, t, f, head)) return false;
    pages.flags[pfn] |= PG_anon_exclusive;
    return true;
  }
  if (folio_test_ksm(pages, head)) return false;
  const swapCache = (pages.flags[head] & PG_swapcache) === 0 ? 0 : 1;
  if (mm.cowRule === 'refcount') return pages.refcount.get(head) === 1 + swapCache;
  const swapped = swapCache === 0 ? 0 : (mm.hooks.page_swapcount?.(head) ?? 0);
  if (maxMapcount(k, head) + swapped !== 1) return false;
  if (folio_test_large(pages, head)) return true;
  folio_move_anon_rmap(pages, head, f.vma);
  return true;
}

/** page_trans_huge_mapcount: how often the page of a folio that is mapped most often is mapped. */
function maxMapcount({mm}: Kernel, head: number): number {
  const {pages} = mm;
  const n = folio_nr_pages(pages, head);
  let most = 0;
  for (let pfn = head; pfn < head + n; pfn++) {
    most = Math.max(most, page_mapcount(pages, head, pfn));
  }
  return most;
}

/**
 * wp_can_reuse_anon_folio (5.19+): no reference but this mapping's, and the swap cache's if it lets
 * go.
 */
function wp_can_reuse_anon_folio(k: Kernel, t: Task, f: VmFault, head: number): boolean {
  const {mm} = k;
  const {pages} = mm;
  if (folio_test_large(pages, head)) {
    // __wp_can_reuse_large_anon_folio (6.15+): all mappings are this mm's, and nobody else refers
    // to the folio.
    return mm.hooks.wp_can_reuse_large?.(t, f, head) ?? false;
  }
  if (folio_test_ksm(pages, head) || pages.refcount.get(head) > 3) return false;
  if ((pages.flags[head] & PG_lru) === 0) lru_add_drain(k, t);
  const swapCache = (pages.flags[head] & PG_swapcache) === 0 ? 0 : 1;
  if (pages.refcount.get(head) > 1 + swapCache) return false;
  if ((pages.flags[head] & PG_locked) !== 0) return false;
  if (swapCache === 1) mm.hooks.folio_free_swap?.(t, head);
  if (pages.refcount.get(head) !== 1) return false;
  folio_move_anon_rmap(pages, head, f.vma);
  return true;
}

/** wp_page_reuse, under the PTL: no flush, since the entry only gains rights. */
function wp_page_reuse(k: Kernel, _t: Task, f: VmFault): void {
  const {flags} = k.mm.pt;
  flags[f.slot] |= PTE_YOUNG | (dirtyPte(f.vma) & (PTE_WRITE | PTE_DIRTY)) | PTE_DIRTIED;
  f.faultClass = FAULT_REUSE;
}

/**
 * wp_page_copy, where nobody else has to be told: no notifier, no other CPU that may have the
 * translation.
 */
function wp_page_copy(k: Kernel, t: Task, f: VmFault): number {
  const {mm} = k;
  const {slot, vpn, vma} = f;
  if (mm_has_notifiers(f.mm) || !k.tlb.isLocal(t.cpu, f.mm)) return NEED_COW;
  if (mm.ptl.busy(slot >>> 9)) return NEED_PTL;
  anon_vma_prepare(k, t, vma, f.flags);
  const pfn = alloc_anon_page(k, t, f);
  if (pfn <= 0) return pfn < 0 ? NEED_MEMORY : VM_FAULT_OOM;
  chargeCopy(k, t, f, pfn);
  if (mm.notifierFacts.cowRange) mm.countPair(f.mm, MMU_NOTIFY_CLEAR, vpn, vpn + 1, 'wp_page_copy');
  pte_lock(mm, t, slot, mm.fns.wp_page_copy);
  const old = accountCopy(k, t, f);
  pteClear(mm.pt, slot);
  k.tlb.flushLocal(t, f.mm, vpn, vpn + 1, false);
  installCopy(k, t, f, pfn, old);
  pte_unlock(mm, t, slot);
  putOld(k, t, old);
  return 0;
}

/** Content of the new page: copied, or cleared when the old one is the page of zeros. */
function chargeCopy(k: Kernel, t: Task, f: VmFault, pfn: number): void {
  const {mm} = k;
  const zero = (mm.pt.flags[f.slot] & PTE_SPECIAL) !== 0;
  const base = zero ? mm.costs.clearPageTicks : mm.costs.copyPageTicks;
  const fn = zero ? mm.fns.clear_page_erms : mm.fns.copy_mc_to_kernel;
  t.cpu.charge(pageWorkTicks(k, t, base, mm.pages.nodeOf(pfn), 1), fn);
  if (mm.pages.hasContent && !zero) mm.pages.content[pfn] = mm.pages.content[mm.pt.entries[f.slot]];
}

/** Counters under the PTL. Returns the old page's pfn, 0 for one without a struct page. */
function accountCopy(k: Kernel, t: Task, f: VmFault): number {
  const {mm} = k;
  const special = (mm.pt.flags[f.slot] & PTE_SPECIAL) !== 0;
  const old = special ? 0 : mm.pt.entries[f.slot];
  t.cpu.charge(mm.costs.newAnonTicks + mm.costs.setPteTicks, mm.fns.wp_page_copy);
  if (old !== 0 && !folio_test_anon(mm.pages, compound_head(mm.pages, old))) {
    add_mm_counter(k, t, f.mm, mm_counter_file(k, old), -1);
    add_mm_counter(k, t, f.mm, MM_ANONPAGES, 1);
  } else if (old === 0) {
    // ksm_might_unmap_zero_page.
    if ((mm.pt.flags[f.slot] & PTE_DIRTY) !== 0) mm.hooks.ksm_zap?.(f.user);
    add_mm_counter(k, t, f.mm, MM_ANONPAGES, 1);
  }
  return old;
}

function installCopy(k: Kernel, t: Task, f: VmFault, pfn: number, old: number): void {
  const {mm} = k;
  mm.pages.flags[pfn] |= PG_uptodate;
  folio_add_new_anon_rmap(k, pfn, f.vma, f.vpn);
  folio_add_lru_vma(k, t, pfn, f.vma);
  const unshare = (f.flags & FAULT_FLAG_UNSHARE) !== 0;
  const kept = f.word & (PTE_UFFD_WP | PTE_SOFT_DIRTY);
  setPte(mm.pt, f.slot, pfn, unshare ? mappedPte(f.vma) | kept : dirtyPte(f.vma));
  if (old !== 0) {
    const head = compound_head(mm.pages, old);
    folio_remove_rmap_pte(k, t, head, old);
    if ((f.vma.flags & VM_LOCKED) !== 0) munlockUnmapped(k, t, [{vma: f.vma, heads: [head]}]);
  }
  f.faultClass = FAULT_COW;
}

/** Drops the reference that the mapping had; the fault's own comes and goes unseen. */
function putOld(k: Kernel, t: Task, old: number): void {
  if (old === 0) return;
  const head = compound_head(k.mm.pages, old);
  if ((k.mm.pages.flags[head] & PG_swapcache) !== 0) k.mm.hooks.free_swap_cache?.(t, head);
  folio_put(k, t, head);
}

/**
 * wp_page_copy with everything that may wait, in the order of the notifier's generation. Returns
 * VM_FAULT_ bits.
 */
export function* wp_page_copy_slow(k: Kernel, t: Task, f: VmFault): Code<number> {
  const {mm} = k;
  const {slot, vpn, vma} = f;
  const {word, value} = f;
  const facts = mm.notifierFacts;
  anon_vma_prepare(k, t, vma, f.flags);
  const oldHead = (word & PTE_SPECIAL) !== 0 ? 0 : compound_head(mm.pages, value);
  if (oldHead !== 0) mm.pages.refcount.increment(oldHead);
  let pfn = alloc_anon_page(k, t, f);
  if (pfn < 0) pfn = yield* alloc_folio_slow(k, t, 0, mm.nodeFor(vma, vpn, t), f.user.memcg);
  if (pfn === 0) {
    if (oldHead !== 0) folio_put(k, t, oldHead);
    return VM_FAULT_OOM;
  }
  chargeCopy(k, t, f, pfn);
  const range = new MmuNotifierRange(MMU_NOTIFY_CLEAR, f.mm, vma, vpn, vpn + 1, 'wp_page_copy');
  if (facts.cowRange) yield* mmu_notifier_invalidate_range_start(k, t, range);
  if (t.cpu.settle()) yield;
  while (!pte_lock(mm, t, slot, mm.fns.wp_page_copy))
    yield* mm.ptl.spin(t, slot >>> 9, mm.fns.wp_page_copy);
  const unchanged = mm.pt.flags[slot] === word && mm.pt.entries[slot] === value;
  const same = unchanged && pteSlot(f.user.pgd, vpn) === slot;
  if (same) yield* replaceLocked(k, t, f, pfn);
  pte_unlock(mm, t, slot);
  if (facts.cowRange) {
    if (facts.cowEndImpliesRange) yield* mmu_notifier_invalidate_range_end(k, t, range);
    else yield* mmu_notifier_invalidate_range_only_end(k, t, range);
  }
  if (!same) folio_put(k, t, pfn);
  if (oldHead !== 0) {
    if (same) putOld(k, t, value);
    folio_put(k, t, oldHead);
  }
  return 0;
}

/** Clear, flush, notify, set, under the PTL. */
function* replaceLocked(k: Kernel, t: Task, f: VmFault, pfn: number): Code {
  const {mm} = k;
  const {slot, vpn} = f;
  const facts = mm.notifierFacts;
  const table = slot >>> 9;
  mm.ptl.hold(table);
  const old = accountCopy(k, t, f);
  pteClear(mm.pt, slot);
  yield* k.tlb.flush_tlb_mm_range(t, f.mm, vpn, vpn + 1, false);
  if (facts.clearFlushNotifies) yield* mmu_notifier_invalidate_page(k, t, f.mm, vpn);
  if (facts.secondaryTlb === 'range') invalidate_secondary_tlbs(k, t, f.mm, vpn, vpn + 1);
  if (facts.changePte === 'before') change_pte(k, t, f.mm, vpn, pfn);
  installCopy(k, t, f, pfn, old);
  if (facts.changePte === 'after') change_pte(k, t, f.mm, vpn, pfn);
  mm.ptl.unhold(table);
}
