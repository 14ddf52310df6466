// mm/userfaultfd.c: write protection (UFFDIO_WRITEPROTECT, 5.7+), 6.18. A range is protected and
// released by change_protection, with its notifications; what is not there is marked first, where
// the kind of memory wants that (userfaultfd_markers.ts).

import type {Code} from '../../machine/process.ts';
import {walkSlot} from '../arch/x86/mm/pgtable.ts';
import {PTE_HUGE, PTE_UFFD_WP} from '../arch/x86/mm/pgtable_bits.ts';
import {nextRange, PgtableCursor, startRange} from '../arch/x86/mm/pgtable_range.ts';
import type {Kernel} from '../kernel.ts';
import type {Task} from '../task.ts';
import {VM_FAULT_AGAIN} from './memory.ts';
import {next_settled, pte_alloc, pte_lock, pte_unlock} from './memory_pte.ts';
import {tlb_finish_mmu, tlb_gather_mmu} from './mmu_gather.ts';
import {MM_CP_TRY_CHANGE_WRITABLE, MM_CP_UFFD_WP, MM_CP_UFFD_WP_RESOLVE} from './mprotect_ptes.ts';
import {change_protection, mprotectGathers, vma_wants_writenotify} from './mprotect_walk.ts';
import type {UserMm} from './user_mm.ts';
import {markEmpty, unmarkRun} from './userfaultfd_markers.ts';
import {VM_FAULT_FALLBACK, type VmFault} from './vm_fault.ts';
import {type VmArea, vma_is_anonymous} from './vma.ts';
import {VM_HUGETLB, VM_SHARED, VM_WRITE} from './vma_flags.ts';

/**
 * uffd_wp_range: [start, end) of one VMA is protected or, without `enable`, released.
 * `markEmpties`: entries without a page are marked, too. mmap_lock is held. Pages changed.
 */
export function* uffd_wp_range(
  k: Kernel,
  t: Task,
  user: UserMm,
  vma: VmArea,
  start: number,
  end: number,
  enable: boolean,
  markEmpties: boolean,
): Code<number> {
  const huge = (vma.flags & VM_HUGETLB) !== 0;
  let marked = 0;
  if (enable && markEmpties && !huge) marked = yield* mark(k, t, user, vma, start, end);
  if (!enable && !huge) yield* unmark(k, t, user, start, end);
  let cpFlags = enable ? MM_CP_UFFD_WP : MM_CP_UFFD_WP_RESOLVE;
  // vma_wants_manual_pte_write_upgrade: write access comes back at once where it may.
  const shared = (vma.flags & VM_SHARED) !== 0;
  const upgrades = shared ? vma_wants_writenotify(vma) : (vma.flags & VM_WRITE) !== 0;
  if (!enable && upgrades) cpFlags |= MM_CP_TRY_CHANGE_WRITABLE;
  const tlb = mprotectGathers(k) ? tlb_gather_mmu(user.mm) : null;
  const pages = yield* change_protection(k, t, tlb, vma, start, end, cpFlags, vma.flags);
  if (tlb !== null) yield* tlb_finish_mmu(k, t, tlb);
  return pages + marked;
}

/** Page tables for all of the range, and markers in what is empty. */
function* mark(
  k: Kernel,
  t: Task,
  user: UserMm,
  vma: VmArea,
  start: number,
  end: number,
): Code<number> {
  const {mm} = k;
  let marked = 0;
  for (let vpn = start; vpn < end; ) {
    if (t.cpu.settle()) yield;
    const slot = pte_alloc(k, t, user, vpn);
    const count = Math.min(512 - (vpn % 512), end - vpn);
    if (slot < 0) {
      // A huge page: anonymous ones are protected as they are, others must have entries to mark.
      const pmd = vpn - (vpn % 512);
      if (!vma_is_anonymous(vma) && mm.hooks.split_huge !== null) {
        yield* mm.hooks.split_huge(t, vma, pmdSlot(user, pmd), pmd);
        if (pte_alloc(k, t, user, vpn) >= 0) continue;
      }
      vpn += count;
      continue;
    }
    if (!pte_lock(mm, t, slot, mm.fns.change_pte_range)) {
      yield* mm.ptl.spin(t, slot >>> 9, mm.fns.change_pte_range);
      continue;
    }
    const fresh = markEmpty(mm.pt, slot, count);
    t.cpu.charge(Math.round(count * mm.costs.scanPteTicks), mm.fns.change_pte_range);
    pte_unlock(mm, t, slot);
    marked += fresh;
    vpn += count;
    if (k.sched.needsResched(t)) yield* k.sched.condResched(t);
  }
  return marked;
}

function pmdSlot(user: UserMm, vpn: number): number {
  const cursor = new PgtableCursor();
  startRange(cursor, vpn, vpn + 1);
  nextRange(user.pgd, cursor);
  return cursor.slot;
}

function* unmark(k: Kernel, t: Task, user: UserMm, start: number, end: number): Code {
  const {mm} = k;
  const cursor = new PgtableCursor();
  startRange(cursor, start, end);
  while (yield* next_settled(t, user, cursor)) {
    if (cursor.level > 0) continue;
    const {slot, count} = cursor;
    while (!pte_lock(mm, t, slot, mm.fns.change_pte_range))
      yield* mm.ptl.spin(t, slot >>> 9, mm.fns.change_pte_range);
    unmarkRun(mm.pt, slot, count);
    pte_unlock(mm, t, slot);
  }
}

/**
 * Asynchronous write protection (6.7+): the fault itself takes the protection away and goes on.
 * What a hook of a fault returns.
 */
export function* uffd_clear_wp_async(k: Kernel, t: Task, f: VmFault): Code<number> {
  const {mm} = k;
  const {flags} = mm.pt;
  const slot = f.slot;
  if (t.cpu.settle()) yield;
  const huge = (flags[slot] & PTE_HUGE) !== 0;
  if (huge && (f.vma.flags & VM_HUGETLB) === 0) {
    yield* mm.hooks.split_huge!(t, f.vma, slot, f.vpn - (f.vpn % 512));
    return VM_FAULT_FALLBACK;
  }
  while (!pte_lock(mm, t, slot, mm.fns.do_wp_page))
    yield* mm.ptl.spin(t, slot >>> 9, mm.fns.do_wp_page);
  const same = flags[slot] === f.word && walkSlot(f.user.pgd, f.vpn) === slot;
  if (same) mm.pt.flags[slot] = f.word & ~PTE_UFFD_WP;
  pte_unlock(mm, t, slot);
  return VM_FAULT_AGAIN;
}
