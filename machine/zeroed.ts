// Large arrays of zeros that cost as much as is used of them.
//
// A run begins with arrays that have room for every page of the machine and touches few of them.
// Memory that the system gives fresh is zero, a page at a time; memory that the process has used
// before is cleared in full. The C library takes pieces of 32 MiB and more (its largest
// M_MMAP_THRESHOLD) fresh, so that is the least that is asked for.

const ALWAYS_FRESH_BYTES = 2 ** 25 + 2 ** 16;

/** Bytes up to which clearing is cheaper than the faults of fresh memory: 64 KiB. */
const SMALL_BYTES = 2 ** 16;

/** A buffer of at least `bytes` bytes, all zero. */
export function zeroedBuffer(bytes: number): ArrayBuffer {
  return new ArrayBuffer(bytes <= SMALL_BYTES ? bytes : Math.max(bytes, ALWAYS_FRESH_BYTES));
}

/** An array of `length` zeros of a typed array's kind. */
export function zeroed<T>(
  type: {
    new (buffer: ArrayBuffer, byteOffset: number, length: number): T;
    readonly BYTES_PER_ELEMENT: number;
  },
  length: number,
): T {
  return new type(zeroedBuffer(length * type.BYTES_PER_ELEMENT), 0, length);
}
