// mm/hugetlb.c, 6.18: mprotect and mremap of hugetlb mappings. Both tell the range that unsharing
// could reach before they take the vma lock and i_mmap_rwsem for writing, and flush before the
// latter is dropped, because a table that was left may be reused after that. mremap of hugetlb:
// 5.16+.

import type {Code} from '../../machine/process.ts';
import {pteClear, pteValue, setHuge} from '../arch/x86/mm/pgtable.ts';
import {
  MARKER_UFFD_WP,
  PTE_KIND,
  PTE_MARKER,
  PTE_MIGRATION_READ,
  PTE_MIGRATION_READ_EXCLUSIVE,
  PTE_MIGRATION_WRITE,
  PTE_PRESENT,
  PTE_PROTNONE,
  PTE_UFFD_WP,
  PTE_WRITE,
} from '../arch/x86/mm/pgtable_bits.ts';
import type {Kernel} from '../kernel.ts';
import type {Task} from '../task.ts';
import {hugetlbWork} from './costs_hugetlb.ts';
import {
  adjust_range_if_pmd_sharing_possible,
  afterTable,
  huge_pmd_unshare,
  hugetlb_walk,
} from './hugetlb_share.ts';
import {pte_lock, pte_unlock, tables_alloc} from './memory_pte.ts';
import {
  mmu_notifier_invalidate_range_end,
  mmu_notifier_invalidate_range_start,
} from './mmu_notifier.ts';
import {
  MMU_NOTIFY_CLEAR,
  MMU_NOTIFY_PROTECTION_VMA,
  MmuNotifierRange,
} from './mmu_notifier_types.ts';
import {MM_CP_UFFD_WP, MM_CP_UFFD_WP_RESOLVE} from './mprotect_ptes.ts';
import {losesUffdWp} from './mremap_tables.ts';
import {folio_test_anon} from './page.ts';
import {is_uffd_wp_marker, userfaultfd_wp} from './userfaultfd_markers.ts';
import type {VmArea} from './vma.ts';
import {VM_ACCESS, VM_SHARED, VM_WRITE} from './vma_flags.ts';

/** hugetlb_change_protection: the VMA has its new flags already. Pages (4 KB) changed. */
export function* hugetlb_change_protection(
  k: Kernel,
  t: Task,
  vma: VmArea,
  start: number,
  end: number,
  cpFlags: number,
): Code<number> {
  const {mm} = k;
  const user = mm.byId(vma.space.mmId)!;
  const {h} = vma.mapping!.hugetlb!;
  const fn = hugetlbWork(k).fns.hugetlb_change_protection;
  const [from, to] = adjust_range_if_pmd_sharing_possible(vma, start, end);
  const site = 'hugetlb_change_protection';
  const range = new MmuNotifierRange(MMU_NOTIFY_PROTECTION_VMA, user.mm, vma, from, to, site);
  yield* mmu_notifier_invalidate_range_start(k, t, range);
  const locks = yield* mm.hugetlb.locks.lock_write(t, vma, fn);
  const marks = (cpFlags & MM_CP_UFFD_WP) !== 0;
  let changed = 0;
  let unshared = false;
  for (let vpn = start; vpn < end; ) {
    if (t.cpu.settle()) yield;
    let slot = hugetlb_walk(user, h, vpn);
    // Empty entries are to be marked.
    if (slot < 0 && marks) slot = tables_alloc(k, t, user, vpn, h.level);
    if (slot < 0) {
      vpn = afterTable(h, vpn);
      continue;
    }
    while (!pte_lock(mm, t, slot, fn)) yield* mm.ptl.spin(t, slot >>> 9, fn);
    if (huge_pmd_unshare(k, t, user, h, slot, vpn)) {
      pte_unlock(mm, t, slot);
      changed++;
      unshared = true;
      vpn = afterTable(h, vpn);
      continue;
    }
    if (mm.pt.flags[slot] === 0) {
      if (marks) setHuge(mm.pt, slot, MARKER_UFFD_WP, PTE_MARKER);
    } else if (is_uffd_wp_marker(mm.pt.flags[slot], mm.pt.entries[slot])) {
      if ((cpFlags & MM_CP_UFFD_WP_RESOLVE) !== 0) pteClear(mm.pt, slot);
    } else {
      mm.pt.flags[slot] = modified(k, vma, slot, cpFlags);
      t.cpu.charge(mm.costs.changePteTicks, fn);
      changed++;
    }
    pte_unlock(mm, t, slot);
    if (k.sched.needsResched(t)) yield* k.sched.condResched(t);
    vpn += h.pages;
  }
  const [low, high] = unshared ? [from, to] : [start, end];
  if (changed > 0) yield* k.tlb.flush_tlb_mm_range(t, user.mm, low, high, false, 512);
  yield* mm.hugetlb.locks.unlock_write(t, vma, locks, false);
  yield* mmu_notifier_invalidate_range_end(k, t, range);
  return changed * h.pages;
}

/** huge_pte_modify, and what becomes of migration entries. */
function modified(k: Kernel, vma: VmArea, slot: number, cpFlags: number): number {
  const {pt, pages} = k.mm;
  const word = pt.flags[slot];
  const kind = word & PTE_KIND;
  if (kind === PTE_MIGRATION_WRITE) {
    const anon = folio_test_anon(pages, pteValue(pt, slot));
    return (word & ~PTE_KIND) | (anon ? PTE_MIGRATION_READ_EXCLUSIVE : PTE_MIGRATION_READ);
  }
  if (kind > PTE_PROTNONE) return word;
  if ((cpFlags & MM_CP_UFFD_WP) !== 0) return (word | PTE_UFFD_WP) & ~PTE_WRITE;
  if ((cpFlags & MM_CP_UFFD_WP_RESOLVE) !== 0) return word & ~PTE_UFFD_WP;
  const accessible = (vma.flags & VM_ACCESS) !== 0;
  // vm_page_prot of shared memory has the write bit: hugetlbfs wants no notice of writes, unless
  // userfaultfd does.
  const shared = (vma.flags & (VM_SHARED | VM_WRITE)) === (VM_SHARED | VM_WRITE);
  const writable = shared && accessible && !userfaultfd_wp(vma);
  const next = (word & ~(PTE_KIND | PTE_WRITE)) | (accessible ? PTE_PRESENT : PTE_PROTNONE);
  return writable ? next | PTE_WRITE : next;
}

/**
 * move_hugetlb_page_tables for [start, start + n): one CLEAR pair over the old range, the flush
 * inside.
 */
export function* move_hugetlb_page_tables(
  k: Kernel,
  t: Task,
  from: VmArea,
  _to: VmArea,
  start: number,
  newStart: number,
  n: number,
): Code {
  const {mm} = k;
  const user = mm.byId(from.space.mmId)!;
  const {h} = from.mapping!.hugetlb!;
  const fn = hugetlbWork(k).fns.move_hugetlb_page_tables;
  const end = start + n;
  const [first, last] = adjust_range_if_pmd_sharing_possible(from, start, end);
  const site = 'move_hugetlb_page_tables';
  const range = new MmuNotifierRange(MMU_NOTIFY_CLEAR, user.mm, from, first, last, site);
  yield* mmu_notifier_invalidate_range_start(k, t, range);
  const locks = yield* mm.hugetlb.locks.lock_write(t, from, fn);
  let unshared = false;
  for (let vpn = start; vpn < end; ) {
    if (t.cpu.settle()) yield;
    const slot = hugetlb_walk(user, h, vpn);
    if (slot < 0) {
      vpn = afterTable(h, vpn);
      continue;
    }
    if (mm.pt.flags[slot] === 0) {
      vpn += h.pages;
      continue;
    }
    if (huge_pmd_unshare(k, t, user, h, slot, vpn)) {
      unshared = true;
      vpn = afterTable(h, vpn);
      continue;
    }
    // i_mmap_rwsem is held for writing: nobody's table is joined here.
    const target = tables_alloc(k, t, user, newStart + (vpn - start), h.level);
    if (target < 0) break;
    while (!pte_lock(mm, t, slot, fn)) yield* mm.ptl.spin(t, slot >>> 9, fn);
    const word = mm.pt.flags[slot];
    const value = pteValue(mm.pt, slot);
    pteClear(mm.pt, slot);
    const loses = losesUffdWp(k, from);
    const goes = loses && is_uffd_wp_marker(word, value);
    if (!goes) setHuge(mm.pt, target, value, loses ? word & ~PTE_UFFD_WP : word);
    t.cpu.charge(hugetlbWork(k).costs.leafTicks, fn);
    pte_unlock(mm, t, slot);
    vpn += h.pages;
  }
  const [low, high] = unshared ? [first, last] : [start, end];
  yield* k.tlb.flush_tlb_mm_range(t, user.mm, low, high, false, 512);
  yield* mmu_notifier_invalidate_range_end(k, t, range);
  yield* mm.hugetlb.locks.unlock_write(t, from, locks, false);
}
