// mm/huge_memory.c: 1 GB entries (DAX, 4.11+; there are none of anonymous memory). What mprotect,
// zap, fork, mremap and a partial unmapping do to one, by choices of the axis `pud` (arch/x86/mm/
// pud.ts) and by version:
//   counters  since 6.15 a DAX folio is counted as a file's (rss, references, mapcount); before,
//             the entry is special and nobody counts anything
//   mremap    since 5.14 the leaf moves; before, the walk takes it for a damaged table
//   fork      copied where the VMA is copied at all: VM_MIXEDMAP, which DAX had until 4.18
//   split     a PUD leaf is never replaced by PMDs: it is taken away, and faulted in again

import type {Code} from '../../machine/process.ts';
import {pteClear, pteValue, setHuge, slotAt} from '../arch/x86/mm/pgtable.ts';
import {
  PTE_DIRTY,
  PTE_HUGE,
  PTE_KIND,
  PTE_PRESENT,
  PTE_PROTNONE,
  PTE_SOFT_DIRTY,
  PTE_SPECIAL,
  PTE_WRITE,
  PTE_YOUNG,
} from '../arch/x86/mm/pgtable_bits.ts';
import {moveEntry} from '../arch/x86/mm/pgtable_range.ts';
import {
  arch_check_zapped_pud,
  HPAGE_PUD_NR,
  pud_clear_bad,
  pud_dirty,
  pud_leaf,
  pud_mkinvalid,
  pud_mkold,
  pud_modify,
  pud_wrprotect,
} from '../arch/x86/mm/pud.ts';
import type {Kernel} from '../kernel.ts';
import type {MmStruct} from '../mm_types.ts';
import type {Task} from '../task.ts';
import {isBefore} from '../version.ts';
import {hugetlbWork} from './costs_hugetlb.ts';
import {removeEntireMapping} from './folio_counts.ts';
import {pte_lock, pte_unlock, tables_alloc} from './memory_pte.ts';
import type {MmuGather} from './mmu_gather.ts';
import type {ProtectionChange} from './mprotect_ptes.ts';
import {compound_head} from './page.ts';
import {folio_put} from './page_alloc.ts';
import {PG_dirty, PG_referenced} from './page_flags.ts';
import {MM_FILEPAGES} from './rss.ts';
import {add_mm_counter} from './rss_stat.ts';
import type {UserMm} from './user_mm.ts';
import type {VmArea} from './vma.ts';
import {is_cow_mapping} from './vma_flags.ts';

/** Is the entry at `slot` in a PUD table? */
export function isPudSlot(k: Kernel, slot: number): boolean {
  return k.mm.pt.level[slot >>> 9] === 2;
}

/**
 * pudp_invalidate, under the lock: the hardware cannot set bits from here on. Returns the old
 * entry.
 */
function* pudp_invalidate(
  k: Kernel,
  t: Task,
  user: UserMm,
  slot: number,
  vpn: number,
): Code<number> {
  const {pt} = k.mm;
  const old = pt.flags[slot];
  pt.flags[slot] = pud_mkinvalid(old);
  yield* k.tlb.flush_tlb_mm_range(t, user.mm, vpn, vpn + HPAGE_PUD_NR, false);
  return old;
}

/**
 * Without pudp_invalidate: what the hardware sets between the read and the write is overwritten.
 */
function* readAndWriteBack(k: Kernel, t: Task, slot: number, vpn: number): Code<number> {
  const {pt} = k.mm;
  const old = pt.flags[slot];
  t.cpu.charge(hugetlbWork(k).costs.leafTicks, hugetlbWork(k).fns.change_huge_pud);
  if (t.cpu.settle()) yield;
  if ((pt.flags[slot] & ~old & PTE_DIRTY) !== 0) {
    k.checks.count('lost_dirty_bits');
    k.checks.finding(
      `change_huge_pud: dirty bit of page 0x${vpn.toString(16)} lost between read and write`,
    );
  }
  return old;
}

/**
 * change_huge_pud (6.12+), and what mprotect did to a PUD leaf before. All of the leaf at `slot`
 * changes. Returns the pages changed.
 */
export function* change_huge_pud(
  k: Kernel,
  t: Task,
  user: UserMm,
  change: ProtectionChange,
  slot: number,
  vpn: number,
): Code<number> {
  const {mm} = k;
  const {fns, costs} = hugetlbWork(k);
  if (k.design.pud === 'mprotect-clears' || !pud_leaf(k, mm.pt.flags[slot])) {
    pud_clear_bad(k, slot, vpn);
    return 0;
  }
  while (!pte_lock(mm, t, slot, fns.change_huge_pud)) {
    yield* mm.ptl.spin(t, slot >>> 9, fns.change_huge_pud);
  }
  if (!pud_leaf(k, mm.pt.flags[slot])) {
    pte_unlock(mm, t, slot);
    return 0;
  }
  mm.ptl.hold(slot >>> 9);
  const invalidates = k.design.pud !== 'no-invalidate';
  const old = invalidates
    ? yield* pudp_invalidate(k, t, user, slot, vpn)
    : yield* readAndWriteBack(k, t, slot, vpn);
  mm.pt.flags[slot] = pud_modify(k, old, change.kind, change.writable);
  t.cpu.charge(costs.leafTicks, fns.change_huge_pud);
  change.tlb?.adjust(vpn, HPAGE_PUD_NR);
  if (change.tlb !== null) change.tlb.clearedPmds = true;
  mm.ptl.unhold(slot >>> 9);
  pte_unlock(mm, t, slot);
  return HPAGE_PUD_NR;
}

/** zap_huge_pud: the leaf lies wholly in the range. Plain. */
export function zap_huge_pud(
  k: Kernel,
  t: Task,
  tlb: MmuGather,
  vma: VmArea,
  slot: number,
  vpn: number,
): void {
  const {mm} = k;
  const {pt} = mm;
  const {fns, costs} = hugetlbWork(k);
  const word = pt.flags[slot];
  if (!pud_leaf(k, word)) {
    pud_clear_bad(k, slot, vpn);
    return;
  }
  mm.ptl.lock(t.cpu, slot >>> 9, 0, fns.zap_huge_pud);
  const pfn = pteValue(pt, slot);
  pteClear(pt, slot);
  arch_check_zapped_pud(k, vma, word);
  tlb.adjust(vpn, HPAGE_PUD_NR);
  tlb.clearedPmds = true;
  t.cpu.charge(costs.leafTicks, fns.zap_huge_pud);
  const counted = (word & PTE_SPECIAL) === 0;
  const head = compound_head(mm.pages, pfn);
  if (counted) {
    removeEntireMapping(mm.pages, head);
    add_mm_counter(k, t, tlb.mm, MM_FILEPAGES, -HPAGE_PUD_NR);
  }
  mm.ptl.unlock(t.cpu, slot >>> 9);
  if (counted) tlb.addFolio(head, 1);
}

/** copy_huge_pud: shares the leaf with the child; write access goes where writes must copy. */
export function copy_huge_pud(
  k: Kernel,
  t: Task,
  dst: MmStruct,
  srcVma: VmArea,
  slot: number,
  vpn: number,
): boolean {
  const {pt} = k.mm;
  // What is counted the child faults in by itself.
  if ((pt.flags[slot] & PTE_SPECIAL) === 0) return true;
  const to = tables_alloc(k, t, dst.user!, vpn, 2);
  if (to < 0) return false;
  const {fns, costs} = hugetlbWork(k);
  t.cpu.charge(2 * costs.leafTicks, fns.copy_huge_pud);
  if (is_cow_mapping(srcVma.flags) && (pt.flags[slot] & PTE_WRITE) !== 0) {
    pt.flags[slot] = pud_wrprotect(k, pt.flags[slot]);
  }
  setHuge(pt, to, pteValue(pt, slot), pud_mkold(pt.flags[slot]));
  return true;
}

/**
 * move_huge_pud (5.14+) of a leaf that both ranges have aligned. True when the entry is gone from
 * the old place: moved, or taken for a damaged table.
 */
export function* move_huge_pud(
  k: Kernel,
  t: Task,
  oldVma: VmArea,
  slot: number,
  oldVpn: number,
  newVpn: number,
): Code<boolean> {
  const {mm} = k;
  const {pt} = mm;
  const user = mm.byId(oldVma.space.mmId)!;
  if (isBefore(k.facts.version, '5.14')) {
    pud_clear_bad(k, slot, oldVpn);
    return true;
  }
  const to = tables_alloc(k, t, user, newVpn, 2);
  if (to < 0 || pt.flags[to] !== 0) return false;
  const {fns, costs} = hugetlbWork(k);
  if (t.cpu.settle()) yield;
  while (!pte_lock(mm, t, slot, fns.move_huge_pud)) {
    yield* mm.ptl.spin(t, slot >>> 9, fns.move_huge_pud);
  }
  if ((pt.flags[slot] & PTE_HUGE) !== 0) {
    moveEntry(user.pgd, slot, user.pgd, to);
    t.cpu.charge(2 * costs.leafTicks, fns.move_huge_pud);
    mm.ptl.hold(slot >>> 9);
    yield* k.tlb.flush_tlb_mm_range(t, user.mm, oldVpn, oldVpn + HPAGE_PUD_NR, false);
    mm.ptl.unhold(slot >>> 9);
  }
  pte_unlock(mm, t, slot);
  return true;
}

/**
 * __split_huge_pud_locked and __split_huge_pmd_locked for a leaf of a file: it is cleared, what it
 * counted is taken back, the file has the rest. The lock is held; the caller flushes.
 */
export function clear_file_leaf(k: Kernel, t: Task, user: UserMm, slot: number): void {
  const {pt, pages} = k.mm;
  const word = pt.flags[slot];
  const n = isPudSlot(k, slot) ? HPAGE_PUD_NR : 512;
  const head = compound_head(pages, pteValue(pt, slot));
  pteClear(pt, slot);
  t.cpu.charge(hugetlbWork(k).costs.leafTicks, hugetlbWork(k).fns.__split_huge_pud);
  if ((word & PTE_SPECIAL) !== 0) return;
  if (pud_dirty(word)) pages.flags[head] |= PG_dirty;
  if ((word & PTE_YOUNG) !== 0) pages.flags[head] |= PG_referenced;
  removeEntireMapping(pages, head);
  add_mm_counter(k, t, user.mm, MM_FILEPAGES, -n);
  folio_put(k, t, head);
}

/** Flags of a new leaf: vm_page_prot, and what a write adds. */
export function newLeaf(direct: boolean, write: boolean, mayWrite: boolean): number {
  const base = PTE_PRESENT | PTE_YOUNG | (direct ? PTE_WRITE : 0);
  if (!write) return base;
  return base | PTE_DIRTY | PTE_SOFT_DIRTY | (mayWrite ? PTE_WRITE : 0);
}

/** The PUD leaf that maps `vpn`: its slot, -1 when there is none. */
export function pudLeafSlot(k: Kernel, user: UserMm, vpn: number): number {
  const slot = slotAt(user.pgd, vpn, 2);
  if (slot < 0) return -1;
  const word = k.mm.pt.flags[slot];
  const kind = word & PTE_KIND;
  return (word & PTE_HUGE) !== 0 && (kind === PTE_PRESENT || kind === PTE_PROTNONE) ? slot : -1;
}
