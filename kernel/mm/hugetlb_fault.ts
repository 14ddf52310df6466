// mm/hugetlb.c, 6.18: hugetlb_fault and what it leads to. Serialised by the fault mutex of the
// file's huge page and the vma lock for reading; the entry changes under its table's lock. Nothing
// is told to notifiers but the copy (CLEAR, one huge page). rss knows nothing of huge pages of a
// pool: hugetlb_usage counts them.
//
// A private copy that the pool has no page for is the child's SIGBUS; but the owner of the mapping,
// who has reserved, gets his page by taking it from the children (unmap_ref_private): a child that
// touches it again is killed.

import type {Code} from '../../machine/process.ts';
import {pteClear, pteValue, setHuge} from '../arch/x86/mm/pgtable.ts';
import {
  is_migration_entry,
  MARKER_POISONED,
  PTE_DIRTY,
  PTE_KIND,
  PTE_MARKER,
  PTE_PRESENT,
  PTE_PROTNONE,
  PTE_SOFT_DIRTY,
  PTE_UFFD_WP,
  PTE_WRITE,
  PTE_YOUNG,
} from '../arch/x86/mm/pgtable_bits.ts';
import type {Kernel} from '../kernel.ts';
import type {Task} from '../task.ts';
import {hugetlbWork} from './costs_hugetlb.ts';
import {addEntireMapping, folio_mapcount, removeEntireMapping} from './folio_counts.ts';
import {
  alloc_hugetlb_folio,
  clear_huge_page,
  copy_huge_page,
  put_unused_folio,
} from './hugetlb_alloc.ts';
import {hugetlb_page} from './hugetlb_inode.ts';
import type {HState} from './hugetlb_pool.ts';
import {is_resv_owner, vma_hugecache_offset} from './hugetlb_resv.ts';
import {hugetlb_walk, huge_pte_alloc} from './hugetlb_share.ts';
import {unmap_hugepage_range} from './hugetlb_unmap.ts';
import {anon_vma_prepare} from './memory_anon.ts';
import {pte_lock, pte_unlock} from './memory_pte.ts';
import {
  mmu_notifier_invalidate_range_end,
  mmu_notifier_invalidate_range_start,
} from './mmu_notifier.ts';
import {MMU_NOTIFY_CLEAR, MmuNotifierRange} from './mmu_notifier_types.ts';
import {folio_test_anon, MAPPING_ANON, MAPPING_FILE, setMapping, setMappingOwner} from './page.ts';
import {folio_put} from './page_alloc.ts';
import {PG_anon_exclusive} from './page_flags.ts';
import {
  FAULT_COW,
  FAULT_FLAG_UNSHARE,
  FAULT_FLAG_WRITE,
  FAULT_HUGE,
  FAULT_REUSE,
  UFFD_REASON_MINOR,
  VM_FAULT_HWPOISON,
  VM_FAULT_OOM,
  VM_FAULT_SIGBUS,
  type VmFault,
} from './vm_fault.ts';
import {is_uffd_wp_marker, userfaultfd_wp} from './userfaultfd_markers.ts';
import {linear_page_index, type VmArea} from './vma.ts';
import {
  VM_HIGH_UFFD_MINOR,
  VM_MAYSHARE,
  VM_SHARED,
  VM_UFFD_MISSING,
  VM_UFFD_WP,
  VM_WRITE,
} from './vma_flags.ts';

/** One fault, its address at the first small page of the huge page. */
interface HugetlbFault {
  readonly f: VmFault;
  readonly h: HState;
  readonly vpn: number;
  readonly index: number;
  slot: number;
}

/** hugetlb_fault: VM_FAULT_ bits. */
export function* hugetlb_fault(k: Kernel, t: Task, f: VmFault): Code<number> {
  const {mm} = k;
  const {vma} = f;
  const {h} = vma.mapping!.hugetlb!;
  const {fns, costs} = hugetlbWork(k);
  const {locks} = mm.hugetlb;
  const vpn = f.vpn - ((f.vpn - vma.start) % h.pages);
  const index = vma_hugecache_offset(h, vma, vpn);
  t.cpu.charge(costs.hugetlbFaultTicks, fns.hugetlb_fault);
  const mutex = locks.faultMutex(vma.mapping!, index);
  if (!mutex.acquire(t, fns.hugetlb_fault)) yield* mutex.acquireSlow(t, fns.hugetlb_fault);
  const lock = yield* locks.lock_read(t, vma, fns.hugetlb_fault);
  const fault: HugetlbFault = {f, h, vpn, index, slot: -1};
  fault.slot = yield* huge_pte_alloc(k, t, f.user, h, vma, vpn);
  let result = fault.slot < 0 ? VM_FAULT_OOM : yield* handle(k, t, fault);
  yield* locks.unlock_read(t, lock);
  if (!mutex.release(t)) yield* mutex.releaseSlow(t);
  if (result === MIGRATING) result = yield* mm.hooks.migration_entry_wait!(t, f);
  if (result === USERFAULT) {
    const reason = f.uffdReason;
    f.uffdReason = 0;
    result = yield* mm.hooks.handle_userfault!(t, f, reason);
  }
  if (result === NO_PAGE_FOR_OWNER) result = yield* takeFromChildren(k, t, fault);
  return result;
}
/** Not a bit of Linux's: the owner's copy failed, the children must give the page up. */
const NO_PAGE_FOR_OWNER = -1;
/** The page is on the move: wait for it without any lock, and look again. */
const MIGRATING = -2;
/** hugetlb_handle_userfault: without any lock of hugetlb, for f.uffdReason. */
const USERFAULT = -3;

function userfault(f: VmFault, reason: number): number {
  f.uffdReason = reason;
  return USERFAULT;
}

function* handle(k: Kernel, t: Task, fault: HugetlbFault): Code<number> {
  const {mm} = k;
  const {f, slot} = fault;
  if (t.cpu.settle()) yield;
  const word = mm.pt.flags[slot];
  f.slot = slot;
  f.pmdSlot = slot;
  f.word = word;
  if (word === 0) return yield* hugetlb_no_page(k, t, fault);
  f.value = pteValue(mm.pt, slot);
  if ((word & PTE_KIND) === PTE_MARKER) {
    if ((f.value & MARKER_POISONED) !== 0) return VM_FAULT_HWPOISON;
    return yield* hugetlb_no_page(k, t, fault);
  }
  if (is_migration_entry(word)) return MIGRATING;
  const {fns} = hugetlbWork(k);
  while (!pte_lock(mm, t, slot, fns.hugetlb_fault))
    yield* mm.ptl.spin(t, slot >>> 9, fns.hugetlb_fault);
  let result = 0;
  if (mm.pt.flags[slot] === word) {
    const write = (f.flags & (FAULT_FLAG_WRITE | FAULT_FLAG_UNSHARE)) !== 0;
    const trapped = (word & PTE_UFFD_WP) !== 0 && (f.flags & FAULT_FLAG_WRITE) !== 0;
    if (trapped && userfaultfd_wp(f.vma)) result = userfault(f, VM_UFFD_WP);
    else if (write && (word & PTE_WRITE) === 0) result = yield* hugetlb_wp(k, t, fault);
    else mm.pt.flags[slot] |= touched(f);
  }
  pte_unlock(mm, t, slot);
  return result;
}

/** huge_ptep_set_access_flags. */
function touched(f: VmFault): number {
  const dirty = (f.flags & FAULT_FLAG_WRITE) === 0 ? 0 : PTE_DIRTY | PTE_SOFT_DIRTY;
  return PTE_YOUNG | dirty;
}

/** make_huge_pte: writable from the start where that is `mayWrite` and the VMA's right. */
export function make_huge_pte(vma: VmArea, mayWrite: boolean): number {
  const base = PTE_PRESENT | PTE_YOUNG;
  if (!mayWrite || (vma.flags & VM_WRITE) === 0) return base;
  return base | PTE_WRITE | PTE_DIRTY | PTE_SOFT_DIRTY;
}

/** hugetlb_add_new_anon_rmap: the page belongs to this VMA alone; its reservation is used up. */
export function hugetlb_add_new_anon_rmap(k: Kernel, head: number, vma: VmArea, vpn: number): void {
  const {pages} = k.mm;
  k.mm.hugetlb.restoreReserve.delete(head);
  setMapping(pages, head, MAPPING_ANON, vma.anonVma!.id, linear_page_index(vma, vpn));
  addEntireMapping(pages, head);
  pages.flags[head] |= PG_anon_exclusive;
}

/**
 * hugetlb_no_page: from the file, or a new page; a private write copies the file's page at once.
 */
function* hugetlb_no_page(k: Kernel, t: Task, fault: HugetlbFault): Code<number> {
  const {mm} = k;
  const {f, h, vpn, index} = fault;
  const {vma} = f;
  const mapping = vma.mapping!;
  const {fns} = hugetlbWork(k);
  const shared = (vma.flags & VM_MAYSHARE) !== 0;
  if (mm.hugetlb.lostPages.has(vma)) {
    k.checks.warn('hugetlb: a task was killed due to an inadequate hugepage pool');
    return VM_FAULT_SIGBUS;
  }
  let head = hugetlb_page(k, mapping, index);
  const fresh = head === 0;
  if (fresh) {
    if (index >= Math.floor(mapping.sizePages / h.pages)) return VM_FAULT_SIGBUS;
    const missing = vma.uffd !== 0 && (vma.flags & VM_UFFD_MISSING) !== 0;
    if (missing) return userfault(f, VM_UFFD_MISSING);
    if (!shared) anon_vma_prepare(k, t, vma, f.flags);
    head = alloc_hugetlb_folio(k, t, h, vma, vpn, false);
    // -ENOSPC: the reservation is missing, and so is a page.
    if (head === 0) return VM_FAULT_SIGBUS;
    clear_huge_page(k, t, h, head);
    if (shared) addToFile(k, fault, head);
    if (k.sched.needsResched(t)) yield* k.sched.condResched(t);
  } else if (vma.uffd !== 0 && (vma.flagsHigh & VM_HIGH_UFFD_MINOR) !== 0) {
    return userfault(f, UFFD_REASON_MINOR);
  }
  const {slot} = fault;
  if (t.cpu.settle()) yield;
  while (!pte_lock(mm, t, slot, fns.hugetlb_no_page)) {
    yield* mm.ptl.spin(t, slot >>> 9, fns.hugetlb_no_page);
  }
  if (mm.pt.flags[slot] !== f.word) {
    // Somebody who shares the table was faster.
    pte_unlock(mm, t, slot);
    if (fresh && !shared) put_unused_folio(k, t, h, vma, vpn, head);
    return 0;
  }
  if (fresh && !shared) hugetlb_add_new_anon_rmap(k, head, vma, vpn);
  else addEntireMapping(mm.pages, head);
  if (!fresh || shared) mm.pages.refcount.increment(head);
  t.cpu.charge(mm.costs.setPteTicks, fns.hugetlb_no_page);
  const marked = is_uffd_wp_marker(f.word, f.value) && userfaultfd_wp(vma);
  if (f.word !== 0) pteClear(mm.pt, slot);
  setHuge(mm.pt, slot, head, make_huge_pte(vma, (vma.flags & VM_SHARED) !== 0));
  // What was protected before it was there stays so.
  if (marked) mm.pt.flags[slot] = (mm.pt.flags[slot] | PTE_UFFD_WP) & ~PTE_WRITE;
  f.user.hugetlbUsage += h.pages;
  f.faultClass = FAULT_HUGE;
  let result = 0;
  if ((f.flags & FAULT_FLAG_WRITE) !== 0 && (vma.flags & VM_SHARED) === 0) {
    result = yield* hugetlb_wp(k, t, fault);
    if (f.faultClass === FAULT_REUSE) f.faultClass = FAULT_HUGE;
  }
  pte_unlock(mm, t, slot);
  return result;
}

/** hugetlb_add_to_page_cache: the file's reference is the one the page came with. */
function addToFile(k: Kernel, {f, h, index}: HugetlbFault, head: number): void {
  const {mm} = k;
  const mapping = f.vma.mapping!;
  mm.hugetlb.restoreReserve.delete(head);
  mm.files.addPage(mapping, index * h.pages, head);
  setMapping(mm.pages, head, MAPPING_FILE, mapping.id, index * h.pages);
}

/**
 * hugetlb_wp: a write to a page that is mapped read-only. The table's lock is held, and held again
 * at the end.
 */
function* hugetlb_wp(k: Kernel, t: Task, fault: HugetlbFault): Code<number> {
  const {mm} = k;
  const {f, h, vpn, slot} = fault;
  const {vma} = f;
  const unshare = (f.flags & FAULT_FLAG_UNSHARE) !== 0;
  const {pages} = mm;
  const word = mm.pt.flags[slot];
  if (!unshare && (word & PTE_UFFD_WP) !== 0) return 0;
  const writable = PTE_WRITE | PTE_DIRTY | PTE_SOFT_DIRTY | PTE_YOUNG;
  const mayWrite = (vma.flags & VM_WRITE) === 0 ? 0 : writable;
  t.cpu.charge(mm.costs.wpBaseTicks, hugetlbWork(k).fns.hugetlb_wp);
  if ((vma.flags & VM_MAYSHARE) !== 0) {
    mm.pt.flags[slot] = word | mayWrite;
    f.faultClass = FAULT_REUSE;
    return 0;
  }
  const old = pteValue(mm.pt, slot);
  const anon = folio_test_anon(pages, old);
  if (anon && folio_mapcount(pages, old) === 1) {
    if ((pages.flags[old] & PG_anon_exclusive) === 0) {
      if (vma.anonVma !== null) setMappingOwner(pages, old, MAPPING_ANON, vma.anonVma.id);
      pages.flags[old] |= PG_anon_exclusive;
    }
    if (!unshare) mm.pt.flags[slot] = word | mayWrite;
    f.faultClass = FAULT_REUSE;
    return 0;
  }
  const fromOwner = anon && is_resv_owner(vma);
  pages.refcount.increment(old);
  pte_unlock(mm, t, slot);
  const fresh = alloc_hugetlb_folio(k, t, h, vma, vpn, fromOwner);
  let result = 0;
  if (fresh === 0) result = fromOwner ? NO_PAGE_FOR_OWNER : VM_FAULT_SIGBUS;
  else yield* copyTo(k, t, fault, word, old, fresh, !unshare);
  folio_put(k, t, old);
  yield* relock(k, t, slot);
  return result;
}

function* relock(k: Kernel, t: Task, slot: number): Code {
  const {mm} = k;
  const fn = hugetlbWork(k).fns.hugetlb_wp;
  if (t.cpu.settle()) yield;
  while (!pte_lock(mm, t, slot, fn)) yield* mm.ptl.spin(t, slot >>> 9, fn);
}

/**
 * The second half of hugetlb_wp: copies, and puts the copy in the old page's place inside S and E.
 */
function* copyTo(
  k: Kernel,
  t: Task,
  fault: HugetlbFault,
  word: number,
  old: number,
  fresh: number,
  mayWrite: boolean,
): Code {
  const {mm} = k;
  const {f, h, vpn} = fault;
  const {vma} = f;
  anon_vma_prepare(k, t, vma, f.flags);
  copy_huge_page(k, t, h, fresh, old);
  const end = vpn + h.pages;
  const range = new MmuNotifierRange(MMU_NOTIFY_CLEAR, f.mm, vma, vpn, end, 'hugetlb_wp');
  yield* mmu_notifier_invalidate_range_start(k, t, range);
  yield* relock(k, t, fault.slot);
  const slot = hugetlb_walk(f.user, h, vpn);
  const same = slot === fault.slot && mm.pt.flags[slot] === word;
  if (same) {
    pteClear(mm.pt, slot);
    mm.ptl.hold(slot >>> 9);
    yield* k.tlb.flush_tlb_mm_range(t, f.mm, vpn, end, false, 512);
    mm.ptl.unhold(slot >>> 9);
    removeEntireMapping(mm.pages, old);
    hugetlb_add_new_anon_rmap(k, fresh, vma, vpn);
    setHuge(mm.pt, slot, fresh, make_huge_pte(vma, mayWrite));
    f.faultClass = FAULT_COW;
  }
  pte_unlock(mm, t, fault.slot);
  yield* mmu_notifier_invalidate_range_end(k, t, range);
  if (same) folio_put(k, t, old);
  else put_unused_folio(k, t, h, vma, vpn, fresh);
}

/** The owner's copy failed: unmap_ref_private with no lock held, and the fault is taken again. */
function* takeFromChildren(k: Kernel, t: Task, fault: HugetlbFault): Code<number> {
  const {f, vpn, slot, h} = fault;
  if (hugetlb_walk(f.user, h, vpn) !== slot) return 0;
  const kind = k.mm.pt.flags[slot] & PTE_KIND;
  if (kind === PTE_PRESENT || kind === PTE_PROTNONE) {
    yield* unmap_ref_private(k, t, fault, pteValue(k.mm.pt, slot));
  }
  return yield* hugetlb_fault(k, t, f);
}

/**
 * unmap_ref_private: takes `head` away from every private mapping that has no reservation of its
 * own.
 */
function* unmap_ref_private(k: Kernel, t: Task, fault: HugetlbFault, head: number): Code {
  const {mm} = k;
  const {f, h, vpn} = fault;
  const {fns} = hugetlbWork(k);
  const mapping = f.vma.mapping!;
  const index = linear_page_index(f.vma, vpn);
  const lock = mm.iMmapLock(mapping);
  const fn = fns.unmap_ref_private;
  if (!lock.writeAcquire(t, fn)) yield* lock.writeAcquireSlow(t, fn);
  const others: VmArea[] = [];
  const {forest} = mm.files;
  for (let node = forest.iterFirst(mapping, index, index); node !== 0; ) {
    const vma = forest.item[node]!;
    if (vma !== f.vma && (vma.flags & VM_MAYSHARE) === 0 && !is_resv_owner(vma)) others.push(vma);
    node = forest.iterNext(node, index, index);
  }
  for (const vma of others) {
    const at = vma.start + (index - vma.pgoff);
    yield* unmap_hugepage_range(k, t, vma, at, at + h.pages, head);
  }
  if (!lock.writeRelease(t)) yield* lock.writeReleaseSlow(t);
}
