// Writes a trace. Events are gathered as encoded columns; every 4,096 of them become one packet,
// handed to the sink. Strings and tasks that came up since go out in packets of their own just
// before it, so a reader never meets a reference that it cannot resolve, and a file cut at any
// packet is readable up to there. Memory is bounded by the string table plus 24 bytes per block of
// index. The bytes depend only on the calls made.

import {ByteBuffer} from './bytes.ts';
import {
  footerBody,
  headerBody,
  makeHeader,
  splitTotals,
  type BlockIndexEntry,
  type TraceFooter,
  type TraceHeader,
  type TraceHeaderInit,
} from './header.ts';
import {ARG_COUNT, FIRST_ANSWER, KIND_BY_CODE} from './kinds.ts';
import {BLOCK_EVENTS, MAX_CPUS, MAX_STRING_LENGTH, MAX_STRINGS} from './limits.ts';
import {encodePacket} from './schema.ts';

const TWO_32 = 2 ** 32;

/** What was written. */
export interface TraceSummary extends TraceFooter {
  header: TraceHeader;
  bytes: number;
}

/** Takes the bytes of a file, in order. A chunk belongs to the sink from then on. */
export type ByteSink = (chunk: Uint8Array) => void;

/**
 * Writes one trace, front to back. Misuse (unknown kind, wrong number of arguments) throws
 * RangeError.
 */
export class TraceWriter {
  readonly header: TraceHeader;
  private readonly sink: ByteSink;
  private readonly strings = new Map<string, number>([['', 0]]);
  private newStrings: string[] = [];
  private newTasks: Record<string, unknown>[] = [];
  private readonly tasks = new Map<number, string>();

  private readonly timeColumn = new ByteBuffer(BLOCK_EVENTS * 4);
  private readonly tidTable = new ByteBuffer();
  private readonly tidColumn = new ByteBuffer(BLOCK_EVENTS * 2);
  private readonly cpuColumn = new ByteBuffer(BLOCK_EVENTS * 2);
  private readonly kindColumn = new Uint8Array(BLOCK_EVENTS);
  private readonly argColumn = new ByteBuffer(BLOCK_EVENTS * 16);
  private readonly tidIndex = new Map<number, number>();
  private count = 0;
  private lastTid = Number.NaN;
  private lastTidIndex = 0;
  private lastNs = 0;
  private blockMinNs = 0;
  private blockMaxNs = 0;

  private readonly totals = new Float64Array(256);
  private readonly blocks: BlockIndexEntry[] = [];
  private readonly unmodelledCounts = new Map<string, number>();
  private readonly warnings: string[] = [];
  private events = 0;
  private unmodelledEvents = 0;
  private derivedEvents = 0;
  private lostEvents = 0;
  private reorderedEvents = 0;
  private maxNs = -Infinity;
  private cpus = 0;
  private bytes = 0;
  private truncatedText = '';
  private finished = false;

  constructor(sink: ByteSink, header: TraceHeaderInit) {
    this.sink = sink;
    this.header = makeHeader(header);
    this.packet(encodePacket(headerBody(this.header)));
  }

  /** Index of a string. `''` is always 0 and stands for unknown. */
  intern(text: string): number {
    const known = this.strings.get(text);
    if (known !== undefined) return known;
    if (text.length > MAX_STRING_LENGTH) throw new RangeError('string too large');
    const index = this.strings.size;
    if (index >= MAX_STRINGS) throw new RangeError('too many strings');
    this.strings.set(text, index);
    this.newStrings.push(text);
    return index;
  }

  /** Says who `tid` is from here on. Repeating the same says nothing and costs nothing. */
  task(tid: number, tgid: number, parentTid: number, comm: string): void {
    const entry = `${tgid} ${parentTid} ${comm}`;
    if (this.tasks.get(tid) === entry) return;
    this.tasks.set(tid, entry);
    this.newTasks.push({tid, tgid, parentTid, comm: this.intern(comm)});
  }

  /**
   * One event. `timeNs` is an integer relative to the header's baseNs; arguments are unsigned
   * 64-bit: numbers must be safe integers, negative ones are stored as two's complement.
   */
  append(
    kind: number,
    timeNs: number,
    tid: number,
    cpu: number,
    ...args: readonly (number | bigint)[]
  ): void {
    if (args.length !== ARG_COUNT[kind]) this.refuse(kind, args.length);
    if (cpu < 0 || cpu >= MAX_CPUS) throw new RangeError(`cpu ${cpu} is out of range`);
    if (!Number.isSafeInteger(timeNs)) throw new RangeError(`time ${timeNs} is not an integer`);
    const {argColumn} = this;
    for (let i = 0; i < args.length; i++) {
      const arg = args[i];
      if (typeof arg === 'number') {
        if (arg >= 0 && arg < TWO_32 && Number.isInteger(arg)) argColumn.uint32(arg);
        else this.wideNumber(arg);
      } else {
        argColumn.uint64(Number(arg & 0xffffffffn), Number((arg >> 32n) & 0xffffffffn));
      }
    }
    this.timeColumn.sint64(timeNs - (this.count === 0 ? 0 : this.lastNs));
    this.tidColumn.uint32(tid === this.lastTid ? this.lastTidIndex : this.indexTid(tid));
    this.cpuColumn.uint32(cpu);
    this.kindColumn[this.count] = kind;
    this.account(kind, timeNs, cpu);
    if (++this.count === BLOCK_EVENTS) this.flush();
  }

  /** The recorder lost `count` events. */
  loss(count: number): void {
    this.lostEvents += count;
  }

  /** `n` source events that no kind stands for. */
  unmodelled(eventName: string, n = 1): void {
    this.unmodelledCounts.set(eventName, (this.unmodelledCounts.get(eventName) ?? 0) + n);
    this.unmodelledEvents += n;
  }

  /** `n` of the events appended stand for no source event of their own. */
  derived(n = 1): void {
    this.derivedEvents += n;
  }

  /** Operations appended so far. */
  get operations(): number {
    return this.totals.subarray(0, FIRST_ANSWER).reduce((sum, count) => sum + count, 0);
  }

  /** Something that a user should check before trusting this trace. */
  warn(text: string): void {
    this.warnings.push(text);
  }

  /** The source was cut or damaged: where, and what. */
  truncated(text: string): void {
    this.truncatedText = text;
  }

  /** Writes what is still held and the footer. Call once, last. */
  finish(): TraceSummary {
    if (this.finished) throw new RangeError('finish() was already called');
    this.finished = true;
    this.flush();
    const footer: TraceFooter = {
      events: this.events,
      blocks: this.blocks,
      ...splitTotals(this.totals),
      lost: this.lostEvents,
      sourceEvents: this.events - this.derivedEvents + this.unmodelledEvents,
      derived: this.derivedEvents,
      unmodelled: Object.fromEntries(this.unmodelledCounts),
      reordered: this.reorderedEvents,
      cpus: this.cpus,
      warnings: this.warnings,
      truncated: this.truncatedText,
    };
    this.packet(encodePacket(footerBody(footer, this.totals)));
    return {...footer, header: this.header, bytes: this.bytes};
  }

  /** Hands everything gathered so far to the sink, as a block of its own if there are events. */
  flush(): void {
    if (this.newStrings.length > 0) {
      const first = this.strings.size - this.newStrings.length;
      this.packet(encodePacket({strings: {first, text: this.newStrings}}));
      this.newStrings = [];
    }
    if (this.newTasks.length > 0) {
      this.packet(encodePacket({tasks: {tasks: this.newTasks}}));
      this.newTasks = [];
    }
    if (this.count > 0) this.packet(this.takeBlock());
  }

  private account(kind: number, timeNs: number, cpu: number): void {
    this.lastNs = timeNs;
    if (this.count === 0) {
      this.blockMinNs = timeNs;
      this.blockMaxNs = timeNs;
    } else if (timeNs < this.blockMinNs) this.blockMinNs = timeNs;
    else if (timeNs > this.blockMaxNs) this.blockMaxNs = timeNs;
    if (timeNs < this.maxNs) this.reorderedEvents++;
    else this.maxNs = timeNs;
    if (cpu >= this.cpus) this.cpus = cpu + 1;
    this.totals[kind]++;
    this.events++;
  }

  private wideNumber(arg: number): void {
    if (!Number.isSafeInteger(arg)) throw new RangeError(`argument ${arg} is not an exact integer`);
    this.argColumn.uint64(arg >>> 0, Math.floor(arg / TWO_32) >>> 0);
  }

  private indexTid(tid: number): number {
    let index = this.tidIndex.get(tid);
    if (index === undefined) {
      if ((tid | 0) !== tid) throw new RangeError(`tid ${tid} is out of range`);
      index = this.tidIndex.size;
      this.tidIndex.set(tid, index);
      this.tidTable.sint64(tid);
    }
    this.lastTid = tid;
    this.lastTidIndex = index;
    return index;
  }

  private refuse(kind: number, given: number): never {
    const spec = KIND_BY_CODE[kind];
    if (spec === undefined) throw new RangeError(`no event kind has code ${kind}`);
    throw new RangeError(`${spec.name} takes ${spec.args.length} arguments, got ${given}`);
  }

  private takeBlock(): Uint8Array {
    const body = new ByteBuffer(this.argColumn.length + this.count * 8);
    body.uint32((1 << 3) | 0);
    body.uint32(this.count);
    body.field(2, this.timeColumn.view());
    body.field(3, this.tidTable.view());
    body.field(4, this.tidColumn.view());
    body.field(5, this.cpuColumn.view());
    body.field(6, this.kindColumn.subarray(0, this.count));
    if (this.argColumn.length > 0) body.field(7, this.argColumn.view());
    const packet = new ByteBuffer(body.length + 8);
    packet.field(4, body.view());
    this.blocks.push({
      offset: this.bytes,
      count: this.count,
      firstNs: this.blockMinNs,
      lastNs: this.blockMaxNs,
    });
    for (const column of [this.timeColumn, this.tidTable, this.tidColumn]) column.clear();
    this.cpuColumn.clear();
    this.argColumn.clear();
    this.tidIndex.clear();
    this.lastTid = Number.NaN;
    this.count = 0;
    return packet.view();
  }

  private packet(bytes: Uint8Array): void {
    const framed = new ByteBuffer(bytes.length + 5);
    framed.uint32(bytes.length);
    framed.append(bytes);
    this.bytes += framed.length;
    this.sink(framed.view());
  }
}
