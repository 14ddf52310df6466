// Canonical Huffman codes of deflate (RFC 1951, sections 3.2.2 and 3.2.5 to 3.2.7): tables that
// turn the next bits of the stream into a symbol with one look-up.

/**
 * `entries[next maxBits bits]` is `symbol << 4 | length`; length 0 means that no code starts so.
 */
export interface HuffmanTable {
  readonly entries: Uint16Array;
  readonly maxBits: number;
}

/** Order in which a dynamic block stores the lengths of the code-length code. */
export const CODE_LENGTH_ORDER: readonly number[] = [
  16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15,
];
/** Extra bits of length codes 257 and up. */
export const LENGTH_EXTRA = new Uint8Array([
  0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3, 4, 4, 4, 4, 5, 5, 5, 5, 0,
]);
/** Extra bits of distance codes. */
export const DIST_EXTRA = new Uint8Array([
  0, 0, 0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5, 6, 6, 7, 7, 8, 8, 9, 9, 10, 10, 11, 11, 12, 12, 13, 13,
]);

function bases(first: number, extra: Uint8Array): Uint16Array {
  let base = first;
  return Uint16Array.from(extra, (bits) => {
    const here = base;
    base += 1 << bits;
    return here;
  });
}

/** Least length of each length code; the last one, 285, is 258 by definition. */
export const LENGTH_BASE: Uint16Array = bases(3, LENGTH_EXTRA);
LENGTH_BASE[28] = 258;
/** Least distance of each distance code. */
export const DIST_BASE: Uint16Array = bases(1, DIST_EXTRA);

function reversed(code: number, length: number): number {
  let result = 0;
  for (let i = 0; i < length; i++) result |= ((code >>> i) & 1) << (length - 1 - i);
  return result;
}

/**
 * Table of the canonical code with these lengths (0: unused). Throws when the lengths give more
 * codes than fit.
 */
export function huffmanTable(lengths: Uint8Array): HuffmanTable {
  const counts = new Uint16Array(16);
  for (const length of lengths) counts[length]++;
  counts[0] = 0;
  const next = new Uint16Array(17);
  let maxBits = 1;
  let left = 1;
  for (let bits = 1; bits < 16; bits++) {
    left = left * 2 - counts[bits];
    if (left < 0) throw new Error('is damaged (impossible code)');
    if (counts[bits] > 0) maxBits = bits;
    next[bits + 1] = (next[bits] + counts[bits]) << 1;
  }
  const entries = new Uint16Array(1 << maxBits);
  lengths.forEach((length, symbol) => {
    if (length === 0) return;
    const first = reversed(next[length]++, length);
    for (let at = first; at < entries.length; at += 1 << length) {
      entries[at] = (symbol << 4) | length;
    }
  });
  return {entries, maxBits};
}

const fixed = new Uint8Array(288);
fixed.fill(8, 0, 144).fill(9, 144, 256).fill(7, 256, 280).fill(8, 280);
/** Literal and length code of fixed blocks. */
export const FIXED_LITERAL: HuffmanTable = huffmanTable(fixed);
/** Distance code of fixed blocks. */
export const FIXED_DIST: HuffmanTable = huffmanTable(new Uint8Array(30).fill(5));
