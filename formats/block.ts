// The hot path of the reader: one Block message into columns, by hand. Everything a conforming
// protobuf writer may do is accepted (non-minimal varints, unknown fields, any field order); the
// rare shapes (a column in several pieces or not packed) go through protobufjs, which is also the
// oracle in the tests. Nothing is trusted: counts, kinds, tids and string indices are checked
// before an event becomes visible, and a bad block leaves the columns as they were.
//
// Cost: one pass per column. A column whose length in bytes equals its number of values holds
// single bytes only and is copied; that is the usual case for tid, cpu and kind.

import {reserve, type EventColumns} from './columns.ts';
import {ARG_COUNT, KINDS} from './kinds.ts';
import {MAX_BLOCK_EVENTS} from './limits.ts';
import {messageType} from './schema.ts';
import {skipField, varint32, varint64, type Cursor} from './varint.ts';

const TWO_32 = 2 ** 32;

/** What is wrong with a block, to be joined with the file and offset by the reader. */
export class BlockError extends Error {}

/** For each kind, bit k is set when argument k indexes the string table. */
const STRING_ARGS = new Uint8Array(256);
for (const kind of KINDS) {
  kind.args.forEach((name, k) => {
    if (name.endsWith('_str')) STRING_ARGS[kind.code] |= 1 << k;
  });
}

/** Where each column lies: [start, end) pairs for fields 2 to 7. */
interface Layout {
  count: number;
  starts: Int32Array;
  ends: Int32Array;
}

function findColumns(buf: Uint8Array, start: number, end: number): Layout | undefined {
  const layout = {count: 0, starts: new Int32Array(8), ends: new Int32Array(8)};
  const cursor: Cursor = {at: start};
  while (cursor.at < end) {
    const tag = varint32(buf, cursor, end);
    const field = tag >>> 3;
    if (field === 1 && (tag & 7) === 0) layout.count = varint32(buf, cursor, end);
    else if (field >= 2 && field <= 7) {
      if ((tag & 7) !== 2) return undefined;
      const length = varint32(buf, cursor, end);
      if (length > end - cursor.at) throw new BlockError('a column is longer than its block');
      if (length === 0) continue;
      if (layout.ends[field] !== 0) return undefined;
      layout.starts[field] = cursor.at;
      cursor.at += length;
      layout.ends[field] = cursor.at;
    } else skipField(buf, cursor, end, tag);
  }
  return layout;
}

/** Zigzag deltas into absolute times. Returns where it stopped. */
function readTimes(
  buf: Uint8Array,
  at: number,
  count: number,
  out: Float64Array,
  to: number,
): number {
  let time = 0;
  const cursor: Cursor = {at: 0};
  for (let i = 0; i < count; i++) {
    let byte = buf[at++];
    let raw = byte & 127;
    let shift = 7;
    while (byte > 127 && shift < 28) {
      byte = buf[at++];
      raw |= (byte & 127) << shift;
      shift += 7;
    }
    if (byte < 128) time += (raw >>> 1) ^ -(raw & 1);
    else {
      cursor.at = at - shift / 7;
      const hi = varint64(buf, cursor, buf.length);
      const lo = cursor.lo as number;
      const magnitude = (hi >>> 1) * TWO_32 + (((hi << 31) | (lo >>> 1)) >>> 0);
      time += lo & 1 ? -magnitude - 1 : magnitude;
      if (!Number.isSafeInteger(time)) throw new BlockError('a time is too large');
      at = cursor.at;
    }
    out[to + i] = time;
  }
  return at;
}

/** `count` unsigned 32-bit varints that must fill [at, end). */
function readSmall(
  buf: Uint8Array,
  at: number,
  end: number,
  count: number,
  out: Uint16Array | Int32Array,
  to: number,
): void {
  let stray = 0;
  if (end - at === count) {
    for (let i = 0; i < count; i++) {
      const byte = buf[at + i];
      stray |= byte;
      out[to + i] = byte;
    }
    if (stray < 128) return;
    throw new BlockError('a column has too few values');
  }
  const cursor: Cursor = {at};
  for (let i = 0; i < count; i++) {
    const value = varint32(buf, cursor, end);
    if (value > 65535) throw new BlockError(`value ${value} is too large`);
    out[to + i] = value;
  }
  if (cursor.at !== end) throw new BlockError('a column has too many values');
}

/** `count` unsigned 64-bit varints into halves. Returns where it stopped. */
function readArgs(
  buf: Uint8Array,
  at: number,
  lo: Uint32Array,
  hi: Uint32Array,
  to: number,
  count: number,
): number {
  const last = to + count;
  for (let n = to; n < last; n++) {
    let byte = buf[at++];
    let low = byte & 127;
    let high = 0;
    if (byte > 127) {
      byte = buf[at++];
      low |= (byte & 127) << 7;
      if (byte > 127) {
        byte = buf[at++];
        low |= (byte & 127) << 14;
        if (byte > 127) {
          byte = buf[at++];
          low |= (byte & 127) << 21;
          if (byte > 127) {
            byte = buf[at++];
            low |= byte << 28;
            high = (byte & 127) >>> 4;
            for (let shift = 3; byte > 127 && shift < 32; shift += 7) {
              byte = buf[at++];
              high |= (byte & 127) << shift;
            }
            if (byte > 127) throw new BlockError('a number is longer than 10 bytes');
          }
        }
      }
    }
    lo[n] = low;
    hi[n] = high;
  }
  return at;
}

function readTidTable(buf: Uint8Array, at: number, end: number, count: number): Int32Array {
  const tids = new Int32Array(Math.min(end - at, count));
  const cursor: Cursor = {at};
  let size = 0;
  while (cursor.at < end) {
    if (size === tids.length) throw new BlockError('it has more tids than events');
    const raw = varint32(buf, cursor, end);
    tids[size++] = (raw >>> 1) ^ -(raw & 1);
  }
  return tids.subarray(0, size);
}

/** Kinds and where their arguments start; returns the number of arguments. */
function readKinds(buf: Uint8Array, at: number, count: number, cols: EventColumns): number {
  const {kind, argStart} = cols;
  const base = cols.count;
  const first = argStart[base];
  let args = first;
  for (let i = 0; i < count; i++) {
    const code = buf[at + i];
    const n = ARG_COUNT[code];
    if (n === 255) throw new BlockError(`event kind ${code} is unknown to this version`);
    kind[base + i] = code;
    args += n;
    argStart[base + i + 1] = args;
  }
  return args - first;
}

function checkStrings(cols: EventColumns, count: number, strings: number): void {
  const {kind, argStart, argLo, argHi} = cols;
  for (let i = cols.count, end = i + count; i < end; i++) {
    let mask = STRING_ARGS[kind[i]];
    for (let at = argStart[i]; mask !== 0; at++, mask >>>= 1) {
      if ((mask & 1) !== 0 && (argHi[at] !== 0 || argLo[at] >= strings)) {
        throw new BlockError(`string ${argLo[at]} is not in the string table (${strings} strings)`);
      }
    }
  }
}

/**
 * Appends the events of the Block message in buf[start, end) to `cols`; `strings` is the size of
 * the string table. Returns the number of events. Throws BlockError and leaves `cols.count` alone
 * when the block is not sound.
 */
export function readBlock(
  buf: Uint8Array,
  start: number,
  end: number,
  cols: EventColumns,
  strings: number,
): number {
  const layout = findColumns(buf, start, end);
  if (layout === undefined) return readRareBlock(buf.subarray(start, end), cols, strings);
  const {count, starts, ends} = layout;
  if (count > MAX_BLOCK_EVENTS) {
    throw new BlockError(`${count} events in one block is too large (at most ${MAX_BLOCK_EVENTS})`);
  }
  if (ends[6] - starts[6] !== count) throw new BlockError(`it holds not ${count} kinds`);
  for (const field of [2, 4, 5]) {
    if (ends[field] - starts[field] < count) throw new BlockError(`it holds not ${count} values`);
  }
  reserve(cols, count, ends[7] - starts[7]);
  const base = cols.count;
  const args = readKinds(buf, starts[6], count, cols);
  if (args > ends[7] - starts[7]) throw new BlockError(`it holds not ${args} arguments`);
  if (readTimes(buf, starts[2], count, cols.timeNs, base) !== ends[2]) {
    throw new BlockError('its times do not fit');
  }
  readSmall(buf, starts[5], ends[5], count, cols.cpu, base);
  readSmall(buf, starts[4], ends[4], count, cols.tid, base);
  const tids = readTidTable(buf, starts[3], ends[3], count);
  for (let i = base; i < base + count; i++) {
    const index = cols.tid[i];
    if (index >= tids.length) throw new BlockError(`tid index ${index} is out of range`);
    cols.tid[i] = tids[index];
  }
  if (readArgs(buf, starts[7], cols.argLo, cols.argHi, cols.argStart[base], args) !== ends[7]) {
    throw new BlockError('its arguments do not fit');
  }
  checkStrings(cols, count, strings);
  cols.count = base + count;
  return count;
}

/** The same through protobufjs: decode, write in the usual shape, read that. */
function readRareBlock(bytes: Uint8Array, cols: EventColumns, strings: number): number {
  const type = messageType('Block');
  let usual: Uint8Array;
  try {
    usual = type.encode(type.decode(bytes)).finish();
    const again = findColumns(usual, 0, usual.length);
    if (again === undefined) throw new BlockError('it cannot be brought into the usual shape');
  } catch (error) {
    if (error instanceof BlockError) throw error;
    throw new BlockError((error as Error).message);
  }
  return readBlock(usual, 0, usual.length, cols, strings);
}
