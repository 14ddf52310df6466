// mm/huge_memory.c, 6.18: fork's copy of a huge entry and its unmapping, PUD leaves (DAX, 1 GB)
// included.
//
// Fork shares the folio: one reference and one entire mapping more, both sides read-only, the
// child's counter up by 512, a page table deposited for the child. A pinned exclusive folio is not
// shared: the parent's entry is split and PTEs are copied. Unmapping takes the entry whole; the
// folio goes with the gather's next flush, whose stride is 2 MB.

import {pteClear, pteValue, setHuge} from '../arch/x86/mm/pgtable.ts';
import {
  is_migration_entry,
  PTE_DIRTY,
  PTE_KIND,
  PTE_MIGRATION_READ,
  PTE_SPECIAL,
  PTE_UFFD_WP,
  PTE_WRITE,
  PTE_YOUNG,
} from '../arch/x86/mm/pgtable_bits.ts';
import type {Kernel} from '../kernel.ts';
import type {MmStruct} from '../mm_types.ts';
import type {Task} from '../task.ts';
import {
  addEntireMapping,
  folio_mapped,
  folio_maybe_dma_pinned,
  removeEntireMapping,
} from './folio_counts.ts';
import {HPAGE_PMD_NR, HPAGE_PUD_NR, type HugeMemory} from './huge_memory.ts';
import {tables_alloc} from './memory_pte.ts';
import type {MmuGather} from './mmu_gather.ts';
import {compound_head, folio_test_anon} from './page.ts';
import {PG_anon_exclusive, PG_dirty, PG_referenced, PG_swapbacked} from './page_flags.ts';
import {MM_ANONPAGES, MM_FILEPAGES, MM_SHMEMPAGES} from './rss.ts';
import {add_mm_counter} from './rss_stat.ts';
import {type VmArea, vma_is_anonymous} from './vma.ts';
import {VM_UFFD_WP} from './vma_flags.ts';

/** copy_huge_pmd and copy_huge_pud. False: split the parent's entry and copy PTEs. */
export function copy_huge_pmd(
  huge: HugeMemory,
  t: Task,
  dst: MmStruct,
  dstVma: VmArea,
  srcVma: VmArea,
  slot: number,
  vpn: number,
): boolean {
  const {k} = huge;
  const {pt, pages} = k.mm;
  const level = pt.level[slot >>> 9];
  // What a file (or a device) has, the child faults in by itself.
  if (!vma_is_anonymous(srcVma)) return true;
  if (level !== 1) return false;
  let word = pt.flags[slot];
  const value = pteValue(pt, slot);
  const zero = (word & PTE_SPECIAL) !== 0;
  const head = zero ? 0 : compound_head(pages, value);
  const exclusive = !zero && (pages.flags[head] & PG_anon_exclusive) !== 0;
  const migrating = is_migration_entry(word);
  if (exclusive && !migrating && folio_maybe_dma_pinned(pages, head)) return false;
  const user = dst.user!;
  const to = tables_alloc(k, t, user, vpn, 1);
  if (to < 0) return false;
  t.cpu.charge(k.mm.costs.copyTableTicks + k.mm.costs.copyPteTicks, huge.fnCopy);
  huge.deposit(t, user, to);
  if (zero) {
    huge.hugeZero(t, user);
  } else {
    add_mm_counter(k, t, dst, MM_ANONPAGES, HPAGE_PMD_NR);
    if (!migrating) {
      pages.refcount.increment(head);
      addEntireMapping(pages, head);
      pages.flags[head] &= ~PG_anon_exclusive;
    }
  }
  if (migrating) word = (word & ~PTE_KIND) | PTE_MIGRATION_READ;
  pt.flags[slot] = word & ~PTE_WRITE;
  const wp = dstVma.uffd !== 0 && (dstVma.flags & VM_UFFD_WP) !== 0;
  const child = word & ~(PTE_WRITE | (migrating ? 0 : PTE_YOUNG) | (wp ? 0 : PTE_UFFD_WP));
  setHuge(pt, to, value, child);
  return true;
}

/** zap_huge_pmd and zap_huge_pud: the entry lies wholly in the range. */
export function zap_huge_pmd(
  huge: HugeMemory,
  t: Task,
  tlb: MmuGather,
  vma: VmArea,
  slot: number,
  vpn: number,
): void {
  const {k} = huge;
  const {mm} = k;
  const {pt} = mm;
  const user = tlb.mm.user!;
  const pud = pt.level[slot >>> 9] > 1;
  const n = pud ? HPAGE_PUD_NR : HPAGE_PMD_NR;
  mm.ptl.lock(t.cpu, slot >>> 9, 0, huge.fnZap);
  const word = pt.flags[slot];
  const value = pteValue(pt, slot);
  pteClear(pt, slot);
  tlb.adjust(vpn, n);
  tlb.clearedPmds = true;
  t.cpu.charge(mm.costs.zapTableTicks + mm.costs.zapPteTicks, huge.fnZap);
  const special = (word & PTE_SPECIAL) !== 0;
  if (special) {
    if (pt.deposits[slot >>> 9] > 0 && vma_is_anonymous(vma)) huge.zapDeposited(t, user, slot);
    mm.ptl.unlock(t.cpu, slot >>> 9);
    return;
  }
  const head = compound_head(mm.pages, value);
  const anon = folio_test_anon(mm.pages, head);
  if (!is_migration_entry(word)) removeEntireMapping(mm.pages, head);
  if (anon) {
    huge.zapDeposited(t, user, slot);
    add_mm_counter(k, t, tlb.mm, MM_ANONPAGES, -n);
    if (folio_mapped(mm.pages, head) && mm.pages.mapping[head + 1] === 0) {
      huge.deferredSplit.add(head);
    }
  } else {
    zapFile(k, t, tlb, head, word, n);
  }
  mm.ptl.unlock(t.cpu, slot >>> 9);
  if (!is_migration_entry(word)) tlb.addFolio(head, 1);
}

function zapFile(k: Kernel, t: Task, tlb: MmuGather, head: number, word: number, n: number): void {
  const {flags} = k.mm.pages;
  const shmem = (flags[head] & PG_swapbacked) !== 0;
  if ((word & PTE_DIRTY) !== 0) flags[head] |= PG_dirty;
  if ((word & PTE_YOUNG) !== 0) flags[head] |= PG_referenced;
  add_mm_counter(k, t, tlb.mm, shmem ? MM_SHMEMPAGES : MM_FILEPAGES, -n);
}
