import assert from 'node:assert/strict';
import {spawnSync} from 'node:child_process';
import {mkdtempSync, readFileSync, rmSync, writeFileSync} from 'node:fs';
import {tmpdir} from 'node:os';
import {join} from 'node:path';
import {test} from 'node:test';
import {gunzipSync, gzipSync, constants} from 'node:zlib';
import fc from 'fast-check';
import {UserError} from './errors.ts';
import {KIND} from './kinds.ts';
import {loadTrace} from './reader.ts';
import {openTraceFile} from './sink.ts';
import {memorySource, openSource, type ByteSource} from './source.ts';
import {TraceWriter} from './writer.ts';

function drain(source: ByteSource): Buffer {
  const parts: Uint8Array[] = [];
  for (;;) {
    const piece = source.next();
    if (piece === undefined) return Buffer.concat(parts);
    parts.push(piece.slice());
  }
}

function inFolder(run: (folder: string) => void): void {
  const folder = mkdtempSync(join(tmpdir(), 'formats-'));
  try {
    run(folder);
  } finally {
    rmSync(folder, {recursive: true});
  }
}

test('what zlib deflates at any level and strategy, the inflater gives back', () => {
  const word = fc.constantFrom('page_fault_user ', 'rss', '0x7f', '\0', 'ab', 'a'.repeat(300));
  const strategy = fc.constantFrom(
    constants.Z_DEFAULT_STRATEGY,
    constants.Z_FIXED,
    constants.Z_RLE,
  );
  fc.assert(
    fc.property(
      fc.array(fc.oneof(word, fc.string()), {maxLength: 400}),
      fc.integer({min: 0, max: 9}),
      strategy,
      fc.integer({min: 1, max: 5000}),
      (words, level, how, pieceBytes) => {
        const text = Buffer.from(words.join(''));
        const two = [text, text].map((part) => gzipSync(part, {level, strategy: how}));
        const got = drain(memorySource(Buffer.concat(two), 'x', pieceBytes));
        assert.ok(got.equals(Buffer.concat([text, text])));
      },
    ),
    {numRuns: 200},
  );
});

test('more than a window of incompressible and far-back data inflates', () => {
  let state = 1;
  const noise = Buffer.from(
    Array.from({length: 40_000}, () => {
      state = (Math.imul(state, 69069) + 1) >>> 0;
      return state >>> 24;
    }),
  );
  const data = Buffer.concat([noise, noise.subarray(0, 9000), Buffer.alloc(600_000), noise]);
  for (const level of [0, 1, 9]) {
    assert.ok(drain(memorySource(gzipSync(data, {level}), 'x', 777)).equals(data));
  }
});

test('damaged compressed data is a UserError after all that was sound', () => {
  const text = Buffer.from('some words that repeat, some words that do not\n'.repeat(500));
  const zipped = gzipSync(text);
  for (let at = 10; at < zipped.length; at++) {
    const bad = Buffer.from(zipped);
    bad[at] ^= 0x10;
    assert.throws(() => drain(memorySource(bad, 'x.gz')), UserError, `byte ${at}`);
    assert.throws(() => drain(memorySource(zipped.subarray(0, at), 'x.gz')), /ends too early/);
  }
});

const LINES = 'a page fault, an answer, an operation\n'.repeat(40);
/** LINES as zstd -19 writes them. */
const ZSTD = Buffer.from(
  'KLUv/WTwBGUBABQCYSBwYWdlIGZhdWx0LCBhbiBhbnN3ZXJvcGVyYXRpb24KAgDHJfVRC6UJjArCOA==',
  'base64',
);

test('zstd input reads whole, and cut or damaged is a UserError', () => {
  assert.equal(drain(memorySource(ZSTD, 'x.zst', 10)).toString(), LINES);
  for (let cut = 5; cut < ZSTD.length - 4; cut++) {
    const part = memorySource(ZSTD.subarray(0, cut), 'x.zst');
    assert.throws(() => drain(part), UserError, `cut at ${cut}`);
  }
  assert.throws(() => drain(memorySource(ZSTD.subarray(0, 20), 'x')), /zstd data is damaged/);
});

test('a file is written plain or gzipped by its name, and read back by its content', () => {
  inFolder((folder) => {
    const names = ['t.mmr', 't.mmr.gz'].map((name) => join(folder, name));
    for (const name of names) {
      const file = openTraceFile(name);
      const writer = new TraceWriter(file.sink, {source: 'test'});
      for (let i = 0; i < 50_000; i++) writer.append(KIND.access, i, 1, 0, i * 4096, 6, 0);
      writer.finish();
      file.close();
      file.close();
      assert.equal(loadTrace(name).events.count, 50_000);
    }
    const [plain, zipped] = names.map((name) => readFileSync(name));
    assert.ok(gunzipSync(zipped).equals(plain));
    assert.throws(() => openTraceFile(join(folder, 'none', 'x')), /cannot write: no such file/);
    assert.throws(() => openSource(join(folder, 'none')), /cannot read: no such file/);
    assert.throws(() => drain(openSource(folder)), /is a folder/);
  });
});

test('a process that dies midway leaves a readable part', () => {
  inFolder((folder) => {
    const script = join(folder, 'dies.mjs');
    const here = import.meta.url;
    const ext = here.endsWith('.ts') ? 'ts' : 'js';
    const out = join(folder, 'part.mmr.gz');
    writeFileSync(
      script,
      `import {openTraceFile} from '${new URL(`./sink.${ext}`, here)}';
       import {TraceWriter} from '${new URL(`./writer.${ext}`, here)}';
       const writer = new TraceWriter(openTraceFile('${out}').sink, {source: 'test'});
       for (let i = 0; i < 10000; i++) writer.append(${KIND.yield}, i, 1, 0);
       throw new Error('midway');`,
    );
    const args = [...process.execArgv.filter((arg) => !arg.startsWith('--test')), script];
    const run = spawnSync(process.execPath, args, {encoding: 'utf8'});
    assert.match(run.stderr, /midway/);
    assert.throws(() => loadTrace(out), /ends without a footer/);
    assert.equal(loadTrace(out, {tolerant: true}).events.count, 8192);
  });
});
