// For tests of DAX: a file of persistent memory, mapped where the test says.

import type {Kernel} from '../kernel.ts';
import type {MmStruct} from '../mm_types.ts';
import {type DaxWish, dax_create, daxProps} from './dax.ts';
import {type Program, runProcess} from './mm_testing.ts';
import {propsFor} from './mmap_prot.ts';
import type {VmArea} from './vma.ts';
import {VM_MAYREAD, VM_MAYSHARE, VM_MAYWRITE, VM_READ, VM_SHARED, VM_WRITE} from './vma_flags.ts';
import {insertVma} from './vma_ops.ts';

export const SHARED_RW = VM_READ | VM_WRITE | VM_MAYREAD | VM_MAYWRITE | VM_SHARED | VM_MAYSHARE;
/** Pages of 1 GB. */
export const GB = 2 ** 18;

/** Maps all of a new DAX file at `start`. */
export function mapDax(
  k: Kernel,
  mm: MmStruct,
  start: number,
  wish: Omit<DaxWish, 'node'>,
  flags = SHARED_RW,
): VmArea {
  const mapping = dax_create(k, {...wish, node: 0});
  if (mapping === null) throw new Error('no memory for a DAX file');
  const {space} = k.mm.userOf(mm);
  const props = daxProps(k, propsFor(flags, mapping));
  return insertVma(space, start, start + mapping.sizePages, 0, props);
}

/** A kernel with these choices and one process that runs `program`, to the end. */
export function runDesign(version: string, overrides: readonly string[], program: Program): Kernel {
  return runProcess(program, version, '2s4c1t', overrides);
}
