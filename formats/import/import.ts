// Imports a foreign recording: reads it line by line, maps its events (mapper.ts) and writes a
// trace. Memory is bounded by the live threads, the string table and the events that wait for an
// argument; the text is never held.
//
// The books must balance: every event of the input is an operation, an answer, or counted in
// `unmodelled`. The writer keeps the totals; this file counts the input and compares.

import {statSync} from 'node:fs';
import {UserError, inputError} from '../errors.ts';
import type {RecordedMachine, TraceHeader, TraceHeaderInit} from '../header.ts';
import {openTraceFile} from '../sink.ts';
import {memorySource, openSource, type ByteSource} from '../source.ts';
import {TraceWriter, type ByteSink, type TraceSummary} from '../writer.ts';
import {FieldError} from './fields.ts';
import {eachLine} from './lines.ts';
import {EventMapper} from './mapper.ts';
import {rawEvent, type RawEvent, type SourceNotes} from './raw.ts';
import {LINE_PARSERS, sniff, type ImportFormat} from './sniff.ts';

export type {ImportFormat} from './sniff.ts';

/** What can be said about an import; nothing is required. */
export interface ImportOptions {
  /** Leave out to tell it by the content. */
  format?: ImportFormat;
  provenance?: string;
  workload?: {name: string; params?: Record<string, string>};
  machine?: Partial<RecordedMachine>;
  /** Events that may wait for an argument known only later. */
  holdBound?: number;
  /** Called now and then with the number of events read. */
  onProgress?: (events: number) => void;
}

/** What an import did. `events = sum(operations) + sum(answers) - derived + sum(unmodelled)`. */
export interface ImportSummary {
  input: string;
  output: string;
  format: ImportFormat;
  header: TraceHeader;
  /** Events in the input. */
  events: number;
  operations: Record<string, number>;
  answers: Record<string, number>;
  unmodelled: Record<string, number>;
  /** Events written that no single input event stands for. */
  derived: number;
  /** Lines that are no events: headers, comments, stack frames. */
  metadata: number;
  /** Events that the recorder says it lost. */
  lost: number;
  /** Events whose time lies before that of an earlier one. */
  reordered: number;
  warnings: string[];
  /** The input was cut or damaged at this line; everything before it was imported. */
  truncated?: {line: number; message: string};
  /** True when the trace is only a part: cut input, or lost events. */
  partial: boolean;
  /** Size of the trace, uncompressed. */
  bytes: number;
}

const HOLD_BOUND = 1_000_000;
const PROGRESS_EVERY = 65_536;
const CLOCKS: Record<ImportFormat, string> = {
  'perf-script': 'perf',
  'ftrace-text': 'ftrace',
  'trace-cmd-report': 'ftrace',
};

/** Foreign text as part of a one-line message: no control characters, no more than `length`. */
function shown(text: string, length: number): string {
  return text
    .trim()
    .replace(/\p{Cc}/gu, '?')
    .slice(0, length);
}

/** One import under way. */
class TextImport {
  events = 0;
  metadata = 0;
  readonly notes: SourceNotes = {cpus: 0, overwritten: 0};
  private readonly name: string;
  private readonly format: ImportFormat;
  private readonly options: ImportOptions;
  private readonly sink: ByteSink;
  private readonly raw = rawEvent();
  private preamble: {raw: RawEvent; line: number}[] = [];
  private baseSeconds = 0;
  private baseNanos = 0;
  private writer: TraceWriter | undefined;
  private mapper: EventMapper | undefined;

  constructor(name: string, format: ImportFormat, options: ImportOptions, sink: ByteSink) {
    this.name = name;
    this.format = format;
    this.options = options;
    this.sink = sink;
  }

  /** Takes one line of the input. Throws UserError naming it when it is malformed. */
  line(text: string, number: number): void {
    const {raw} = this;
    const kind = LINE_PARSERS[this.format](text, raw, this.notes);
    if (kind === 'metadata') {
      this.metadata++;
      return;
    }
    if (kind === 'malformed') {
      const expected = `expected a line of ${this.format}, found "${shown(text, 60)}"`;
      throw inputError(this.name, {line: number}, expected, 'remove the line or record again');
    }
    this.events++;
    if (this.events % PROGRESS_EVERY === 0) this.options.onProgress?.(this.events);
    const timeless = raw.preamble || raw.name === 'lost_events';
    if (this.mapper === undefined && timeless) this.preamble.push({raw: {...raw}, line: number});
    else this.event(raw, number);
  }

  /** Writes what is left and the footer. */
  finish(cut: {line: number; message: string} | undefined): TraceSummary {
    const writer = this.start(0, 0);
    this.mapper?.finish();
    const unresolved = this.mapper?.queue.unresolved ?? 0;
    if (unresolved > 0) {
      writer.warn(`${unresolved} operations never learned their result: their call has no end`);
    }
    const assumed = this.mapper?.assumedTgids ?? 0;
    if (assumed > 0) {
      writer.warn(
        `${assumed} threads have no known process: each is taken as a process of its own`,
      );
    }
    if (this.notes.overwritten > 0) {
      writer.loss(this.notes.overwritten);
      writer.warn(`${this.notes.overwritten} events were overwritten before they could be read`);
    }
    if (this.events === 0) writer.warn('the input holds no events');
    else if (writer.operations === 0) {
      writer.warn('nothing in the input can be replayed: it holds no operations');
    }
    if (cut !== undefined) writer.truncated(cut.message);
    const summary = writer.finish();
    if (summary.sourceEvents !== this.events) {
      throw new Error(`${this.events} events read, ${summary.sourceEvents} accounted for`);
    }
    return summary;
  }

  private event(raw: RawEvent, line: number): void {
    if (this.mapper === undefined) this.start(raw.seconds, raw.nanos);
    const seconds = raw.preamble ? 0 : raw.seconds - this.baseSeconds;
    const timeNs = raw.preamble ? 0 : seconds * 1e9 + (raw.nanos - this.baseNanos);
    try {
      this.mapper?.map(raw, timeNs);
    } catch (error) {
      if (!(error instanceof FieldError || error instanceof RangeError)) throw error;
      const expected = `${shown(raw.name, 60)}: ${shown(error.message, 200)}`;
      throw inputError(this.name, {line}, expected, 'remove the line or record again');
    }
  }

  /** Opens the trace once its first time is known, and takes in what came before. */
  private start(seconds: number, nanos: number): TraceWriter {
    if (this.writer !== undefined) return this.writer;
    this.baseSeconds = seconds;
    this.baseNanos = nanos;
    const {provenance, workload, machine} = this.options;
    const init: TraceHeaderInit = {
      source: this.format,
      clock: CLOCKS[this.format],
      baseNs: BigInt(seconds) * 1_000_000_000n + BigInt(nanos),
      machine: {cpus: this.notes.cpus, ...machine},
      ...(provenance === undefined ? {} : {provenance}),
      ...(workload === undefined ? {} : {workload}),
    };
    this.writer = new TraceWriter(this.sink, init);
    this.mapper = new EventMapper(this.writer, this.options.holdBound ?? HOLD_BOUND);
    for (const {raw, line} of this.preamble) {
      this.event({...raw, preamble: true}, line);
    }
    this.preamble = [];
    return this.writer;
  }
}

function sameFile(input: string, output: string): boolean {
  try {
    const [a, b] = [statSync(input), statSync(output)];
    return a.dev === b.dev && a.ino === b.ino && a.isFile();
  } catch {
    return false;
  }
}

function importFrom(
  source: ByteSource,
  output: string,
  options: ImportOptions,
  openSink: () => ByteSink,
): ImportSummary {
  const sniffed = sniff(source);
  const format = options.format ?? sniffed.format;
  const run = new TextImport(source.name, format, options, openSink());
  const {cut} = eachLine(sniffed.whole, (line, number) => run.line(line, number));
  const total = run.finish(cut);
  return {
    input: source.name,
    output,
    format,
    header: total.header,
    events: run.events,
    operations: total.operations,
    answers: total.answers,
    unmodelled: total.unmodelled,
    derived: total.derived,
    metadata: run.metadata,
    lost: total.lost,
    reordered: total.reordered,
    warnings: total.warnings,
    ...(cut === undefined ? {} : {truncated: cut}),
    partial: cut !== undefined || total.lost > 0,
    bytes: total.bytes,
  };
}

/**
 * Imports `input` (`-`: standard input; plain, gzip or zstd) into the trace `output` (`-`: standard
 * output; `.gz` compresses). Throws UserError when the input is empty, of no known format, or has a
 * malformed line before its end.
 */
export function importTrace(
  input: string,
  output: string,
  options: ImportOptions = {},
): ImportSummary {
  if (input !== '-' && sameFile(input, output)) {
    throw new UserError(`${output}: is the input itself; name another output file`);
  }
  const source = openSource(input);
  let close = (): void => {};
  try {
    return importFrom(source, output, options, () => {
      const file = openTraceFile(output);
      close = file.close;
      return file.sink;
    });
  } finally {
    source.close();
    close();
  }
}

/** The same from memory to memory. */
export function importBytes(
  bytes: Uint8Array,
  options: ImportOptions = {},
  name = 'memory',
): {trace: Uint8Array; summary: ImportSummary} {
  const chunks: Uint8Array[] = [];
  const sink = (chunk: Uint8Array): void => {
    chunks.push(chunk);
  };
  const summary = importFrom(memorySource(bytes, name), 'memory', options, () => sink);
  return {trace: Buffer.concat(chunks), summary};
}
