// Which format a file is in, told by its content; names of files do not matter.

import {UserError} from '../errors.ts';
import type {ByteSource} from '../source.ts';
import {parseFtraceLine} from './ftracetext.ts';
import {parsePerfLine} from './perfscript.ts';
import {rawEvent, type LineParser} from './raw.ts';

/** Formats that can be imported. */
export type ImportFormat = 'perf-script' | 'ftrace-text' | 'trace-cmd-report';

/** How to read the lines of each format. */
export const LINE_PARSERS: Readonly<Record<ImportFormat, LineParser>> = {
  'perf-script': parsePerfLine,
  'ftrace-text': parseFtraceLine,
  'trace-cmd-report': parseFtraceLine,
};

const HEAD_BYTES = 1 << 16;
const EXPECTED = 'expected perf script text, tracefs trace text or trace-cmd report text';
const PERF_SCRIPT =
  'perf script -F comm,pid,tid,cpu,time,event,trace --show-mmap-events --show-task-events';

/**
 * Formats that users have in hand and that a tool turns into text: first bytes, name, what to run.
 */
const OTHERS: readonly (readonly [string, string, string])[] = [
  ['PERFILE2', 'perf.data', `turn it into text with: ${PERF_SCRIPT}`],
  ['\x17\x08\x44tracing', 'trace.dat', 'turn it into text with: trace-cmd report'],
  ['mmreplay-trace', 'a trace of mmreplay', 'use it as it is'],
];

/** The first bytes of a source, and a source that still delivers them. */
function peek(source: ByteSource): {head: Uint8Array; whole: ByteSource} {
  const pieces: Uint8Array[] = [];
  let size = 0;
  let failure: unknown;
  while (size < HEAD_BYTES && failure === undefined) {
    try {
      const piece = source.next();
      if (piece === undefined) break;
      pieces.push(piece.slice());
      size += piece.length;
    } catch (error) {
      failure = error;
    }
  }
  const head = Buffer.concat(pieces);
  if (size === 0 && failure !== undefined) throw failure;
  let first = size > 0;
  const next = (): Uint8Array | undefined => {
    if (first) {
      first = false;
      return head;
    }
    if (failure !== undefined) throw failure;
    return source.next();
  };
  return {head, whole: {name: source.name, next, close: () => source.close()}};
}

function refuse(name: string, head: Uint8Array): never {
  const start = Buffer.from(head.subarray(0, 64)).toString('latin1');
  for (const [magic, what, remedy] of OTHERS) {
    if (start.includes(magic)) throw new UserError(`${name}: offset 0: this is ${what}; ${remedy}`);
  }
  const where = head.some(isBinary) ? 'offset 0: binary data' : 'line 1: text of another kind';
  throw new UserError(
    `${name}: ${where}, ${EXPECTED}; record with: perf record, then ${PERF_SCRIPT}`,
  );
}

function isBinary(byte: number): boolean {
  return byte < 32 && byte !== 9 && byte !== 10 && byte !== 13 && byte !== 27;
}

/** Format of a text's first lines; undefined when no line speaks for one. */
function formatOf(lines: readonly string[]): ImportFormat | undefined {
  const raw = rawEvent();
  const notes = {cpus: 0, overwritten: 0};
  for (const line of lines) {
    if (line.startsWith('# tracer:')) return 'ftrace-text';
    if (/^(cpus=\d|version = \d|CPU \d+ is empty)/.test(line)) return 'trace-cmd-report';
    if (parsePerfLine(line, raw) === 'event') return 'perf-script';
    if (parseFtraceLine(line, raw, notes) === 'event') {
      return / sys_\w+(\(| -> )/.test(line) ? 'ftrace-text' : 'trace-cmd-report';
    }
  }
  return undefined;
}

/** Tells the format of a source. Throws UserError when it is empty, binary, or none of ours. */
export function sniff(source: ByteSource): {format: ImportFormat; whole: ByteSource} {
  const {head, whole} = peek(source);
  if (head.length === 0) {
    throw new UserError(
      `${source.name}: offset 0: the file is empty, ${EXPECTED}; record it again`,
    );
  }
  const control = head.subarray(0, HEAD_BYTES).some(isBinary);
  const text = Buffer.from(head.subarray(0, HEAD_BYTES)).toString('utf8');
  const format = control ? undefined : formatOf(text.split('\n').slice(0, -1));
  if (format === undefined) refuse(source.name, head);
  return {format, whole};
}
