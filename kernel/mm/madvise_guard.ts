// mm/madvise.c: guard regions (MADV_GUARD_INSTALL, MADV_GUARD_REMOVE; 6.13+). A marker in the page
// table in place of a page: touching it is SIGSEGV, without a VMA of its own. Installing needs page
// tables for all of the range, and an anon_vma, so that fork copies the markers. What is mapped in
// the range is zapped first; whoever faults in between makes the call try again.

import type {Code} from '../../machine/process.ts';
import {type PageTables, pteClear, setPte} from '../arch/x86/mm/pgtable.ts';
import {MARKER_GUARD, PTE_KIND, PTE_MARKER} from '../arch/x86/mm/pgtable_bits.ts';
import {PgtableCursor, startRange} from '../arch/x86/mm/pgtable_range.ts';
import {EINVAL, ENOMEM} from '../errno.ts';
import type {Kernel} from '../kernel.ts';
import type {Task} from '../task.ts';
import {isBefore} from '../version.ts';
import {anon_vma_prepare} from './memory_anon.ts';
import {next_settled, pte_alloc, pte_lock, pte_unlock} from './memory_pte.ts';
import {zap_page_range_single} from './memory_zap.ts';
import type {UserMm} from './user_mm.ts';
import {type VmArea, vma_is_anonymous} from './vma.ts';
import {is_cow_mapping, VM_HUGETLB, VM_LOCKED, VM_SPECIAL} from './vma_flags.ts';

/** MAX_MADVISE_GUARD_RETRIES, after which the system call is restarted from the beginning. */
const MAX_RETRIES = 3;

/** is_valid_guard_vma: private anonymous memory only in 6.13 and 6.14. */
function is_valid_guard_vma(k: Kernel, vma: VmArea, allowLocked: boolean): boolean {
  const disallowed = VM_SPECIAL | VM_HUGETLB | (allowLocked ? 0 : VM_LOCKED);
  if ((vma.flags & disallowed) !== 0) return false;
  if (!isBefore(k.facts.version, '6.15')) return true;
  return vma_is_anonymous(vma) && is_cow_mapping(vma.flags);
}

/** Installs markers in [start, end) of one VMA: 0, -EINVAL or -ENOMEM. */
export function* madvise_guard_install(
  k: Kernel,
  t: Task,
  user: UserMm,
  vma: VmArea,
  start: number,
  end: number,
): Code<number> {
  if (!is_valid_guard_vma(k, vma, false)) return -EINVAL;
  anon_vma_prepare(k, t, vma, 0);
  for (let tries = 0; ; tries++) {
    const found = yield* installMarkers(k, t, user, start, end);
    if (found < 0) return -ENOMEM;
    if (found === 0) return 0;
    yield* zap_page_range_single(k, t, vma, start, end, null);
    // ERESTARTNOINTR gives mmap_lock up and comes back; the lock is kept here.
    if (tries >= MAX_RETRIES && k.sched.needsResched(t)) yield* k.sched.condResched(t);
  }
}

/**
 * Sets markers in empty entries. Returns how many entries hold something else, -1 without memory.
 */
function* installMarkers(
  k: Kernel,
  t: Task,
  user: UserMm,
  start: number,
  end: number,
): Code<number> {
  const {mm} = k;
  const {pt, costs, fns} = mm;
  for (let vpn = start; vpn < end; ) {
    if (t.cpu.settle()) yield;
    const slot = pte_alloc(k, t, user, vpn);
    // A huge page is in the way: zapping takes or splits it.
    if (slot < 0) return 1;
    const count = Math.min(512 - (slot & 511), end - vpn);
    if (!pte_lock(mm, t, slot, fns.madvise_guard_install)) {
      yield* mm.ptl.spin(t, slot >>> 9, fns.madvise_guard_install);
      continue;
    }
    const found = markRun(pt, slot, count);
    t.cpu.charge(count * costs.advisePteTicks, fns.madvise_guard_install);
    pte_unlock(mm, t, slot);
    if (found > 0) return found;
    vpn += count;
    if (k.sched.needsResched(t)) yield* k.sched.condResched(t);
  }
  return 0;
}

function markRun(pt: PageTables, slot: number, count: number): number {
  for (let at = slot; at < slot + count; at++) {
    if (pt.flags[at] !== 0 && !isGuard(pt, at)) return 1;
    if (pt.flags[at] === 0) setPte(pt, at, MARKER_GUARD, PTE_MARKER);
  }
  return 0;
}

function isGuard(pt: PageTables, slot: number): boolean {
  return (pt.flags[slot] & PTE_KIND) === PTE_MARKER && (pt.entries[slot] & MARKER_GUARD) !== 0;
}

/** Takes the markers of [start, end) of one VMA away: 0 or -EINVAL. Nothing is flushed. */
export function* madvise_guard_remove(
  k: Kernel,
  t: Task,
  user: UserMm,
  vma: VmArea,
  start: number,
  end: number,
): Code<number> {
  if (!is_valid_guard_vma(k, vma, true)) return -EINVAL;
  const {mm} = k;
  const {pt, costs, fns} = mm;
  const cursor = new PgtableCursor();
  startRange(cursor, start, end);
  while (yield* next_settled(t, user, cursor)) {
    if (cursor.level > 0) continue;
    const {slot, count} = cursor;
    while (!pte_lock(mm, t, slot, fns.madvise_guard_install))
      yield* mm.ptl.spin(t, slot >>> 9, fns.madvise_guard_install);
    for (let at = slot; at < slot + count; at++) if (isGuard(pt, at)) pteClear(pt, at);
    t.cpu.charge(count * costs.advisePteTicks, fns.madvise_guard_install);
    pte_unlock(mm, t, slot);
    if (k.sched.needsResched(t)) yield* k.sched.condResched(t);
  }
  return 0;
}
