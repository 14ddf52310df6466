// mm/gup.c: the kernel reaching for user pages itself (mlock, MAP_POPULATE, arguments of exec,
// drivers). Faults taken here are handled as any other, but are no exceptions: they cost no trap
// and no page_fault record. A write to a page that is not writable breaks COW first; a pin
// (FOLL_PIN) of an anonymous page needs it exclusive, so a read pin of a shared one unshares it
// (5.19+).

import type {Code} from '../../machine/process.ts';
import {LEAF, walkSlot} from '../arch/x86/mm/pgtable.ts';
import {
  PTE_HUGE,
  PTE_KIND,
  PTE_PRESENT,
  PTE_SPECIAL,
  PTE_WRITE,
} from '../arch/x86/mm/pgtable_bits.ts';
import {EFAULT, ENOMEM} from '../errno.ts';
import type {Kernel} from '../kernel.ts';
import type {MmStruct} from '../mm_types.ts';
import type {Task} from '../task.ts';
import {isBefore} from '../version.ts';
import {folio_get, pinFolio, unpinFolio} from './folio_counts.ts';
import {handle_mm_fault, is_fault_error} from './memory.ts';
import {mmap_read_lock} from './mmap_lock.ts';
import {compound_head, folio_test_anon} from './page.ts';
import {__folio_put} from './page_alloc.ts';
import {PG_anon_exclusive} from './page_flags.ts';
import {MMF_HAS_PINNED, type UserMm} from './user_mm.ts';
import {
  FAULT_FLAG_ALLOW_RETRY,
  FAULT_FLAG_REMOTE,
  FAULT_FLAG_UNSHARE,
  FAULT_FLAG_WRITE,
  VM_FAULT_OOM,
  VM_FAULT_UNLOCKED,
} from './vm_fault.ts';
import type {VmArea} from './vma.ts';
import {is_cow_mapping, VM_ACCESS, VM_IO, VM_PFNMAP, VM_SHARED, VM_WRITE} from './vma_flags.ts';

/** FOLL_ flags that make a difference here. */
export const FOLL_WRITE = 1;
export const FOLL_PIN = 2;
export const FOLL_LONGTERM = 4;

/**
 * follow_page_mask: pfn mapped at `vpn` with enough rights, 0 for the page of zeros or a pfn map,
 * -1 when a fault is needed.
 */
export function follow_page(k: Kernel, user: UserMm, vpn: number, foll: number): number {
  const {pt} = k.mm;
  const slot = walkSlot(user.pgd, vpn);
  const word = pt.flags[slot];
  if ((word & PTE_KIND) !== PTE_PRESENT) return -1;
  if ((foll & FOLL_WRITE) !== 0 && (word & PTE_WRITE) === 0) return -1;
  const special = (word & PTE_SPECIAL) !== 0;
  const span = (word & PTE_HUGE) === 0 ? 0 : vpn % (pt.level[slot >>> 9] === 1 ? 512 : 2 ** 18);
  const first = special ? 0 : pt.entries[slot] & ~LEAF;
  const pfn = special ? 0 : first + span;
  if ((foll & FOLL_PIN) === 0 || (word & PTE_WRITE) !== 0) return pfn;
  return gup_must_unshare(k, user, vpn, first, foll) ? -1 : pfn;
}

/**
 * gup_must_unshare, for a page that is pinned and not mapped writable: an anonymous page that is
 * not exclusive (5.19+); for long, anything else in a COW mapping (6.2+). `pfn`: the page that the
 * entry names, which says for all of a huge mapping whether it is exclusive; 0: the page of zeros.
 */
function gup_must_unshare(
  k: Kernel,
  user: UserMm,
  vpn: number,
  pfn: number,
  foll: number,
): boolean {
  const {pages, cowRule} = k.mm;
  if (cowRule !== 'exclusive') return false;
  if (pfn !== 0 && folio_test_anon(pages, compound_head(pages, pfn))) {
    return (pages.flags[pfn] & PG_anon_exclusive) === 0;
  }
  if ((foll & FOLL_LONGTERM) === 0 || isBefore(k.facts.version, '6.2')) return false;
  const vma = user.space.tree.lookup(vpn);
  return vma !== null && is_cow_mapping(vma.flags);
}

/**
 * __get_user_pages for one page: pfn with a reference (or, with FOLL_PIN, a pin), 0 for a page
 * without struct page; -EFAULT or -ENOMEM. mmap_lock is held for read or write; with `unlockable`
 * (FOLL_UNLOCKABLE) for read, and it may be given up in between, to wait for userfaultfd's reader.
 */
export function* get_user_page(
  k: Kernel,
  t: Task,
  mm: MmStruct,
  vma: VmArea,
  vpn: number,
  foll: number,
  unlockable = false,
): Code<number> {
  const user = k.mm.userOf(mm);
  const needed = (foll & FOLL_WRITE) === 0 ? VM_ACCESS : VM_WRITE;
  let area: VmArea | null = vma;
  for (;;) {
    if (area === null || (area.flags & (VM_IO | VM_PFNMAP)) !== 0) return -EFAULT;
    if ((area.flags & needed) === 0) return -EFAULT;
    const pfn = follow_page(k, user, vpn, foll);
    if (pfn >= 0) {
      takeReference(k, user, pfn, foll);
      return pfn;
    }
    const retry = unlockable && area.uffd !== 0 ? FAULT_FLAG_ALLOW_RETRY : 0;
    const flags = faultFlags(k, t, mm, user, vpn, foll) | retry;
    const result: number = yield* handle_mm_fault(k, t, mm, area, vpn, flags);
    if ((result & VM_FAULT_UNLOCKED) !== 0) area = yield* relockVma(k, t, user, vpn);
    if (is_fault_error(result)) return (result & VM_FAULT_OOM) === 0 ? -EFAULT : -ENOMEM;
    if (t.sigkill) return -EFAULT;
  }
}

/**
 * mmap_lock was given up while a fault waited (VM_FAULT_UNLOCKED): takes it again. The VMA that now
 * has the page, null for none.
 */
export function* relockVma(k: Kernel, t: Task, user: UserMm, vpn: number): Code<VmArea | null> {
  yield* mmap_read_lock(t, user, k.mm.fns.mm_populate);
  return user.space.tree.lookup(vpn);
}

function faultFlags(
  k: Kernel,
  t: Task,
  mm: MmStruct,
  user: UserMm,
  vpn: number,
  foll: number,
): number {
  const remote = t.mm === mm ? 0 : FAULT_FLAG_REMOTE;
  if ((foll & FOLL_WRITE) !== 0) return remote | FAULT_FLAG_WRITE;
  // A page that is mapped and still not good enough is a shared one to be pinned.
  return follow_page(k, user, vpn, 0) >= 0 ? remote | FAULT_FLAG_UNSHARE : remote;
}

function takeReference(k: Kernel, user: UserMm, pfn: number, foll: number): void {
  if (pfn === 0) return;
  const {pages} = k.mm;
  const head = compound_head(pages, pfn);
  if ((foll & FOLL_PIN) === 0) {
    folio_get(pages, head);
    return;
  }
  user.flags |= MMF_HAS_PINNED;
  pinFolio(pages, head, 1);
}

/** unpin_user_page. */
export function unpin_user_page(k: Kernel, t: Task, pfn: number): void {
  const {pages} = k.mm;
  const head = compound_head(pages, pfn);
  if (unpinFolio(pages, head, 1)) __folio_put(k, t, head);
}

/**
 * populate_vma_page_range: faults [start, end) of a VMA in, as mlock and MAP_POPULATE do: private
 * writable memory for writing, everything else for reading. Returns 0, -EFAULT or -ENOMEM. With
 * `unlockable` as get_user_page; the VMA may be gone afterwards.
 */
export function* populate_vma_page_range(
  k: Kernel,
  t: Task,
  mm: MmStruct,
  vma: VmArea,
  start: number,
  end: number,
  unlockable = false,
): Code<number> {
  const user = k.mm.userOf(mm);
  let area = vma;
  const breaksCow = (vma.flags & (VM_WRITE | VM_SHARED)) === VM_WRITE;
  const foll = breaksCow ? FOLL_WRITE : 0;
  if ((vma.flags & (VM_IO | VM_PFNMAP)) !== 0) return 0;
  if ((vma.flags & VM_ACCESS) === 0) return -EFAULT;
  let faulted = -1;
  for (let vpn = start; vpn < end; ) {
    if (follow_page(k, user, vpn, foll) >= 0) {
      if (vpn !== faulted) t.cpu.charge(k.mm.costs.populatePageTicks, k.mm.fns.mm_populate);
      vpn++;
      continue;
    }
    faulted = vpn;
    const retry = unlockable && area.uffd !== 0 ? FAULT_FLAG_ALLOW_RETRY : 0;
    const flags = (breaksCow ? FAULT_FLAG_WRITE : 0) | retry;
    const result = yield* handle_mm_fault(k, t, mm, area, vpn, flags);
    if ((result & VM_FAULT_UNLOCKED) !== 0) {
      const again = yield* relockVma(k, t, user, vpn);
      // Somebody has mapped something else meanwhile: its own business.
      if (again === null || (again.flags & VM_ACCESS) === 0) return 0;
      area = again;
    }
    if (is_fault_error(result)) return (result & VM_FAULT_OOM) === 0 ? -EFAULT : -ENOMEM;
    if (t.sigkill) return -EFAULT;
    if (k.sched.needsResched(t)) yield* k.sched.condResched(t);
  }
  return 0;
}
