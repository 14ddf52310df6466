// mm/ksm.c: prctl(PR_SET_MEMORY_MERGE), 6.4+. Every mapping of the process that KSM may look at
// becomes VM_MERGEABLE, and so does what it maps later (ksm_vma_flags); children inherit it. Taking
// it back gives every merged page its copy. Since 6.7 a program that is exec'ed has it, too.

import type {Code} from '../../machine/process.ts';
import {EINTR, EINVAL} from '../errno.ts';
import type {MmStruct} from '../mm_types.ts';
import type {Task} from '../task.ts';
import {isBefore} from '../version.ts';
import {type Ksm, ksm_enter} from './ksm.ts';
import {unmerge_ksm_pages} from './ksm_merge.ts';
import {mmap_write_lock_killable, mmap_write_unlock} from './mmap_lock.ts';
import {MMF_VM_MERGE_ANY, type UserMm} from './user_mm.ts';
import type {VmaProps} from './vma.ts';
import {
  VM_HIGH_DROPPABLE,
  VM_HUGETLB,
  VM_MAYSHARE,
  VM_MERGEABLE,
  VM_SHARED,
  VM_SPECIAL,
} from './vma_flags.ts';
import {vma_start_write} from './vma_lock.ts';

const UNSUITABLE = VM_SHARED | VM_MAYSHARE | VM_SPECIAL | VM_HUGETLB;

/** vma_ksm_compatible. */
export function vma_ksm_compatible(props: Pick<VmaProps, 'flags' | 'flagsHigh' | 'ops'>): boolean {
  if (props.ops === 'dax' || (props.flagsHigh & VM_HIGH_DROPPABLE) !== 0) return false;
  return (props.flags & UNSUITABLE) === 0;
}

/** ksm_vma_flags: what a new mapping of this mm has besides. */
export function ksm_vma_flags(user: UserMm, props: VmaProps): number {
  if ((user.flags & MMF_VM_MERGE_ANY) === 0 || !vma_ksm_compatible(props)) return 0;
  return VM_MERGEABLE;
}

/** ksm_enable_merge_any of the caller's mm. */
export function* ksm_enable_merge_any(ksm: Ksm, t: Task): Code<number> {
  const {k} = ksm;
  if (isBefore(k.facts.version, '6.4')) return -EINVAL;
  const user = k.mm.userOf(t.mm!);
  if ((yield* mmap_write_lock_killable(t, user, ksm.fn)) !== 0) return -EINTR;
  ksm_enter(ksm, user);
  user.flags |= MMF_VM_MERGE_ANY;
  for (let vma = user.space.tree.first; vma !== null; vma = vma.next) {
    if (!vma_ksm_compatible(vma)) continue;
    yield* vma_start_write(k, t, user, vma);
    vma.flags |= VM_MERGEABLE;
  }
  yield* mmap_write_unlock(t, user);
  return 0;
}

/** ksm_disable_merge_any. */
export function* ksm_disable_merge_any(ksm: Ksm, t: Task): Code<number> {
  const {k} = ksm;
  const user = k.mm.userOf(t.mm!);
  if ((user.flags & MMF_VM_MERGE_ANY) === 0) return 0;
  if ((yield* mmap_write_lock_killable(t, user, ksm.fn)) !== 0) return -EINTR;
  let result = 0;
  for (let vma = user.space.tree.first; vma !== null && result === 0; vma = vma.next) {
    if ((vma.flags & VM_MERGEABLE) === 0) continue;
    yield* vma_start_write(k, t, user, vma);
    if (vma.anonVma !== null) result = yield* unmerge_ksm_pages(ksm, t, vma, vma.start, vma.end);
    if (result === 0) vma.flags &= ~VM_MERGEABLE;
  }
  if (result === 0) user.flags &= ~MMF_VM_MERGE_ANY;
  yield* mmap_write_unlock(t, user);
  return result;
}

/** ksm_execve: the new image `next` of t has what the old one has. */
export function ksm_execve(ksm: Ksm, t: Task, next: MmStruct): void {
  const old = t.mm?.user ?? null;
  if (old === null || (old.flags & MMF_VM_MERGE_ANY) === 0) return;
  if (isBefore(ksm.k.facts.version, '6.7')) return;
  const user = ksm.k.mm.userOf(next);
  user.flags |= MMF_VM_MERGE_ANY;
  ksm_enter(ksm, user);
}
