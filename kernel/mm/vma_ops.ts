// Changes of VMAs that keep the trees right: the mm's VMA tree, the anon_vma trees and the files'
// i_mmap trees. Names and results follow mm/vma.c and mm/mmap.c of Linux 6.18; locks and costs are
// the callers' business.

import {assert} from '../../machine/assert.ts';
import {STACK_GUARD_GAP, VmArea, type VmaProps} from './vma.ts';
import {
  VM_ACCESS,
  VM_DONTCOPY,
  VM_GROWSDOWN,
  VM_HIGH_UFFD_MINOR,
  VM_LOCKED,
  VM_LOCKONFAULT,
  VM_MAYWRITE,
  VM_SHARED,
  VM_UFFD_MISSING,
  VM_UFFD_WP,
  VM_WIPEONFORK,
} from './vma_flags.ts';
import {vm_stat_account, type VmaSpace} from './vma_space.ts';

/**
 * Creates a VMA over pages that nothing maps and enters it everywhere (vma_link). Merging comes
 * first: vma_merge.ts.
 */
export function insertVma(
  space: VmaSpace,
  start: number,
  end: number,
  pgoff: number,
  props: VmaProps,
): VmArea {
  assert(start < end, 'empty VMA');
  const vma = new VmArea(space, start, end, pgoff, props);
  space.tree.insert(vma);
  linkFile(vma, null);
  vm_stat_account(space, vma.flags, vma.pages);
  return vma;
}

const SHARED_MAYWRITE = VM_SHARED | VM_MAYWRITE;

/** Enters the VMA into its file's tree and counts shared mappings that may be written. */
function linkFile(vma: VmArea, after: VmArea | null): void {
  if (vma.mapping === null) return;
  vma.space.trees.files.link(vma, after);
  if ((vma.flags & SHARED_MAYWRITE) === SHARED_MAYWRITE) vma.mapping.mmapWritable++;
}

/** unlink_file_vma and unlink_anon_vmas: what free_pgtables does for a VMA whose pages are gone. */
export function unlinkVma(vma: VmArea): void {
  vma.space.trees.anon.unlink(vma);
  unlinkFile(vma);
}

/** unlink_file_vma, under i_mmap_rwsem. */
export function unlinkFile(vma: VmArea): void {
  if (vma.mapping === null || vma.iMmapNode === 0) return;
  vma.space.trees.files.unlink(vma);
  if ((vma.flags & SHARED_MAYWRITE) === SHARED_MAYWRITE) vma.mapping.mmapWritable--;
}

/**
 * Takes a VMA out of its mm; it stays in the rmap trees until unlinkVma, because its pages are
 * still mapped.
 */
export function detachVma(vma: VmArea): void {
  vma.space.tree.remove(vma);
  vm_stat_account(vma.space, vma.flags, -vma.pages);
}

/** detachVma for all VMAs of an mm that ends. */
export function detachAll(space: VmaSpace): void {
  space.tree.clear();
  space.totalVm = 0;
  space.dataVm = 0;
  space.execVm = 0;
  space.stackVm = 0;
}

/**
 * Moves a VMA's ends (vma_expand, vma_shrink, __vma_adjust): all trees follow, pages and page
 * tables do not.
 */
export function adjustVma(vma: VmArea, start: number, end: number, pgoff: number): void {
  const {tree, trees} = vma.space;
  const before = vma.pages;
  trees.anon.preUpdate(vma);
  trees.files.preUpdate(vma);
  tree.resize(vma, start, end);
  vma.pgoff = pgoff;
  trees.files.postUpdate(vma);
  trees.anon.postUpdate(vma);
  vm_stat_account(vma.space, vma.flags, vma.pages - before);
}

/**
 * split_vma at `at`, inside the VMA. The new VMA is the lower part when `newBelow`, else the upper.
 * Both are in the same anon_vma trees afterwards. Returns the new one.
 */
export function split_vma(vma: VmArea, at: number, newBelow: boolean): VmArea {
  assert(vma.start < at && at < vma.end, 'VMA split outside itself');
  const {space} = vma;
  const {start, end, pgoff} = vma;
  const upper = pgoff + (at - start);
  const part = newBelow
    ? new VmArea(space, start, at, pgoff, vma)
    : new VmArea(space, at, end, upper, vma);
  part.lockSeq = vma.lockSeq;
  part.anonVma = vma.anonVma;
  space.trees.anon.clone(part, vma);
  adjustVma(vma, newBelow ? at : start, newBelow ? end : at, newBelow ? upper : pgoff);
  space.tree.insert(part);
  linkFile(part, null);
  vm_stat_account(space, part.flags, part.pages);
  return part;
}

/**
 * vms_gather_munmap_vmas and vms_complete: splits what sticks out of [start, end) and takes the
 * VMAs inside out of the mm, in order. Their pages must be zapped and unlinkVma called for each.
 */
export function detachRange(space: VmaSpace, start: number, end: number): VmArea[] {
  const detached: VmArea[] = [];
  let vma = space.tree.intersection(start, end);
  if (vma === null) return detached;
  if (vma.start < start) vma = split_vma(vma, start, false);
  while (vma !== null && vma.start < end) {
    if (vma.end > end) split_vma(vma, end, false);
    const next: VmArea | null = vma.next;
    detachVma(vma);
    detached.push(vma);
    vma = next;
  }
  return detached;
}

/**
 * One VMA of dup_mmap: the child's copy with its anon_vmas (the caller has their lock), which
 * linkCopy then enters. null for a VMA that fork does not copy (VM_DONTCOPY). Locking is not
 * inherited, nor is userfaultfd unless the context says so.
 */
export function copyVma(parent: VmArea, child: VmaSpace, keepUffd: boolean): VmArea | null {
  if ((parent.flags & VM_DONTCOPY) !== 0) return null;
  const vma = new VmArea(child, parent.start, parent.end, parent.pgoff, parent);
  vma.flags &= ~(VM_LOCKED | VM_LOCKONFAULT);
  if (!keepUffd) {
    vma.uffd = 0;
    vma.flags &= ~(VM_UFFD_MISSING | VM_UFFD_WP);
    vma.flagsHigh &= ~VM_HIGH_UFFD_MINOR;
  }
  if ((parent.flags & VM_WIPEONFORK) === 0) child.trees.anon.fork(vma, parent);
  return vma;
}

/** Enters a copy into the file's tree (under i_mmap_rwsem) and the child's. */
export function linkCopy(vma: VmArea, parent: VmArea): void {
  linkFile(vma, parent);
  vma.space.tree.insert(vma);
  vm_stat_account(vma.space, vma.flags, vma.pages);
}

/** Both at once. */
export function dupVma(parent: VmArea, child: VmaSpace, keepUffd: boolean): VmArea | null {
  const vma = copyVma(parent, child, keepUffd);
  if (vma !== null) linkCopy(vma, parent);
  return vma;
}

/**
 * expand_downwards: lets a stack grow down to `vpn`. False when another mapping is within the guard
 * gap.
 */
export function expandDownwards(vma: VmArea, vpn: number): boolean {
  if (vpn >= vma.start) return true;
  const grow = vma.start - vpn;
  const {prev} = vma;
  if (prev !== null) {
    const guarded = (prev.flags & VM_GROWSDOWN) === 0 && (prev.flags & VM_ACCESS) !== 0;
    if (vpn - prev.end < (guarded ? STACK_GUARD_GAP : 0)) return false;
  }
  if (grow > vma.pgoff) return false;
  adjustVma(vma, vpn, vma.end, vma.pgoff - grow);
  return true;
}
