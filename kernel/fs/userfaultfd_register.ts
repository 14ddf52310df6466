// fs/userfaultfd.c, 6.18: UFFDIO_REGISTER, UFFDIO_UNREGISTER and what closing the descriptor does.
// All of them change flags and context of the VMAs of a range under mmap_lock for writing; VMAs
// split and merge as with mprotect. A range is registered as a whole or not at all: everything is
// checked first.

import type {Code} from '../../machine/process.ts';
import {EBUSY, EINVAL, EPERM} from '../errno.ts';
import type {Kernel} from '../kernel.ts';
import {unitOf} from '../mm/hugetlb_file.ts';
import {hugetlb_split, hugetlb_unshare_pmds} from '../mm/hugetlb_share.ts';
import {mergeRule} from '../mm/mmap.ts';
import {mmap_write_lock, mmap_write_unlock} from '../mm/mmap_lock.ts';
import {uffd_wp_range} from '../mm/userfaultfd_wp.ts';
import type {VmArea} from '../mm/vma.ts';
import {
  VM_HIGH_DROPPABLE,
  VM_HIGH_UFFD_MINOR,
  VM_HUGETLB,
  VM_MAYWRITE,
  VM_UFFD_MISSING,
  VM_UFFD_WP,
} from '../mm/vma_flags.ts';
import {vma_start_write, vma_start_write_near} from '../mm/vma_lock.ts';
import {vma_modify} from '../mm/vma_merge.ts';
import type {Task} from '../task.ts';
import {isBefore} from '../version.ts';
import type {Userfaultfds} from './userfaultfd.ts';
import {uffdWork} from './userfaultfd_costs.ts';
import {VM_UFFD_FLAGS} from './userfaultfd_events.ts';
import {
  featuresOf,
  UFFD_FEATURE_MINOR_HUGETLBFS,
  UFFD_FEATURE_MINOR_SHMEM,
  UFFD_FEATURE_MISSING_HUGETLBFS,
  UFFD_FEATURE_MISSING_SHMEM,
  UFFD_FEATURE_MOVE,
  UFFD_FEATURE_PAGEFAULT_FLAG_WP,
  UFFD_FEATURE_POISON,
  UFFD_FEATURE_WP_ASYNC,
  UFFD_FEATURE_WP_HUGETLBFS_SHMEM,
  UFFDIO_CONTINUE,
  UFFDIO_COPY,
  UFFDIO_MOVE,
  UFFDIO_POISON,
  UFFDIO_REGISTER_MODE_MINOR,
  UFFDIO_REGISTER_MODE_MISSING,
  UFFDIO_REGISTER_MODE_WP,
  UFFDIO_WAKE,
  UFFDIO_WRITEPROTECT,
  UFFDIO_ZEROPAGE,
  type UserfaultfdCtx,
} from './userfaultfd_types.ts';

/** vma_can_userfault, and that this kernel can do so for memory of that kind. */
function vma_can_userfault(k: Kernel, ctx: UserfaultfdCtx, vma: VmArea, mode: number): boolean {
  if ((vma.flagsHigh & VM_HIGH_DROPPABLE) !== 0) return false;
  const features = featuresOf(k.facts.version);
  const huge = (vma.flags & VM_HUGETLB) !== 0;
  const shmem = vma.ops === 'shmem';
  const minor = (mode & UFFDIO_REGISTER_MODE_MINOR) !== 0;
  if (minor && !huge && !shmem) return false;
  const async = (ctx.features & UFFD_FEATURE_WP_ASYNC) !== 0;
  if (async && mode === UFFDIO_REGISTER_MODE_WP) return true;
  if (vma.ops === 'anon') return true;
  if (!huge && !shmem) return false;
  const missing = huge ? UFFD_FEATURE_MISSING_HUGETLBFS : UFFD_FEATURE_MISSING_SHMEM;
  const minors = huge ? UFFD_FEATURE_MINOR_HUGETLBFS : UFFD_FEATURE_MINOR_SHMEM;
  let needed = missing | (minor ? minors : 0);
  if ((mode & UFFDIO_REGISTER_MODE_WP) !== 0) needed |= UFFD_FEATURE_WP_HUGETLBFS_SHMEM;
  return (features & needed) === needed;
}

/** Modes that this kernel knows. */
function modesOf(k: Kernel): number {
  const features = featuresOf(k.facts.version);
  let modes = UFFDIO_REGISTER_MODE_MISSING;
  if ((features & UFFD_FEATURE_PAGEFAULT_FLAG_WP) !== 0) modes |= UFFDIO_REGISTER_MODE_WP;
  if ((features & UFFD_FEATURE_MINOR_HUGETLBFS) !== 0) modes |= UFFDIO_REGISTER_MODE_MINOR;
  return modes;
}

/** The VMAs of [start, end), or an error. */
function checkRange(
  k: Kernel,
  ctx: UserfaultfdCtx,
  start: number,
  end: number,
  mode: number,
): readonly VmArea[] | number {
  const vmas: VmArea[] = [];
  const first = ctx.user.space.tree.intersection(start, end);
  if (first === null) return -EINVAL;
  if (start % unitOf(first) !== 0) return -EINVAL;
  for (let vma: VmArea | null = first; vma !== null && vma.start < end; vma = vma.next) {
    if (!vma_can_userfault(k, ctx, vma, mode)) return -EINVAL;
    if ((vma.flags & VM_MAYWRITE) === 0) return -EPERM;
    if (end <= vma.end && end > vma.start && end % unitOf(vma) !== 0) return -EINVAL;
    if (vma.uffd !== 0 && vma.uffd !== ctx.id) return -EBUSY;
    vmas.push(vma);
  }
  return vmas;
}

/** vma_modify_flags_uffd for [start, end) of one VMA; it covers the range then. */
function* modify(
  k: Kernel,
  t: Task,
  ctx: UserfaultfdCtx,
  vma: VmArea,
  start: number,
  end: number,
  flags: number,
  flagsHigh: number,
  uffd: number,
): Code<VmArea> {
  const {user} = ctx;
  const {fns, costs} = uffdWork(k);
  t.cpu.charge(costs.registerVmaTicks, fns.userfaultfd_register);
  yield* vma_start_write(k, t, user, vma);
  if ((vma.flags & VM_HUGETLB) !== 0) {
    yield* hugetlb_split(k, t, vma, start);
    yield* hugetlb_split(k, t, vma, end);
  }
  yield* vma_start_write_near(k, t, user, vma);
  const changed = vma_modify(vma, start, end, {flags, flagsHigh, uffd}, mergeRule(k));
  yield* vma_start_write(k, t, user, changed);
  return changed;
}

/**
 * UFFDIO_REGISTER of [start, end): the ioctls that the range then has (bit n: number n), or
 * -EINVAL, -EPERM (may not be written), -EBUSY (another context has it).
 */
export function* userfaultfd_register(
  k: Kernel,
  t: Task,
  ctx: UserfaultfdCtx,
  start: number,
  end: number,
  mode: number,
): Code<number> {
  if (mode === 0 || (mode & ~modesOf(k)) !== 0) return -EINVAL;
  if (start >= end || end > ctx.user.space.taskSize) return -EINVAL;
  const {user} = ctx;
  yield* mmap_write_lock(t, user, uffdWork(k).fns.userfaultfd_register);
  const vmas = checkRange(k, ctx, start, end, mode);
  if (typeof vmas === 'number') {
    yield* mmap_write_unlock(t, user);
    return vmas;
  }
  const missing = (mode & UFFDIO_REGISTER_MODE_MISSING) === 0 ? 0 : VM_UFFD_MISSING;
  const wp = (mode & UFFDIO_REGISTER_MODE_WP) === 0 ? 0 : VM_UFFD_WP;
  const minor = (mode & UFFDIO_REGISTER_MODE_MINOR) === 0 ? 0 : VM_HIGH_UFFD_MINOR;
  let basic = false;
  for (let at = start; at < end; ) {
    const vma = user.space.tree.find(at);
    if (vma === null || vma.start >= end) break;
    const from = Math.max(vma.start, start);
    const to = Math.min(vma.end, end);
    at = to;
    basic ||= (vma.flags & VM_HUGETLB) !== 0;
    const flags = (vma.flags & ~VM_UFFD_FLAGS) | missing | wp;
    const high = (vma.flagsHigh & ~VM_HIGH_UFFD_MINOR) | minor;
    // With the right modes already, perhaps with others, too: left as it is.
    const has = (vma.flags & (missing | wp)) === (missing | wp);
    if (vma.uffd === ctx.id && has && (vma.flagsHigh & minor) === minor) continue;
    const changed = yield* modify(k, t, ctx, vma, from, to, flags, high, ctx.id);
    if ((changed.flags & VM_HUGETLB) !== 0 && (wp !== 0 || minor !== 0)) {
      yield* hugetlb_unshare_pmds(k, t, changed, changed.start, changed.end);
    }
  }
  yield* mmap_write_unlock(t, user);
  return ioctlsOf(k, basic, mode);
}

function ioctlsOf(k: Kernel, basic: boolean, mode: number): number {
  const features = featuresOf(k.facts.version);
  let ioctls = (1 << UFFDIO_WAKE) | (1 << UFFDIO_COPY);
  if (!basic) ioctls |= 1 << UFFDIO_ZEROPAGE;
  if (!basic && (features & UFFD_FEATURE_MOVE) !== 0) ioctls |= 1 << UFFDIO_MOVE;
  if ((features & UFFD_FEATURE_POISON) !== 0) ioctls |= 1 << UFFDIO_POISON;
  if ((mode & UFFDIO_REGISTER_MODE_WP) !== 0) ioctls |= 1 << UFFDIO_WRITEPROTECT;
  if ((mode & UFFDIO_REGISTER_MODE_MINOR) !== 0) ioctls |= 1 << UFFDIO_CONTINUE;
  return ioctls;
}

/**
 * userfaultfd_clear_vma: what was write-protected is not any more, and the VMA leaves its context.
 */
function* clear_vma(
  k: Kernel,
  t: Task,
  ctx: UserfaultfdCtx,
  vma: VmArea,
  start: number,
  end: number,
): Code {
  if ((vma.flags & VM_UFFD_WP) !== 0) {
    yield* uffd_wp_range(k, t, ctx.user, vma, start, end, false, false);
  }
  const flags = vma.flags & ~VM_UFFD_FLAGS;
  const high = vma.flagsHigh & ~VM_HIGH_UFFD_MINOR;
  yield* modify(k, t, ctx, vma, start, end, flags, high, 0);
}

/** UFFDIO_UNREGISTER of [start, end): 0 or -EINVAL. Who waits for a page of it goes on. */
export function* userfaultfd_unregister(
  k: Kernel,
  t: Task,
  all: Userfaultfds,
  ctx: UserfaultfdCtx,
  start: number,
  end: number,
): Code<number> {
  if (start >= end || end > ctx.user.space.taskSize) return -EINVAL;
  const {user} = ctx;
  const {tree} = user.space;
  yield* mmap_write_lock(t, user, uffdWork(k).fns.userfaultfd_unregister);
  let result = tree.intersection(start, end) === null ? -EINVAL : 0;
  for (let vma = tree.intersection(start, end); vma !== null && vma.start < end; vma = vma.next) {
    const known = vma.ops === 'anon' || vma.ops === 'shmem' || vma.ops === 'hugetlb';
    const other = vma.uffd !== 0 && vma.uffd !== ctx.id && !isBefore(k.facts.version, '6.15');
    const cut = end <= vma.end && end % unitOf(vma) !== 0;
    if ((!known && vma.uffd === 0) || other || cut) result = -EINVAL;
  }
  for (let at = start; result === 0 && at < end; ) {
    const vma = tree.find(at);
    if (vma === null || vma.start >= end) break;
    const from = Math.max(vma.start, start);
    const to = Math.min(vma.end, end);
    at = to;
    if (vma.uffd === 0) continue;
    if ((vma.flags & VM_UFFD_MISSING) !== 0) yield* all.wake_userfault(t, ctx, from, to);
    yield* clear_vma(k, t, ctx, vma, from, to);
  }
  yield* mmap_write_unlock(t, user);
  return result;
}

/** userfaultfd_release: the last descriptor is closed. Nobody waits for this context afterwards. */
export function* userfaultfd_release(
  k: Kernel,
  t: Task,
  all: Userfaultfds,
  ctx: UserfaultfdCtx,
): Code {
  const {user} = ctx;
  if (t.cpu.settle()) yield;
  ctx.released = true;
  // mmget_not_zero: an mm that is gone has no VMAs.
  if (user.mm.users > 0) {
    yield* mmap_write_lock(t, user, uffdWork(k).fns.userfaultfd_release);
    for (let at = 0; ; ) {
      const vma = user.space.tree.find(at);
      if (vma === null) break;
      at = vma.end;
      if (vma.uffd === ctx.id) yield* clear_vma(k, t, ctx, vma, vma.start, vma.end);
    }
    yield* mmap_write_unlock(t, user);
  }
  yield* all.wake_userfault(t, ctx, 0, Number.POSITIVE_INFINITY);
  for (const event of [...ctx.events]) k.sched.wake(event.task);
  ctx.fdWait.wakeAll();
  all.forget(ctx);
}
