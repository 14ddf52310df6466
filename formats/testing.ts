// What the tests of this folder share: random traces, a trace in memory, and the protobufjs view of
// a file.

import fc from 'fast-check';
import type Long from 'long';
import {KINDS} from './kinds.ts';
import {readPackets} from './reader.ts';
import {messageType} from './schema.ts';
import {memorySource} from './source.ts';
import {TraceWriter, type TraceSummary} from './writer.ts';

/** One event as the writer takes it. */
export interface PlainEvent {
  kind: number;
  timeNs: number;
  tid: number;
  cpu: number;
  args: bigint[];
}

const u64 = fc.oneof(
  fc.bigInt({min: 0n, max: 2n ** 64n - 1n}),
  fc.bigInt({min: 0n, max: 300n}),
  fc.constantFrom(2n ** 53n, 2n ** 32n, 2n ** 32n - 1n, 2n ** 63n, 2n ** 64n - 1n, 0n),
);
const time = fc.oneof(
  fc.integer({min: -1000, max: 1_000_000}),
  fc.maxSafeInteger().map((ns) => Math.trunc(ns / 4) + 0),
);

/** Random events of every kind. String arguments are below `strings`. */
export function anyEvent(strings: number): fc.Arbitrary<PlainEvent> {
  return fc
    .record({
      spec: fc.constantFrom(...KINDS),
      timeNs: time,
      tid: fc.oneof(fc.integer({min: -1, max: 200}), fc.integer({min: 0, max: 0x7fffffff})),
      cpu: fc.oneof(fc.nat(3), fc.nat(65535)),
      args: fc.array(u64, {minLength: 9, maxLength: 9}),
    })
    .map(({spec, timeNs, tid, cpu, args}) => ({
      kind: spec.code,
      timeNs,
      tid,
      cpu,
      args: spec.args.map((name, k) =>
        name.endsWith('_str') ? args[k] % BigInt(strings) : args[k],
      ),
    }));
}

/** A trace of these events in memory, with what the writer said of it. */
export function traceOf(
  events: readonly PlainEvent[],
  strings: readonly string[] = [],
  blockEvents = 5,
): {bytes: Uint8Array; summary: TraceSummary} {
  const chunks: Uint8Array[] = [];
  const writer = new TraceWriter((chunk) => chunks.push(chunk), {source: 'test', baseNs: 7n});
  for (const text of strings) writer.intern(text);
  events.forEach((event, i) => {
    writer.task(event.tid, event.tid, 1, 'task');
    writer.append(event.kind, event.timeNs, event.tid, event.cpu, ...event.args);
    if (i % blockEvents === blockEvents - 1) writer.flush();
  });
  const summary = writer.finish();
  return {bytes: Buffer.concat(chunks), summary};
}

/** Every packet as protobufjs decodes it. */
export function oracle(bytes: Uint8Array): Record<string, unknown>[] {
  const type = messageType('Packet');
  const packets: Record<string, unknown>[] = [];
  for (const packet of readPackets(memorySource(bytes))) {
    packets.push(type.toObject(type.decode(packet.bytes), {defaults: true}));
  }
  return packets;
}

interface OracleBlock {
  count: number;
  timeDeltaNs: Long[];
  tids: number[];
  tidIndex: number[];
  cpu: number[];
  kind: Uint8Array;
  args: Long[];
}

/** The events of a file by way of protobufjs alone; `argCount` tells the arguments of a kind. */
export function oracleEvents(bytes: Uint8Array, argCount: ArrayLike<number>): PlainEvent[] {
  const events: PlainEvent[] = [];
  for (const packet of oracle(bytes)) {
    const block = packet.block as OracleBlock | undefined;
    if (block === undefined) continue;
    let timeNs = 0n;
    let arg = 0;
    for (let i = 0; i < block.count; i++) {
      timeNs += BigInt(block.timeDeltaNs[i].toString());
      const kind = block.kind[i];
      const args = block.args.slice(arg, arg + argCount[kind]).map((a) => BigInt(a.toString()));
      arg += argCount[kind];
      const tid = block.tids[block.tidIndex[i]];
      events.push({kind, timeNs: Number(timeNs), tid, cpu: block.cpu[i], args});
    }
  }
  return events;
}
