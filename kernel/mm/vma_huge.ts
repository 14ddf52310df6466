// mm/huge_memory.c: vma_adjust_trans_huge: a huge entry never reaches beyond its VMA. Whoever
// splits a VMA splits the huge entry at the place first, notification included. Calls that change
// or zap what the range maps (mprotect, munmap) split it there; this is for those that only change
// flags.

import type {Code} from '../../machine/process.ts';
import {walkSlot} from '../arch/x86/mm/pgtable.ts';
import {PTE_HUGE} from '../arch/x86/mm/pgtable_bits.ts';
import type {Kernel} from '../kernel.ts';
import type {Task} from '../task.ts';
import {HPAGE_PMD_NR} from './page.ts';
import type {UserMm} from './user_mm.ts';
import type {VmArea} from './vma.ts';
import {VM_HUGETLB} from './vma_flags.ts';

/** [start, end) of `vma` is about to become a VMA of its own. mmap_lock is held for write. */
export function* vma_adjust_trans_huge(
  k: Kernel,
  t: Task,
  user: UserMm,
  vma: VmArea,
  start: number,
  end: number,
): Code {
  if ((vma.flags & VM_HUGETLB) !== 0 || k.mm.hooks.split_huge === null) return;
  if (start > vma.start) yield* split_huge_pmd_if_needed(k, t, user, vma, start);
  if (end < vma.end) yield* split_huge_pmd_if_needed(k, t, user, vma, end);
}

function* split_huge_pmd_if_needed(
  k: Kernel,
  t: Task,
  user: UserMm,
  vma: VmArea,
  vpn: number,
): Code {
  if (vpn % HPAGE_PMD_NR === 0) return;
  const {pt, hooks} = k.mm;
  const slot = walkSlot(user.pgd, vpn);
  if (pt.level[slot >>> 9] !== 1 || (pt.flags[slot] & PTE_HUGE) === 0) return;
  yield* hooks.split_huge!(t, vma, slot, vpn - (vpn % HPAGE_PMD_NR));
}
