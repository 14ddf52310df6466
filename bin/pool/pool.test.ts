// What a user reads must not depend on how many threads did the work: outputs, saved runs, errors.

import assert from 'node:assert/strict';
import {existsSync, mkdtempSync, readFileSync, rmSync} from 'node:fs';
import {tmpdir} from 'node:os';
import {join} from 'node:path';
import {after, before, test} from 'node:test';
import {setTimeout as wait} from 'node:timers/promises';
import {EXIT} from '../../formats/errors.ts';
import {type Result, run} from '../testing.ts';

let folder = '';
let trace = '';

before(async () => {
  folder = mkdtempSync(join(tmpdir(), 'mmreplay-'));
  trace = join(folder, 'storm.mmt');
  await run('generate', 'fork-storm', 'workers=2', 'children=4', '-o', trace);
});

after(() => rmSync(folder, {recursive: true}));

/** Runs of a file as text, without the host's times. */
function savedRuns(path: string): string[] {
  if (!existsSync(path)) return [];
  const lines = readFileSync(path, 'utf8').trim().split('\n');
  return lines.map((line) => {
    const run = JSON.parse(line);
    const {events, ops} = run.host;
    return JSON.stringify({...run, host: {events, ops}});
  });
}

function compare(b: readonly string[], ...more: string[]): Promise<Result> {
  const designs = b.flatMap((design) => ['--b', design]);
  const on = ['--machine', '2s2c2t', '--seeds', '2'];
  return run('compare', trace, '--a', 'pgd=pgd-list', ...designs, ...on, ...more);
}

test('compare: output and saved runs are the same from one thread and from two', async () => {
  const [one, two] = [join(folder, 'one.jsonl'), join(folder, 'two.jsonl')];
  const designs = ['pgd=lockless-2015-09', 'pgd=lockless-v2'];
  const a = await compare(designs, '--all', '--jobs', '1', '--save', one);
  const b = await compare(designs, '--all', '--jobs', '2', '--save', two);
  assert.equal(a.code, EXIT.ok);
  assert.deepEqual(b, a);
  assert.equal(savedRuns(one).length, 6);
  assert.deepEqual(savedRuns(two), savedRuns(one));
});

test('sweep: the same from one thread and from two', async () => {
  const words = ['sweep', 'fork-storm', 'workers=1,2,3', 'children=3', '--seeds', '2'];
  const designs = ['--compare', 'pgd=pgd-list', '--compare', 'pgd=lockless-v2'];
  const flags = [...designs, '--machine', '2s2c1t', '--json'];
  const a = await run(...words, ...flags, '--jobs', '1');
  assert.equal(a.code, EXIT.ok);
  assert.deepEqual(await run(...words, ...flags, '--jobs', '2'), a);
});

test('scenario run: the same from one thread and from two', async () => {
  const words = ['scenario', 'run', 'pgd-i*', '--json'];
  const a = await run(...words, '--jobs', '1');
  assert.equal(a.code, EXIT.ok);
  assert.ok(JSON.parse(a.out).results.length >= 12);
  assert.deepEqual(await run(...words, '--jobs', '2'), a);
});

test('an error is the same, whichever thread meets it: the first in the order asked for', async () => {
  for (const [designs, more] of [
    [['pgd=lockless-v2', 'pgd=nosuch', 'pgd=nothing'], []],
    [['pgd=lockless-v2'], ['--max-events', '60']],
  ]) {
    const [one, two] = [join(folder, 'bad1.jsonl'), join(folder, 'bad2.jsonl')];
    const a = await compare(designs, ...more, '--jobs', '1', '--save', one);
    const b = await compare(designs, ...more, '--jobs', '2', '--save', two);
    assert.notEqual(a.code, EXIT.ok);
    assert.equal(a.err.trim().split('\n').length, 1, a.err);
    assert.deepEqual(b, a);
    assert.deepEqual(savedRuns(two), savedRuns(one));
  }
  assert.equal(savedRuns(join(folder, 'bad2.jsonl')).length, 4);
});

test('an interrupt ends the workers and keeps what is done', async () => {
  const others = process.listeners('SIGINT');
  const path = join(folder, 'cut.jsonl');
  const over = compare(['pgd=lockless-v2'], '--seeds', '1000', '--jobs', '2', '--save', path);
  let handlers: readonly NodeJS.SignalsListener[] = [];
  while (handlers.length === 0) {
    await wait(10);
    handlers = process.listeners('SIGINT').filter((handler) => !others.includes(handler));
  }
  handlers[0]('SIGINT');
  const {code, out, err} = await over;
  assert.equal(code, EXIT.interrupted);
  assert.equal(out, '');
  assert.match(err, /^mmreplay: interrupted after \d+ of 2000 runs\n$/);
  assert.deepEqual(process.listeners('SIGINT'), others);
});
