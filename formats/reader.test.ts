import assert from 'node:assert/strict';
import {test} from 'node:test';
import {gzipSync} from 'node:zlib';
import fc from 'fast-check';
import {argBigInt, argNumber, argSigned, type EventColumns} from './columns.ts';
import {UserError} from './errors.ts';
import {ARG_COUNT, KIND} from './kinds.ts';
import {loadTrace, readTrace} from './reader.ts';
import {encodePacket, messageType, toLong} from './schema.ts';
import {memorySource} from './source.ts';
import {anyEvent, oracleEvents, traceOf, type PlainEvent} from './testing.ts';
import {TraceWriter} from './writer.ts';

const STRINGS = ['one', 'two', 'ümläut', ''];

function plain(cols: EventColumns): PlainEvent[] {
  return Array.from({length: cols.count}, (_, i) => ({
    kind: cols.kind[i],
    timeNs: cols.timeNs[i],
    tid: cols.tid[i],
    cpu: cols.cpu[i],
    args: Array.from({length: cols.argStart[i + 1] - cols.argStart[i]}, (_, k) =>
      argBigInt(cols, i, k),
    ),
  }));
}

const load = (bytes: Uint8Array, pieceBytes?: number) =>
  loadTrace(memorySource(bytes, 'x.mmr', pieceBytes));

/** Joins packets into a file. */
function file(...packets: Uint8Array[]): Uint8Array {
  const parts: number[] = [];
  for (const packet of packets) {
    for (let left = packet.length; ; left >>>= 7) {
      parts.push(left > 127 ? (left & 127) | 128 : left);
      if (left < 128) break;
    }
    parts.push(...packet);
  }
  return Uint8Array.from(parts);
}
const headerPacket = () => {
  const chunks: Uint8Array[] = [];
  new TraceWriter((chunk) => chunks.push(chunk), {source: 'test'});
  return chunks[0].subarray(1); // its length is one byte
};

test('what is written is read, by the hot path and by protobufjs alike', () => {
  const events = fc.array(anyEvent(STRINGS.length), {maxLength: 40});
  fc.assert(
    fc.property(events, fc.integer({min: 1, max: 50}), (list, pieceBytes) => {
      const {bytes} = traceOf(list, STRINGS);
      const trace = load(bytes, pieceBytes);
      assert.deepEqual(plain(trace.events), list);
      assert.deepEqual(oracleEvents(bytes, ARG_COUNT), list);
      assert.deepEqual(trace.strings.slice(0, 4), ['', 'one', 'two', 'ümläut']);
      assert.equal(trace.footer?.events, list.length);
    }),
    {numRuns: 150},
  );
});

test('header, tasks and footer come back as they were given', () => {
  const chunks: Uint8Array[] = [];
  const writer = new TraceWriter((chunk) => chunks.push(chunk), {
    source: 'generated',
    clock: 'simulated',
    baseNs: 2n ** 63n + 5n,
    machine: {cpus: 128, model: 'big', kernelRelease: '6.18'},
    provenance: 'made here',
    workload: {name: 'fork-storm', params: {tasks: '4', __proto__x: 'y'}},
    seed: 2n ** 64n - 1n,
  });
  writer.task(10, 10, 1, 'bash');
  writer.task(11, 10, 10, 'bash');
  writer.task(11, 10, 10, 'bash');
  writer.append(KIND.exit, 5, 11, 1, 0);
  writer.append(KIND.exit, 3, 10, 0, 1);
  writer.unmodelled('sys_enter_fsync', 2);
  writer.loss(7);
  writer.warn('check this');
  const summary = writer.finish();
  const trace = load(Buffer.concat(chunks));
  assert.deepEqual(trace.header, summary.header);
  assert.equal(trace.header.baseNs, 2n ** 63n + 5n);
  assert.deepEqual(trace.tasks, [
    {tid: 10, tgid: 10, parentTid: 1, comm: 'bash'},
    {tid: 11, tgid: 10, parentTid: 10, comm: 'bash'},
  ]);
  const {header, bytes, ...footer} = summary;
  assert.equal(bytes, Buffer.concat(chunks).length);
  assert.equal(header.seed, 2n ** 64n - 1n);
  assert.deepEqual(trace.footer, footer);
  assert.deepEqual({...footer.operations}, {exit: 2});
  assert.deepEqual(
    [footer.sourceEvents, footer.lost, footer.reordered, footer.cpus, {...footer.unmodelled}],
    [4, 7, 1, 2, {sys_enter_fsync: 2}],
  );
});

test('strings that are no UTF-16 are written as UTF-8 all the same', () => {
  const chunks: Uint8Array[] = [];
  const writer = new TraceWriter((chunk) => chunks.push(chunk), {source: 'x\ud800'});
  writer.intern('a\udc00b\ud83d\ude00');
  writer.unmodelled('\ud800');
  writer.finish();
  const trace = load(Buffer.concat(chunks));
  assert.deepEqual([trace.header.source, trace.strings[1]], ['x\ufffd', 'a\ufffdb\ud83d\ude00']);
  assert.deepEqual(trace.footer?.unmodelled, {'\ufffd': 1});
});

test('arguments above 2^53 are exact as bigint and refused as number', () => {
  const wide = {kind: KIND.ksm_enter, timeNs: 0, tid: 1, cpu: 0, args: [2n ** 53n]};
  const {events} = load(traceOf([wide, {...wide, args: [2n ** 64n - 12n]}]).bytes);
  assert.equal(argBigInt(events, 0, 0), 2n ** 53n);
  assert.throws(() => argNumber(events, 0, 0), /too large for a number/);
  assert.equal(argSigned(events, 1, 0), -12);
});

test('the writer refuses what the schema cannot hold', () => {
  const writer = new TraceWriter(() => {}, {source: 'test'});
  assert.throws(() => writer.append(KIND.exit, 0, 1, 0), /exit takes 1 arguments, got 0/);
  assert.throws(() => writer.append(7, 0, 1, 0), /no event kind has code 7/);
  assert.throws(() => writer.append(KIND.exit, 0.5, 1, 0, 0), /not an integer/);
  assert.throws(() => writer.append(KIND.exit, 0, 1, 65536, 0), /out of range/);
  assert.throws(() => writer.append(KIND.exit, 0, 1, 0, 2 ** 60), /not an exact integer/);
  assert.throws(() => writer.append(KIND.exit, 0, 2 ** 31, 0, 0), /tid 2147483648/);
});

test('a file cut at any byte is an error in one line, or a part of the trace when tolerated', () => {
  const events = fc.sample(anyEvent(STRINGS.length), {numRuns: 12, seed: 3});
  const {bytes} = traceOf(events, STRINGS, 4);
  for (let cut = 0; cut < bytes.length; cut++) {
    const source = () => memorySource(bytes.subarray(0, cut), 'x.mmr', 16);
    assert.throws(
      () => loadTrace(source()),
      (error) =>
        error instanceof UserError && /^x\.mmr: offset \d+: [^\n]+; [^\n]+$/.test(error.message),
    );
    let part: ReturnType<typeof loadTrace>;
    try {
      part = loadTrace(source(), {tolerant: true});
    } catch (error) {
      assert.ok(error instanceof UserError && cut < 60, `cut at ${cut}`);
      continue;
    }
    assert.ok(part.truncated !== undefined && part.truncated.offset <= cut);
    assert.deepEqual(plain(part.events), events.slice(0, part.events.count));
    assert.equal(part.events.count % 4, 0);
  }
});

test('flipped bits give a UserError or another trace, never anything else', () => {
  const events = fc.sample(anyEvent(STRINGS.length), {numRuns: 30, seed: 4});
  const {bytes} = traceOf(events, STRINGS, 7);
  const flips = fc.array(fc.nat(bytes.length * 8 - 1), {minLength: 1, maxLength: 4});
  fc.assert(
    fc.property(flips, fc.boolean(), (bits, tolerant) => {
      const bad = bytes.slice();
      for (const bit of bits) bad[bit >> 3] ^= 1 << (bit & 7);
      try {
        loadTrace(memorySource(bad, 'x.mmr'), {tolerant});
      } catch (error) {
        assert.ok(error instanceof UserError, String(error));
        assert.match(error.message, /^x\.mmr: offset \d+: [^\n]+; [^\n]+$/);
      }
    }),
    {numRuns: 2000, seed: 11},
  );
});

test('empty, foreign and oversized input is named as such', () => {
  const message = (bytes: Uint8Array) => {
    try {
      load(bytes);
    } catch (error) {
      assert.ok(error instanceof UserError);
      return error.message;
    }
    return 'no error';
  };
  assert.match(message(new Uint8Array(0)), /offset 0: the file is empty/);
  assert.match(
    message(Buffer.from('    bash 12/12 [000] 1.000000: x:y: z\n'.repeat(9))),
    /not a trace/,
  );
  assert.match(
    message(file(headerPacket(), new Uint8Array(3))),
    /offset 34: the packet is damaged/,
  );
  const huge = Uint8Array.from([...file(headerPacket()), 0xff, 0xff, 0xff, 0xff, 0x7f]);
  assert.match(message(huge), /packet of 34359738367 bytes is too large \(at most 67108864\)/);
});

test('padded varints, unknown fields and unpacked columns are read', () => {
  const block = {
    count: 2,
    timeDeltaNs: [toLong(5), toLong(-3, false)],
    tids: [9],
    tidIndex: [0, 0],
    cpu: [1, 2],
    kind: Uint8Array.of(KIND.exit, KIND.yield),
    args: [toLong(1)],
  };
  const type = messageType('Block');
  const usual = type.encode(type.fromObject(block)).finish();
  const expected = [
    {kind: KIND.exit, timeNs: 5, tid: 9, cpu: 1, args: [1n]},
    {kind: KIND.yield, timeNs: 2, tid: 9, cpu: 2, args: []},
  ];
  const wrap = (bytes: number[]) =>
    Uint8Array.from([0x22, bytes.length | 128, 0x80, 0x00, ...bytes]);
  const footer = encodePacket({footer: {events: toLong(2)}});
  const read = (bytes: number[]) =>
    plain(load(file(headerPacket(), wrap(bytes), new Uint8Array(0), footer)).events);
  assert.deepEqual(read([...usual]), expected);
  assert.deepEqual(
    read([0xf8, 0x06, 1, 0xfa, 0x06, 2, 7, 7, ...usual]),
    expected,
    'unknown fields',
  );
  const unpacked = [8, 2, 0x10, 10, 0x10, 5, 0x18, 18, 0x20, 0, 0x20, 0, 0x28, 1, 0x28, 2];
  const rest = [0x32, 2, KIND.exit, KIND.yield, 0x38, 1];
  assert.deepEqual(read([...unpacked, ...rest]), expected, 'unpacked');
  const padded = [8, 0x82, 0x80, 0, 0x12, 4, 0x8a, 0x80, 0, 5, 0x1a, 0x81, 0, 18, 0x22, 2, 0, 0];
  const paddedRest = [0x2a, 4, 0x81, 0, 0x82, 0, 0x32, 2, KIND.exit, KIND.yield, 0x3a, 2, 0x81, 0];
  assert.deepEqual(read([...padded, ...paddedRest]), expected, 'padded');
});

test('references outside the tables are refused', () => {
  const bad = (block: Record<string, unknown>) => {
    const packet = encodePacket({
      block: {count: 1, timeDeltaNs: [0], tids: [1], tidIndex: [0], cpu: [0], ...block},
    });
    assert.throws(() => load(file(headerPacket(), packet)), UserError);
    try {
      load(file(headerPacket(), packet));
    } catch (error) {
      return (error as Error).message;
    }
    return '';
  };
  const kind = Uint8Array.of(KIND.exec);
  assert.match(bad({kind, args: [1]}), /string 1 is not in the string table/);
  assert.match(bad({kind, args: [0], tidIndex: [1]}), /tid index 1/);
  assert.match(bad({kind: Uint8Array.of(127), args: []}), /event kind 127 is unknown/);
  assert.match(bad({kind, args: [0, 0]}), /arguments do not fit/);
  assert.match(bad({kind, args: []}), /it holds not 1 arguments/);
});

test('compressed traces read the same, and say where they are cut', () => {
  const events = fc.sample(anyEvent(STRINGS.length), {numRuns: 200, seed: 5});
  const {bytes} = traceOf(events, STRINGS, 9);
  const zipped = gzipSync(bytes);
  assert.deepEqual(plain(load(zipped, 100).events), events);
  assert.equal(load(zipped).hash, load(bytes).hash);
  const cut = memorySource(zipped.subarray(0, zipped.length >> 1), 'x.gz', 100);
  const part = loadTrace(cut, {tolerant: true});
  assert.match(part.truncated?.message ?? '', /gzip data ends too early/);
  assert.ok(part.events.count > 0 && part.events.count < 200);
});

test('streaming sees the same events in blocks', () => {
  const events = fc.sample(anyEvent(STRINGS.length), {numRuns: 20, seed: 6});
  const {bytes} = traceOf(events, STRINGS, 6);
  const seen: PlainEvent[] = [];
  const types: string[] = [];
  for (const part of readTrace(memorySource(bytes))) {
    types.push(part.type);
    if (part.type === 'block') seen.push(...plain(part.events));
  }
  assert.deepEqual(seen, events);
  assert.deepEqual(types, ['header', 'block', 'block', 'block', 'block', 'footer']);
});
