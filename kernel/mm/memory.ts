// mm/memory.c: page faults (handle_mm_fault), 6.18.
//
// A fault has two halves. try_handle_mm_fault is plain code that does all of an uncontended minor
// fault in one go, at the time at which it was called; where the kernel would sleep, it returns
// what must be waited for (memory_need.ts) and has changed nothing. handle_mm_fault waits and tries
// again, looking at the page table anew each time. Locks: the caller holds mmap_lock for read or
// the VMA's lock; PTEs change under the page-table lock (leaf_lock.ts).

import {assert, bug} from '../../machine/assert.ts';
import type {Code} from '../../machine/process.ts';
import {LEAF, pteSlot, pteValue, walkSlot} from '../arch/x86/mm/pgtable.ts';
import {
  is_migration_entry,
  MARKER_GUARD,
  MARKER_POISONED,
  PTE_DEVICE_EXCLUSIVE,
  PTE_DEVICE_READ,
  PTE_DIRTY,
  PTE_HUGE,
  PTE_HWPOISON,
  PTE_KIND,
  PTE_MARKER,
  PTE_PRESENT,
  PTE_PROTNONE,
  PTE_SOFT_DIRTY,
  PTE_SWAP,
  PTE_WRITE,
  PTE_YOUNG,
} from '../arch/x86/mm/pgtable_bits.ts';
import type {Kernel} from '../kernel.ts';
import type {MmStruct} from '../mm_types.ts';
import type {Task} from '../task.ts';
import {filemap_read} from './filemap.ts';
import {do_anonymous_page} from './memory_anon.ts';
import {do_fault} from './memory_file.ts';
import {
  NEED_COW,
  NEED_HOOK,
  NEED_HUGE,
  NEED_MEMORY,
  NEED_PTL,
  NEED_READ,
  NEED_SHMEM,
} from './memory_need.ts';
import {pte_lock, pte_unlock} from './memory_pte.ts';
import {try_do_swap_page} from './memory_swap.ts';
import {do_wp_page, wp_page_copy_slow} from './memory_wp.ts';
import {alloc_folio_slow, folio_put} from './page_alloc.ts';
import {MMF_UNSTABLE} from './user_mm.ts';
import {
  FAULT_FLAG_KILLABLE,
  FAULT_FLAG_REMOTE,
  FAULT_FLAG_UNSHARE,
  FAULT_FLAG_WRITE,
  FAULT_MAJOR,
  FAULT_SPURIOUS,
  VM_FAULT_ERROR,
  VM_FAULT_FALLBACK,
  VM_FAULT_HWPOISON,
  VM_FAULT_MAJOR,
  VM_FAULT_OOM,
  VM_FAULT_RETRY,
  VM_FAULT_SIGBUS,
  VM_FAULT_SIGSEGV,
  VmFault,
} from './vm_fault.ts';
import {faultOnUffdWpMarker, userfaultfd_wp} from './userfaultfd_markers.ts';
import {linear_page_index, type VmArea, vma_is_anonymous} from './vma.ts';
import {VM_ACCESS, VM_HUGETLB, VM_SHARED} from './vma_flags.ts';

/**
 * handle_mm_fault: FAULT_FLAG_ bits in, VM_FAULT_ bits out; the FAULT_ class is in
 * k.mm.lastFaultClass. The caller holds mmap_lock for read (or the VMA's lock and passes
 * FAULT_FLAG_VMA_LOCK), and keeps it: this never drops it.
 */
export function* handle_mm_fault(
  k: Kernel,
  t: Task,
  mm: MmStruct,
  vma: VmArea,
  vpn: number,
  flags: number,
): Code<number> {
  if (t.cpu.settle()) yield;
  const f = new VmFault(mm, mm.user!, vma, vpn, flags);
  return yield* finish_mm_fault(k, t, f);
}

/** handle_mm_fault for a VmFault of the caller's own; the task has settled. */
export function* finish_mm_fault(k: Kernel, t: Task, f: VmFault): Code<number> {
  let result = try_handle_mm_fault(k, t, f);
  let major = 0;
  while (result < 0) {
    const waited = yield* wait_for_fault(k, t, f, result);
    major |= waited & VM_FAULT_MAJOR;
    result = waited & ~VM_FAULT_AGAIN;
    if ((waited & VM_FAULT_AGAIN) === 0) break;
    if (t.cpu.settle()) yield;
    result = try_handle_mm_fault(k, t, f);
  }
  if (f.prealloc !== 0) {
    folio_put(k, t, f.prealloc);
    f.prealloc = 0;
  }
  if (major !== 0) f.faultClass = FAULT_MAJOR;
  k.mm.lastFaultClass = f.faultClass;
  return result | major;
}

/** Not a bit of Linux's: what was waited for is there, look again. */
export const VM_FAULT_AGAIN = 1 << 20;

/**
 * Waits for what a NEED_ number says. Returns VM_FAULT_AGAIN (| MAJOR), or final VM_FAULT_ bits.
 */
export function* wait_for_fault(k: Kernel, t: Task, f: VmFault, need: number): Code<number> {
  const {mm} = k;
  switch (need) {
    case NEED_MEMORY: {
      const pfn = yield* alloc_folio_slow(k, t, 0, mm.nodeFor(f.vma, f.vpn, t), f.user.memcg);
      if (pfn === 0) return VM_FAULT_OOM;
      if (f.prealloc !== 0) folio_put(k, t, f.prealloc);
      f.prealloc = pfn;
      return VM_FAULT_AGAIN;
    }
    case NEED_PTL:
      yield* mm.ptl.spin(t, f.slot >>> 9, mm.fns.handle_mm_fault);
      return VM_FAULT_AGAIN;
    case NEED_READ: {
      const read = yield* filemap_read(k, t, f.vma.mapping!, linear_page_index(f.vma, f.vpn));
      // lock_folio_maybe_drop_mmap: a fatal signal ends the wait for the device.
      if (t.sigkill && (f.flags & FAULT_FLAG_KILLABLE) !== 0) return VM_FAULT_RETRY;
      return read ? VM_FAULT_AGAIN | VM_FAULT_MAJOR : VM_FAULT_OOM;
    }
    case NEED_SHMEM: {
      assert(mm.hooks.shmem_swapin !== null, 'swapped shmem page without swap');
      const index = linear_page_index(f.vma, f.vpn);
      const read = yield* mm.hooks.shmem_swapin(t, f.vma.mapping!, index);
      return read ? VM_FAULT_AGAIN | VM_FAULT_MAJOR : VM_FAULT_OOM;
    }
    case NEED_COW:
      return yield* wp_page_copy_slow(k, t, f);
    case NEED_HUGE: {
      const result = yield* f.hook!(t, f);
      if ((result & VM_FAULT_FALLBACK) === 0) return result;
      f.noHuge = true;
      return VM_FAULT_AGAIN;
    }
    default:
      if (need !== NEED_HOOK) bug(`fault waits for ${need}`);
      return yield* callHook(k, t, f);
  }
}

function* callHook(k: Kernel, t: Task, f: VmFault): Code<number> {
  if (f.uffdReason !== 0) {
    const {handle_userfault} = k.mm.hooks;
    assert(handle_userfault !== null, 'userfaultfd range without userfaultfd');
    const reason = f.uffdReason;
    f.uffdReason = 0;
    return yield* handle_userfault(t, f, reason);
  }
  assert(f.hook !== null, 'fault on an entry that nobody handles');
  return yield* f.hook(t, f);
}

/** The plain half: VM_FAULT_ bits, or a NEED_ number. */
export function try_handle_mm_fault(k: Kernel, t: Task, f: VmFault): number {
  const {mm} = k;
  const {vma, vpn} = f;
  f.faultClass = FAULT_SPURIOUS;
  t.cpu.charge(mm.costs.handleFaultTicks, mm.fns.handle_mm_fault);
  if ((vma.flags & VM_HUGETLB) !== 0) return byHook(f, mm.hooks.hugetlb_fault);
  const slot = pteSlot(f.user.pgd, vpn);
  if (slot < 0) return faultAbovePte(k, t, f);
  f.slot = slot;
  const {pt} = mm;
  const word = pt.flags[slot];
  f.word = word;
  f.value = pt.entries[slot];
  if (word === 0) return do_pte_missing(k, t, f);
  const kind = word & PTE_KIND;
  if (kind !== PTE_PRESENT) return faultNotPresent(k, t, f, kind);
  if (mm.ptl.busy(slot >>> 9)) return NEED_PTL;
  if ((f.flags & (FAULT_FLAG_WRITE | FAULT_FLAG_UNSHARE)) !== 0 && (word & PTE_WRITE) === 0) {
    return do_wp_page(k, t, f);
  }
  pte_lock(mm, t, slot, mm.fns.handle_mm_fault);
  const dirty = (f.flags & FAULT_FLAG_WRITE) === 0 ? 0 : PTE_DIRTY | PTE_SOFT_DIRTY;
  pt.flags[slot] = word | PTE_YOUNG | dirty;
  t.cpu.charge(mm.costs.spuriousTicks, mm.fns.handle_mm_fault);
  pte_unlock(mm, t, slot);
  return 0;
}

/** do_pte_missing. */
function do_pte_missing(k: Kernel, t: Task, f: VmFault): number {
  // check_stable_address_space: the OOM reaper has been here, what was there is lost.
  if ((f.user.flags & MMF_UNSTABLE) !== 0 && (f.vma.flags & VM_SHARED) === 0) {
    return VM_FAULT_SIGBUS;
  }
  return vma_is_anonymous(f.vma) ? do_anonymous_page(k, t, f) : do_fault(k, t, f);
}

function byHook(f: VmFault, hook: VmFault['hook']): number {
  if (hook === null) return VM_FAULT_SIGBUS;
  f.hook = hook;
  return NEED_HOOK;
}

/** No PTE table: a huge entry, or nothing yet. */
function faultAbovePte(k: Kernel, t: Task, f: VmFault): number {
  const {mm} = k;
  const {hooks, pt} = mm;
  const slot = walkSlot(f.user.pgd, f.vpn);
  const word = pt.flags[slot];
  f.pmdSlot = slot;
  f.slot = slot;
  f.word = word;
  f.value = pteValue(pt, slot);
  if (word === 0) {
    if (!f.noHuge && hooks.wantsHugePmd !== null && hooks.wantsHugePmd(f.vma, f.vpn)) {
      f.hook = hooks.create_huge_pmd;
      return NEED_HUGE;
    }
    return do_pte_missing(k, t, f);
  }
  assert((pt.entries[slot] & LEAF) !== 0, 'walk ended at a table');
  const kind = word & PTE_KIND;
  if (is_migration_entry(word)) return byHook(f, hooks.migration_entry_wait);
  if (kind === PTE_PROTNONE) {
    if ((f.vma.flags & VM_ACCESS) !== 0) return byHook(f, hooks.do_huge_pmd_numa_page);
    if (!isForced(f)) return VM_FAULT_SIGSEGV;
    f.hook = hooks.wp_huge_pmd;
    return NEED_HUGE;
  }
  assert((word & PTE_HUGE) !== 0 && kind === PTE_PRESENT, 'huge entry of a strange kind');
  if ((f.flags & (FAULT_FLAG_WRITE | FAULT_FLAG_UNSHARE)) !== 0 && (word & PTE_WRITE) === 0) {
    f.hook = hooks.wp_huge_pmd;
    assert(f.hook !== null, 'write fault on a huge page without THP');
    return NEED_HUGE;
  }
  const dirty = (f.flags & FAULT_FLAG_WRITE) === 0 ? 0 : PTE_DIRTY | PTE_SOFT_DIRTY;
  pt.flags[slot] = word | PTE_YOUNG | dirty;
  return 0;
}

/** A write (or unsharing) that comes from the kernel, whatever the protection: FOLL_FORCE, ksmd. */
function isForced({flags}: VmFault): boolean {
  const changes = (flags & (FAULT_FLAG_WRITE | FAULT_FLAG_UNSHARE)) !== 0;
  return changes && (flags & FAULT_FLAG_REMOTE) !== 0;
}

/** do_swap_page's dispatch and do_numa_page. */
function faultNotPresent(k: Kernel, t: Task, f: VmFault, kind: number): number {
  const {hooks} = k.mm;
  if (kind === PTE_SWAP) {
    const result = try_do_swap_page(k, t, f);
    return result === NEED_HOOK ? byHook(f, hooks.do_swap_page) : result;
  }
  if (kind === PTE_PROTNONE) {
    if ((f.vma.flags & VM_ACCESS) !== 0) return byHook(f, hooks.do_numa_page);
    return isForced(f) ? do_wp_page(k, t, f) : VM_FAULT_SIGSEGV;
  }
  if (is_migration_entry(f.word)) return byHook(f, hooks.migration_entry_wait);
  if (kind === PTE_HWPOISON) return VM_FAULT_HWPOISON;
  if (kind >= PTE_DEVICE_READ && kind <= PTE_DEVICE_EXCLUSIVE)
    return byHook(f, hooks.do_device_fault);
  if (kind !== PTE_MARKER) bug(`fault on a PTE of kind ${kind}`);
  if ((f.value & MARKER_GUARD) !== 0) return VM_FAULT_SIGSEGV;
  if ((f.value & MARKER_POISONED) !== 0) return VM_FAULT_HWPOISON;
  // pte_marker_handle_uffd_wp: handled as an empty entry; the page that comes is protected.
  f.word = 0;
  if (userfaultfd_wp(f.vma)) {
    return faultOnUffdWpMarker(k.mm.pt, f.slot, () => do_pte_missing(k, t, f));
  }
  k.mm.clearMarker(f.slot);
  return do_pte_missing(k, t, f);
}

/** True for results that end in a signal or OOM. */
export function is_fault_error(result: number): boolean {
  return (result & VM_FAULT_ERROR) !== 0;
}
