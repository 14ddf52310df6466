// mm/mremap.c: move_page_tables, 6.18. What the old range maps goes to the new one: a whole PUD or
// PMD table where both sides have it aligned (5.11+, 5.0+), else PTE by PTE under both page-table
// locks. Pages stay where they are and are not counted again: nothing is said in rss_stat.
//
// One invalidation of the OLD range around all of it; the new range gets none, since nothing was
// there. TLBs are flushed under the page-table locks, extent by extent, so that no CPU writes
// through an old translation while the new one is in use (since 4.20, CVE-2018-18281); before, once
// at the end, in extents of 64 pages.

import {assert} from '../../machine/assert.ts';
import type {Code} from '../../machine/process.ts';
import {LEVEL_PAGES, nextAt, type PageTables, setPte, slotAt} from '../arch/x86/mm/pgtable.ts';
import {
  PTE_HUGE,
  PTE_KIND,
  PTE_PROTNONE,
  PTE_SOFT_DIRTY,
  PTE_SWAP,
  PTE_TABLE,
  PTE_UFFD_WP,
} from '../arch/x86/mm/pgtable_bits.ts';
import {moveEntry} from '../arch/x86/mm/pgtable_range.ts';
import type {Kernel} from '../kernel.ts';
import type {RwSemaphore} from '../locking/rwsem.ts';
import type {Task} from '../task.ts';
import {isBefore} from '../version.ts';
import {move_huge_pud} from './huge_memory_pud.ts';
import {pte_alloc, pte_lock, pte_unlock, tables_alloc} from './memory_pte.ts';
import {
  mmu_notifier_invalidate_range_end,
  mmu_notifier_invalidate_range_start,
} from './mmu_notifier.ts';
import {MMU_NOTIFY_UNMAP, MmuNotifierRange} from './mmu_notifier_types.ts';
import {flush_tlb_range} from './mprotect_walk.ts';
import {is_uffd_wp_marker} from './userfaultfd_markers.ts';
import type {UserMm} from './user_mm.ts';
import type {VmArea} from './vma.ts';
import {VM_HUGETLB} from './vma_flags.ts';

/** LATENCY_LIMIT of kernels before 5.0. */
const LATENCY_PAGES = 64;

/** struct pagetable_move_control: what moves where. */
export interface TableMove {
  readonly user: UserMm;
  readonly from: VmArea;
  readonly to: VmArea;
  /** Hold the rmap locks, so that an rmap walk does not miss pages that move behind it. */
  readonly rmapLocks: boolean;
  oldVpn: number;
  newVpn: number;
  readonly oldEnd: number;
}

/** move_page_tables for [start, start + pages). Caller holds mmap_lock for write. */
export function* move_page_tables(
  k: Kernel,
  t: Task,
  user: UserMm,
  from: VmArea,
  to: VmArea,
  start: number,
  newStart: number,
  pages: number,
  rmapLocks: boolean,
): Code {
  if (pages === 0) return;
  const {move_hugetlb_page_tables} = k.mm.hooks;
  if ((from.flags & VM_HUGETLB) !== 0) {
    if (move_hugetlb_page_tables !== null)
      yield* move_hugetlb_page_tables(t, from, to, start, newStart, pages);
    return;
  }
  const down = isBefore(k.facts.version, '6.7') ? 0 : realignable(from, to, start, newStart, pages);
  const oldEnd = start + pages;
  const move: TableMove = {
    user,
    from,
    to,
    rmapLocks,
    oldVpn: start - down,
    newVpn: newStart - down,
    oldEnd,
  };
  const range = new MmuNotifierRange(
    MMU_NOTIFY_UNMAP,
    user.mm,
    from,
    move.oldVpn,
    oldEnd,
    'move_page_tables',
  );
  yield* mmu_notifier_invalidate_range_start(k, t, range);
  const late = isBefore(k.facts.version, '4.20');
  let moved = false;
  while (move.oldVpn < oldEnd) {
    if (k.sched.needsResched(t)) yield* k.sched.condResched(t);
    const n = yield* moveExtent(k, t, move, late);
    if (n < 0) moved = true;
    const step = Math.abs(n);
    move.oldVpn += step;
    move.newVpn += step;
  }
  if (late && moved) yield* flush_tlb_range(k, t, user, start, oldEnd);
  yield* mmu_notifier_invalidate_range_end(k, t, range);
}

/**
 * try_realign_addr (6.7+): when both ranges lie alike in their 2 MB and nothing else is in the part
 * before them, the walk begins at the boundary, so that the table can move as a whole. Pages to go
 * back.
 */
function realignable(from: VmArea, to: VmArea, old: number, fresh: number, pages: number): number {
  const offset = old % 512;
  if (offset === 0 || fresh % 512 !== offset || pages < 512 - offset) return 0;
  return canAlignDown(from, old, offset) && canAlignDown(to, fresh, offset) ? offset : 0;
}

function canAlignDown(vma: VmArea, vpn: number, offset: number): boolean {
  if (vma.start !== vpn) return false;
  return vma.prev === null || vma.prev.end <= vpn - offset;
}

/** get_extent: pages up to the next boundary of `level` on either side. */
function extentOf(move: TableMove, level: number): number {
  const old = Math.min(nextAt(move.oldVpn, level), move.oldEnd) - move.oldVpn;
  return Math.min(old, nextAt(move.newVpn, level) - move.newVpn);
}

/** One step of the walk: its pages, negative when a flush is still due for them. */
function* moveExtent(k: Kernel, t: Task, move: TableMove, late: boolean): Code<number> {
  const {pgd} = move.user;
  const {pt} = k.mm;
  const {version} = k.facts;
  if (t.cpu.settle()) yield;
  for (let level = pgd.levels - 1; level >= 1; level--) {
    const slot = slotAt(pgd, move.oldVpn, level);
    const extent = extentOf(move, level);
    assert(slot >= 0, 'walk ended above a level that was there');
    if (pt.flags[slot] === 0) return extent;
    if (level > 2) continue;
    const whole = extent === LEVEL_PAGES[level];
    if ((pt.flags[slot] & PTE_KIND) !== PTE_TABLE) {
      yield* moveHuge(k, t, move, slot, level, whole);
      return (pt.flags[slot] & PTE_KIND) === PTE_TABLE ? 0 : extent;
    }
    const since = level === 1 ? '5.0' : '5.11';
    if (whole && !isBefore(version, since) && (yield* moveTable(k, t, move, slot, level)))
      return extent;
  }
  let extent = extentOf(move, 1);
  if (isBefore(version, '5.0')) extent = Math.min(extent, LATENCY_PAGES);
  const flush = yield* move_ptes(k, t, move, extent, late);
  return flush ? -extent : extent;
}

/** move_huge_pmd; a part of a huge page is split first, and looked at again. */
function* moveHuge(
  k: Kernel,
  t: Task,
  move: TableMove,
  slot: number,
  level: number,
  whole: boolean,
): Code {
  const {hooks, pt} = k.mm;
  if (whole && level === 1 && hooks.move_huge_pmd !== null) {
    tables_alloc(k, t, move.user, move.newVpn, level);
    if (yield* hooks.move_huge_pmd(t, move.from, move.to, move.oldVpn, move.newVpn)) {
      if (losesUffdWp(k, move.from))
        pt.flags[slotAt(move.user.pgd, move.newVpn, 1)] &= ~PTE_UFFD_WP;
      return;
    }
  } else if (level === 2 && (whole || isBefore(k.facts.version, '5.14'))) {
    if (yield* move_huge_pud(k, t, move.from, slot, move.oldVpn, move.newVpn)) return;
  } else if (whole && (yield* moveTable(k, t, move, slot, level))) {
    return;
  }
  assert((pt.flags[slot] & PTE_HUGE) !== 0 && hooks.split_huge !== null, 'huge entry to split');
  yield* hooks.split_huge(t, move.from, slot, move.oldVpn);
}

/** move_normal_pmd and move_normal_pud: false when something is at the destination. */
function* moveTable(
  k: Kernel,
  t: Task,
  move: TableMove,
  slot: number,
  level: number,
): Code<boolean> {
  const {mm} = k;
  const {user, oldVpn, newVpn} = move;
  if (losesUffdWp(k, move.from)) return false;
  const target = tables_alloc(k, t, user, newVpn, level);
  if (target < 0 || mm.pt.flags[target] !== 0) return false;
  const locks = yield* take_rmap_locks(k, t, move);
  if (t.cpu.settle()) yield;
  moveEntry(user.pgd, slot, user.pgd, target);
  t.cpu.charge(mm.costs.moveTableTicks, mm.fns.move_page_tables);
  yield* flush_tlb_range(k, t, user, oldVpn, oldVpn + LEVEL_PAGES[level]);
  yield* drop_rmap_locks(t, locks);
  return true;
}

/** move_ptes for `count` pages of one table on each side. True when a flush is still to come. */
function* move_ptes(
  k: Kernel,
  t: Task,
  move: TableMove,
  count: number,
  late: boolean,
): Code<boolean> {
  const {mm} = k;
  const {user, oldVpn, newVpn} = move;
  const target = pte_alloc(k, t, user, newVpn);
  const source = slotAt(user.pgd, oldVpn, 0);
  assert(target >= 0 && source >= 0, 'page table to move PTEs between is not there');
  const locks = move.rmapLocks ? yield* take_rmap_locks(k, t, move) : [];
  if (t.cpu.settle()) yield;
  const nested = source >>> 9 !== target >>> 9;
  while (!pte_lock(mm, t, source, mm.fns.move_ptes))
    yield* mm.ptl.spin(t, source >>> 9, mm.fns.move_ptes);
  if (nested) {
    while (!pte_lock(mm, t, target, mm.fns.move_ptes))
      yield* mm.ptl.spin(t, target >>> 9, mm.fns.move_ptes);
  }
  const {moved, present} = moveRun(mm.pt, source, target, count, losesUffdWp(k, move.from));
  const scan = Math.round(count * mm.costs.scanPteTicks);
  t.cpu.charge(moved * mm.costs.movePteTicks + scan + mm.costs.changeTableTicks, mm.fns.move_ptes);
  if (present && !late) {
    mm.ptl.hold(source >>> 9);
    yield* flush_tlb_range(k, t, user, oldVpn, oldVpn + count);
    mm.ptl.unhold(source >>> 9);
  }
  if (nested) pte_unlock(mm, t, target);
  pte_unlock(mm, t, source);
  yield* drop_rmap_locks(t, locks);
  return present && late;
}

/**
 * vma_has_uffd_without_event_remap (6.13+): the new place leaves userfaultfd, and its entries lose
 * their write protection. Before, the bits stayed behind.
 */
export function losesUffdWp(k: Kernel, vma: VmArea): boolean {
  if (vma.uffd === 0 || isBefore(k.facts.version, '6.13')) return false;
  return !(k.mm.hooks.keepsUffdOnRemap?.(vma) ?? false);
}

/** The entries themselves; what moves counts as written to for soft-dirty tracking. */
function moveRun(
  pt: PageTables,
  source: number,
  target: number,
  count: number,
  losesWp: boolean,
): {moved: number; present: boolean} {
  const {flags, entries} = pt;
  let moved = 0;
  let present = false;
  for (let i = 0; i < count; i++) {
    const word = flags[source + i];
    if (word === 0) continue;
    const kind = word & PTE_KIND;
    const soft = kind <= PTE_PROTNONE || kind === PTE_SWAP ? PTE_SOFT_DIRTY : 0;
    if (kind <= PTE_PROTNONE) present = true;
    const goes = losesWp && is_uffd_wp_marker(word, entries[source + i]);
    const kept = losesWp ? word & ~PTE_UFFD_WP : word;
    if (!goes) setPte(pt, target + i, entries[source + i], kept | soft);
    flags[source + i] = 0;
    entries[source + i] = 0;
    moved++;
  }
  pt.population[source >>> 9] -= moved;
  return {moved, present};
}

/** take_rmap_locks: i_mmap_rwsem, then the anon_vma's. */
function* take_rmap_locks(k: Kernel, t: Task, {from}: TableMove): Code<RwSemaphore[]> {
  const {mm} = k;
  const locks: RwSemaphore[] = [];
  if (from.mapping !== null) locks.push(mm.iMmapLock(from.mapping));
  if (from.anonVma !== null) locks.push(mm.anonVmaLock(from.anonVma));
  const fn = mm.fns.move_page_tables;
  for (const lock of locks) if (!lock.writeAcquire(t, fn)) yield* lock.writeAcquireSlow(t, fn);
  return locks;
}

function* drop_rmap_locks(t: Task, locks: readonly RwSemaphore[]): Code {
  for (const lock of [...locks].reverse()) {
    if (!lock.writeRelease(t)) yield* lock.writeReleaseSlow(t);
  }
}
