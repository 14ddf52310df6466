// A growing byte buffer with the varint encodings of protobuf. The writer keeps one per column and
// reuses it.

const TWO_32 = 2 ** 32;

/** Growing buffer. `bytes[0 .. length - 1]` is what was written. */
export class ByteBuffer {
  bytes: Uint8Array;
  length = 0;

  constructor(capacity = 4096) {
    this.bytes = new Uint8Array(capacity);
  }

  clear(): void {
    this.length = 0;
  }

  /** Makes room for `more` bytes. */
  reserve(more: number): void {
    if (this.length + more <= this.bytes.length) return;
    const bigger = new Uint8Array(Math.max(this.bytes.length * 2, this.length + more));
    bigger.set(this.bytes.subarray(0, this.length));
    this.bytes = bigger;
  }

  byte(value: number): void {
    this.reserve(1);
    this.bytes[this.length++] = value;
  }

  append(other: Uint8Array): void {
    this.reserve(other.length);
    this.bytes.set(other, this.length);
    this.length += other.length;
  }

  /** Unsigned varint of a 32-bit value. */
  uint32(value: number): void {
    this.reserve(5);
    const {bytes} = this;
    let at = this.length;
    while (value > 127) {
      bytes[at++] = (value & 127) | 128;
      value >>>= 7;
    }
    bytes[at++] = value;
    this.length = at;
  }

  /** Unsigned varint of a 64-bit value in two halves, each 0 .. 2^32-1. */
  uint64(lo: number, hi: number): void {
    this.reserve(10);
    const {bytes} = this;
    let at = this.length;
    while (hi > 0) {
      bytes[at++] = (lo & 127) | 128;
      lo = ((lo >>> 7) | (hi << 25)) >>> 0;
      hi >>>= 7;
    }
    while (lo > 127) {
      bytes[at++] = (lo & 127) | 128;
      lo >>>= 7;
    }
    bytes[at++] = lo;
    this.length = at;
  }

  /** Zigzag varint of a safe integer. */
  sint64(value: number): void {
    const magnitude = value < 0 ? -value - 1 : value;
    const sign = value < 0 ? 1 : 0;
    if (magnitude < 0x40000000) {
      this.uint32(magnitude * 2 + sign);
      return;
    }
    const hi = Math.floor(magnitude / TWO_32);
    const lo = magnitude >>> 0;
    this.uint64(((lo << 1) | sign) >>> 0, ((hi << 1) | (lo >>> 31)) >>> 0);
  }

  /** Field number `field` of wire type 2, holding `content`. */
  field(field: number, content: Uint8Array): void {
    this.uint32((field << 3) | 2);
    this.uint32(content.length);
    this.append(content);
  }

  view(): Uint8Array {
    return this.bytes.subarray(0, this.length);
  }
}
