// mm/madvise.c: the system call (do_madvise), 6.18. VMA by VMA over the range; a hole does not stop
// it but makes the answer -ENOMEM. What an advice does is in madvise_flags.ts (advice that is kept
// as VMA flags), madvise_pages.ts (DONTNEED, FREE), madvise_guard.ts and madvise_populate.ts;
// reclaim, collapse and KSM are behind hooks.
//
// Locks: flags need mmap_lock for write; POPULATE takes it by itself; DONTNEED, FREE and guards are
// content with the VMA's own lock when the range is in one VMA (6.17+), else mmap_lock for read.

import type {Code} from '../../machine/process.ts';
import {EACCES, EBADF, EINTR, EINVAL, ENOMEM, EOPNOTSUPP, EPERM} from '../errno.ts';
import type {Kernel} from '../kernel.ts';
import type {Task} from '../task.ts';
import {isBefore} from '../version.ts';
import {madvise_cold_or_pageout} from './madvise_cold.ts';
import {isFlagAdvice, madvise_vma_flags} from './madvise_flags.ts';
import {madvise_guard_install, madvise_guard_remove} from './madvise_guard.ts';
import {
  isKnownAdvice,
  MADV_COLD,
  MADV_COLLAPSE,
  MADV_DONTFORK,
  MADV_DONTNEED,
  MADV_DONTNEED_LOCKED,
  MADV_FREE,
  MADV_GUARD_INSTALL,
  MADV_GUARD_REMOVE,
  MADV_PAGEOUT,
  MADV_POPULATE_READ,
  MADV_POPULATE_WRITE,
  MADV_REMOVE,
  MADV_WILLNEED,
  MADV_WIPEONFORK,
} from './madvise_numbers.ts';
import {madvise_dontneed_free} from './madvise_pages.ts';
import {madvise_populate} from './madvise_populate.ts';
import {
  enterSystemCall,
  mmap_read_lock,
  mmap_read_unlock,
  mmap_write_lock_killable,
  mmap_write_unlock,
} from './mmap_lock.ts';
import {type MmuGather, tlb_finish_mmu, tlb_gather_mmu} from './mmu_gather.ts';
import type {UserMm} from './user_mm.ts';
import {userfaultfd_armed, type VmArea} from './vma.ts';
import {
  VM_HIGH_SEALED,
  VM_HUGETLB,
  VM_LOCKED,
  VM_MAYWRITE,
  VM_PFNMAP,
  VM_SHARED,
  VM_WRITE,
} from './vma_flags.ts';
import {vma_end_read, vma_start_read} from './vma_lock.ts';

/**
 * madvise of `pages` pages from `startVpn` on; `advice`: a MADV_ number. Returns 0 or -errno:
 * EINVAL (unknown, or not for this kind of mapping), ENOMEM (holes; the rest was done), EFAULT.
 */
export function* do_madvise(
  k: Kernel,
  t: Task,
  startVpn: number,
  pages: number,
  advice: number,
): Code<number> {
  enterSystemCall(k, t);
  if (!isKnownAdvice(k.facts.version, advice)) return -EINVAL;
  return yield* madvise_mm(k, t, k.mm.userOf(t.mm!), startVpn, pages, advice);
}

/** madvise_do_behavior on any mm; `advice` is known to this kernel. */
export function* madvise_mm(
  k: Kernel,
  t: Task,
  user: UserMm,
  startVpn: number,
  pages: number,
  advice: number,
): Code<number> {
  if (pages === 0) return 0;
  const {mm} = k;
  t.cpu.charge(mm.costs.adviseBaseTicks, mm.fns.do_madvise);
  const end = startVpn + pages;
  if (advice === MADV_POPULATE_READ || advice === MADV_POPULATE_WRITE) {
    return yield* madvise_populate(k, t, user, startVpn, end, advice === MADV_POPULATE_WRITE);
  }
  if (isFlagAdvice(advice)) {
    if ((yield* mmap_write_lock_killable(t, user, mm.fns.do_madvise)) !== 0) return -EINTR;
    const result = yield* walkVmas(k, t, user, startVpn, end, advice, null);
    yield* mmap_write_unlock(t, user);
    return result;
  }
  const alone = try_vma_read_lock(k, user, startVpn, end, advice);
  if (alone === null) yield* mmap_read_lock(t, user, mm.fns.do_madvise);
  // 6.17+: one gather, and so one flush, for all VMAs.
  const zaps = advice === MADV_DONTNEED || advice === MADV_DONTNEED_LOCKED;
  const batched = (zaps || advice === MADV_FREE) && !isBefore(k.facts.version, '6.17');
  const tlb = batched ? tlb_gather_mmu(user.mm) : null;
  const result = yield* walkVmas(k, t, user, startVpn, end, advice, tlb);
  if (tlb !== null) yield* tlb_finish_mmu(k, t, tlb);
  if (alone === null) yield* mmap_read_unlock(t, user);
  else vma_end_read(k, user, alone);
  return result;
}

/** The VMA, read-locked, when that is enough. */
function try_vma_read_lock(
  k: Kernel,
  user: UserMm,
  start: number,
  end: number,
  advice: number,
): VmArea | null {
  const zaps = advice === MADV_DONTNEED || advice === MADV_DONTNEED_LOCKED || advice === MADV_FREE;
  const guards = advice === MADV_GUARD_INSTALL || advice === MADV_GUARD_REMOVE;
  if ((!zaps && !guards) || isBefore(k.facts.version, '6.17')) return null;
  const vma = user.space.tree.lookup(start);
  if (vma === null || vma.end < end || userfaultfd_armed(vma)) return null;
  // A guard region wants an anon_vma, and making one wants mmap_lock.
  if (advice === MADV_GUARD_INSTALL && vma.anonVma === null) return null;
  return vma_start_read(k, user, vma, true) ? vma : null;
}

/** madvise_walk_vmas. */
function* walkVmas(
  k: Kernel,
  t: Task,
  user: UserMm,
  start: number,
  end: number,
  advice: number,
  tlb: MmuGather | null,
): Code<number> {
  let unmapped = 0;
  for (let at = start; at < end; ) {
    const vma = user.space.tree.find(at);
    if (vma === null) return -ENOMEM;
    if (vma.start > at) {
      unmapped = -ENOMEM;
      at = vma.start;
      if (at >= end) break;
    }
    const to = Math.min(vma.end, end);
    const result = yield* adviseVma(k, t, user, vma, at, to, advice, tlb);
    if (result !== 0) return result;
    at = to;
  }
  return unmapped;
}

/** madvise_vma_behavior. */
function* adviseVma(
  k: Kernel,
  t: Task,
  user: UserMm,
  vma: VmArea,
  start: number,
  end: number,
  advice: number,
  tlb: MmuGather | null,
): Code<number> {
  const {hooks} = k.mm;
  if (!can_madvise_modify(vma, advice)) return -EPERM;
  switch (advice) {
    case MADV_DONTNEED:
    case MADV_DONTNEED_LOCKED:
    case MADV_FREE:
      return yield* madvise_dontneed_free(k, t, user, vma, start, end, advice, tlb);
    case MADV_GUARD_INSTALL:
      return yield* madvise_guard_install(k, t, user, vma, start, end);
    case MADV_GUARD_REMOVE:
      return yield* madvise_guard_remove(k, t, user, vma, start, end);
    case MADV_COLD:
    case MADV_PAGEOUT: {
      if ((vma.flags & (VM_LOCKED | VM_PFNMAP | VM_HUGETLB)) !== 0) return -EINVAL;
      const pageout = advice === MADV_PAGEOUT;
      return yield* madvise_cold_or_pageout(k, t, user, vma, start, end, pageout);
    }
    case MADV_COLLAPSE: {
      if (hooks.madvise_collapse === null) return -EINVAL;
      return yield* hooks.madvise_collapse(t, vma, start, end);
    }
    case MADV_WILLNEED: {
      if (vma.ops === 'special') return -EBADF;
      if (hooks.madvise_willneed === null) return 0;
      return yield* hooks.madvise_willneed(t, vma, start, end);
    }
    case MADV_REMOVE:
      return yield* madvise_remove(k, t, vma, start, end);
    default:
      return yield* madvise_vma_flags(k, t, user, vma, start, end, advice);
  }
}

/**
 * can_madvise_modify: private pages of a sealed mapping go only by one who may write them (6.10+).
 */
function can_madvise_modify(vma: VmArea, advice: number): boolean {
  if ((vma.flagsHigh & VM_HIGH_SEALED) === 0 || !DISCARDS.has(advice)) return true;
  if ((vma.flags & (VM_SHARED | VM_WRITE)) !== 0) return true;
  return vma.mapping !== null && vma.anonVma === null;
}

/** is_discard: advice that may lose what a page holds. */
const DISCARDS: ReadonlySet<number> = new Set([
  MADV_FREE,
  MADV_DONTNEED,
  MADV_DONTNEED_LOCKED,
  MADV_REMOVE,
  MADV_DONTFORK,
  MADV_WIPEONFORK,
  MADV_GUARD_INSTALL,
]);

/** MADV_REMOVE: a hole in the file, for all who map it. */
function* madvise_remove(
  k: Kernel,
  t: Task,
  vma: VmArea,
  start: number,
  end: number,
): Code<number> {
  const {punch_hole} = k.mm.hooks;
  if ((vma.flags & VM_LOCKED) !== 0 || vma.mapping === null) return -EINVAL;
  const may = isBefore(k.facts.version, '6.6') ? VM_WRITE : VM_MAYWRITE;
  if ((vma.flags & VM_SHARED) === 0 || (vma.flags & may) === 0) return -EACCES;
  if (punch_hole === null) return -EOPNOTSUPP;
  const {mapping, pgoff} = vma;
  const first = pgoff + (start - vma.start);
  const user = k.mm.byId(vma.space.mmId)!;
  // The file system may sleep on its own locks: mmap_lock is dropped, the VMA may go.
  const {userfaultfd_remove} = k.mm.hooks;
  const held = userfaultfd_remove === null || (yield* userfaultfd_remove(t, user, vma, start, end));
  if (held) yield* mmap_read_unlock(t, user);
  const result = yield* punch_hole(t, mapping, first, end - start);
  yield* mmap_read_lock(t, user, k.mm.fns.do_madvise);
  return result;
}
