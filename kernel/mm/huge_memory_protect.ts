// mm/huge_memory.c: change_huge_pmd, change_protection's case of a huge entry that lies wholly in
// the range. The TLB is flushed only if the entry loses something or its write bit changes
// (pte_flags_need_flush): an entry that fork has made read-only stays so, and nothing is flushed.

import {pteValue} from '../arch/x86/mm/pgtable.ts';
import {
  is_migration_entry,
  PTE_DIRTY,
  PTE_KIND,
  PTE_MIGRATION_READ,
  PTE_MIGRATION_READ_EXCLUSIVE,
  PTE_MIGRATION_WRITE,
  PTE_PRESENT,
  PTE_PROTNONE,
  PTE_SPECIAL,
  PTE_UFFD_WP,
  PTE_WRITE,
} from '../arch/x86/mm/pgtable_bits.ts';
import type {Kernel} from '../kernel.ts';
import type {Task} from '../task.ts';
import {HPAGE_PMD_NR, type HugeMemory} from './huge_memory.ts';
import type {MmuGather} from './mmu_gather.ts';
import {compound_head, folio_test_anon} from './page.ts';
import {PG_anon_exclusive} from './page_flags.ts';
import type {VmArea} from './vma.ts';
import {VM_SHARED, VM_WRITE} from './vma_flags.ts';

/** Takes the PTL itself. Returns the pages changed. */
export function change_huge_pmd(
  huge: HugeMemory,
  t: Task,
  tlb: MmuGather,
  vma: VmArea,
  slot: number,
  vpn: number,
  protNone: boolean,
  tryWritable: boolean,
): number {
  const {k} = huge;
  const {mm} = k;
  const {flags} = mm.pt;
  mm.ptl.lock(t.cpu, slot >>> 9, 0, mm.fns.handle_mm_fault);
  const old = flags[slot];
  let word = old;
  if (is_migration_entry(old)) {
    // Only a writable entry changes: what was exclusive stays so.
    const anon = folio_test_anon(mm.pages, compound_head(mm.pages, pteValue(mm.pt, slot)));
    const reader = anon ? PTE_MIGRATION_READ_EXCLUSIVE : PTE_MIGRATION_READ;
    if ((old & PTE_KIND) === PTE_MIGRATION_WRITE) word = (old & ~PTE_KIND) | reader;
  } else {
    word = (old & ~(PTE_KIND | PTE_WRITE)) | (protNone ? PTE_PROTNONE : PTE_PRESENT);
    const upgrade = tryWritable && !protNone && can_change_pmd_writable(k, vma, slot, word);
    if (upgrade) word |= PTE_WRITE;
  }
  flags[slot] = word;
  t.cpu.charge(mm.costs.setPteTicks, mm.fns.handle_mm_fault);
  const lost = (old & PTE_KIND) === PTE_PRESENT && (word & PTE_KIND) !== PTE_PRESENT;
  const present = (old & PTE_KIND) === PTE_PRESENT;
  if (lost || (present && ((old ^ word) & PTE_WRITE) !== 0)) {
    tlb.adjust(vpn, HPAGE_PMD_NR);
    tlb.clearedPmds = true;
  }
  mm.ptl.unlock(t.cpu, slot >>> 9);
  return HPAGE_PMD_NR;
}

/** can_change_pmd_writable: a write fault would only set the write bit. */
function can_change_pmd_writable(k: Kernel, vma: VmArea, slot: number, word: number): boolean {
  const {pt, pages} = k.mm;
  if ((vma.flags & VM_WRITE) === 0 || (word & (PTE_UFFD_WP | PTE_SPECIAL)) !== 0) return false;
  if ((vma.flags & VM_SHARED) !== 0) return (word & PTE_DIRTY) !== 0;
  const head = compound_head(pages, pteValue(pt, slot));
  return folio_test_anon(pages, head) && (pages.flags[head] & PG_anon_exclusive) !== 0;
}
