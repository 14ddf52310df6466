// mm/mprotect.c: the system call (do_mprotect_pkey, mprotect_fixup), 6.18. VMA by VMA under
// mmap_lock for write: the VMA is merged with a neighbour or split, then its entries change
// (mprotect_walk.ts); one TLB flush at the end. What was done before an error stays done.

import type {Code} from '../../machine/process.ts';
import {EACCES, EINTR, EINVAL, ENOMEM, EPERM} from '../errno.ts';
import type {Kernel} from '../kernel.ts';
import type {Task} from '../task.ts';
import {isBefore} from '../version.ts';
import {populate_vma_page_range} from './gup.ts';
import {may_split} from './hugetlb_file.ts';
import {hugetlb_split} from './hugetlb_share.ts';
import {enterSystemCall, mmap_write_lock_killable, mmap_write_unlock} from './mmap_lock.ts';
import {type MmuGather, tlb_finish_mmu, tlb_gather_mmu} from './mmu_gather.ts';
import {MM_CP_TRY_CHANGE_WRITABLE} from './mprotect_ptes.ts';
import {change_protection, mprotectGathers, vma_wants_writenotify} from './mprotect_walk.ts';
import type {UserMm} from './user_mm.ts';
import {type VmArea, vma_is_anonymous} from './vma.ts';
import {
  VM_ACCESS,
  VM_ACCOUNT,
  VM_HIGH_SEALED,
  VM_HUGETLB,
  VM_LOCKED,
  VM_NORESERVE,
  VM_SHARED,
  VM_WRITE,
} from './vma_flags.ts';
import {vma_start_write, vma_start_write_near} from './vma_lock.ts';
import {vma_modify} from './vma_merge.ts';
import {DEFAULT_MAX_MAP_COUNT} from './vma_space.ts';

export {change_prot_numa, change_protection} from './mprotect_walk.ts';

/**
 * mprotect of `pages` pages from `startVpn` on; `prot`: PROT_ bits (mmap_prot.ts). Returns 0,
 * -EINVAL, -ENOMEM (a hole, or too many VMAs), -EACCES (VM_MAY flags forbid it) or -EPERM (sealed).
 */
export function* do_mprotect(
  k: Kernel,
  t: Task,
  startVpn: number,
  pages: number,
  prot: number,
): Code<number> {
  const {mm} = k;
  enterSystemCall(k, t);
  if ((prot & ~VM_ACCESS) !== 0) return -EINVAL;
  t.cpu.charge(mm.costs.protectBaseTicks, mm.fns.do_mprotect_pkey);
  if (pages === 0) return 0;
  const end = startVpn + pages;
  const user = mm.userOf(t.mm!);
  if (end > user.space.taskSize) return -ENOMEM;
  if ((yield* mmap_write_lock_killable(t, user, mm.fns.do_mprotect_pkey)) !== 0) return -EINTR;
  const first = user.space.tree.lookup(startVpn);
  let result = -ENOMEM;
  if (first !== null) {
    const tlb = mprotectGathers(k) ? tlb_gather_mmu(user.mm) : null;
    result = yield* protectVmas(k, t, user, tlb, first, startVpn, end, prot);
    if (tlb !== null) yield* tlb_finish_mmu(k, t, tlb);
  }
  yield* mmap_write_unlock(t, user);
  return result;
}

function* protectVmas(
  k: Kernel,
  t: Task,
  user: UserMm,
  tlb: MmuGather | null,
  first: VmArea,
  start: number,
  end: number,
  prot: number,
): Code<number> {
  let vma: VmArea | null = first;
  for (let at = start; at < end; ) {
    if (vma === null || vma.start > at) return -ENOMEM;
    const flags = (vma.flags & ~VM_ACCESS) | prot;
    if ((flags & ~(flags >> 4) & VM_ACCESS) !== 0) return -EACCES;
    const to = Math.min(vma.end, end);
    const result = yield* mprotect_fixup(k, t, user, tlb, vma, at, to, flags);
    if (result !== 0) return result;
    at = to;
    vma = user.space.tree.find(at);
  }
  return 0;
}

/** mprotect_fixup: [start, end) of one VMA gets `flags`. mmap_lock is held for write. */
export function* mprotect_fixup(
  k: Kernel,
  t: Task,
  user: UserMm,
  tlb: MmuGather | null,
  vma: VmArea,
  start: number,
  end: number,
  flags: number,
): Code<number> {
  const {costs, fns} = k.mm;
  const oldFlags = vma.flags;
  if ((vma.flagsHigh & VM_HIGH_SEALED) !== 0) return -EPERM;
  if (flags === oldFlags) return 0;
  const splits = (vma.start < start ? 1 : 0) + (vma.end > end ? 1 : 0);
  if (user.space.mapCount + splits > DEFAULT_MAX_MAP_COUNT) return -ENOMEM;
  if (!may_split(vma, start) || !may_split(vma, end)) return -EINVAL;
  t.cpu.charge(costs.modifyVmaTicks, fns.do_mprotect_pkey);
  yield* vma_start_write(k, t, user, vma);
  if ((vma.flags & VM_HUGETLB) !== 0) {
    yield* hugetlb_split(k, t, vma, start);
    yield* hugetlb_split(k, t, vma, end);
  }
  const change = {flags: accounted(vma, flags)};
  const rule = {unfaultedTakesFaulted: !isBefore(k.facts.version, '6.16')};
  yield* vma_start_write_near(k, t, user, vma);
  const changed = vma_modify(vma, start, end, change, rule);
  yield* vma_start_write(k, t, user, changed);
  const upgrade = wantsUpgrade(changed) ? MM_CP_TRY_CHANGE_WRITABLE : 0;
  yield* change_protection(k, t, tlb, changed, start, end, upgrade, oldFlags);
  // A private mapping that is locked and now writable: COW is broken ahead of time.
  const becameLocked = (oldFlags & (VM_WRITE | VM_SHARED | VM_LOCKED)) === VM_LOCKED;
  if (becameLocked && (flags & VM_WRITE) !== 0) {
    yield* populate_vma_page_range(k, t, user.mm, changed, start, end);
  }
  return 0;
}

/** VM_ACCOUNT: private memory counts against overcommit once it has been writable. */
function accounted(vma: VmArea, flags: number): number {
  if ((flags & VM_WRITE) !== 0) {
    const counts = VM_ACCOUNT | VM_WRITE | VM_HUGETLB | VM_SHARED | VM_NORESERVE;
    return (vma.flags & counts) === 0 ? flags | VM_ACCOUNT : flags;
  }
  const untouched = vma_is_anonymous(vma) && vma.anonVma === null;
  return (vma.flags & VM_ACCOUNT) !== 0 && untouched ? flags & ~VM_ACCOUNT : flags;
}

/** vma_wants_manual_pte_write_upgrade. */
function wantsUpgrade(vma: VmArea): boolean {
  if ((vma.flags & VM_SHARED) !== 0) return vma_wants_writenotify(vma);
  return (vma.flags & VM_WRITE) !== 0;
}
