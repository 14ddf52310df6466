// When neighbouring VMAs become one (mm/vma.c, 6.18). Two VMAs merge when they touch in address and
// page offset, have equal properties (soft-dirty aside), and their anonymous pages may share an
// anon_vma: the same one, or one side has none and the other did not inherit pages by fork. That
// last rule is why a process that forked merges less than one that did not.
//
// Until 6.15 the rule looked only at the chain of the VMA that stays, so that an unfaulted VMA did
// not take in a faulted neighbour (`unfaultedTakesFaulted: false`).

import type {AnonVma} from './anon_vma.ts';
import type {VmArea, VmaProps} from './vma.ts';
import {VM_IGNORE_MERGE, VM_SPECIAL} from './vma_flags.ts';
import {adjustVma, detachVma, insertVma, split_vma, unlinkVma} from './vma_ops.ts';
import {vm_stat_account, type VmaSpace} from './vma_space.ts';

/** Pages that are to be mapped, or mapped otherwise. */
export interface VmaRange {
  readonly start: number;
  readonly end: number;
  readonly pgoff: number;
  readonly props: VmaProps;
  /** anon_vma of pages that come with the range: mremap and changes of mapped ranges. */
  readonly anonVma: AnonVma | null;
  /** Where those pages come from. */
  readonly source: VmArea | null;
}

export interface MergeRule {
  /** Since 6.16. */
  readonly unfaultedTakesFaulted: boolean;
}

const CURRENT: MergeRule = {unfaultedTakesFaulted: true};

/** is_mergeable_vma: equal but for position. */
export function is_mergeable_vma(a: VmaProps, b: VmaProps): boolean {
  return (
    ((a.flags ^ b.flags) & ~VM_IGNORE_MERGE) === 0 &&
    a.flagsHigh === b.flagsHigh &&
    a.file === b.file &&
    a.mapping === b.mapping &&
    a.ops === b.ops &&
    a.uffd === b.uffd &&
    a.anonName === b.anonName &&
    a.policy === b.policy
  );
}

/** vma_is_fork_child: it has anonymous pages of an ancestor. */
export function vma_is_fork_child(vma: VmArea | null): boolean {
  return vma !== null && vma.anonVma !== null && vma.anonChainLength !== 1;
}

/** is_mergeable_anon_vma for `range` going into `target`. */
function is_mergeable_anon_vma(range: VmaRange, target: VmArea, rule: MergeRule): boolean {
  if (range.anonVma === target.anonVma) return true;
  if (range.anonVma !== null && target.anonVma !== null) return false;
  if (!rule.unfaultedTakesFaulted) return target.anonChainLength === 1;
  return !vma_is_fork_child(target.anonVma === null ? range.source : target);
}

/** VM_SPECIAL mappings (hugetlb, devices, the vdso) never merge. */
function mayMerge(range: VmaRange, target: VmArea, rule: MergeRule): boolean {
  return (
    (range.props.flags & VM_SPECIAL) === 0 &&
    is_mergeable_vma(range.props, target) &&
    is_mergeable_anon_vma(range, target, rule)
  );
}

/** can_vma_merge_after: `range` at the end of `prev`. */
export function can_vma_merge_after(range: VmaRange, prev: VmArea, rule: MergeRule): boolean {
  const touches = prev.end === range.start && prev.pgoff + prev.pages === range.pgoff;
  return touches && mayMerge(range, prev, rule);
}

/** can_vma_merge_before: `range` in front of `next`. */
export function can_vma_merge_before(range: VmaRange, next: VmArea, rule: MergeRule): boolean {
  const touches =
    range.end === next.start && range.pgoff + (range.end - range.start) === next.pgoff;
  return touches && mayMerge(range, next, rule);
}

/** The two neighbours may become one across the range. */
function joinable(prev: VmArea, next: VmArea): boolean {
  return prev.anonVma === null || next.anonVma === null || prev.anonVma === next.anonVma;
}

/** dup_anon_vma: `dst`, which has no anon_vma, takes over the trees of `src`. */
function dup_anon_vma(dst: VmArea, src: VmArea | null): void {
  if (src === null || src.anonVma === null || dst.anonVma !== null) return;
  dst.anonVma = src.anonVma;
  dst.space.trees.anon.clone(dst, src);
}

/** Removes a VMA that another has swallowed. */
function swallow(vma: VmArea): void {
  detachVma(vma);
  unlinkVma(vma);
}

/**
 * vma_merge_new_range: grows a neighbour over [range.start, range.end), where nothing is mapped, or
 * joins both neighbours. Returns the VMA that then covers the range, null when nothing merges.
 */
export function vma_merge_new_range(
  space: VmaSpace,
  range: VmaRange,
  rule: MergeRule = CURRENT,
): VmArea | null {
  const above = space.tree.find(range.start);
  const prev = above === null ? space.tree.last : above.prev;
  const left = prev !== null && can_vma_merge_after(range, prev, rule) ? prev : null;
  const right = above !== null && can_vma_merge_before(range, above, rule) ? above : null;
  if (left !== null && right !== null && joinable(left, right)) {
    dup_anon_vma(left, range.source);
    dup_anon_vma(left, right);
    const {end} = right;
    swallow(right);
    adjustVma(left, left.start, end, left.pgoff);
    return left;
  }
  if (left !== null) {
    dup_anon_vma(left, range.source);
    adjustVma(left, left.start, range.end, left.pgoff);
    return left;
  }
  if (right === null) return null;
  dup_anon_vma(right, range.source);
  adjustVma(right, range.start, right.end, range.pgoff);
  return right;
}

/** mmap of a free range: merges, or makes a new VMA. */
export function mapRange(
  space: VmaSpace,
  start: number,
  end: number,
  pgoff: number,
  props: VmaProps,
  rule: MergeRule = CURRENT,
): VmArea {
  const range = {start, end, pgoff, props, anonVma: null, source: null};
  return vma_merge_new_range(space, range, rule) ?? insertVma(space, start, end, pgoff, props);
}

/**
 * vma_modify: gives the pages [start, end) of `vma` other properties. Merges with neighbours where
 * it can (the VMA may then be gone), else splits the range out. Returns the VMA that covers the
 * range and has the properties.
 */
export function vma_modify(
  vma: VmArea,
  start: number,
  end: number,
  change: Partial<VmaProps>,
  rule: MergeRule = CURRENT,
): VmArea {
  const props = {...propsOf(vma), ...change};
  const merged = mergeExisting(vma, start, end, props, rule);
  if (merged !== null) return merged;
  if (vma.start < start) split_vma(vma, start, true);
  if (vma.end > end) split_vma(vma, end, false);
  applyProps(vma, props);
  return vma;
}

/** vma_merge_existing_range. */
function mergeExisting(
  vma: VmArea,
  start: number,
  end: number,
  props: VmaProps,
  rule: MergeRule,
): VmArea | null {
  const pgoff = vma.pgoff + (start - vma.start);
  const range = {start, end, pgoff, props, anonVma: vma.anonVma, source: vma};
  const atStart = start === vma.start;
  const atEnd = end === vma.end;
  const {prev, next} = vma;
  const left = atStart && prev !== null && can_vma_merge_after(range, prev, rule) ? prev : null;
  const right = atEnd && next !== null && can_vma_merge_before(range, next, rule) ? next : null;
  if (left !== null) {
    const whole = atEnd;
    const both = right !== null && whole && joinable(left, right) ? right : null;
    dup_anon_vma(left, vma);
    if (both !== null) dup_anon_vma(left, both);
    const last = both === null ? end : both.end;
    if (whole) swallow(vma);
    else adjustVma(vma, end, vma.end, vma.pgoff + (end - vma.start));
    if (both !== null) swallow(both);
    adjustVma(left, left.start, last, left.pgoff);
    return left;
  }
  if (right === null) return null;
  dup_anon_vma(right, vma);
  if (atStart) swallow(vma);
  else adjustVma(vma, vma.start, start, vma.pgoff);
  adjustVma(right, start, right.end, pgoff);
  return right;
}

/**
 * copy_vma: the destination of mremap. An anonymous VMA without pages gets the page offset of its
 * new place; otherwise page offsets, and with them the pages' index, stay. `start` must be free for
 * `pages` pages.
 */
export function copy_vma(
  vma: VmArea,
  start: number,
  pages: number,
  pgoff: number,
  rule: MergeRule = CURRENT,
): VmArea {
  const {space} = vma;
  const moved = vma.ops === 'anon' && vma.anonVma === null ? start : pgoff;
  const range = {
    start,
    end: start + pages,
    pgoff: moved,
    props: propsOf(vma),
    anonVma: vma.anonVma,
    source: vma,
  };
  const merged = vma_merge_new_range(space, range, rule);
  if (merged !== null) return merged;
  const copy = insertVma(space, start, start + pages, moved, vma);
  copy.anonVma = vma.anonVma;
  space.trees.anon.clone(copy, vma);
  return copy;
}

/** The properties of a VMA, without its place. */
export function propsOf(vma: VmaProps): VmaProps {
  const {flags, flagsHigh, file, mapping, ops, uffd, anonName, policy} = vma;
  return {flags, flagsHigh, file, mapping, ops, uffd, anonName, policy};
}

function applyProps(vma: VmArea, props: VmaProps): void {
  vm_stat_account(vma.space, vma.flags, -vma.pages);
  Object.assign(vma, props);
  vm_stat_account(vma.space, vma.flags, vma.pages);
}
