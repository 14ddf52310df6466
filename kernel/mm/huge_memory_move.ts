// mm/huge_memory.c: move_huge_pmd, mremap of an aligned huge page: the entry and its deposited page
// table go to the new place under both PMD locks, which are held over the flush of the old place.

import type {Code} from '../../machine/process.ts';
import {slotAt} from '../arch/x86/mm/pgtable.ts';
import {is_migration_entry, PTE_HUGE, PTE_SOFT_DIRTY} from '../arch/x86/mm/pgtable_bits.ts';
import {moveEntry} from '../arch/x86/mm/pgtable_range.ts';
import type {Task} from '../task.ts';
import {HPAGE_PMD_NR, type HugeMemory} from './huge_memory.ts';
import {pte_lock, pte_unlock} from './memory_pte.ts';
import type {VmArea} from './vma.ts';

/** The PMD table of `newVpn` is there. False: split the entry and move PTEs. */
export function* move_huge_pmd(
  huge: HugeMemory,
  t: Task,
  oldVma: VmArea,
  oldVpn: number,
  newVpn: number,
): Code<boolean> {
  const {k} = huge;
  const {mm} = k;
  const {pt} = mm;
  const user = mm.byId(oldVma.space.mmId)!;
  if (oldVpn % HPAGE_PMD_NR !== 0 || newVpn % HPAGE_PMD_NR !== 0) return false;
  const from = slotAt(user.pgd, oldVpn, 1);
  const to = slotAt(user.pgd, newVpn, 1);
  if (from < 0 || to < 0 || pt.flags[to] !== 0) return false;
  if (t.cpu.settle()) yield;
  while (!pte_lock(mm, t, from, mm.fns.handle_mm_fault)) {
    yield* mm.ptl.spin(t, from >>> 9, mm.fns.handle_mm_fault);
  }
  const word = pt.flags[from];
  const present = !is_migration_entry(word);
  if ((word & PTE_HUGE) !== 0) {
    moveEntry(user.pgd, from, user.pgd, to);
    pt.flags[to] |= present ? PTE_SOFT_DIRTY : 0;
    t.cpu.charge(mm.costs.moveTableTicks, mm.fns.move_page_tables);
    mm.ptl.hold(from >>> 9);
    if (present) {
      yield* k.tlb.flush_tlb_mm_range(t, user.mm, oldVpn, oldVpn + HPAGE_PMD_NR, false);
    }
    mm.ptl.unhold(from >>> 9);
  }
  pte_unlock(mm, t, from);
  return true;
}
