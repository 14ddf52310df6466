// mm/mmap.c: remap_file_pages(2). Since 4.0 it is emulated: the part of the shared mapping is
// unmapped and mapped again at the other file offset, so that each call may leave one more VMA.
//
// Up to 3.19 (mm/fremap.c) the VMA became non-linear and only PTEs changed: one invalidation of the
// range around the populate, and no VMA more. Non-linear VMAs are not modelled: the pages come out
// the same, by splitting as the emulation does, with the old kernel's notification around it; the
// number of VMAs and rmap's search of non-linear ones (i_mmap_nonlinear) are not those kernels'.

import type {Code} from '../../machine/process.ts';
import {EINTR, EINVAL} from '../errno.ts';
import type {Kernel} from '../kernel.ts';
import type {Task} from '../task.ts';
import {isBefore} from '../version.ts';
import {do_mmap, mm_populate} from './mmap.ts';
import {enterSystemCall, mmap_write_lock_killable, mmap_write_unlock} from './mmap_lock.ts';
import {MAP_NONBLOCK} from './mmap_prot.ts';
import {
  mmu_notifier_invalidate_range_end,
  mmu_notifier_invalidate_range_start,
} from './mmu_notifier.ts';
import {MMU_NOTIFY_CLEAR, MmuNotifierRange} from './mmu_notifier_types.ts';
import type {UserMm} from './user_mm.ts';
import type {VmArea} from './vma.ts';
import {VM_SHARED} from './vma_flags.ts';
import {propsOf} from './vma_merge.ts';

/**
 * remap_file_pages: the pages from `startVpn` on show the file from `pgoff` on. `prot` must be 0;
 * `flags`: MAP_NONBLOCK or 0. Returns 0, -EINVAL or -ENOMEM.
 */
export function* do_remap_file_pages(
  k: Kernel,
  t: Task,
  startVpn: number,
  pages: number,
  prot: number,
  pgoff: number,
  flags: number,
): Code<number> {
  enterSystemCall(k, t);
  if (prot !== 0 || pages <= 0) return -EINVAL;
  const {costs, fns} = k.mm;
  const user = k.mm.userOf(t.mm!);
  const end = startVpn + pages;
  t.cpu.charge(costs.moveBaseTicks, fns.remap_file_pages);
  if ((yield* mmap_write_lock_killable(t, user, fns.remap_file_pages)) !== 0) return -EINTR;
  const vma = coveredBy(user, startVpn, end);
  let result = -EINVAL;
  if (vma !== null) result = yield* remap(k, t, user, vma, startVpn, end, pgoff);
  yield* mmap_write_unlock(t, user);
  if (result < 0) return result;
  if ((flags & MAP_NONBLOCK) === 0) yield* mm_populate(k, t, user, startVpn, end);
  return 0;
}

/**
 * The shared mapping that covers the range, alone or with neighbours of the same file and flags.
 */
function coveredBy(user: UserMm, start: number, end: number): VmArea | null {
  const vma = user.space.tree.lookup(start);
  if (vma === null || (vma.flags & VM_SHARED) === 0 || vma.mapping === null) return null;
  for (let at = vma; at.end < end; ) {
    const {next} = at;
    if (next === null || next.start !== at.end) return null;
    if (next.mapping !== vma.mapping || next.flags !== vma.flags) return null;
    at = next;
  }
  return vma;
}

function* remap(
  k: Kernel,
  t: Task,
  user: UserMm,
  vma: VmArea,
  start: number,
  end: number,
  pgoff: number,
): Code<number> {
  const args = {
    start,
    fixed: true,
    pages: end - start,
    pgoff,
    props: propsOf(vma),
    populate: false,
  };
  if (!isBefore(k.facts.version, '4.0')) return yield* do_mmap(k, t, user, args);
  const range = new MmuNotifierRange(
    MMU_NOTIFY_CLEAR,
    user.mm,
    vma,
    start,
    end,
    'remap_file_pages',
  );
  yield* mmu_notifier_invalidate_range_start(k, t, range);
  const result = yield* do_mmap(k, t, user, args);
  yield* mmu_notifier_invalidate_range_end(k, t, range);
  return result;
}
