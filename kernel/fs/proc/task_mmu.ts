// fs/proc/task_mmu.c: /proc/PID/clear_refs and what /proc/PID/pagemap says of a page, 6.18.
//
// clear_refs 1, 2, 3 make pages old (all, anonymous mappings, file mappings) without a flush or a
// notification; 4 [3.11+] write-protects what is soft-dirty, so that the next write faults and
// marks the page again; 5 [4.0+] sets the high-water mark to what is resident now. 4 sends one
// SOFT_DIRTY pair over the whole address space, and flushes after its end.
//
// mmap_lock is taken for write since 5.12; before for read, and for 4 first for write, to clear
// VM_SOFTDIRTY, then downgraded. Up to 4.12 every value flushed the mm; from 4.13 to 5.10 none did,
// unless somebody else gathered at the same time (the fault that 912efa17e512 mended).

import type {Code} from '../../../machine/process.ts';
import {LEVEL_PAGES, pteValue, walkSlot} from '../../arch/x86/mm/pgtable.ts';
import {
  is_migration_entry,
  MARKER_GUARD,
  PTE_HUGE,
  PTE_KIND,
  PTE_MARKER,
  PTE_PRESENT,
  PTE_SOFT_DIRTY,
  PTE_SPECIAL,
  PTE_SWAP,
  PTE_TABLE,
  PTE_UFFD_WP,
  PTE_WRITE,
  PTE_YOUNG,
  pte_present,
} from '../../arch/x86/mm/pgtable_bits.ts';
import {nextRange, PgtableCursor, startRange} from '../../arch/x86/mm/pgtable_range.ts';
import {EINTR, EINVAL} from '../../errno.ts';
import type {Kernel} from '../../kernel.ts';
import {folio_maybe_dma_pinned} from '../../mm/folio_counts.ts';
import {pte_lock, pte_unlock} from '../../mm/memory_pte.ts';
import {
  mmap_read_lock_killable,
  mmap_read_unlock,
  mmap_write_downgrade,
  mmap_write_lock_killable,
  mmap_write_unlock,
} from '../../mm/mmap_lock.ts';
import {USER_PGTABLES_CEILING} from '../../mm/mmap_unmap.ts';
import {tlb_finish_mmu, tlb_gather_mmu} from '../../mm/mmu_gather.ts';
import {
  mmu_notifier_invalidate_range_end,
  mmu_notifier_invalidate_range_start,
} from '../../mm/mmu_notifier.ts';
import {MMU_NOTIFY_SOFT_DIRTY, MmuNotifierRange} from '../../mm/mmu_notifier_types.ts';
import {compound_head, folio_test_anon} from '../../mm/page.ts';
import {PG_anon_exclusive, PG_referenced} from '../../mm/page_flags.ts';
import {MMF_HAS_PINNED, type UserMm} from '../../mm/user_mm.ts';
import type {VmArea} from '../../mm/vma.ts';
import {is_cow_mapping, VM_HUGETLB, VM_PFNMAP, VM_SOFTDIRTY} from '../../mm/vma_flags.ts';
import {vma_start_write} from '../../mm/vma_lock.ts';
import type {Task} from '../../task.ts';
import {isBefore} from '../../version.ts';

export const CLEAR_REFS_ALL = 1;
export const CLEAR_REFS_ANON = 2;
export const CLEAR_REFS_MAPPED = 3;
export const CLEAR_REFS_SOFT_DIRTY = 4;
export const CLEAR_REFS_MM_HIWATER_RSS = 5;

/** Greatest value that this kernel takes. */
function lastValue(version: string): number {
  if (isBefore(version, '3.11')) return CLEAR_REFS_MAPPED;
  return isBefore(version, '4.0') ? CLEAR_REFS_SOFT_DIRTY : CLEAR_REFS_MM_HIWATER_RSS;
}

/** clear_refs_write: `value` for the clear_refs file of the process with `user`. 0 or -EINVAL. */
export function* clear_refs_write(k: Kernel, t: Task, user: UserMm, value: number): Code<number> {
  const {version} = k.facts;
  const fn = k.fn('clear_refs_write');
  t.cpu.charge(k.mm.costs.adviseBaseTicks, fn);
  if (value < CLEAR_REFS_ALL || value > lastValue(version)) return -EINVAL;
  const soft = value === CLEAR_REFS_SOFT_DIRTY;
  const writes = !isBefore(version, '5.12');
  const locked =
    writes || soft
      ? yield* mmap_write_lock_killable(t, user, fn)
      : yield* mmap_read_lock_killable(t, user, fn, '5.3');
  if (locked !== 0) return -EINTR;
  if (value === CLEAR_REFS_MM_HIWATER_RSS) {
    user.rss.hiwater = user.rss.rss;
  } else {
    if (soft) yield* clearVmaFlags(k, t, user);
    if (soft && !writes) yield* mmap_write_downgrade(t, user);
    yield* clearAll(k, t, user, value, fn);
  }
  if (writes) yield* mmap_write_unlock(t, user);
  else yield* mmap_read_unlock(t, user);
  return 0;
}

function* clearVmaFlags(k: Kernel, t: Task, user: UserMm): Code {
  for (let vma = user.space.tree.first; vma !== null; vma = vma.next) {
    if ((vma.flags & VM_SOFTDIRTY) === 0) continue;
    yield* vma_start_write(k, t, user, vma);
    vma.flags &= ~VM_SOFTDIRTY;
  }
}

function* clearAll(k: Kernel, t: Task, user: UserMm, value: number, fn: number): Code {
  const {version} = k.facts;
  const soft = value === CLEAR_REFS_SOFT_DIRTY;
  const event = MMU_NOTIFY_SOFT_DIRTY;
  const {mm} = user;
  const range = new MmuNotifierRange(event, mm, null, 0, USER_PGTABLES_CEILING, 'clear_refs_write');
  const gathers = !isBefore(version, '4.13') && isBefore(version, '5.11');
  const tlb = gathers ? tlb_gather_mmu(mm) : null;
  if (soft) {
    if (tlb === null) user.tlbFlushPending++;
    yield* mmu_notifier_invalidate_range_start(k, t, range);
  }
  for (let vma = user.space.tree.first; vma !== null; vma = vma.next) {
    if (takes(vma, value)) yield* clear_refs_vma(k, t, user, vma, soft, fn);
  }
  if (soft) yield* mmu_notifier_invalidate_range_end(k, t, range);
  if (tlb !== null) {
    yield* tlb_finish_mmu(k, t, tlb);
    return;
  }
  if (soft || isBefore(version, '4.13')) yield* k.tlb.flush_tlb_mm(t, mm);
  if (soft) user.tlbFlushPending--;
}

/** clear_refs_test_walk; of hugetlb the walk has nothing to do (no hugetlb_entry). */
function takes(vma: VmArea, value: number): boolean {
  if ((vma.flags & (VM_PFNMAP | VM_HUGETLB)) !== 0) return false;
  if (value === CLEAR_REFS_ANON) return vma.mapping === null;
  return value !== CLEAR_REFS_MAPPED || vma.mapping !== null;
}

/** clear_refs_pte_range over one VMA. */
function* clear_refs_vma(
  k: Kernel,
  t: Task,
  user: UserMm,
  vma: VmArea,
  soft: boolean,
  fn: number,
): Code {
  const {mm} = k;
  const cursor = new PgtableCursor();
  startRange(cursor, vma.start, vma.end);
  while (nextRange(user.pgd, cursor)) {
    const {slot, count, vpn, level} = cursor;
    if (level > 0) {
      if (soft) yield* clear_soft_dirty_pmd(k, t, user, slot, vpn, level);
      else makeOld(k, slot);
      continue;
    }
    while (!pte_lock(mm, t, slot, fn)) yield* mm.ptl.spin(t, slot >>> 9, fn);
    t.cpu.charge(mm.costs.changeTableTicks + count * mm.costs.clearRefsPteTicks, fn);
    for (let at = slot; at < slot + count; at++) {
      if (soft) clear_soft_dirty(k, user, vma, at);
      else makeOld(k, at);
    }
    pte_unlock(mm, t, slot);
    if (t.cpu.settle()) yield;
    if (k.sched.needsResched(t)) yield* k.sched.condResched(t);
  }
}

/** ptep_test_and_clear_young, without a flush, and folio_clear_referenced. */
function makeOld(k: Kernel, slot: number): void {
  const {pt, pages} = k.mm;
  const word = pt.flags[slot];
  if ((word & PTE_KIND) === PTE_TABLE || !pte_present(word) || (word & PTE_SPECIAL) !== 0) return;
  pt.flags[slot] = word & ~PTE_YOUNG;
  pages.flags[compound_head(pages, pteValue(pt, slot))] &= ~PG_referenced;
}

/** clear_soft_dirty of one PTE; a page pinned for writing keeps its write access (5.11+). */
function clear_soft_dirty(k: Kernel, user: UserMm, vma: VmArea, slot: number): void {
  const {pt} = k.mm;
  const word = pt.flags[slot];
  if (word === 0) return;
  if (pte_present(word)) {
    if (!pte_is_pinned(k, user, vma, slot)) pt.flags[slot] = word & ~(PTE_WRITE | PTE_SOFT_DIRTY);
  } else if ((word & PTE_KIND) === PTE_SWAP || is_migration_entry(word)) {
    pt.flags[slot] = word & ~PTE_SOFT_DIRTY;
  }
}

function pte_is_pinned(k: Kernel, user: UserMm, vma: VmArea, slot: number): boolean {
  const {pt, pages} = k.mm;
  const word = pt.flags[slot];
  if ((word & (PTE_WRITE | PTE_SPECIAL)) !== PTE_WRITE || !is_cow_mapping(vma.flags)) return false;
  if ((user.flags & MMF_HAS_PINNED) === 0 || isBefore(k.facts.version, '5.11')) return false;
  return folio_maybe_dma_pinned(pages, compound_head(pages, pt.entries[slot]));
}

/** clear_soft_dirty_pmd: pmdp_invalidate flushes the huge page's range. */
function* clear_soft_dirty_pmd(
  k: Kernel,
  t: Task,
  user: UserMm,
  slot: number,
  vpn: number,
  level: number,
): Code {
  const {pt} = k.mm;
  const word = pt.flags[slot];
  if ((word & PTE_KIND) === PTE_PRESENT && (word & PTE_HUGE) !== 0) {
    pt.flags[slot] = word & ~(PTE_WRITE | PTE_SOFT_DIRTY);
    const first = vpn - (vpn % LEVEL_PAGES[level]);
    yield* k.tlb.flush_tlb_mm_range(t, user.mm, first, first + LEVEL_PAGES[level], false);
  } else if (is_migration_entry(word)) {
    pt.flags[slot] = word & ~PTE_SOFT_DIRTY;
  }
}

/** One entry of /proc/PID/pagemap. */
export interface PagemapEntry {
  readonly present: boolean;
  readonly swapped: boolean;
  readonly softDirty: boolean;
  readonly exclusive: boolean;
  readonly uffdWp: boolean;
  readonly guard: boolean;
  /** A page of a file or of shared memory. */
  readonly file: boolean;
  /** pfn of a present page, swap entry of a swapped one, else 0. */
  readonly value: number;
}

const HOLE: PagemapEntry = {
  present: false,
  swapped: false,
  softDirty: false,
  exclusive: false,
  uffdWp: false,
  guard: false,
  file: false,
  value: 0,
};

/** pte_to_pagemap_entry of page `vpn`: what its mapping and its entry say. Free of cost. */
export function pagemap_read(k: Kernel, user: UserMm, vpn: number): PagemapEntry {
  const {pt, pages} = k.mm;
  const vma = user.space.tree.lookup(vpn);
  if (vma === null) return HOLE;
  const slot = walkSlot(user.pgd, vpn);
  const word = pt.flags[slot];
  const kind = word & PTE_KIND;
  const ofVma = {...HOLE, softDirty: (vma.flags & VM_SOFTDIRTY) !== 0};
  if (word === 0 || kind === PTE_TABLE) return ofVma;
  const softDirty = ofVma.softDirty || (word & PTE_SOFT_DIRTY) !== 0;
  const uffdWp = (word & PTE_UFFD_WP) !== 0;
  const span = LEVEL_PAGES[pt.level[slot >>> 9]];
  const value = pteValue(pt, slot) + (vpn % span);
  if (kind === PTE_MARKER) {
    return {...ofVma, swapped: true, uffdWp, guard: (pt.entries[slot] & MARKER_GUARD) !== 0};
  }
  if (!pte_present(word)) return {...HOLE, swapped: true, softDirty, uffdWp, value};
  if ((word & PTE_SPECIAL) !== 0) return {...HOLE, present: true, softDirty, uffdWp};
  const file = !folio_test_anon(pages, compound_head(pages, value));
  const exclusive = (pages.flags[value] & PG_anon_exclusive) !== 0 || oneMapping(k, value);
  return {...HOLE, present: true, softDirty, uffdWp, file, exclusive, value};
}

/** PM_MMAP_EXCLUSIVE: nobody else maps the page. */
function oneMapping(k: Kernel, pfn: number): boolean {
  const {pages} = k.mm;
  return pages.mapcount.get(pfn) === 1 && compound_head(pages, pfn) === pfn;
}
