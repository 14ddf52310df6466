// PTE markers of userfaultfd write protection (include/linux/mm_inline.h, 5.19+). A marker in an
// empty entry says that the page which comes there is write-protected. It is a value of PTE_MARKER
// like guards and poison. Memory of files needs them always: the page may be in the cache while the
// entry is empty. Anonymous memory needs them only where pages that are not there yet are to be
// protected (UFFD_FEATURE_WP_UNPOPULATED): zapping it drops everything.

import {type PageTables, pteClear, setPte} from '../arch/x86/mm/pgtable.ts';
import {
  MARKER_GUARD,
  MARKER_POISONED,
  MARKER_UFFD_WP,
  PTE_KIND,
  PTE_MARKER,
  PTE_PRESENT,
  PTE_UFFD_WP,
  PTE_WRITE,
} from '../arch/x86/mm/pgtable_bits.ts';
import type {PgtableCursor} from '../arch/x86/mm/pgtable_range.ts';
import type {Kernel} from '../kernel.ts';
import type {Task} from '../task.ts';
import type {ZapDetails} from './memory_zap.ts';
import type {ZapLoop} from './memory_zap_ptes.ts';
import type {MmuGather} from './mmu_gather.ts';
import {type VmArea, vma_is_anonymous} from './vma.ts';
import {VM_UFFD_WP} from './vma_flags.ts';

/** A marker that says write-protected and nothing else. */
export function is_uffd_wp_marker(word: number, value: number): boolean {
  if ((word & PTE_KIND) !== PTE_MARKER) return false;
  return (value & (MARKER_UFFD_WP | MARKER_GUARD | MARKER_POISONED)) === MARKER_UFFD_WP;
}

/**
 * pte_none_mostly: nothing, or a marker. A page may replace any marker, a guard's too (seen on
 * 6.18).
 */
export function pte_none_mostly(word: number): boolean {
  return word === 0 || (word & PTE_KIND) === PTE_MARKER;
}

/** userfaultfd_wp. */
export function userfaultfd_wp(vma: VmArea): boolean {
  return (vma.flags & VM_UFFD_WP) !== 0 && vma.uffd !== 0;
}

/** A VMA whose entries leave markers behind when their page goes but the mapping stays. */
export function keepsUffdWp(vma: VmArea): boolean {
  return userfaultfd_wp(vma) && !vma_is_anonymous(vma);
}

/** pte_install_uffd_wp_if_needed for an entry that has just been cleared; `word` is what it was. */
export function install_uffd_wp_marker(pt: PageTables, slot: number, word: number): void {
  if (pt.flags[slot] !== 0 || (word & PTE_UFFD_WP) === 0) return;
  setPte(pt, slot, MARKER_UFFD_WP, PTE_MARKER);
}

/**
 * zap_install_uffd_wp_if_needed around the loop of zap_pte_range: entries that were write-protected
 * leave markers, and markers stay, unless the mapping goes as well.
 */
export function zapKeepingUffdWp(
  zap: ZapLoop,
  k: Kernel,
  t: Task,
  tlb: MmuGather,
  vma: VmArea,
  cursor: PgtableCursor,
  details: ZapDetails | null,
): number {
  const drops = details?.dropMarkers === true || !keepsUffdWp(vma);
  if (drops) return zap.run(k, t, tlb, cursor, details);
  const {pt} = k.mm;
  const {slot, count} = cursor;
  const kept: number[] = [];
  for (let at = slot; at < slot + count; at++) {
    const word = pt.flags[at];
    const marker = is_uffd_wp_marker(word, pt.entries[at]);
    if (marker || ((word & PTE_UFFD_WP) !== 0 && (word & PTE_KIND) !== PTE_MARKER)) kept.push(at);
  }
  const done = zap.run(k, t, tlb, cursor, details);
  for (const at of kept) if (at < slot + done) install_uffd_wp_marker(pt, at, PTE_UFFD_WP);
  return done;
}

/** Marks the empty entries of one run. Returns how many. */
export function markEmpty(pt: PageTables, slot: number, count: number): number {
  let marked = 0;
  for (let at = slot; at < slot + count; at++) {
    if (pt.flags[at] !== 0) continue;
    setPte(pt, at, MARKER_UFFD_WP, PTE_MARKER);
    marked++;
  }
  return marked;
}

/** Takes the markers of one run away: the next fault traps nobody. Returns how many. */
export function unmarkRun(pt: PageTables, slot: number, count: number): number {
  let cleared = 0;
  for (let at = slot; at < slot + count; at++) {
    if (!is_uffd_wp_marker(pt.flags[at], pt.entries[at])) continue;
    pteClear(pt, at);
    cleared++;
  }
  return cleared;
}

/**
 * What a fault on a marker of write protection does with `handle`, the fault on an empty entry: the
 * page that comes is protected, and if none comes the marker stays.
 */
export function faultOnUffdWpMarker(pt: PageTables, slot: number, handle: () => number): number {
  pteClear(pt, slot);
  const result = handle();
  const word = pt.flags[slot];
  if (word === 0) setPte(pt, slot, MARKER_UFFD_WP, PTE_MARKER);
  else if ((word & PTE_KIND) === PTE_PRESENT) {
    pt.flags[slot] = (word | PTE_UFFD_WP) & ~PTE_WRITE;
  }
  return result;
}
