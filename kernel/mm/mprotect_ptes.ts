// mm/mprotect.c: the entries. What a change of protection does to one PTE or huge entry
// (change_pte_range, change_huge_pmd), 6.18, with what older kernels did otherwise. Plain code,
// under the page-table lock.
//
// pte_modify keeps pfn, accessed, dirty and soft-dirty and takes everything else from the new
// protection. That has no write bit where a write must fault first: private memory, and shared
// files whose file system wants to know. Since 6.0 such an entry may be made writable at once
// (can_change_pte_writable), before only dirty pages of shared files. Execute is not in an entry
// here, so it is compared per VMA.

import {
  is_migration_entry,
  PTE_DEVICE_READ,
  PTE_DEVICE_WRITE,
  PTE_DIRTY,
  PTE_KIND,
  PTE_MIGRATION_READ,
  PTE_MIGRATION_READ_EXCLUSIVE,
  PTE_MIGRATION_WRITE,
  PTE_PRESENT,
  PTE_PROTNONE,
  PTE_SOFT_DIRTY,
  PTE_SPECIAL,
  PTE_SWAP,
  PTE_UFFD_WP,
  PTE_WRITE,
} from '../arch/x86/mm/pgtable_bits.ts';
import type {Kernel} from '../kernel.ts';
import {folio_maybe_dma_pinned, folio_mapcount} from './folio_counts.ts';
import type {Mm} from './mm_state.ts';
import type {MmuGather} from './mmu_gather.ts';
import {compound_head, folio_test_anon, folio_test_ksm} from './page.ts';
import {PG_anon_exclusive, PG_device, PG_dirty, PG_swapbacked} from './page_flags.ts';
import type {VmArea} from './vma.ts';
import {is_cow_mapping, VM_SHARED, VM_SOFTDIRTY, VM_UFFD_WP} from './vma_flags.ts';

/** MM_CP_ flags of change_protection. */
export const MM_CP_TRY_CHANGE_WRITABLE = 1;
export const MM_CP_PROT_NUMA = 2;
export const MM_CP_UFFD_WP = 4;
export const MM_CP_UFFD_WP_RESOLVE = 8;

/** One change of protection: what becomes of the entries of a VMA. */
export interface ProtectionChange {
  readonly vma: VmArea;
  /** MM_CP_ bits. */
  readonly cpFlags: number;
  /** PTE_PRESENT or PTE_PROTNONE. */
  readonly kind: number;
  /** The new protection has the write bit: shared memory that nobody wants to be told about. */
  readonly writable: boolean;
  /** Execute permission changes, which is a bit of every entry on hardware. */
  readonly execChanges: boolean;
  /** Private exclusive pages may become writable at once (6.0+), else only shared dirty ones. */
  readonly exclusiveWrites: boolean;
  /** Only pages that are not on this node, -1 for all (NUMA hinting, one thread). */
  readonly notOnNode: number;
  /**
   * Gathers entries that need a flush (5.19+), null where the whole range is flushed at the end.
   */
  readonly tlb: MmuGather | null;
}

/** change_pte_range for `count` entries from `slot` on. Returns how many it changed. */
export function change_pte_range(
  k: Kernel,
  change: ProtectionChange,
  slot: number,
  count: number,
  vpn: number,
): number {
  const {mm} = k;
  const {flags, entries} = mm.pt;
  const numa = (change.cpFlags & MM_CP_PROT_NUMA) !== 0;
  let pages = 0;
  for (let i = 0; i < count; i++) {
    const word = flags[slot + i];
    if (word === 0) continue;
    if ((word & PTE_KIND) > PTE_PROTNONE) {
      const changed = changeNonpresent(mm, change, word, entries[slot + i]);
      if (changed === word) continue;
      flags[slot + i] = changed;
      pages++;
      continue;
    }
    if (numa && prot_numa_skip(mm, change, word, entries[slot + i])) continue;
    const changed = modify(mm, change, word, entries[slot + i]);
    flags[slot + i] = changed;
    if (change.tlb !== null && needsFlush(change, word, changed)) {
      change.tlb.adjust(vpn + i, 1);
      change.tlb.clearedPtes = true;
    }
    pages++;
  }
  return pages;
}

/** change_huge_pmd (and PUD) for the leaf at `slot`, all of which changes. False: left as it is. */
export function change_huge_entry(
  k: Kernel,
  change: ProtectionChange,
  slot: number,
  vpn: number,
  pages: number,
): boolean {
  const {mm} = k;
  const {flags, entries} = mm.pt;
  const word = flags[slot];
  const pfn = entries[slot] & 0x7fff_ffff;
  if ((word & PTE_KIND) > PTE_PROTNONE) {
    flags[slot] = changeNonpresent(mm, change, word, pfn);
    return true;
  }
  const numa = (change.cpFlags & MM_CP_PROT_NUMA) !== 0;
  if (numa && prot_numa_skip(mm, change, word, pfn)) return false;
  flags[slot] = modify(mm, change, word, pfn);
  if (change.tlb !== null) {
    change.tlb.adjust(vpn, pages);
    change.tlb.clearedPmds = true;
  }
  return true;
}

/** pte_modify, userfaultfd's bit, and can_change_pte_writable. */
function modify(mm: Mm, change: ProtectionChange, word: number, pfn: number): number {
  const {cpFlags} = change;
  let next = (word & ~(PTE_KIND | PTE_WRITE)) | change.kind;
  if (change.writable && change.kind === PTE_PRESENT) next |= PTE_WRITE;
  if ((cpFlags & MM_CP_UFFD_WP) !== 0) next = (next | PTE_UFFD_WP) & ~PTE_WRITE;
  else if ((cpFlags & MM_CP_UFFD_WP_RESOLVE) !== 0) next &= ~PTE_UFFD_WP;
  const upgrade = (cpFlags & MM_CP_TRY_CHANGE_WRITABLE) !== 0 && (next & PTE_WRITE) === 0;
  return upgrade && can_change_pte_writable(mm, change, next, pfn) ? next | PTE_WRITE : next;
}

/** can_change_pte_writable: would a write fault do nothing but set the write bit? */
function can_change_pte_writable(
  mm: Mm,
  change: ProtectionChange,
  word: number,
  pfn: number,
): boolean {
  const {vma} = change;
  if ((word & PTE_KIND) === PTE_PROTNONE) return false;
  if (vma_soft_dirty_enabled(vma) && (word & PTE_SOFT_DIRTY) === 0) return false;
  if ((word & PTE_UFFD_WP) !== 0 && (vma.flags & VM_UFFD_WP) !== 0) return false;
  if ((vma.flags & VM_SHARED) !== 0) return (word & PTE_DIRTY) !== 0;
  if (!change.exclusiveWrites || (word & PTE_SPECIAL) !== 0) return false;
  const {pages} = mm;
  if (!folio_test_anon(pages, compound_head(pages, pfn))) return false;
  return (pages.flags[pfn] & PG_anon_exclusive) !== 0;
}

/** vma_soft_dirty_enabled: somebody has cleared the soft-dirty bits and waits for writes. */
export function vma_soft_dirty_enabled(vma: VmArea): boolean {
  return (vma.flags & VM_SOFTDIRTY) === 0;
}

/** Swap, migration and device entries lose write access; markers stay. Returns the new word. */
function changeNonpresent(mm: Mm, change: ProtectionChange, word: number, value: number): number {
  const kind = word & PTE_KIND;
  if (kind === PTE_MIGRATION_WRITE) {
    const anon = folio_test_anon(mm.pages, compound_head(mm.pages, value));
    return (word & ~PTE_KIND) | (anon ? PTE_MIGRATION_READ_EXCLUSIVE : PTE_MIGRATION_READ);
  }
  if (kind === PTE_DEVICE_WRITE) return (word & ~PTE_KIND) | PTE_DEVICE_READ;
  const swapLike = kind === PTE_SWAP || is_migration_entry(word) || kind === PTE_DEVICE_READ;
  if (!swapLike) return word;
  if ((change.cpFlags & MM_CP_UFFD_WP) !== 0) return word | PTE_UFFD_WP;
  if ((change.cpFlags & MM_CP_UFFD_WP_RESOLVE) !== 0) return word & ~PTE_UFFD_WP;
  return word;
}

/** prot_numa_skip: pages that NUMA balancing leaves alone. */
export function prot_numa_skip(
  mm: Mm,
  change: ProtectionChange,
  word: number,
  pfn: number,
): boolean {
  if ((word & PTE_KIND) !== PTE_PRESENT || (word & PTE_SPECIAL) !== 0) return true;
  const {pages} = mm;
  const head = compound_head(pages, pfn);
  if ((pages.flags[head] & PG_device) !== 0 || folio_test_ksm(pages, head)) return true;
  if (is_cow_mapping(change.vma.flags)) {
    if (folio_maybe_dma_pinned(pages, head) || folio_mapcount(pages, head) > 1) return true;
  }
  const fileDirty = (pages.flags[head] & (PG_swapbacked | PG_dirty)) === PG_dirty;
  if (fileDirty && !folio_test_anon(pages, head)) return true;
  return change.notOnNode >= 0 && pages.nodeOf(pfn) === change.notOnNode;
}

/**
 * pte_needs_flush (x86, 5.19+): nothing can be cached of an entry that was not present; else
 * everything but accessed and software bits counts.
 */
function needsFlush(change: ProtectionChange, before: number, after: number): boolean {
  if ((before & PTE_KIND) === PTE_PROTNONE) return false;
  return change.execChanges || ((before ^ after) & (PTE_KIND | PTE_WRITE)) !== 0;
}
