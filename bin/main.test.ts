import assert from 'node:assert/strict';
import {writeFileSync} from 'node:fs';
import {join} from 'node:path';
import {test} from 'node:test';
import {EXIT} from '../formats/errors.ts';
import {inScratch, run} from './testing.ts';

test('an unknown verb, machine, kernel or design is a usage or input error in one line', async () => {
  assert.equal((await run('nosuch')).code, EXIT.usage);
  await inScratch(async (folder) => {
    const trace = join(folder, 'a.mmt');
    await run('generate', 'fork-storm', 'workers=1', 'children=1', '-o', trace);
    for (const flags of [
      ['--machine', 'nosuch'],
      ['--kernel', '9.9'],
      ['--design', 'pgd=nosuch'],
      ['--time', 'scaled=0'],
    ]) {
      const {code, err} = await run('replay', trace, ...flags);
      assert.equal(code, EXIT.usage, flags.join(' '));
      assert.equal(err.trim().split('\n').length, 1, err);
    }
  });
});

test('wrong usage says what to do instead', async () => {
  await inScratch(async (folder) => {
    const trace = join(folder, 'a.mmt');
    const stored = join(folder, 'a.json');
    await run('generate', 'fork-storm', 'workers=1', 'children=1', '-o', trace);
    writeFileSync(stored, (await run('replay', trace, '--json')).out);
    const two = ['compare', trace, '--a', 'pgd=pgd-list', '--b', 'pgd=lockless-2015-09'];
    const nowhere = join(folder, 'none', 'a.jsonl');
    const cases: readonly (readonly [readonly string[], number, RegExp])[] = [
      [['compare', trace, '--a', 'pgd=pgd-list'], EXIT.usage, /--b pgd=/],
      [[...two, '--b', 'pgd=pgd-list'], EXIT.usage, /pgd=pgd-list is given twice/],
      [[...two, '--seeds', '1', '--only', 'nosuch'], EXIT.usage, /it has locks\./],
      [[...two, '--save', nowhere], EXIT.badInput, /cannot write: no such file or folder; check/],
      [['validate', '--only', 'nosuch'], EXIT.usage, /there are aim7/],
      [['scenario', 'run'], EXIT.usage, /scenario list/],
      [['scenario', 'run', '--all', '--design', 'nosuch'], EXIT.usage, /choose one of lockless/],
      [['verify', trace], EXIT.badInput, /give a recording/],
      [['report', trace], EXIT.badInput, /binary data, expected JSON; name a file/],
      [['report', stored, '--format', 'csv'], EXIT.usage, /take table or json/],
      [['report', nowhere], EXIT.badInput, /cannot read: no such file or folder; check/],
    ];
    for (const [argv, expected, remedy] of cases) {
      const {code, out, err} = await run(...argv);
      assert.deepEqual([code, out], [expected, ''], argv.join(' '));
      assert.match(err, remedy);
      assert.equal(err.trim().split('\n').length, 1, err);
    }
  });
});

test('a missing, empty or garbage trace is bad input in one line', async () => {
  await inScratch(async (folder) => {
    const empty = join(folder, 'empty.mmt');
    const garbage = join(folder, 'garbage.mmt');
    writeFileSync(empty, '');
    writeFileSync(garbage, Buffer.from(Array.from({length: 5000}, (_, i) => (i * 7919) & 255)));
    for (const path of [join(folder, 'missing.mmt'), empty, garbage]) {
      const {code, err} = await run('replay', path);
      assert.equal(code, EXIT.badInput, path);
      assert.equal(err.trim().split('\n').length, 1, err);
      assert.ok(err.includes(path), err);
    }
  });
});

test('generate, info and replay work on one file, and replay --json prints the fixed names', async () => {
  await inScratch(async (folder) => {
    const trace = join(folder, 'storm.mmt.gz');
    assert.equal(
      (await run('generate', 'fork-storm', 'workers=2', 'children=5', '-o', trace)).code,
      0,
    );
    const info = JSON.parse((await run('info', trace, '--json')).out);
    assert.equal(info.operations.fork, 10);
    const {code, out} = await run(
      'replay',
      trace,
      '--machine',
      '2s4c1t',
      '--kernel',
      '6.18',
      '--json',
    );
    assert.equal(code, EXIT.ok);
    const report = JSON.parse(out);
    const names = [
      'schema',
      'trace',
      'machine',
      'design',
      'seed',
      'digest',
      'simulated_ns',
      'host',
    ];
    for (const name of [...names, 'ops', 'locks', 'notifier', 'tlb', 'faults', 'checks']) {
      assert.ok(name in report, name);
    }
    assert.equal(report.ops.fork.count, 10);
  });
});

test('the same trace, machine, design and seed give the same digest under every order and time', async () => {
  await inScratch(async (folder) => {
    const trace = join(folder, 'storm.mmt');
    await run('generate', 'fork-storm', 'workers=3', 'children=6', 'exec=0.5', '-o', trace);
    for (const order of ['total', 'thread', 'resource', 'causal', 'none']) {
      for (const time of ['asap', 'timed', 'scaled=2', 'think']) {
        const flags = [
          '--machine',
          '2s2c2t',
          '--order',
          order,
          '--time',
          time,
          '--copies',
          '2',
          '--json',
        ];
        const [a, b] = [await run('replay', trace, ...flags), await run('replay', trace, ...flags)];
        assert.equal(JSON.parse(a.out).digest, JSON.parse(b.out).digest, `${order} ${time}`);
        assert.equal(JSON.parse(a.out).replay.operations.failed, 0, `${order} ${time}`);
      }
    }
  });
});

test('compare marks the baseline and pairs by seed', async () => {
  await inScratch(async (folder) => {
    const trace = join(folder, 'storm.mmt');
    await run('generate', 'fork-storm', 'workers=4', 'children=8', '-o', trace);
    const flags = [
      '--a',
      'pgd=pgd-list',
      '--b',
      'pgd=lockless-2015-09',
      '--seeds',
      '2',
      '--machine',
      '2s4c1t',
    ];
    for (const format of [
      'table',
      'mmtests',
      'lkp',
      'benchstat',
      'will-it-scale',
      'csv',
      'markdown',
    ]) {
      const {code, out, err} = await run('compare', trace, ...flags, '--format', format);
      assert.equal(code, EXIT.ok, err);
      assert.ok(out.includes('lockless'), format);
    }
    const {columns} = JSON.parse((await run('compare', trace, ...flags, '--json')).out);
    assert.deepEqual(
      columns.map((column: {seeds: number[]}) => column.seeds),
      [
        [1, 2],
        [1, 2],
      ],
    );
  });
});
