// The mappings of one mm: its VMA tree, where mmap, brk and the stack are, and mm_struct's
// accounting of mapped pages.

import type {AddressSpaces} from './address_space.ts';
import type {AnonVmas} from './anon_vma.ts';
import {STACK_GUARD_GAP, vm_start_gap, type VmArea} from './vma.ts';
import {VM_EXEC, VM_GROWSDOWN, VM_SHARED, VM_WRITE} from './vma_flags.ts';
import {VmaTree} from './vma_tree.ts';

/** sysctl vm.max_map_count. */
export const DEFAULT_MAX_MAP_COUNT = 65530;
/**
 * Pages of the user half: up to the last page but one of 128 TB; the 56-bit half needs a hint above
 * it.
 */
export const TASK_SIZE_PAGES = 2 ** 35 - 1;
export const TASK_SIZE_PAGES_5_LEVEL = 2 ** 44 - 1;
/** vm.mmap_min_addr 65536. */
export const MMAP_MIN_PAGE = 16;
/**
 * Room for the stack below the top that mmap_base leaves: the 8 MB rlimit, stack randomisation (16
 * GB) and guard gap.
 */
export const STACK_ROOM_PAGES = 2048 + 2 ** 22 + STACK_GUARD_GAP;

/** The trees that VMAs of all mms are in. */
export interface RmapTrees {
  readonly anon: AnonVmas;
  readonly files: AddressSpaces;
}

/** The mappings of one mm. */
export class VmaSpace {
  readonly tree = new VmaTree();
  /** Top-down mmap begins here. */
  mmapBase = TASK_SIZE_PAGES - STACK_ROOM_PAGES;
  taskSize = TASK_SIZE_PAGES;
  startBrk = 0;
  /** End of the heap in pages (mm->brk rounded up). */
  brk = 0;
  startStack = 0;
  /** VM_ flags added to every mapping: mlockall(MCL_FUTURE), THP and KSM by prctl. */
  defFlags = 0;
  /** Pages mapped, by kind (total_vm, data_vm, exec_vm, stack_vm, locked_vm). */
  totalVm = 0;
  dataVm = 0;
  execVm = 0;
  stackVm = 0;
  lockedVm = 0;

  constructor(
    readonly mmId: number,
    readonly trees: RmapTrees,
  ) {}

  /** map_count. */
  get mapCount(): number {
    return this.tree.count;
  }
}

/** vm_stat_account: pages of a mapping with these flags come (or, negative, go). */
export function vm_stat_account(space: VmaSpace, flags: number, pages: number): void {
  space.totalVm += pages;
  if ((flags & (VM_EXEC | VM_WRITE | VM_GROWSDOWN)) === VM_EXEC) space.execVm += pages;
  else if ((flags & VM_GROWSDOWN) !== 0) space.stackVm += pages;
  else if ((flags & (VM_WRITE | VM_SHARED)) === VM_WRITE) space.dataVm += pages;
}

/** What get_unmapped_area is asked for, in pages. */
export interface AreaWish {
  length: number;
  /** Wanted start, 0 for none; taken when free. */
  hint?: number;
  /**
   * Power of two the start is aligned to (512 for THP, more for hugetlb), relative to
   * `alignOffset`.
   */
  align?: number;
  alignOffset?: number;
}

/**
 * arch_get_unmapped_area_topdown: the hint when it is free, else the highest hole below mmap_base,
 * else (as Linux falls back) the lowest from a third of the address space up. -1 for ENOMEM.
 */
export function get_unmapped_area(space: VmaSpace, wish: AreaWish): number {
  const {length, hint = 0, align = 1, alignOffset = 0} = wish;
  if (length > space.taskSize) return -1;
  if (hint >= MMAP_MIN_PAGE && isFree(space, hint, length)) return hint;
  const {tree} = space;
  const found = tree.highestGap(length, MMAP_MIN_PAGE, space.mmapBase, align, alignOffset);
  if (found >= 0) return found;
  const bottom = Math.floor(space.taskSize / 3);
  return tree.lowestGap(length, bottom, space.taskSize, align, alignOffset);
}

/** Is [start, start + length) free, guard gaps included? */
export function isFree(space: VmaSpace, start: number, length: number): boolean {
  if (start + length > space.taskSize) return false;
  const next = space.tree.find(start);
  return next === null || start + length <= vm_start_gap(next);
}

/** True when no hole is in [start, end): the check that many calls answer with ENOMEM. */
export function isFullyMapped(space: VmaSpace, start: number, end: number): boolean {
  let vma = space.tree.lookup(start);
  while (vma !== null && vma.end < end) {
    const next: VmArea | null = vma.next;
    if (next === null || next.start !== vma.end) return false;
    vma = next;
  }
  return vma !== null;
}
