// Counters of two bytes a piece that can still count beyond 65,535: when the low word wraps around,
// a carry is kept in a Map. A libc page that 70,000 processes map or a huge page pinned many times
// has a carry; nearly nothing else does.

const WORD = 0x10000;

/** Non-negative counters by index. */
export class CountArray {
  /** The counts modulo 65,536. */
  readonly low: Uint16Array;
  private readonly carries = new Map<number, number>();

  /** `length` counters at `byteOffset` of `buffer`, or in memory of their own. */
  constructor(length: number, buffer?: ArrayBufferLike, byteOffset = 0) {
    this.low = buffer ? new Uint16Array(buffer, byteOffset, length) : new Uint16Array(length);
  }

  get(index: number): number {
    const low = this.low[index];
    return this.carries.size === 0 ? low : low + (this.carries.get(index) ?? 0) * WORD;
  }

  isZero(index: number): boolean {
    return this.low[index] === 0 && (this.carries.size === 0 || !this.carries.has(index));
  }

  increment(index: number): void {
    if (++this.low[index] === WORD) this.carry(index, 1);
  }

  /** Subtracts one; the count must not be 0. */
  decrement(index: number): void {
    if (this.low[index]-- === 0) this.carry(index, -1);
  }

  /** Adds a positive or negative number. */
  add(index: number, delta: number): void {
    this.set(index, this.get(index) + delta);
  }

  set(index: number, value: number): void {
    if (!(value >= 0)) throw new RangeError(`mmreplay bug: count ${index} set to ${value}`);
    this.low[index] = value;
    const high = Math.floor(value / WORD);
    if (high > 0) this.carries.set(index, high);
    else if (this.carries.size > 0) this.carries.delete(index);
  }

  private carry(index: number, delta: number): void {
    const high = (this.carries.get(index) ?? 0) + delta;
    if (high < 0) throw new RangeError(`mmreplay bug: count ${index} below zero`);
    if (high === 0) this.carries.delete(index);
    else this.carries.set(index, high);
  }
}
