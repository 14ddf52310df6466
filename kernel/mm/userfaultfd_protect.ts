// mm/userfaultfd.c: mwriteprotect_range (UFFDIO_WRITEPROTECT, 5.7+), 6.18. Under mmap_lock for
// reading; the range may span VMAs, each of which must be registered for write protection.

import type {Code} from '../../machine/process.ts';
import {EAGAIN, EINVAL, ENOENT} from '../errno.ts';
import {uffdWork} from '../fs/userfaultfd_costs.ts';
import {UFFD_FEATURE_WP_UNPOPULATED, type UserfaultfdCtx} from '../fs/userfaultfd_types.ts';
import type {Kernel} from '../kernel.ts';
import type {Task} from '../task.ts';
import {unitOf} from './hugetlb_file.ts';
import {mmap_read_lock, mmap_read_unlock} from './mmap_lock.ts';
import {userfaultfd_wp} from './userfaultfd_markers.ts';
import {uffd_wp_range} from './userfaultfd_wp.ts';
import {type VmArea, vma_is_anonymous} from './vma.ts';

/** userfaultfd_wp_use_markers, for a VMA of this context. */
export function userfaultfd_wp_use_markers(ctx: UserfaultfdCtx, vma: VmArea): boolean {
  if (!userfaultfd_wp(vma)) return false;
  return !vma_is_anonymous(vma) || (ctx.features & UFFD_FEATURE_WP_UNPOPULATED) !== 0;
}

/** Protects [start, end) or releases it: 0, -ENOENT (not registered so), -EINVAL or -EAGAIN. */
export function* mwriteprotect_range(
  k: Kernel,
  t: Task,
  ctx: UserfaultfdCtx,
  start: number,
  end: number,
  enable: boolean,
): Code<number> {
  const {user} = ctx;
  yield* mmap_read_lock(t, user, uffdWork(k).fns.mwriteprotect_range);
  let result = ctx.mmapChanging > 0 ? -EAGAIN : -ENOENT;
  let vma = result === -EAGAIN ? null : user.space.tree.intersection(start, end);
  for (; vma !== null && vma.start < end; vma = vma.next) {
    result = 0;
    if (!userfaultfd_wp(vma)) result = -ENOENT;
    const from = Math.max(start, vma.start);
    const to = Math.min(end, vma.end);
    const unit = unitOf(vma);
    if (result === 0 && (from % unit !== 0 || (to - from) % unit !== 0)) result = -EINVAL;
    if (result !== 0) break;
    const marks = userfaultfd_wp_use_markers(ctx, vma);
    yield* uffd_wp_range(k, t, user, vma, from, to, enable, marks);
  }
  yield* mmap_read_unlock(t, user);
  return result;
}
