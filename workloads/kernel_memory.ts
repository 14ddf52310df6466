// Kernel addresses that generated traces name, and where vmalloc areas go.
//
// The layout is that of a 4-level x86-64 kernel without KASLR: direct map from
// 0xffff8800_0000_0000, vmalloc area from 0xffffc900_0000_0000, 64 top-level slots of 512 GiB
// there. 32-bit kernels map fewer addresses; replay places an area where the paging mode has room,
// so addresses in a trace are names that vfree and vmalloc_touch refer to.

/** Memory that one top-level entry covers with 4 levels, bytes. */
export const PGDIR_BYTES = 2 ** 39;
/** One memory section: the unit of hotplug on x86-64, bytes. */
export const SECTION_BYTES = 2 ** 27;
/** Start of the vmalloc area. */
export const VMALLOC_START = 0xffff_c900_0000_0000n;
const VMALLOC_BYTES = 64 * PGDIR_BYTES;
const PAGE_BYTES = 4096;

/** The first address of top-level slot `slot` of the vmalloc area, 0..63. */
export function vmallocSlot(slot: number): bigint {
  return VMALLOC_START + BigInt(slot) * BigInt(PGDIR_BYTES);
}

/** Gives out vmalloc addresses, rising, with the guard page between areas; never the same twice. */
export class VmallocArea {
  private usedBytes = 0;

  /** Address of a new area of `bytes`. Throws RangeError when 32 TiB have been given out. */
  take(bytes: number): bigint {
    const addr = VMALLOC_START + BigInt(this.usedBytes);
    this.usedBytes += Math.ceil(bytes / PAGE_BYTES) * PAGE_BYTES + PAGE_BYTES;
    if (this.usedBytes > VMALLOC_BYTES) throw new RangeError('the vmalloc area is full');
    return addr;
  }
}
