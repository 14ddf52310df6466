// mm/memory.c: page faults.
import {bug} from '../../machine/assert.ts';
import type {Code} from '../../machine/engine.ts';
import type {Kernel} from '../kernel.ts';
import type {MmStruct} from '../mm_types.ts';
import type {Task} from '../task.ts';
import type {VmArea} from './vma.ts';

/**
 * handle_mm_fault: FAULT_FLAG_ bits in, VM_FAULT_ bits out. Caller holds mmap_lock for read (or the VMA's lock and passes
 * FAULT_FLAG_VMA_LOCK). Used by faults and by get_user_pages. The FAULT_ class is in k.mm.lastFaultClass.
 */
export function* handle_mm_fault(
  k: Kernel,
  t: Task,
  mm: MmStruct,
  vma: VmArea,
  vpn: number,
  flags: number,
): Code<number> {
  return bug(`not there yet ${k} ${t} ${mm} ${vma} ${vpn} ${flags}`);
}
