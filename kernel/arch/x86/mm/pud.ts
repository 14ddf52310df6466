// arch/x86/include/asm/pgtable.h for entries at PUD level, as the series of 2024-08 (6.12) left
// them, and as each choice of the axis `pud` has them:
//   mprotect-clears  up to 6.11: mprotect takes a 1 GB leaf for a damaged table and clears it
//   leaf-present     without "pud_leaf() only cares about PSE": PROT_NONE leaves are no leaves
//   no-invalidate    without pudp_invalidate: the entry is read, changed and written back
//   no-saved-dirty   pud_modify without mksaveddirty: read-only and dirty, so a shadow stack
//   complete         6.12+
// A dirty entry that is not writable keeps the fact in _PAGE_SAVED_DIRTY where shadow stacks exist
// (6.6+), because write=0, dirty=1 means shadow stack to the hardware.

import type {Kernel} from '../../../kernel.ts';
import type {VmArea} from '../../../mm/vma.ts';
import {VM_HIGH_SHADOW_STACK} from '../../../mm/vma_flags.ts';
import {isBefore} from '../../../version.ts';
import {pteClear, pteValue} from './pgtable.ts';
import {
  PTE_DIRTY,
  PTE_HUGE,
  PTE_KIND,
  PTE_PRESENT,
  PTE_PROTNONE,
  PTE_SAVED_DIRTY,
  PTE_WRITE,
  PTE_YOUNG,
  pte_shstk,
} from './pgtable_bits.ts';

/** Pages of a PUD entry. */
export const HPAGE_PUD_NR = 2 ** 18;

/** pud_leaf: a 1 GB entry, as this kernel tells one. `word` is a flags word. */
export function pud_leaf(k: Kernel, word: number): boolean {
  if ((word & PTE_HUGE) === 0) return false;
  return k.design.pud !== 'leaf-present' || (word & PTE_KIND) === PTE_PRESENT;
}

function hasSavedDirty(k: Kernel): boolean {
  return !isBefore(k.facts.version, '6.6');
}

/** pud_mksaveddirty. */
function pud_mksaveddirty(word: number): number {
  if ((word & (PTE_WRITE | PTE_DIRTY)) !== PTE_DIRTY) return word;
  return (word & ~PTE_DIRTY) | PTE_SAVED_DIRTY;
}

/** pud_clear_saveddirty. */
function pud_clear_saveddirty(word: number): number {
  if ((word & (PTE_WRITE | PTE_SAVED_DIRTY)) !== (PTE_WRITE | PTE_SAVED_DIRTY)) return word;
  return (word & ~PTE_SAVED_DIRTY) | PTE_DIRTY;
}

/** pud_dirty. */
export function pud_dirty(word: number): boolean {
  return (word & (PTE_DIRTY | PTE_SAVED_DIRTY)) !== 0;
}

/** pud_wrprotect. */
export function pud_wrprotect(k: Kernel, word: number): number {
  const next = word & ~PTE_WRITE;
  return hasSavedDirty(k) ? pud_mksaveddirty(next) : next;
}

/** pud_mkwrite. */
export function pud_mkwrite(word: number): number {
  return pud_clear_saveddirty(word | PTE_WRITE);
}

/** pud_mkold. */
export function pud_mkold(word: number): number {
  return word & ~PTE_YOUNG;
}

/** pud_mkinvalid: neither present nor PROT_NONE to the hardware, and still a leaf. */
export function pud_mkinvalid(word: number): number {
  return (word & ~PTE_KIND) | PTE_PROTNONE;
}

/** pud_modify: `kind` (PTE_PRESENT or PTE_PROTNONE) and write permission are the new ones. */
export function pud_modify(k: Kernel, old: number, kind: number, writable: boolean): number {
  const write = writable && kind === PTE_PRESENT ? PTE_WRITE : 0;
  const next = (old & ~(PTE_KIND | PTE_WRITE)) | kind | write;
  if (!hasSavedDirty(k) || k.design.pud === 'no-saved-dirty') return next;
  return (old & PTE_WRITE) !== 0 ? pud_mksaveddirty(next) : pud_clear_saveddirty(next);
}

/** pud_clear_bad: says what was found and makes the entry none. Nobody flushes or is told. */
export function pud_clear_bad(k: Kernel, slot: number, vpn: number): void {
  const {pt} = k.mm;
  const pfn = pteValue(pt, slot).toString(16);
  k.checks.finding(`mm/pgtable-generic.c: bad pud (pfn 0x${pfn}) at page 0x${vpn.toString(16)}`);
  k.checks.count('bad_pud');
  pteClear(pt, slot);
}

/** VM_WARN_ON_ONCE says it once. */
const warned = new WeakSet<Kernel>();

/** arch_check_zapped_pud (6.12+): a shadow-stack entry goes from a VMA that is no shadow stack. */
export function arch_check_zapped_pud(k: Kernel, vma: VmArea, word: number): void {
  if (k.design.pud === 'mprotect-clears' || !pte_shstk(word)) return;
  if ((vma.flagsHigh & VM_HIGH_SHADOW_STACK) !== 0) return;
  k.checks.count('shadow_stack_zaps');
  if (warned.has(k)) return;
  warned.add(k);
  k.checks.finding('WARNING: arch/x86/mm/pgtable.c: arch_check_zapped_pud: write=0, dirty=1');
}
