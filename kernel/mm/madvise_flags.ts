// mm/madvise.c: advice that is remembered as flags of the VMA (madvise_vma_behavior), 6.18. The VMA
// is split or merged as mprotect does; no page table is looked at, but by unmerging KSM pages.

import type {Code} from '../../machine/process.ts';
import {EINVAL, ENOMEM} from '../errno.ts';
import type {Kernel} from '../kernel.ts';
import type {Task} from '../task.ts';
import {
  MADV_DODUMP,
  MADV_DOFORK,
  MADV_DONTDUMP,
  MADV_DONTFORK,
  MADV_HUGEPAGE,
  MADV_KEEPONFORK,
  MADV_MERGEABLE,
  MADV_NOHUGEPAGE,
  MADV_NORMAL,
  MADV_RANDOM,
  MADV_SEQUENTIAL,
  MADV_UNMERGEABLE,
  MADV_WIPEONFORK,
} from './madvise_numbers.ts';
import {mergeRule} from './mmap.ts';
import type {UserMm} from './user_mm.ts';
import type {VmArea} from './vma.ts';
import {
  VM_DONTCOPY,
  VM_DONTDUMP,
  VM_HIGH_DROPPABLE,
  VM_HUGEPAGE,
  VM_HUGETLB,
  VM_MAYSHARE,
  VM_MERGEABLE,
  VM_NOHUGEPAGE,
  VM_RAND_READ,
  VM_SEQ_READ,
  VM_SHARED,
  VM_SPECIAL,
  VM_WIPEONFORK,
} from './vma_flags.ts';
import {vma_adjust_trans_huge} from './vma_huge.ts';
import {vma_start_write, vma_start_write_near} from './vma_lock.ts';
import {vma_modify} from './vma_merge.ts';
import {DEFAULT_MAX_MAP_COUNT} from './vma_space.ts';

const FLAG_ADVICE: ReadonlySet<number> = new Set([
  MADV_NORMAL,
  MADV_RANDOM,
  MADV_SEQUENTIAL,
  MADV_DONTFORK,
  MADV_DOFORK,
  MADV_MERGEABLE,
  MADV_UNMERGEABLE,
  MADV_HUGEPAGE,
  MADV_NOHUGEPAGE,
  MADV_DONTDUMP,
  MADV_DODUMP,
  MADV_WIPEONFORK,
  MADV_KEEPONFORK,
]);

/** Advice that is a matter of VMA flags. */
export function isFlagAdvice(advice: number): boolean {
  return FLAG_ADVICE.has(advice);
}

/** The part [start, end) of one VMA; mmap_lock is held for write. 0, -EINVAL or -ENOMEM. */
export function* madvise_vma_flags(
  k: Kernel,
  t: Task,
  user: UserMm,
  vma: VmArea,
  start: number,
  end: number,
  advice: number,
): Code<number> {
  if (!allowed(vma, advice)) return -EINVAL;
  const flags = yield* advisedFlags(k, t, vma, start, end, advice);
  if (flags === null) return -ENOMEM;
  if (flags === vma.flags) return 0;
  const splits = (vma.start < start ? 1 : 0) + (vma.end > end ? 1 : 0);
  if (user.space.mapCount + splits > DEFAULT_MAX_MAP_COUNT) return -ENOMEM;
  t.cpu.charge(k.mm.costs.modifyVmaTicks, k.mm.fns.do_madvise);
  yield* vma_start_write(k, t, user, vma);
  yield* vma_adjust_trans_huge(k, t, user, vma, start, end);
  yield* vma_start_write_near(k, t, user, vma);
  const changed = vma_modify(vma, start, end, {flags}, mergeRule(k));
  yield* vma_start_write(k, t, user, changed);
  return 0;
}

/** Which mappings an advice is for. */
function allowed(vma: VmArea, advice: number): boolean {
  const special = (vma.flags & VM_SPECIAL) !== 0;
  const hugetlb = (vma.flags & VM_HUGETLB) !== 0;
  const droppable = (vma.flagsHigh & VM_HIGH_DROPPABLE) !== 0;
  switch (advice) {
    case MADV_DOFORK:
      return !special;
    case MADV_DODUMP:
      return (hugetlb || !special) && !droppable;
    case MADV_WIPEONFORK:
      return vma.mapping === null && (vma.flags & VM_SHARED) === 0;
    case MADV_KEEPONFORK:
      return !droppable;
    case MADV_HUGEPAGE:
      return !special && !hugetlb;
    case MADV_NOHUGEPAGE:
      return !special && !hugetlb;
    default:
      return true;
  }
}

/** The VMA's flags with the advice in them; null when unmerging ran out of memory. */
function* advisedFlags(
  k: Kernel,
  t: Task,
  vma: VmArea,
  start: number,
  end: number,
  advice: number,
): Code<number | null> {
  const {flags} = vma;
  switch (advice) {
    case MADV_NORMAL:
      return flags & ~(VM_RAND_READ | VM_SEQ_READ);
    case MADV_SEQUENTIAL:
      return (flags & ~VM_RAND_READ) | VM_SEQ_READ;
    case MADV_RANDOM:
      return (flags & ~VM_SEQ_READ) | VM_RAND_READ;
    case MADV_DONTFORK:
      return flags | VM_DONTCOPY;
    case MADV_DOFORK:
      return flags & ~VM_DONTCOPY;
    case MADV_WIPEONFORK:
      return flags | VM_WIPEONFORK;
    case MADV_KEEPONFORK:
      return flags & ~VM_WIPEONFORK;
    case MADV_DONTDUMP:
      return flags | VM_DONTDUMP;
    case MADV_DODUMP:
      return flags & ~VM_DONTDUMP;
    case MADV_HUGEPAGE:
      k.mm.hooks.khugepaged_enter_vma?.(t, vma, (flags & ~VM_NOHUGEPAGE) | VM_HUGEPAGE);
      return (flags & ~VM_NOHUGEPAGE) | VM_HUGEPAGE;
    case MADV_NOHUGEPAGE:
      return (flags & ~VM_HUGEPAGE) | VM_NOHUGEPAGE;
    default:
      return yield* ksm_madvise(k, t, vma, start, end, advice === MADV_MERGEABLE);
  }
}

/** ksm_madvise: mappings that KSM leaves alone are left alone without an error. */
function* ksm_madvise(
  k: Kernel,
  t: Task,
  vma: VmArea,
  start: number,
  end: number,
  on: boolean,
): Code<number | null> {
  const {flags} = vma;
  const hook = k.mm.hooks.ksm_madvise;
  const unsuitable = VM_SHARED | VM_MAYSHARE | VM_SPECIAL | VM_HUGETLB;
  if (on && ((flags & unsuitable) !== 0 || (vma.flagsHigh & VM_HIGH_DROPPABLE) !== 0)) return flags;
  if (on === ((flags & VM_MERGEABLE) !== 0)) return flags;
  // Unmerging is about pages, and there are none without an anon_vma.
  if (hook !== null && (on || vma.anonVma !== null)) {
    if ((yield* hook(t, vma, start, end, on)) !== 0) return null;
  }
  return on ? flags | VM_MERGEABLE : flags & ~VM_MERGEABLE;
}
