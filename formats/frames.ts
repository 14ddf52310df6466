// Cuts a byte stream into packets: varint length, then that many bytes. The buffer holds the piece
// being read and the tail of the one before; it grows only for a packet that is larger than it,
// after its length was checked.

import {inputError, type UserError} from './errors.ts';
import {MAX_PACKET_BYTES} from './limits.ts';
import type {ByteSource} from './source.ts';

const REMEDY =
  'copy or record it again, or read what is before the damage with the tolerant option';
const REMEDY_AT_START = 'is it a trace of mmreplay? convert other formats with: mmreplay import';

/** One packet. `bytes` is valid until the next one is asked for. */
export interface RawPacket {
  /** Of the length, in uncompressed bytes from the start of the file. */
  offset: number;
  /** Offset one past the packet. */
  end: number;
  bytes: Uint8Array;
}

interface Length {
  value: number;
  bytes: number;
}

/** The varint at `at`; undefined when more bytes are needed. */
function packetLength(buf: Uint8Array, at: number, end: number): Length | undefined {
  let value = 0;
  for (let i = 0; i < 10; i++) {
    if (at + i >= end) return undefined;
    const byte = buf[at + i];
    value += (byte & 127) * 2 ** (7 * i);
    if (byte < 128) return {value, bytes: i + 1};
  }
  return {value: Number.POSITIVE_INFINITY, bytes: 10};
}

/** Bytes not yet consumed, with room for what comes. */
class Tail {
  buf: Uint8Array = new Uint8Array(0);
  at = 0;
  end = 0;
  /** File offset of buf[0]. */
  base = 0;

  /** Copies what is left: the source may overwrite its last piece when asked for the next. */
  detach(): void {
    this.base += this.at;
    this.buf = this.buf.slice(this.at, this.end);
    this.at = 0;
    this.end = this.buf.length;
  }

  add(pieces: Uint8Array[]): void {
    if (this.end > 0) pieces.unshift(this.buf);
    this.buf = pieces.length === 1 ? pieces[0] : Buffer.concat(pieces);
    this.end = this.buf.length;
  }
}

/**
 * Packets of a source, in order; empty ones are left out. `onPiece` sees every piece of the file
 * before its packets. Throws UserError with the offset when a length is impossible or the file ends
 * inside a packet.
 */
export function* readPackets(
  source: ByteSource,
  onPiece?: (piece: Uint8Array) => void,
): Generator<RawPacket> {
  const tail = new Tail();
  for (;;) {
    const length = packetLength(tail.buf, tail.at, tail.end);
    const offset = tail.base + tail.at;
    if (length !== undefined && length.value > MAX_PACKET_BYTES) {
      const size = `${length.value} bytes`;
      const expected = `a packet of ${size} is too large (at most ${MAX_PACKET_BYTES})`;
      throw damage(source, offset, expected);
    }
    const start = tail.at + (length?.bytes ?? 0);
    if (length !== undefined && start + length.value <= tail.end) {
      tail.at = start + length.value;
      const bytes = tail.buf.subarray(start, tail.at);
      if (length.value > 0) yield {offset, end: tail.base + tail.at, bytes};
      continue;
    }
    const missing = length === undefined ? 1 : start + length.value - tail.end;
    tail.detach();
    const pieces = gather(source, missing, onPiece);
    if (pieces === undefined) {
      if (tail.end === 0) return;
      const whole = length === undefined ? 'its length' : `${length.value} bytes`;
      throw damage(source, offset, `the file ends inside a packet, expected ${whole} here`);
    }
    tail.add(pieces);
  }
}

/** Pieces of at least `missing` bytes in all; undefined when the source ends before. */
function gather(
  source: ByteSource,
  missing: number,
  onPiece?: (piece: Uint8Array) => void,
): Uint8Array[] | undefined {
  const pieces: Uint8Array[] = [];
  for (let got = 0; got < missing; ) {
    const piece = source.next();
    if (piece === undefined) return undefined;
    onPiece?.(piece);
    got += piece.length;
    pieces.push(got < missing ? piece.slice() : piece);
  }
  return pieces;
}

function damage(source: ByteSource, offset: number, expected: string): UserError {
  return inputError(source.name, {offset}, expected, offset === 0 ? REMEDY_AT_START : REMEDY);
}
