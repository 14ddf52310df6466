// mm/mremap.c: the system call (do_mremap), 6.18. Shrinking unmaps the tail; growing extends the
// VMA in place where the room behind it is free, else moves it (MREMAP_MAYMOVE); MREMAP_FIXED moves
// to a given place and takes away what is there; MREMAP_DONTUNMAP (5.7+) leaves the old VMA, empty.
// A move copies the VMA, moves its page tables (mremap_tables.ts) and unmaps the old range, which
// notifies once more. Since 6.17 a plain MREMAP_FIXED move may cover several VMAs and the holes
// between them.

import type {Code} from '../../machine/process.ts';
import {EAGAIN, EFAULT, EINTR, EINVAL, ENOMEM, EPERM} from '../errno.ts';
import type {Kernel} from '../kernel.ts';
import type {Task} from '../task.ts';
import {isBefore} from '../version.ts';
import {clear_vma_resv_huge_pages} from './hugetlb_file.ts';
import {mergeRule, mm_populate} from './mmap.ts';
import {
  enterSystemCall,
  mmap_read_unlock,
  mmap_write_lock_killable,
  mmap_write_unlock,
} from './mmap_lock.ts';
import {DOWNGRADED, do_vmi_munmap} from './mmap_unmap.ts';
import {move_page_tables} from './mremap_tables.ts';
import type {UserMm} from './user_mm.ts';
import {userfaultfd_armed, type VmArea, vma_is_anonymous} from './vma.ts';
import {
  VM_DONTEXPAND,
  VM_HIGH_SEALED,
  VM_LOCKED,
  VM_LOCKONFAULT,
  VM_MAYSHARE,
  VM_MERGEABLE,
  VM_PFNMAP,
  VM_SHARED,
} from './vma_flags.ts';
import {vma_start_write} from './vma_lock.ts';
import {copy_vma, propsOf, vma_merge_new_range} from './vma_merge.ts';
import {DEFAULT_MAX_MAP_COUNT, get_unmapped_area, isFree} from './vma_space.ts';

export const MREMAP_MAYMOVE = 1;
export const MREMAP_FIXED = 2;
export const MREMAP_DONTUNMAP = 4;

/** One call on its way (struct vma_remap_struct). */
interface Remap {
  readonly user: UserMm;
  readonly flags: number;
  vpn: number;
  oldPages: number;
  readonly newPages: number;
  newVpn: number;
  /** To be faulted in when the lock is dropped: a locked mapping grew. */
  populateFrom: number;
  populateTo: number;
  downgraded: boolean;
}

/**
 * mremap: first page of the mapping afterwards, or -EINVAL, -EFAULT (no such mapping), -ENOMEM,
 * -EPERM (sealed). `newVpn` counts with MREMAP_FIXED, and as a hint with MREMAP_DONTUNMAP.
 */
export function* do_mremap(
  k: Kernel,
  t: Task,
  oldVpn: number,
  oldPages: number,
  newPages: number,
  flags: number,
  newVpn: number,
): Code<number> {
  enterSystemCall(k, t);
  const {costs, fns} = k.mm;
  const user = k.mm.userOf(t.mm!);
  const wrong = check_mremap_params(k, user, oldVpn, oldPages, newPages, flags, newVpn);
  if (wrong !== 0) return wrong;
  t.cpu.charge(costs.moveBaseTicks, fns.do_mremap);
  if ((yield* mmap_write_lock_killable(t, user, fns.do_mremap)) !== 0) return -EINTR;
  const r: Remap = {
    user,
    flags,
    vpn: oldVpn,
    oldPages,
    newPages,
    newVpn,
    populateFrom: 0,
    populateTo: 0,
    downgraded: false,
  };
  const result = yield* remap(k, t, r);
  if (r.downgraded) yield* mmap_read_unlock(t, user);
  else yield* mmap_write_unlock(t, user);
  if (k.mm.hooks.mremap_userfaultfd_complete !== null) {
    // notify_uffd.
    yield* k.mm.hooks.mremap_userfaultfd_complete(t, oldVpn, result, oldPages);
    yield* k.mm.hooks.userfaultfd_unmap_complete!(t);
  }
  if (result >= 0 && r.populateTo > r.populateFrom) {
    yield* mm_populate(k, t, user, r.populateFrom, r.populateTo);
  }
  return result;
}

/** check_mremap_params. */
function check_mremap_params(
  k: Kernel,
  user: UserMm,
  vpn: number,
  oldPages: number,
  newPages: number,
  flags: number,
  newVpn: number,
): number {
  const known = MREMAP_MAYMOVE | MREMAP_FIXED;
  const all = isBefore(k.facts.version, '5.7') ? known : known | MREMAP_DONTUNMAP;
  const {taskSize} = user.space;
  if ((flags & ~all) !== 0 || newPages <= 0 || newPages > taskSize) return -EINVAL;
  const placed = (flags & (MREMAP_FIXED | MREMAP_DONTUNMAP)) !== 0;
  if (!placed) return 0;
  if ((flags & MREMAP_MAYMOVE) === 0) return -EINVAL;
  if ((flags & MREMAP_DONTUNMAP) !== 0 && oldPages !== newPages) return -EINVAL;
  const hint = (flags & MREMAP_FIXED) !== 0 || newVpn !== 0;
  if (!hint) return 0;
  if (newVpn > taskSize - newPages) return -EINVAL;
  const overlaps = vpn + oldPages > newVpn && newVpn + newPages > vpn;
  return overlaps ? -EINVAL : 0;
}

function* remap(k: Kernel, t: Task, r: Remap): Code<number> {
  const {tree} = r.user.space;
  const vma = tree.lookup(r.vpn);
  const moveOnly = (r.flags & MREMAP_FIXED) !== 0 && r.oldPages === r.newPages;
  if (vma === null) return -EFAULT;
  if (r.oldPages > vma.end - r.vpn) {
    if (!moveOnly || isBefore(k.facts.version, '6.17')) return -EFAULT;
    return yield* remap_move(k, t, r);
  }
  const wrong = check_prep_vma(k, r, vma);
  if (wrong !== 0) return wrong;
  if ((r.flags & (MREMAP_FIXED | MREMAP_DONTUNMAP)) !== 0) return yield* mremap_to(k, t, r);
  if (r.oldPages === r.newPages) return r.vpn;
  if (r.oldPages > r.newPages) return yield* shrink_vma(k, t, r, true);
  return yield* expand_vma(k, t, r, vma);
}

/** check_prep_vma: may this VMA be remapped so? */
function check_prep_vma(k: Kernel, r: Remap, vma: VmArea): number {
  if ((vma.flagsHigh & VM_HIGH_SEALED) !== 0) return -EPERM;
  if (r.oldPages === 0 && (vma.flags & (VM_SHARED | VM_MAYSHARE)) === 0) return -EINVAL;
  if ((r.flags & MREMAP_DONTUNMAP) !== 0) {
    if ((vma.flags & (VM_DONTEXPAND | VM_PFNMAP)) !== 0) return -EINVAL;
    const privateOnly = isBefore(k.facts.version, '5.13');
    if (privateOnly && (!vma_is_anonymous(vma) || (vma.flags & VM_SHARED) !== 0)) return -EINVAL;
  }
  if (r.newPages <= r.oldPages) return 0;
  return (vma.flags & (VM_DONTEXPAND | VM_PFNMAP)) !== 0 ? -EFAULT : 0;
}

/** shrink_vma: unmaps what is beyond the new length. */
function* shrink_vma(k: Kernel, t: Task, r: Remap, downgrade: boolean): Code<number> {
  const from = r.vpn + r.newPages;
  const to = r.vpn + r.oldPages;
  const result = yield* do_vmi_munmap(k, t, r.user, from, to, downgrade);
  if (result === DOWNGRADED) r.downgraded = true;
  return result < 0 ? result : r.vpn;
}

/** expand_vma: in place when the VMA ends where the range does and what follows is free. */
function* expand_vma(k: Kernel, t: Task, r: Remap, vma: VmArea): Code<number> {
  const {space} = r.user;
  const more = r.newPages - r.oldPages;
  const end = r.vpn + r.oldPages;
  if (vma.end === end && isFree(space, end, more)) {
    yield* vma_start_write(k, t, r.user, vma);
    const {start, anonVma} = vma;
    const pgoff = vma.pgoff + (end - start);
    const range = {start: end, end: end + more, pgoff, props: propsOf(vma), anonVma, source: vma};
    if (vma_merge_new_range(space, range, mergeRule(k)) === null) return -ENOMEM;
    t.cpu.charge(k.mm.costs.modifyVmaTicks, k.mm.fns.do_mremap);
    lockGrown(r, vma, end, end + more, more);
    return r.vpn;
  }
  if ((r.flags & MREMAP_MAYMOVE) === 0) return -ENOMEM;
  r.newVpn = get_unmapped_area(space, {length: r.newPages});
  if (r.newVpn < 0) return -ENOMEM;
  return yield* move_vma(k, t, r);
}

function lockGrown(r: Remap, vma: VmArea, from: number, to: number, more: number): void {
  if ((vma.flags & VM_LOCKED) === 0) return;
  r.user.space.lockedVm += more;
  r.populateFrom = from;
  r.populateTo = to;
}

/** mremap_to: MREMAP_FIXED and MREMAP_DONTUNMAP. */
function* mremap_to(k: Kernel, t: Task, r: Remap): Code<number> {
  const {space} = r.user;
  if (space.mapCount + 2 >= DEFAULT_MAX_MAP_COUNT - 3) return -ENOMEM;
  if ((r.flags & MREMAP_FIXED) !== 0) {
    const to = r.newVpn + r.newPages;
    const result = yield* do_vmi_munmap(k, t, r.user, r.newVpn, to, false);
    if (result < 0) return result;
  } else {
    r.newVpn = get_unmapped_area(space, {length: r.newPages, hint: r.newVpn});
    if (r.newVpn < 0) return -ENOMEM;
  }
  if (r.oldPages > r.newPages) {
    const result = yield* shrink_vma(k, t, r, false);
    if (result < 0) return result;
    r.oldPages = r.newPages;
  }
  return yield* move_vma(k, t, r);
}

/** remap_move (6.17+): every VMA of the range by itself, holes between them stay holes. */
function* remap_move(k: Kernel, t: Task, r: Remap): Code<number> {
  const {space} = r.user;
  const {vpn, oldPages, newVpn} = r;
  const end = vpn + oldPages;
  const many = space.tree.lookup(vpn)!.end < end;
  for (let vma = space.tree.find(vpn); vma !== null && vma.start < end; ) {
    if (many && (userfaultfd_armed(vma) || vma.ops === 'special')) return -EFAULT;
    const from = Math.max(vma.start, vpn);
    const to = Math.min(vma.end, end);
    const place = newVpn + (from - vpn);
    const part: Remap = {...r, vpn: from, oldPages: to - from, newPages: to - from, newVpn: place};
    const wrong = check_prep_vma(k, part, vma);
    if (wrong !== 0) return wrong;
    const result = yield* mremap_to(k, t, part);
    if (result < 0) return result;
    r.populateFrom = part.populateFrom === 0 ? r.populateFrom : newVpn;
    r.populateTo = Math.max(r.populateTo, part.populateTo);
    vma = space.tree.find(to);
  }
  return newVpn;
}

/** move_vma: to r.newVpn, where nothing is. */
function* move_vma(k: Kernel, t: Task, r: Remap): Code<number> {
  const {user, vpn, oldPages, newPages, newVpn} = r;
  const {space} = user;
  if (space.mapCount >= DEFAULT_MAX_MAP_COUNT - 3) return -ENOMEM;
  const source = space.tree.lookup(vpn)!;
  yield* vma_start_write(k, t, user, source);
  if ((source.flags & VM_MERGEABLE) !== 0 && source.anonVma !== null) {
    const unmerge = k.mm.hooks.ksm_madvise;
    const failed = unmerge === null ? 0 : yield* unmerge(t, source, vpn, vpn + oldPages, false);
    if (failed !== 0) return failed;
  }
  const pgoff = source.pgoff + (vpn - source.start);
  const {flags} = source;
  const copy = copy_vma(source, newVpn, newPages, pgoff, mergeRule(k));
  t.cpu.charge(k.mm.costs.modifyVmaTicks, k.mm.fns.do_mremap);
  yield* vma_start_write(k, t, user, copy);
  // The copy may have merged with the VMA that it is of.
  const vma = space.tree.lookup(vpn)!;
  const rmapLocks = copy.pgoff <= vma.pgoff;
  yield* move_page_tables(k, t, user, vma, copy, vpn, newVpn, oldPages, rmapLocks);
  if (copy.uffd !== 0) k.mm.hooks.mremap_userfaultfd_prep?.(t, copy);
  if (vma.ops === 'hugetlb') clear_vma_resv_huge_pages(vma, vpn, vpn + oldPages);
  if ((flags & VM_LOCKED) !== 0) {
    space.lockedVm += newPages;
    r.populateFrom = newVpn + (newPages > oldPages ? oldPages : 0);
    r.populateTo = newVpn + newPages;
  }
  if ((r.flags & MREMAP_DONTUNMAP) !== 0) {
    dontunmap_complete(r, vma, copy);
    return newVpn;
  }
  if (oldPages === 0) return newVpn;
  const result = yield* do_vmi_munmap(k, t, user, vpn, vpn + oldPages, false);
  return result < 0 ? -EAGAIN : newVpn;
}

/** dontunmap_complete: the old VMA stays, without pages and not locked. */
function dontunmap_complete(r: Remap, vma: VmArea, copy: VmArea): void {
  const {space} = r.user;
  if ((vma.flags & VM_LOCKED) !== 0) space.lockedVm -= vma.pages;
  vma.flags &= ~(VM_LOCKED | VM_LOCKONFAULT);
  const whole = vma.start === r.vpn && vma.end === r.vpn + r.oldPages;
  if (copy !== vma && whole) space.trees.anon.unlink(vma);
}
