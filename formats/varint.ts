// Varints of protobuf, read from a byte array. Non-minimal encodings are accepted (some writers pad
// lengths to a fixed size and fill them in later); anything longer than 10 bytes is damage.

/** A place in a buffer; `lo` is the low half of the last 64-bit value. */
export interface Cursor {
  at: number;
  lo?: number;
}

/** Bytes that are no protobuf. The reader adds file and offset. */
export class WireError extends Error {}

/** 64-bit varint: returns the high half, leaves the low half in `cursor.lo`; both unsigned. */
export function varint64(buf: Uint8Array, cursor: Cursor, end: number): number {
  let lo = 0;
  let hi = 0;
  let {at} = cursor;
  for (let shift = 0; shift < 70; shift += 7) {
    if (at >= end) throw new WireError('a number is cut off');
    const byte = buf[at++];
    const bits = byte & 127;
    if (shift < 28) lo |= bits << shift;
    else if (shift === 28) {
      lo |= bits << 28;
      hi = bits >>> 4;
    } else hi |= bits << (shift - 32);
    if (byte < 128) {
      cursor.at = at;
      cursor.lo = lo >>> 0;
      return hi >>> 0;
    }
  }
  throw new WireError('a number is longer than 10 bytes');
}

/** Varint that must fit in 32 bits unsigned. */
export function varint32(buf: Uint8Array, cursor: Cursor, end: number): number {
  const byte = buf[cursor.at];
  if (byte < 128 && cursor.at < end) {
    cursor.at++;
    return byte;
  }
  const hi = varint64(buf, cursor, end);
  if (hi !== 0) throw new WireError(`number ${hi * 2 ** 32 + (cursor.lo as number)} is too large`);
  return cursor.lo as number;
}

/** Steps over the value of a field that is not known, by its wire type. */
export function skipField(buf: Uint8Array, cursor: Cursor, end: number, tag: number): void {
  const wire = tag & 7;
  if (tag >>> 3 === 0) throw new WireError('field number 0');
  if (wire === 0) varint64(buf, cursor, end);
  else if (wire === 1) cursor.at += 8;
  else if (wire === 5) cursor.at += 4;
  else if (wire === 2) {
    const length = varint32(buf, cursor, end);
    cursor.at += length;
  } else throw new WireError(`wire type ${wire}`);
  if (cursor.at > end) throw new WireError('a field is longer than its message');
}
