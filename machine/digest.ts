// A running fingerprint of everything that happens in a run: murmur3's mixing over 32-bit words,
// two lanes. Same trace, machine, design and seed must give the same digest on every host. About 4
// ns per word.

/** Order-sensitive 64-bit digest of a stream of 32-bit words. */
export class Digest {
  private a = 0x9747b28c | 0;
  private b = 0x3c6ef372 | 0;
  private length = 0;

  /** Mixes in one word; only the low 32 bits count. */
  mix(word: number): void {
    let k = Math.imul(word | 0, 0xcc9e2d51);
    k = Math.imul((k << 15) | (k >>> 17), 0x1b873593);
    const a = this.a ^ k;
    this.a = (Math.imul((a << 13) | (a >>> 19), 5) + 0xe6546b64) | 0;
    this.b = (Math.imul(this.b ^ a, 0x85ebca6b) + k) | 0;
    this.length++;
  }

  /** Mixes in two words that belong together, at the price of one. */
  mixPair(word: number, other: number): void {
    this.mix(Math.imul(other | 0, 0x9e3779b1) ^ word);
  }

  /** Mixes in an integer below 2^53. */
  mixLong(value: number): void {
    this.mix(value >>> 0);
    this.mix((value / 0x100000000) >>> 0);
  }

  mixText(text: string): void {
    for (let i = 0; i < text.length; i++) this.mix(text.charCodeAt(i));
    this.mix(text.length);
  }

  /** The digest so far: 16 hex digits. */
  hex(): string {
    return (finish(this.a ^ this.length) >>> 0).toString(16).padStart(8, '0') + hex32(this.b);
  }
}

function hex32(word: number): string {
  return (finish(word) >>> 0).toString(16).padStart(8, '0');
}

function finish(word: number): number {
  word = Math.imul(word ^ (word >>> 16), 0x85ebca6b);
  word = Math.imul(word ^ (word >>> 13), 0xc2b2ae35);
  return word ^ (word >>> 16);
}
