// Kernel virtual areas. What a modelled system call allocates (the stack of a fork, the map of a
// swapon) the model allocates itself, so its tracepoint is an answer; anything else is an
// operation, and so is its free.

import {KIND} from '../kinds.ts';
import {num, numOr, ptr, type Arg} from './fields.ts';

/**
 * A VMAP_STACK and its guard page, as only fork allocates them: 16 KiB aligned, 32 KiB under KASAN.
 */
function isKernelStack(size: Arg, align: Arg): boolean {
  return (align === 16384 || align === 32768) && size === Number(align) + 4096;
}

/** Areas that became operations and are not freed yet. */
export class VmapAreas {
  private readonly sizes = new Map<Arg, Arg>();

  /** Kind and arguments of an alloc_vmap_area. */
  alloc(payload: string, insideCall: boolean): [kind: number, args: Arg[]] {
    const addr = num(payload, 'va_start');
    const size = num(payload, 'size');
    if (insideCall || isKernelStack(size, numOr(payload, 'align', 0))) {
      return [KIND.alloc_vmap_area, [addr, size, num(payload, 'failed')]];
    }
    this.sizes.set(addr, size);
    return [KIND.vmalloc, [addr, size]];
  }

  /** Kind and arguments of a free_vmap_area_noflush, which does not print the size. */
  free(payload: string): [kind: number, args: Arg[]] {
    const addr = ptr(payload, 'va_start');
    const size = this.sizes.get(addr);
    if (size === undefined) {
      return [KIND.free_vmap_area, [addr, num(payload, 'nr_lazy'), num(payload, 'nr_lazy_max')]];
    }
    this.sizes.delete(addr);
    return [KIND.vfree, [addr, size]];
  }
}
