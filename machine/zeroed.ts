// Large arrays of zeros that cost as much as is used of them.
//
// A run begins with arrays that have room for every page of the machine and touches few of them.
// Two things would make that expensive in a process that runs many:
//
// Memory that the system gives fresh is zero, a page at a time; memory that the process has used
// before is cleared in full. The C library takes pieces of 32 MiB and more (its largest
// M_MMAP_THRESHOLD) fresh, so that is the least that is asked for.
//
// V8 counts the bytes of an ArrayBuffer, touched or not, as pressure on its heap. It answers with
// collections that also forget the classes of objects that are gone, and with them all code
// compiled for these: 18 runs compiled 5,094 functions instead of 1,056 and took 20.7 s instead of
// 12.7. Shared buffers are not counted. So that dead ones cannot pile up, some of the
// memory is taken as ordinary buffers every SHARED_BYTES: the pressure frees the others.

const ALWAYS_FRESH_BYTES = 2 ** 25 + 2 ** 16;
/** Bytes up to which clearing is cheaper than the faults of fresh memory: 64 KiB. */
const SMALL_BYTES = 2 ** 16;
/** Shared bytes between two phases of ordinary buffers: 2 GiB. */
const SHARED_BYTES = 2 ** 31;
/** Ordinary bytes of a phase: more than the 64 MiB at which V8 begins to collect. */
const COUNTED_BYTES = 2 ** 27;

/** Bytes that were taken since the last phase of ordinary buffers. */
let taken = 0;

/** A buffer of at least `bytes` bytes, all zero. */
export function zeroedBuffer(bytes: number): ArrayBufferLike {
  if (bytes <= SMALL_BYTES) return new ArrayBuffer(bytes);
  const length = Math.max(bytes, ALWAYS_FRESH_BYTES);
  const counted = taken > SHARED_BYTES;
  taken = taken > SHARED_BYTES + COUNTED_BYTES ? 0 : taken + length;
  return counted ? new ArrayBuffer(length) : new SharedArrayBuffer(length);
}

/** An array of `length` zeros of a typed array's kind. */
export function zeroed<T>(
  type: {
    new (buffer: ArrayBufferLike, byteOffset: number, length: number): T;
    readonly BYTES_PER_ELEMENT: number;
  },
  length: number,
): T {
  return new type(zeroedBuffer(length * type.BYTES_PER_ELEMENT), 0, length);
}
