// mm/huge_memory.c before 5.8: do_huge_pmd_wp_page for a huge page that others use, too. All 2 MB
// are copied into a new huge page inside an invalidation of 2 MB; since 5.8 the entry is split and
// one small page is copied. Without a huge page to be had Linux made 512 small copies at once;
// here the entry is then split, as since 5.8.

import type {Code} from '../../machine/process.ts';
import {pteClear} from '../arch/x86/mm/pgtable.ts';
import type {Task} from '../task.ts';
import {folio_mapped, removeEntireMapping} from './folio_counts.ts';
import {HPAGE_PMD_NR, HPAGE_PMD_ORDER, type HugeMemory} from './huge_memory.ts';
import {map_anon_folio_pmd} from './huge_memory_fault.ts';
import {anon_vma_prepare} from './memory_anon.ts';
import {pageWorkTicks, pte_lock, pte_unlock} from './memory_pte.ts';
import {
  mmu_notifier_invalidate_range_end,
  mmu_notifier_invalidate_range_start,
} from './mmu_notifier.ts';
import {MMU_NOTIFY_CLEAR, MmuNotifierRange} from './mmu_notifier_types.ts';
import {alloc_folio, folio_put} from './page_alloc.ts';
import {PG_uptodate} from './page_flags.ts';
import {FAULT_HUGE, type VmFault} from './vm_fault.ts';

/** True: the fault is over. False: there is no huge page to copy to. */
export function* do_huge_pmd_wp_page(huge: HugeMemory, t: Task, f: VmFault): Code<boolean> {
  const {k} = huge;
  const {mm} = k;
  const {vma, value: old, pmdSlot: slot} = f;
  const head = copyOf(huge, t, f, old);
  if (head === 0) return false;
  const first = f.vpn - (f.vpn % HPAGE_PMD_NR);
  const last = first + HPAGE_PMD_NR;
  const site = 'do_huge_pmd_wp_page';
  const range = new MmuNotifierRange(MMU_NOTIFY_CLEAR, f.mm, vma, first, last, site);
  yield* mmu_notifier_invalidate_range_start(k, t, range);
  if (t.cpu.settle()) yield;
  while (!pte_lock(mm, t, slot, huge.fnFault)) yield* mm.ptl.spin(t, slot >>> 9, huge.fnFault);
  const same = mm.pt.flags[slot] === f.word && mm.pt.entries[slot] !== 0;
  if (same) {
    pteClear(mm.pt, slot);
    mm.ptl.hold(slot >>> 9);
    yield* k.tlb.flush_tlb_mm_range(t, f.mm, first, last, false);
    mm.ptl.unhold(slot >>> 9);
    map_anon_folio_pmd(k, t, f.mm, vma, slot, first, head, 0);
    removeEntireMapping(mm.pages, old);
    if (folio_mapped(mm.pages, old) && mm.pages.mapping[old + 1] === 0) {
      huge.deferredSplit.add(old);
    }
    folio_put(k, t, old);
    f.faultClass = FAULT_HUGE;
  }
  pte_unlock(mm, t, slot);
  yield* mmu_notifier_invalidate_range_end(k, t, range);
  if (!same) folio_put(k, t, head);
  return true;
}

/** A new huge page with what `old` holds, 0 for none. */
function copyOf(huge: HugeMemory, t: Task, f: VmFault, old: number): number {
  const {k} = huge;
  const {mm} = k;
  anon_vma_prepare(k, t, f.vma, f.flags);
  const node = mm.nodeFor(f.vma, f.vpn, t);
  const head = alloc_folio(k, t, HPAGE_PMD_ORDER, node, f.user.memcg, true);
  if (head <= 0) {
    huge.counts.faultFallback++;
    return 0;
  }
  huge.counts.faultAlloc++;
  const ticks = pageWorkTicks(k, t, mm.costs.copyPageTicks, mm.pages.nodeOf(head), HPAGE_PMD_NR);
  t.cpu.charge(ticks, mm.fns.copy_mc_to_kernel);
  mm.pages.flags[head] |= PG_uptodate;
  if (mm.pages.hasContent) mm.pages.content.copyWithin(head, old, old + HPAGE_PMD_NR);
  return head;
}
