// mm/vma.c: munmap (do_vmi_align_munmap, vms_gather_munmap_vmas, vms_complete_munmap_vmas), 6.18.
//
// Under mmap_lock for write the VMAs of the range are cut out of the mm; since 4.20 the lock is
// then downgraded, so that page faults elsewhere go on while the pages are zapped and the page
// tables freed. A file that nobody has open and nobody maps any more goes with its last VMA.

import type {Code} from '../../machine/process.ts';
import {EINTR, EINVAL, ENOMEM, EPERM} from '../errno.ts';
import type {Kernel} from '../kernel.ts';
import type {Task} from '../task.ts';
import {isBefore} from '../version.ts';
import {may_split} from './hugetlb_file.ts';
import {hugetlb_split} from './hugetlb_share.ts';
import {free_pgtables} from './memory_free.ts';
import {unmap_vmas} from './memory_zap.ts';
import {
  enterSystemCall,
  mmap_read_unlock,
  mmap_write_downgrade,
  mmap_write_lock_killable,
  mmap_write_unlock,
} from './mmap_lock.ts';
import {tlb_finish_mmu, tlb_gather_mmu} from './mmu_gather.ts';
import {shmem_evict_inode} from './shmem_evict.ts';
import type {UserMm} from './user_mm.ts';
import type {VmArea} from './vma.ts';
import {VM_HIGH_SEALED, VM_LOCKED} from './vma_flags.ts';
import {vma_start_write} from './vma_lock.ts';
import {detachRange} from './vma_ops.ts';
import {DEFAULT_MAX_MAP_COUNT} from './vma_space.ts';

/** End of what user page tables may cover (USER_PGTABLES_CEILING), in pages. */
export const USER_PGTABLES_CEILING = 2 ** 45;

/**
 * munmap(2): 0, -EINVAL (beyond the address space, a part of a huge page), -ENOMEM when a VMA too
 * many would come of it, or -EPERM (sealed, 6.10+).
 */
export function* sys_munmap(k: Kernel, t: Task, start: number, end: number): Code<number> {
  enterSystemCall(k, t);
  const user = k.mm.userOf(t.mm!);
  if ((yield* mmap_write_lock_killable(t, user, k.mm.fns.do_vmi_munmap)) !== 0) return -EINTR;
  if (end > user.space.taskSize) {
    yield* mmap_write_unlock(t, user);
    return -EINVAL;
  }
  t.cpu.charge(k.mm.costs.munmapTicks, k.mm.fns.do_vmi_munmap);
  const result = yield* do_vmi_munmap(k, t, user, start, end, true);
  if (result === DOWNGRADED) yield* mmap_read_unlock(t, user);
  else yield* mmap_write_unlock(t, user);
  const uffd = k.mm.hooks.userfaultfd_unmap_complete;
  if (uffd !== null) yield* uffd(t);
  return Math.min(result, 0);
}

/** do_vmi_munmap's answer when it has made a reader of the writer. */
export const DOWNGRADED = 1;

/**
 * do_vmi_munmap: mmap_lock is held for write. 0, -ENOMEM, -EPERM, or with `downgrade` DOWNGRADED
 * when the lock is now held for read.
 */
export function* do_vmi_munmap(
  k: Kernel,
  t: Task,
  user: UserMm,
  start: number,
  end: number,
  downgrade: boolean,
): Code<number> {
  const {space} = user;
  const first = space.tree.intersection(start, end);
  if (first === null) return 0;
  const splitsInTwo = first.start < start && first.end > end;
  if (splitsInTwo && space.mapCount >= DEFAULT_MAX_MAP_COUNT) return -ENOMEM;
  for (let vma: VmArea | null = first; vma !== null && vma.start < end; vma = vma.next) {
    if ((vma.flagsHigh & VM_HIGH_SEALED) !== 0) return -EPERM;
    yield* vma_start_write(k, t, user, vma);
    if (vma.uffd !== 0) k.mm.hooks.userfaultfd_unmap_prep?.(t, vma, start, end);
    if (vma.ops !== 'hugetlb' && vma.ops !== 'dax') continue;
    if (!may_split(vma, start) || !may_split(vma, end)) return -EINVAL;
    yield* hugetlb_split(k, t, vma, start);
    yield* hugetlb_split(k, t, vma, end);
  }
  const before = space.mapCount;
  const vmas = detachRange(space, start, end);
  const splits = space.mapCount + vmas.length - before;
  for (const vma of vmas) if ((vma.flags & VM_LOCKED) !== 0) space.lockedVm -= vma.pages;
  const {costs, fns} = k.mm;
  const ticks = vmas.length * costs.detachVmaTicks + splits * costs.splitVmaTicks;
  t.cpu.charge(ticks, fns.do_vmi_munmap);
  const canDowngrade = downgrade && !isBefore(k.facts.version, '4.20');
  if (canDowngrade) yield* mmap_write_downgrade(t, user);
  yield* vms_clear_ptes(k, t, user, vmas, start, end);
  return canDowngrade ? DOWNGRADED : 0;
}

/** vms_clear_ptes and what follows it: pages, page tables, then the VMAs themselves. */
function* vms_clear_ptes(
  k: Kernel,
  t: Task,
  user: UserMm,
  vmas: readonly VmArea[],
  start: number,
  end: number,
): Code {
  const {tree} = user.space;
  const below = tree.before(start);
  const above = tree.find(end);
  const floor = below === null ? 0 : below.end;
  const ceiling = above === null ? USER_PGTABLES_CEILING : above.start;
  const tlb = tlb_gather_mmu(user.mm);
  yield* unmap_vmas(k, t, tlb, vmas, start, end);
  yield* free_pgtables(k, t, tlb, user.mm, vmas, floor, ceiling);
  yield* tlb_finish_mmu(k, t, tlb);
  remove_vmas(k, t, vmas);
}

/** remove_vma for each: the struct is freed, and a shmem file without a name goes with it. */
export function remove_vmas(k: Kernel, t: Task, vmas: readonly VmArea[]): void {
  t.cpu.charge(vmas.length * k.mm.costs.freeVmaTicks, k.mm.fns.remove_vma);
  for (const vma of vmas) {
    const {mapping} = vma;
    if (mapping === null) continue;
    if (mapping.hugetlb !== null) k.mm.hooks.hugetlb_vm_op_close?.(t, vma);
    else if (mapping.unlinked && mapping.nrMaps === 0) shmem_evict_inode(k, t, mapping);
  }
}
