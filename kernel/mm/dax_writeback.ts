// fs/dax.c: dax_writeback_mapping_range, what msync and fsync of a DAX file do: every mapping of
// what was written becomes read-only and clean, so that the next write is heard of again, then the
// CPU's caches are written back. The mkclean is page_vma_mkclean_one per VMA and entry, a page or 2
// MB:
//   6.18 (since 4.15)  S PROTECTION_PAGE, PTL, clear and flush, read-only and clean, unlock, E
//   4.13 and 4.14      the same with invalidate_range under the PTL
//   to 4.12            no pair: invalidate_page after the PTL
// i_mmap_rwsem is held for read. device-dax has no writeback.

import type {Code} from '../../machine/process.ts';
import {LEVEL_PAGES, walkSlot} from '../arch/x86/mm/pgtable.ts';
import {
  PTE_DIRTY,
  PTE_HUGE,
  PTE_KIND,
  PTE_PRESENT,
  PTE_SAVED_DIRTY,
  PTE_WRITE,
} from '../arch/x86/mm/pgtable_bits.ts';
import type {Kernel} from '../kernel.ts';
import type {Task} from '../task.ts';
import type {AddressSpace} from './address_space.ts';
import {hugetlbWork} from './costs_hugetlb.ts';
import {pte_lock, pte_unlock} from './memory_pte.ts';
import {
  invalidate_secondary_tlbs,
  mmu_notifier_invalidate_page,
  mmu_notifier_invalidate_range_end,
  mmu_notifier_invalidate_range_only_end,
  mmu_notifier_invalidate_range_start,
} from './mmu_notifier.ts';
import {MMU_NOTIFY_PROTECTION_PAGE, MmuNotifierRange} from './mmu_notifier_types.ts';
import {flush_tlb_range} from './mprotect_walk.ts';
import type {UserMm} from './user_mm.ts';
import type {VmArea} from './vma.ts';
import {VM_SHARED} from './vma_flags.ts';

/**
 * Writes [start, start + n) of the file back: returns the entries (pages or 2 MB) that were dirty
 * somewhere.
 */
export function* dax_writeback_mapping_range(
  k: Kernel,
  t: Task,
  mapping: AddressSpace,
  start: number,
  n: number,
): Code<number> {
  if (mapping.dax === null || mapping.dax.kind !== 'fs') return 0;
  const {mm} = k;
  const fn = hugetlbWork(k).fns.dax_writeback_mapping_range;
  const lock = mm.iMmapLock(mapping);
  if (!lock.readAcquire(t, fn)) yield* lock.readAcquireSlow(t, fn);
  const vmas: VmArea[] = [];
  const {forest} = mm.files;
  const last = start + n - 1;
  for (let node = forest.iterFirst(mapping, start, last); node !== 0; ) {
    vmas.push(forest.item[node]!);
    node = forest.iterNext(node, start, last);
  }
  let cleaned = 0;
  for (const vma of vmas) {
    if ((vma.flags & VM_SHARED) === 0) continue;
    const first = Math.max(vma.start, vma.start + (start - vma.pgoff));
    const end = Math.min(vma.end, vma.start + (start + n - vma.pgoff));
    cleaned += yield* cleanVma(k, t, vma, first, end);
  }
  if (!lock.readRelease(t)) yield* lock.readReleaseSlow(t);
  // dax_flush: the range leaves the CPU's caches.
  t.cpu.charge(n * mm.costs.copyPageTicks, fn);
  return cleaned;
}

function* cleanVma(k: Kernel, t: Task, vma: VmArea, start: number, end: number): Code<number> {
  const {pt} = k.mm;
  const user = k.mm.byId(vma.space.mmId)!;
  let cleaned = 0;
  for (let vpn = start; vpn < end; ) {
    if (t.cpu.settle()) yield;
    const slot = walkSlot(user.pgd, vpn);
    const span = LEVEL_PAGES[pt.level[slot >>> 9]];
    const next = vpn - (vpn % span) + span;
    if (isWritten(pt.flags[slot])) {
      yield* page_vma_mkclean_one(k, t, user, vma, slot, vpn - (vpn % span), span);
      cleaned++;
    }
    vpn = next;
  }
  return cleaned;
}

function isWritten(word: number): boolean {
  if ((word & PTE_KIND) !== PTE_PRESENT) return false;
  return (word & (PTE_WRITE | PTE_DIRTY | PTE_SAVED_DIRTY)) !== 0;
}

/** One entry, a PTE or a PMD. */
function* page_vma_mkclean_one(
  k: Kernel,
  t: Task,
  user: UserMm,
  vma: VmArea,
  slot: number,
  vpn: number,
  span: number,
): Code {
  const {mm} = k;
  const {notifierFacts} = mm;
  const fn = hugetlbWork(k).fns.dax_writeback_mapping_range;
  const end = vpn + span;
  const site = 'page_vma_mkclean_one';
  const range = new MmuNotifierRange(MMU_NOTIFY_PROTECTION_PAGE, user.mm, vma, vpn, end, site);
  if (notifierFacts.rmapRange) yield* mmu_notifier_invalidate_range_start(k, t, range);
  if (t.cpu.settle()) yield;
  while (!pte_lock(mm, t, slot, fn)) yield* mm.ptl.spin(t, slot >>> 9, fn);
  const written = isWritten(mm.pt.flags[slot]);
  if (written) {
    const huge = (mm.pt.flags[slot] & PTE_HUGE) !== 0;
    mm.pt.flags[slot] &= ~(PTE_WRITE | PTE_DIRTY | PTE_SAVED_DIRTY);
    t.cpu.charge(mm.costs.setPteTicks, fn);
    mm.ptl.hold(slot >>> 9);
    if (huge) yield* k.tlb.flush_tlb_mm_range(t, user.mm, vpn, end, false, 512);
    else yield* flush_tlb_range(k, t, user, vpn, end);
    mm.ptl.unhold(slot >>> 9);
    if (notifierFacts.cowEndImpliesRange) invalidate_secondary_tlbs(k, t, user.mm, vpn, end);
  }
  pte_unlock(mm, t, slot);
  if (!notifierFacts.rmapRange) {
    if (written) yield* mmu_notifier_invalidate_page(k, t, user.mm, vpn);
  } else if (notifierFacts.cowEndImpliesRange) {
    yield* mmu_notifier_invalidate_range_end(k, t, range);
  } else {
    yield* mmu_notifier_invalidate_range_only_end(k, t, range);
  }
}
