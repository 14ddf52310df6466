// mm/mseal.c (6.10+): seals mappings. Nothing unmaps, moves, or re-protects a sealed mapping any
// more (VM_SEALED is looked at where those calls change a VMA); it cannot be undone.

import type {Code} from '../../machine/process.ts';
import {EINTR, EINVAL, ENOMEM, ENOSYS} from '../errno.ts';
import type {Kernel} from '../kernel.ts';
import type {Task} from '../task.ts';
import {isBefore} from '../version.ts';
import {mergeRule} from './mmap.ts';
import {enterSystemCall, mmap_write_lock_killable, mmap_write_unlock} from './mmap_lock.ts';
import {VM_HIGH_SEALED} from './vma_flags.ts';
import {vma_adjust_trans_huge} from './vma_huge.ts';
import {vma_start_write, vma_start_write_near} from './vma_lock.ts';
import {vma_modify} from './vma_merge.ts';
import {isFullyMapped} from './vma_space.ts';

/**
 * mseal of `pages` pages: 0, -EINVAL (flags), -ENOMEM (a hole; nothing is sealed then), -ENOSYS.
 */
export function* do_mseal(
  k: Kernel,
  t: Task,
  startVpn: number,
  pages: number,
  flags: number,
): Code<number> {
  enterSystemCall(k, t);
  if (isBefore(k.facts.version, '6.10')) return -ENOSYS;
  if (flags !== 0) return -EINVAL;
  if (pages === 0) return 0;
  const user = k.mm.userOf(t.mm!);
  const {space} = user;
  const end = startVpn + pages;
  if ((yield* mmap_write_lock_killable(t, user, k.mm.fns.do_mprotect_pkey)) !== 0) return -EINTR;
  let result = 0;
  if (!isFullyMapped(space, startVpn, end)) result = -ENOMEM;
  for (let at = startVpn; at < end && result === 0; ) {
    const vma = space.tree.lookup(at)!;
    const to = Math.min(vma.end, end);
    if ((vma.flagsHigh & VM_HIGH_SEALED) === 0) {
      t.cpu.charge(k.mm.costs.modifyVmaTicks, k.mm.fns.do_mprotect_pkey);
      yield* vma_start_write(k, t, user, vma);
      const flagsHigh = vma.flagsHigh | VM_HIGH_SEALED;
      yield* vma_adjust_trans_huge(k, t, user, vma, at, to);
      yield* vma_start_write_near(k, t, user, vma);
      vma_modify(vma, at, to, {flagsHigh}, mergeRule(k));
    }
    at = to;
  }
  yield* mmap_write_unlock(t, user);
  return result;
}
