// What a trace file says besides its events: the header, the task table, the footer, and their way
// to and from the schema's messages. Everything here is small; clarity comes before speed.

import {KIND_BY_CODE, isOperation} from './kinds.ts';
import {MAGIC, MAX_STRING_LENGTH, SCHEMA_VERSION} from './limits.ts';
import {longBigInt, longNumber, toLong} from './schema.ts';

/** Where a trace was recorded; 0 and '' stand for unknown. */
export interface RecordedMachine {
  cpus: number;
  model: string;
  kernelRelease: string;
}

/** What ran. */
export interface WorkloadInfo {
  name: string;
  params: Record<string, string>;
}

/** Head of a trace. Times of events are ns after `baseNs`, which is a reading of `clock`. */
export interface TraceHeader {
  schemaVersion: number;
  source: string;
  clock: string;
  baseNs: bigint;
  pageSize: number;
  machine: RecordedMachine;
  provenance: string;
  workload: WorkloadInfo;
  seed: bigint;
}

/**
 * What a writer must be told; everything else has a default (unknown, page size 4096, base 0, seed
 * 0).
 */
export interface TraceHeaderInit {
  source: string;
  clock?: string;
  baseNs?: bigint;
  pageSize?: number;
  machine?: Partial<RecordedMachine>;
  provenance?: string;
  workload?: {name: string; params?: Record<string, string>};
  seed?: bigint | number;
}

/** One entry of the task table. A later entry of the same tid replaces the earlier one. */
export interface TaskInfo {
  tid: number;
  tgid: number;
  /** 0: unknown. */
  parentTid: number;
  comm: string;
}

/** Where a block is and what times it spans. */
export interface BlockIndexEntry {
  offset: number;
  count: number;
  firstNs: number;
  lastNs: number;
}

/** Totals at the end of a file. `sourceEvents + derived = events + sum(unmodelled)`. */
export interface TraceFooter {
  events: number;
  blocks: BlockIndexEntry[];
  /** Events by kind name. */
  operations: Record<string, number>;
  answers: Record<string, number>;
  lost: number;
  sourceEvents: number;
  derived: number;
  /** Source events without a kind, by the source's name for them. */
  unmodelled: Record<string, number>;
  reordered: number;
  cpus: number;
  warnings: string[];
  /** Where and how the source was cut or damaged; '' when it was whole. */
  truncated: string;
}

/** Completes a header. */
export function makeHeader(init: TraceHeaderInit): TraceHeader {
  const machine = init.machine ?? {};
  return {
    schemaVersion: SCHEMA_VERSION,
    source: init.source,
    clock: init.clock ?? '',
    baseNs: init.baseNs ?? 0n,
    pageSize: init.pageSize ?? 4096,
    machine: {
      cpus: machine.cpus ?? 0,
      model: machine.model ?? '',
      kernelRelease: machine.kernelRelease ?? '',
    },
    provenance: init.provenance ?? '',
    workload: {name: init.workload?.name ?? '', params: {...init.workload?.params}},
    seed: BigInt(init.seed ?? 0),
  };
}

/** The Packet of a header, for protobufjs. */
export function headerBody(header: TraceHeader): Record<string, unknown> {
  const params = Object.entries(header.workload.params).map(([name, value]) => ({name, value}));
  return {
    header: {
      ...header,
      magic: MAGIC,
      baseNs: toLong(header.baseNs),
      seed: toLong(header.seed),
      workload: {name: header.workload.name, params},
    },
  };
}

type Message = Record<string, unknown>;
const message = (value: unknown): Message => (value ?? {}) as Message;
const list = (value: unknown): Message[] => (value ?? []) as Message[];
const text = (value: unknown): string => String(value ?? '').slice(0, MAX_STRING_LENGTH);

/**
 * The header in a decoded message, or undefined when the magic or the schema version is not ours.
 */
export function headerOf(decoded: unknown): TraceHeader | undefined {
  const raw = message(decoded);
  if (raw.magic !== MAGIC) return undefined;
  const machine = message(raw.machine);
  const workload = message(raw.workload);
  const params = Object.fromEntries(
    list(workload.params).map((param) => [text(param.name), text(param.value)]),
  );
  return {
    schemaVersion: Number(raw.schemaVersion ?? 0),
    source: text(raw.source),
    clock: text(raw.clock),
    baseNs: longBigInt(raw.baseNs),
    pageSize: Number(raw.pageSize ?? 0),
    machine: {
      cpus: Number(machine.cpus ?? 0),
      model: text(machine.model),
      kernelRelease: text(machine.kernelRelease),
    },
    provenance: text(raw.provenance),
    workload: {name: text(workload.name), params},
    seed: longBigInt(raw.seed),
  };
}

/** The Packet of a footer, for protobufjs. `kinds` counts events by kind code. */
export function footerBody(footer: TraceFooter, kinds: Float64Array): Record<string, unknown> {
  const totals: Message[] = [];
  kinds.forEach((count, kind) => {
    if (count > 0) totals.push({kind, count: toLong(count)});
  });
  return {
    footer: {
      events: toLong(footer.events),
      blocks: footer.blocks.map((block) => ({
        offset: toLong(block.offset),
        count: block.count,
        firstNs: toLong(block.firstNs, false),
        lastNs: toLong(block.lastNs, false),
      })),
      kinds: totals,
      lost: toLong(footer.lost),
      sourceEvents: toLong(footer.sourceEvents),
      derived: toLong(footer.derived),
      unmodelled: Object.entries(footer.unmodelled).map(([name, count]) => ({
        name,
        count: toLong(count),
      })),
      reordered: toLong(footer.reordered),
      cpus: footer.cpus,
      warnings: footer.warnings,
      truncated: footer.truncated,
    },
  };
}

/** Splits totals by kind code into operations and answers by name. */
export function splitTotals(kinds: ArrayLike<number>): Pick<TraceFooter, 'operations' | 'answers'> {
  const operations: Record<string, number> = {};
  const answers: Record<string, number> = {};
  for (let code = 0; code < kinds.length; code++) {
    const spec = KIND_BY_CODE[code];
    if (kinds[code] === 0 || spec === undefined) continue;
    (isOperation(code) ? operations : answers)[spec.name] = kinds[code];
  }
  return {operations, answers};
}

/** The footer in a decoded message. Throws RangeError when a count is too large for a number. */
export function footerOf(decoded: unknown): TraceFooter {
  const raw = message(decoded);
  const kinds = new Float64Array(256);
  for (const total of list(raw.kinds)) kinds[Number(total.kind) & 255] += longNumber(total.count);
  const unmodelled = list(raw.unmodelled).map((entry) => [
    text(entry.name),
    longNumber(entry.count),
  ]);
  return {
    events: longNumber(raw.events),
    blocks: list(raw.blocks).map((block) => ({
      offset: longNumber(block.offset),
      count: Number(block.count ?? 0),
      firstNs: longNumber(block.firstNs),
      lastNs: longNumber(block.lastNs),
    })),
    ...splitTotals(kinds),
    lost: longNumber(raw.lost),
    sourceEvents: longNumber(raw.sourceEvents),
    derived: longNumber(raw.derived),
    unmodelled: Object.fromEntries(unmodelled),
    reordered: longNumber(raw.reordered),
    cpus: Number(raw.cpus ?? 0),
    warnings: ((raw.warnings ?? []) as unknown[]).map(text),
    truncated: text(raw.truncated),
  };
}
