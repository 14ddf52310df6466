// Reads a trace, front to back, holding one packet at a time besides what it returns. Damage of any
// kind (cut file, flipped bits, another format) becomes one UserError that names the offset; with
// `tolerant` it instead ends the trace there, and everything before it is kept. A file that ends
// without a footer is a cut file.

import {createHash} from 'node:crypto';
import {BlockError, readBlock} from './block.ts';
import {emptyColumns, trimmed, type EventColumns} from './columns.ts';
import {UserError, inputError} from './errors.ts';
import {readPackets, type RawPacket} from './frames.ts';
import {footerOf, headerOf, type TaskInfo, type TraceFooter, type TraceHeader} from './header.ts';
import {MAX_STRING_LENGTH, MAX_STRINGS, MAX_TASKS, SCHEMA_VERSION} from './limits.ts';
import {decodeMessage} from './schema.ts';
import {openSource, type ByteSource} from './source.ts';
import {WireError, skipField, varint32, type Cursor} from './varint.ts';

export {readPackets, type RawPacket} from './frames.ts';

/** What can be asked of a reader. */
export interface ReadOptions {
  /** Keep what comes before a damage instead of throwing. */
  tolerant?: boolean;
}

/**
 * Where a file stopped making sense: the start of the first packet that is not sound, in
 * uncompressed bytes.
 */
export interface Damage {
  offset: number;
  message: string;
}

/** A whole trace in memory. */
export interface LoadedTrace {
  path: string;
  header: TraceHeader;
  /** String 0 is '', for unknown. */
  strings: string[];
  /** In file order; a later entry of a tid replaces an earlier one. */
  tasks: TaskInfo[];
  events: EventColumns;
  footer?: TraceFooter;
  /** First 16 hex digits of the SHA-256 of the uncompressed file. */
  hash: string;
  truncated?: Damage;
}

/** What a streaming reader sees, in file order. Columns of a block are reused by the next one. */
export type TracePart =
  | {type: 'header'; header: TraceHeader}
  | {type: 'block'; offset: number; events: EventColumns}
  | {type: 'footer'; footer: TraceFooter};

const REMEDY =
  'copy or record it again, or read what is before the damage with the tolerant option';

const MAX_ROOM_EVENTS = 1 << 26;

type Body = Record<string, unknown>;

/** Decodes the packets of one file and holds its tables. */
export class TraceDecoder {
  readonly name: string;
  readonly strings: string[] = [''];
  readonly tasks: TaskInfo[] = [];
  header: TraceHeader | undefined;
  footer: TraceFooter | undefined;
  events = 0;

  constructor(name: string) {
    this.name = name;
  }

  /**
   * Takes one packet; events are appended to `cols`. Returns the number of the body's field, 0 if
   * it is unknown.
   */
  take(packet: RawPacket, cols: EventColumns): number {
    try {
      return this.body(packet, cols);
    } catch (error) {
      const foreign = error instanceof BlockError || error instanceof WireError;
      if (!foreign && !(error instanceof RangeError)) throw error;
      if (this.header === undefined) throw notATrace(this.name, packet.offset);
      throw this.damage(packet, `the packet is damaged: ${(error as Error).message}`);
    }
  }

  /** Called after the last packet: a trace without a footer was cut. */
  end(offset: number): void {
    if (this.header === undefined) {
      const what = 'the file is empty, expected a trace';
      throw inputError(this.name, {offset}, what, 'record or import one first');
    }
    if (this.footer === undefined) {
      const what = 'the file ends without a footer, so it was cut or its writer died';
      throw inputError(this.name, {offset}, what, REMEDY);
    }
  }

  private damage(packet: RawPacket, expected: string): UserError {
    return inputError(this.name, {offset: packet.offset}, expected, REMEDY);
  }

  private body(packet: RawPacket, cols: EventColumns): number {
    const {bytes} = packet;
    const cursor: Cursor = {at: 0};
    let seen = 0;
    while (cursor.at < bytes.length) {
      const tag = varint32(bytes, cursor, bytes.length);
      const field = tag >>> 3;
      if ((tag & 7) !== 2 || field > 5 || field === 0) {
        this.expectHeader(packet, 0);
        skipField(bytes, cursor, bytes.length, tag);
        continue;
      }
      this.expectHeader(packet, field);
      if (seen !== 0) throw new WireError('two bodies in one packet');
      const length = varint32(bytes, cursor, bytes.length);
      if (length > bytes.length - cursor.at) throw new WireError('its body is longer than itself');
      const start = cursor.at;
      cursor.at += length;
      seen = field;
      if (field === 4) this.events += readBlock(bytes, start, cursor.at, cols, this.strings.length);
      else this.small(field, bytes.subarray(start, cursor.at), packet);
    }
    if (seen === 0) this.expectHeader(packet, 0);
    return seen;
  }

  private expectHeader(packet: RawPacket, field: number): void {
    if (this.footer !== undefined) throw this.damage(packet, 'data follows the footer');
    if (field === 1 && this.header !== undefined) throw this.damage(packet, 'a second header');
    if (this.header === undefined && field !== 1) throw notATrace(this.name, packet.offset);
  }

  private small(field: number, bytes: Uint8Array, packet: RawPacket): void {
    if (field === 1) this.takeHeader(bytes, packet);
    else if (field === 2) this.takeStrings(decodeMessage('StringTable', bytes));
    else if (field === 3) this.takeTasks(decodeMessage('TaskTable', bytes));
    else this.takeFooter(decodeMessage('Footer', bytes), packet);
  }

  private takeHeader(bytes: Uint8Array, packet: RawPacket): void {
    const header = headerOf(decodeMessage('Header', bytes));
    if (header === undefined) throw notATrace(this.name, packet.offset);
    if (header.schemaVersion !== SCHEMA_VERSION) {
      const expected = `schema version ${header.schemaVersion}, expected ${SCHEMA_VERSION}`;
      throw inputError(this.name, {offset: packet.offset}, expected, 'use the matching mmreplay');
    }
    this.header = header;
  }

  private takeStrings(decoded: unknown): void {
    const {first, text} = decoded as {first: number; text: string[]};
    if (first !== this.strings.length) {
      throw new WireError(`strings start at ${first}, expected ${this.strings.length}`);
    }
    if (this.strings.length + text.length > MAX_STRINGS) throw new WireError('too many strings');
    for (const string of text) {
      if (string.length > MAX_STRING_LENGTH) throw new WireError('a string is too large');
      this.strings.push(string);
    }
  }

  private takeTasks(decoded: unknown): void {
    const {tasks} = decoded as {tasks: Body[]};
    if (this.tasks.length + tasks.length > MAX_TASKS) throw new WireError('too many tasks');
    for (const task of tasks) {
      const comm = Number(task.comm);
      if (comm >= this.strings.length) throw new WireError(`string ${comm} is not in the table`);
      this.tasks.push({
        tid: Number(task.tid),
        tgid: Number(task.tgid),
        parentTid: Number(task.parentTid),
        comm: this.strings[comm],
      });
    }
  }

  private takeFooter(decoded: unknown, packet: RawPacket): void {
    const footer = footerOf(decoded);
    if (footer.events !== this.events) {
      const expected = `the footer counts ${footer.events} events, the blocks hold ${this.events}`;
      throw this.damage(packet, expected);
    }
    this.footer = footer;
  }
}

function notATrace(name: string, offset: number): UserError {
  const expected = 'not a trace of mmreplay (its header was expected here)';
  return inputError(name, {offset}, expected, 'convert other formats with: mmreplay import');
}

function sourceOf(input: string | ByteSource): ByteSource {
  return typeof input === 'string' ? openSource(input) : input;
}

/**
 * Streams a trace in constant memory: header, blocks, footer, then the damage if `tolerant` allowed
 * one.
 */
export function* readTrace(
  input: string | ByteSource,
  options: ReadOptions = {},
): Generator<TracePart, Damage | undefined> {
  const source = sourceOf(input);
  const decoder = new TraceDecoder(source.name);
  const cols = emptyColumns(4096, 16384);
  let offset = 0;
  try {
    for (const packet of readPackets(source)) {
      offset = packet.offset;
      cols.count = 0;
      const field = decoder.take(packet, cols);
      offset = packet.end;
      if (field === 1) yield {type: 'header', header: decoder.header as TraceHeader};
      else if (field === 4) yield {type: 'block', offset: packet.offset, events: trimmed(cols)};
      else if (field === 5) yield {type: 'footer', footer: decoder.footer as TraceFooter};
    }
    decoder.end(offset);
    return undefined;
  } catch (error) {
    return tolerate(error, options, decoder, offset);
  } finally {
    source.close();
  }
}

function tolerate(
  error: unknown,
  options: ReadOptions,
  decoder: TraceDecoder,
  offset: number,
): Damage {
  if (!options.tolerant || !(error instanceof UserError) || decoder.header === undefined) {
    throw error;
  }
  return {offset, message: error.message};
}

/**
 * Columns for a file of this size. An event takes 12 bytes or more; memory that is never touched
 * costs nothing.
 */
function roomFor(bytes: number): EventColumns {
  const events = Math.min(Math.max(1024, Math.ceil(bytes / 12)), MAX_ROOM_EVENTS);
  return emptyColumns(events, events * 3);
}

/**
 * Loads a whole trace (`-`: standard input; plain, gzip or zstd). Throws UserError for anything
 * that is not one.
 */
export function loadTrace(input: string | ByteSource, options: ReadOptions = {}): LoadedTrace {
  const source = sourceOf(input);
  const decoder = new TraceDecoder(source.name);
  const cols = roomFor(source.expectedBytes ?? 0);
  const sha = createHash('sha256');
  let truncated: Damage | undefined;
  let offset = 0;
  try {
    for (const packet of readPackets(source, (piece) => sha.update(piece))) {
      offset = packet.offset;
      decoder.take(packet, cols);
      offset = packet.end;
    }
    decoder.end(offset);
  } catch (error) {
    truncated = tolerate(error, options, decoder, offset);
  } finally {
    source.close();
  }
  return {
    path: typeof input === 'string' ? input : input.name,
    header: decoder.header as TraceHeader,
    strings: decoder.strings,
    tasks: decoder.tasks,
    events: trimmed(cols),
    ...(decoder.footer === undefined ? {} : {footer: decoder.footer}),
    hash: sha.digest('hex').slice(0, 16),
    ...(truncated === undefined ? {} : {truncated}),
  };
}
