// A pull-driven gzip decoder (RFC 1951, RFC 1952). Node's zlib inflates either all at once or
// asynchronously; traces are read synchronously, piece by piece, with everything before a damage
// still delivered and its offset known. Hence this. Invariants: `out` holds 32 KiB of history
// followed by what was decoded since the last call; `bits` low bits of `hold` are valid, never more
// than 23. Memory: about 300 KiB. Members one after the other are one stream, as gzip(1) has it.

import {crc32} from 'node:zlib';
import {CODE_LENGTH_ORDER, DIST_BASE, DIST_EXTRA, LENGTH_BASE, LENGTH_EXTRA} from './huffman.ts';
import {FIXED_DIST, FIXED_LITERAL, huffmanTable, type HuffmanTable} from './huffman.ts';

const WINDOW = 32768;
const OUT_BYTES = WINDOW * 8;
const LIMIT = OUT_BYTES - 258; // room for the longest match

type State = 'member' | 'block' | 'stored' | 'codes' | 'trailer' | 'end';

/**
 * Inflates the gzip stream that `pull` delivers. Errors are plain Error with a phrase: "ends too
 * early".
 */
export class Inflater {
  /** Bytes delivered so far. */
  produced = 0;
  private readonly pull: () => Uint8Array | undefined;
  private input: Uint8Array = new Uint8Array(0);
  private at = 0;
  private hold = 0;
  private bits = 0;
  private readonly out = new Uint8Array(OUT_BYTES);
  private outAt = WINDOW;
  private state: State = 'member';
  private members = 0;
  private lastBlock = false;
  private storedLeft = 0;
  private literals: HuffmanTable = FIXED_LITERAL;
  private distances: HuffmanTable = FIXED_DIST;
  private crc = 0;
  private memberBytes = 0; // of this member, up to `summedTo`
  private summedTo = WINDOW;
  private failure: Error | undefined;

  constructor(pull: () => Uint8Array | undefined) {
    this.pull = pull;
  }

  /**
   * The next bytes, or undefined at the end. What precedes a damage is delivered before the damage
   * is thrown.
   */
  next(): Uint8Array | undefined {
    if (this.failure !== undefined) throw this.failure;
    this.out.copyWithin(0, this.outAt - WINDOW, this.outAt);
    this.outAt = WINDOW;
    this.summedTo = WINDOW;
    try {
      while (this.outAt < LIMIT && this.state !== 'end') this.step();
    } catch (error) {
      this.failure = error as Error;
      if (this.outAt === WINDOW) throw this.failure;
    }
    this.sum();
    if (this.outAt === WINDOW) return undefined;
    this.produced += this.outAt - WINDOW;
    return this.out.subarray(WINDOW, this.outAt);
  }

  /** Takes what came out since the last call into the member's checksum and length. */
  private sum(): void {
    if (this.outAt === this.summedTo) return;
    this.crc = crc32(this.out.subarray(this.summedTo, this.outAt), this.crc);
    this.memberBytes += this.outAt - this.summedTo;
    this.summedTo = this.outAt;
  }

  private step(): void {
    if (this.state === 'codes') this.codes();
    else if (this.state === 'stored') this.stored();
    else if (this.state === 'block') this.blockHeader();
    else if (this.state === 'trailer') this.trailer();
    else this.memberHeader();
  }

  private more(): boolean {
    const piece = this.pull();
    if (piece === undefined) return false;
    this.input = piece;
    this.at = 0;
    return true;
  }

  private byte(): number {
    while (this.at === this.input.length) {
      if (!this.more()) throw new Error('ends too early');
    }
    return this.input[this.at++];
  }

  private take(count: number): number {
    while (this.bits < count) {
      this.hold |= this.byte() << this.bits;
      this.bits += 8;
    }
    const value = this.hold & ((1 << count) - 1);
    this.hold >>>= count;
    this.bits -= count;
    return value;
  }

  private memberHeader(): void {
    if (this.members++ > 0 && this.at === this.input.length && !this.more()) {
      this.state = 'end';
      return;
    }
    const magic = this.byte() | (this.byte() << 8);
    if (magic !== 0x8b1f) throw new Error('is followed by something else');
    if (this.byte() !== 8) throw new Error('uses an unknown method');
    const flags = this.byte();
    for (let i = 0; i < 6; i++) this.byte();
    if (flags & 4) {
      for (let left = this.byte() | (this.byte() << 8); left > 0; left--) this.byte();
    }
    if (flags & 8) while (this.byte() !== 0);
    if (flags & 16) while (this.byte() !== 0);
    if (flags & 2) this.take(16);
    this.crc = 0;
    this.memberBytes = 0;
    this.state = 'block';
  }

  private blockHeader(): void {
    this.lastBlock = this.take(1) === 1;
    const type = this.take(2);
    if (type === 3) throw new Error('is damaged (block type 3)');
    if (type === 0) {
      this.hold >>>= this.bits & 7;
      this.bits -= this.bits & 7;
      const length = this.take(16);
      if ((length ^ this.take(16)) !== 0xffff) throw new Error('is damaged (stored length)');
      this.storedLeft = length;
      this.state = 'stored';
      return;
    }
    if (type === 1) {
      this.literals = FIXED_LITERAL;
      this.distances = FIXED_DIST;
    } else this.dynamicTables();
    this.state = 'codes';
  }

  private dynamicTables(): void {
    const literals = this.take(5) + 257;
    const distances = this.take(5) + 1;
    const codes = this.take(4) + 4;
    if (literals > 286 || distances > 30) throw new Error('is damaged (too many codes)');
    const lengths = new Uint8Array(19);
    for (let i = 0; i < codes; i++) lengths[CODE_LENGTH_ORDER[i]] = this.take(3);
    const table = huffmanTable(lengths);
    const all = new Uint8Array(literals + distances);
    for (let i = 0; i < all.length; ) {
      const symbol = this.symbol(table);
      if (symbol < 16) {
        all[i++] = symbol;
        continue;
      }
      const repeated = symbol === 16 ? all[i - 1] : 0;
      if (symbol === 16 && i === 0) throw new Error('is damaged (repeat of nothing)');
      const extra = symbol === 16 ? 2 : symbol === 17 ? 3 : 7;
      const count = this.take(extra) + (symbol === 18 ? 11 : 3);
      if (i + count > all.length) throw new Error('is damaged (too many code lengths)');
      all.fill(repeated, i, i + count);
      i += count;
    }
    this.literals = huffmanTable(all.subarray(0, literals));
    this.distances = huffmanTable(all.subarray(literals));
  }

  private symbol(table: HuffmanTable): number {
    while (this.bits < table.maxBits) {
      this.hold |= this.byte() << this.bits;
      this.bits += 8;
    }
    const entry = table.entries[this.hold & (table.entries.length - 1)];
    const length = entry & 15;
    if (length === 0) throw new Error('is damaged (unused code)');
    this.hold >>>= length;
    this.bits -= length;
    return entry >>> 4;
  }

  private stored(): void {
    while (this.storedLeft > 0 && this.outAt < LIMIT) {
      this.out[this.outAt++] = this.bits >= 8 ? this.take(8) : this.byte();
      this.storedLeft--;
    }
    if (this.storedLeft === 0) this.state = this.lastBlock ? 'trailer' : 'block';
  }

  private codes(): void {
    const {out} = this;
    const {entries, maxBits} = this.literals;
    const mask = entries.length - 1;
    while (this.outAt < LIMIT) {
      let {hold, bits} = this;
      while (bits < maxBits) {
        hold |= (this.at < this.input.length ? this.input[this.at++] : this.byte()) << bits;
        bits += 8;
      }
      const entry = entries[hold & mask];
      const length = entry & 15;
      if (length === 0) throw new Error('is damaged (unused code)');
      this.hold = hold >>> length;
      this.bits = bits - length;
      const symbol = entry >>> 4;
      if (symbol < 256) out[this.outAt++] = symbol;
      else if (symbol > 256) this.match(symbol - 257);
      else {
        this.state = this.lastBlock ? 'trailer' : 'block';
        return;
      }
    }
  }

  private match(code: number): void {
    if (code > 28) throw new Error('is damaged (length code)');
    const length = LENGTH_BASE[code] + this.take(LENGTH_EXTRA[code]);
    const distCode = this.symbol(this.distances);
    if (distCode > 29) throw new Error('is damaged (distance code)');
    const distance = DIST_BASE[distCode] + this.take(DIST_EXTRA[distCode]);
    const {out} = this;
    let to = this.outAt;
    if (distance > this.memberBytes + to - this.summedTo) {
      throw new Error('is damaged (distance too far back)');
    }
    const end = to + length;
    for (let from = to - distance; to < end; ) out[to++] = out[from++];
    this.outAt = to;
  }

  private trailer(): void {
    this.sum();
    this.take(this.bits & 7);
    const crc = (this.take(16) | (this.take(16) << 16)) >>> 0;
    const length = (this.take(16) | (this.take(16) << 16)) >>> 0;
    if (crc !== this.crc) throw new Error('is damaged (checksum)');
    if (length !== this.memberBytes % 2 ** 32) throw new Error('is damaged (length)');
    this.state = 'member';
  }
}
