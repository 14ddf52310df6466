// mm/mmap.c and mm/vma.c: mmap(2) (do_mmap, __mmap_region), 6.18.
//
// mmap_lock for write: find a place, take away what is there (MAP_FIXED), then grow a neighbour
// over the range or make a new VMA and enter it in the file's tree. Nothing is mapped in the page
// table before it is touched, unless MAP_POPULATE or a locked mapping asks for it; that happens
// after the lock is dropped. Shared anonymous memory is a shmem file of its own.

import type {Code} from '../../machine/process.ts';
import {EINTR, EINVAL, ENOMEM} from '../errno.ts';
import type {Kernel} from '../kernel.ts';
import type {MmStruct} from '../mm_types.ts';
import type {Task} from '../task.ts';
import {isBefore} from '../version.ts';
import {populate_vma_page_range} from './gup.ts';
import {hugetlbfs_file_mmap, unitOf} from './hugetlb_file.ts';
import {ksm_vma_flags} from './ksm_merge_any.ts';
import {
  enterSystemCall,
  mmap_read_lock,
  mmap_read_unlock,
  mmap_write_lock_killable,
  mmap_write_unlock,
} from './mmap_lock.ts';
import {do_vmi_munmap} from './mmap_unmap.ts';
import {MMF_VM_MERGE_ANY, type UserMm} from './user_mm.ts';
import type {VmArea, VmaProps} from './vma.ts';
import {VM_GROWSDOWN, VM_LOCKED, VM_PFNMAP, VM_SHARED, VM_SOFTDIRTY} from './vma_flags.ts';
import {vma_start_write} from './vma_lock.ts';
import {type MergeRule, vma_merge_new_range} from './vma_merge.ts';
import {insertVma} from './vma_ops.ts';
import {DEFAULT_MAX_MAP_COUNT, get_unmapped_area} from './vma_space.ts';

/** What to map. */
export interface MmapArgs {
  /** First page: exact when `fixed`, else a hint; 0 for none. */
  readonly start: number;
  readonly fixed: boolean;
  readonly pages: number;
  /** Page offset in the file; ignored for private anonymous memory, whose offset is its address. */
  readonly pgoff: number;
  readonly props: VmaProps;
  /** MAP_POPULATE. */
  readonly populate: boolean;
}

/** is_mergeable_anon_vma's rule of this kernel. */
export function mergeRule(k: Kernel): MergeRule {
  return {unfaultedTakesFaulted: !isBefore(k.facts.version, '6.16')};
}

/** mmap(2): first page of the mapping, -ENOMEM, or -EINVAL for a part of a huge page. */
export function* sys_mmap(k: Kernel, t: Task, args: MmapArgs): Code<number> {
  enterSystemCall(k, t);
  return yield* vm_mmap(k, t, t.mm!, args);
}

/** vm_mmap_pgoff: as mmap, from inside the kernel (exec). */
export function* vm_mmap(k: Kernel, t: Task, mm: MmStruct, args: MmapArgs): Code<number> {
  const user = k.mm.userOf(mm);
  const fn = k.mm.fns.do_mmap;
  if ((yield* mmap_write_lock_killable(t, user, fn)) !== 0) return -EINTR;
  const start = yield* do_mmap(k, t, user, args);
  yield* mmap_write_unlock(t, user);
  const uffd = k.mm.hooks.userfaultfd_unmap_complete;
  if (uffd !== null) yield* uffd(t);
  const locked = (args.props.flags & VM_LOCKED) !== 0;
  if (start > 0 && (args.populate || locked)) {
    yield* mm_populate(k, t, user, start, start + args.pages);
  }
  return start;
}

/** do_mmap, with mmap_lock held for write. */
export function* do_mmap(k: Kernel, t: Task, user: UserMm, args: MmapArgs): Code<number> {
  const {space} = user;
  const {costs, fns} = k.mm;
  const {pages, props} = args;
  t.cpu.charge(costs.mmapTicks, fns.do_mmap);
  const align = unitOf(props);
  if (align > 1 && (pages % align !== 0 || args.start % align !== 0)) return -EINVAL;
  const wish = {length: pages, hint: args.start, align};
  const start = args.fixed ? args.start : get_unmapped_area(space, wish);
  if (start < 0 || space.mapCount > DEFAULT_MAX_MAP_COUNT) return -ENOMEM;
  if (space.tree.intersection(start, start + pages) !== null) {
    const result = yield* do_vmi_munmap(k, t, user, start, start + pages, false);
    if (result < 0) return result;
  }
  props.flags |= space.defFlags;
  const pgoff = props.ops === 'anon' ? start : args.pgoff;
  if (props.ops === 'hugetlb') {
    if (!hugetlbfs_file_mmap(k, t, space, props, pgoff, pages)) return -ENOMEM;
  }
  const vma = yield* mmap_region(k, t, user, start, start + pages, pgoff, props);
  if ((vma.flags & VM_LOCKED) !== 0) space.lockedVm += pages;
  if (space.totalVm > user.hiwaterVm) user.hiwaterVm = space.totalVm;
  return start;
}

/** __mmap_region over free pages: merges, or makes a VMA. */
export function* mmap_region(
  k: Kernel,
  t: Task,
  user: UserMm,
  start: number,
  end: number,
  pgoff: number,
  props: VmaProps,
): Code<VmArea> {
  const {mm} = k;
  const {space} = user;
  if ((user.flags & MMF_VM_MERGE_ANY) !== 0) props.flags |= ksm_vma_flags(user, props);
  const special = props.ops === 'special' || (props.flags & (VM_PFNMAP | VM_GROWSDOWN)) !== 0;
  const above = space.tree.find(start);
  const below = above === null ? space.tree.last : above.prev;
  if (!special) {
    if (below !== null && below.end === start) yield* vma_start_write(k, t, user, below);
    if (above !== null && above.start === end) yield* vma_start_write(k, t, user, above);
    const range = {start, end, pgoff, props, anonVma: null, source: null};
    const merged = vma_merge_new_range(space, range, mergeRule(k));
    if (merged !== null) {
      merged.flags |= props.flags & VM_SOFTDIRTY;
      t.cpu.charge(mm.costs.vmaMergeTicks, mm.fns.vma_merge_new_range);
      if (mm.hooks.uprobe_mmap !== null) yield* mm.hooks.uprobe_mmap(t, merged, start, end);
      return merged;
    }
  }
  t.cpu.charge(mm.costs.newVmaTicks, mm.fns.do_mmap);
  const {mapping} = props;
  if (mapping === null) return insertVma(space, start, end, pgoff, props);
  const lock = mm.iMmapLock(mapping);
  if (!lock.writeAcquire(t, mm.fns.do_mmap)) yield* lock.writeAcquireSlow(t, mm.fns.do_mmap);
  t.cpu.charge(mm.costs.linkFileTicks, mm.fns.do_mmap);
  const vma = insertVma(space, start, end, pgoff, props);
  if (!lock.writeRelease(t)) yield* lock.writeReleaseSlow(t);
  if (mm.hooks.uprobe_mmap !== null) yield* mm.hooks.uprobe_mmap(t, vma, start, end);
  return vma;
}

/** __mm_populate: faults the range in, VMA by VMA, under mmap_lock for read. */
export function* mm_populate(
  k: Kernel,
  t: Task,
  user: UserMm,
  start: number,
  end: number,
): Code<number> {
  const fn = k.mm.fns.mm_populate;
  yield* mmap_read_lock(t, user, fn);
  let result = 0;
  let vma = user.space.tree.intersection(start, end);
  while (vma !== null && vma.start < end && result === 0) {
    const from = Math.max(start, vma.start);
    const to = Math.min(end, vma.end);
    const registered: boolean = vma.uffd !== 0;
    result = yield* populate_vma_page_range(k, t, user.mm, vma, from, to, true);
    // With userfaultfd the lock may have been given up: what was next may be gone.
    vma = registered ? user.space.tree.intersection(to, end) : vma.next;
  }
  yield* mmap_read_unlock(t, user);
  return result;
}

/** A shared anonymous mapping's own file (shmem_zero_setup). */
export function shmem_zero_setup(k: Kernel, props: VmaProps, pages: number): VmaProps {
  const mapping = k.mm.files.create('shmem', pages);
  mapping.unlinked = true;
  return {...props, flags: props.flags | VM_SHARED, file: mapping.id, mapping, ops: 'shmem'};
}
