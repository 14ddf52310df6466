import assert from 'node:assert/strict';
import {existsSync, readdirSync, readFileSync, writeFileSync} from 'node:fs';
import {dirname, join} from 'node:path';
import {test} from 'node:test';
import fc from 'fast-check';
import {dumpEvents} from '../dump.ts';
import {UserError} from '../errors.ts';
import {loadTrace} from '../reader.ts';
import {packageRoot} from '../schema.ts';
import {memorySource} from '../source.ts';
import {importBytes, importTrace, type ImportSummary} from './import.ts';

const SAMPLES = join(packageRoot(), 'formats', 'samples');
const FILES = ['perf-script', 'ftrace-text', 'trace-cmd-report'].flatMap((format) =>
  readdirSync(join(SAMPLES, format))
    .filter((name) => name.endsWith('.txt'))
    .map((name) => join(format, name)),
);

const sum = (counts: Record<string, number>) => Object.values(counts).reduce((a, b) => a + b, 0);

/** The books of every import must balance, in the summary and in the file. */
function balanced(summary: ImportSummary, trace: Uint8Array): void {
  const {operations, answers, unmodelled, derived} = summary;
  assert.equal(summary.events, sum(operations) + sum(answers) + sum(unmodelled) - derived);
  const loaded = loadTrace(memorySource(trace));
  assert.equal(loaded.events.count, sum(operations) + sum(answers));
  assert.equal(loaded.footer?.sourceEvents, summary.events);
  assert.deepEqual(loaded.footer?.unmodelled, unmodelled);
}

function report(bytes: Uint8Array): string {
  const {trace, summary} = importBytes(bytes);
  balanced(summary, trace);
  const {events, strings, tasks} = loadTrace(memorySource(trace));
  const {header, operations, answers, unmodelled, lost, reordered, warnings} = summary;
  const facts = {
    format: summary.format,
    baseNs: header.baseNs.toString(),
    events: summary.events,
    ...{operations, answers, unmodelled, lost, reordered, warnings},
    tasks: tasks.map((t) => `${t.tid} of ${t.tgid} child of ${t.parentTid}: ${t.comm}`),
  };
  return `${[...dumpEvents(events, strings)].join('\n')}\n${JSON.stringify(facts, null, 1)}\n`;
}

for (const name of FILES) {
  test(`sample ${name} imports as expected`, () => {
    const expected = join(SAMPLES, name.replace(/txt$/, 'events'));
    const got = report(readFileSync(join(SAMPLES, name)));
    if (process.env.UPDATE_SAMPLES) writeFileSync(expected, got);
    assert.equal(got, readFileSync(expected, 'utf8'));
  });
}

test('a text cut at any byte imports up to there and says so', () => {
  for (const name of FILES) {
    const text = readFileSync(join(SAMPLES, name)).subarray(0, 3000);
    for (let cut = 400; cut < text.length; cut++) {
      const part = text.subarray(0, cut);
      let complete = 0;
      for (const byte of part) if (byte === 10) complete++;
      if (complete === 0) continue;
      const {summary, trace} = importBytes(part);
      balanced(summary, trace);
      const whole = part.subarray(part.lastIndexOf(10)).toString().trim() === '';
      assert.equal(summary.events + summary.metadata, complete);
      assert.equal(summary.truncated?.line, whole ? undefined : complete + 1);
      assert.equal(summary.partial, !whole);
    }
  }
});

test('flipped bits, lost, doubled and shuffled lines: a UserError or a balanced import', () => {
  const texts = FILES.map((name) => readFileSync(join(SAMPLES, name), 'latin1').slice(0, 12_000));
  fc.assert(
    fc.property(
      fc.constantFrom(...texts),
      fc.array(fc.record({at: fc.nat(), bit: fc.nat(6)}), {maxLength: 3}),
      fc.array(fc.record({from: fc.nat(), to: fc.nat(), copy: fc.boolean()}), {maxLength: 20}),
      (text, flips, moves) => {
        const lines = text.slice(0, text.lastIndexOf('\n')).split('\n');
        for (const {from, to, copy} of moves) {
          const [line] = lines.splice(from % lines.length, copy ? 0 : 1);
          lines.splice(to % lines.length, 0, line ?? lines[from % lines.length]);
        }
        const bytes = Buffer.from(`${lines.join('\n')}\n`, 'latin1');
        for (const {at, bit} of flips) bytes[at % bytes.length] ^= 1 << bit;
        try {
          const {summary, trace} = importBytes(bytes, {holdBound: 5}, 'x.txt');
          balanced(summary, trace);
        } catch (error) {
          assert.ok(error instanceof UserError, String((error as Error).stack));
          assert.match(error.message, /^x\.txt:[^\n]+; [^\n]+$/);
        }
      },
    ),
    {numRuns: 1500, seed: 21},
  );
});

test('what is no text of ours is refused in one line', () => {
  const refusal = (bytes: Uint8Array): string => {
    try {
      importBytes(bytes, {}, 'x');
    } catch (error) {
      assert.ok(error instanceof UserError, String(error));
      return error.message;
    }
    return 'accepted';
  };
  assert.match(refusal(new Uint8Array(0)), /^x: offset 0: the file is empty, expected perf script/);
  assert.match(refusal(Uint8Array.of(0, 1, 2, 200)), /offset 0: binary data, expected perf script/);
  assert.match(
    refusal(Buffer.from('PERFILE2\0\0')),
    /this is perf\.data; turn it into text with: perf/,
  );
  assert.match(refusal(Buffer.from('\x17\x08\x44tracing7\0')), /trace\.dat; .* trace-cmd report/);
  assert.match(refusal(Buffer.from('hello\nworld\n')), /text of another kind/);
  assert.match(
    refusal(Buffer.from('a 1/1 [000] 1.000000: x:y: z\nrubbish here\n')),
    /^x:2: expected a/,
  );
  assert.match(
    refusal(Buffer.from('a 1/1 [000] 1.000000: kmem:rss_stat: mm_id=4\n')),
    /^x:1: rss_stat: member is missing in "mm_id=4"; remove the line/,
  );
  assert.match(
    refusal(Buffer.from('a 1/1 [70000] 1.000000: tlb:tlb_flush: pages:1 reason:x (1)\n')),
    /cpu 70000/,
  );
});

const SHARED = join(dirname(packageRoot()), 'shared', 'traces');
const recorded = existsSync(SHARED)
  ? ['recorded', 'encodings'].flatMap((folder) =>
      readdirSync(join(SHARED, folder))
        .filter((name) => /\.(perf|ftrace|trace-cmd-report)\.txt(\.zst)?$/.test(name))
        .map((name) => join(SHARED, folder, name)),
    )
  : [];

/** Events that the recording itself claims: its meta file, or the count in its head. */
function claimed(path: string): number | undefined {
  const meta = path.replace(/\.perf\.txt\.zst$/, '.meta.json');
  if (meta !== path) return JSON.parse(readFileSync(meta, 'utf8')).lines;
  const head = /entries-written: (\d+)/.exec(
    path.endsWith('.zst') ? '' : readFileSync(path, 'utf8'),
  );
  return head === null ? undefined : Number(head[1]);
}

test('recordings import whole', {skip: recorded.length > 0 ? false : 'no ../shared/traces'}, () => {
  for (const path of recorded) {
    const summary = importTrace(path, '/dev/null');
    const {operations, answers, unmodelled} = summary;
    assert.equal(summary.events, sum(operations) + sum(answers) + sum(unmodelled), path);
    const claim = claimed(path);
    if (claim !== undefined) assert.equal(summary.events, claim, path);
    assert.equal(summary.truncated, undefined);
  }
});
