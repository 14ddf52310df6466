// mm/memory.c: fork's copy of page tables.
import {bug} from '../../machine/assert.ts';
import type {Code} from '../../machine/engine.ts';
import type {Kernel} from '../kernel.ts';
import type {MmStruct} from '../mm_types.ts';
import type {Task} from '../task.ts';
import type {VmArea} from './vma.ts';

/**
 * copy_page_range: copies the PTEs of `srcVma` for the child. Caller: dup_mmap with both mmap_locks for write, after the child's
 * VMA is linked. Decides itself whether anything need be copied (vma_needs_copy). Returns 0 or -12 (ENOMEM).
 */
export function* copy_page_range(
  k: Kernel,
  t: Task,
  dst: MmStruct,
  src: MmStruct,
  dstVma: VmArea,
  srcVma: VmArea,
): Code<number> {
  return bug(`not there yet ${k} ${t} ${dst} ${src} ${dstVma} ${srcVma}`);
}
