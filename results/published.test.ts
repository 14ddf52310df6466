import assert from 'node:assert/strict';
import {existsSync, readFileSync} from 'node:fs';
import {join} from 'node:path';
import {test} from 'node:test';
import {UserError} from './errors.ts';
import {resultsFolder} from './golden.ts';
import {checkPublished, type Published, shippedPublished} from './published.ts';

const shared = join(resultsFolder(), '..', '..', 'shared', 'data', 'published');

function example(): Record<string, unknown> {
  return JSON.parse(
    JSON.stringify({
      schema: 'mmreplay.published/1',
      name: 'mine',
      source: 'my own measurement, 2024',
      status: 'measured',
      machine: {description: 'a laptop'},
      kernel: '6.6',
      workload: {name: 'fork_storm', modelled: true, params: {processes: 8}},
      x: {name: 'processes'},
      y: {name: 'forks', unit: '1/s'},
      series: [
        {
          name: 'a',
          design: {pgd: 'pgd-list'},
          points: [
            [1, 10],
            [2, 15],
          ],
        },
        {
          name: 'b',
          design: {},
          points: [
            [1, 11],
            [2, 16],
          ],
        },
      ],
      compare: 'ratio',
      ratio_to: 'first_x',
      fitted_from: 1,
      notes: [],
    }),
  );
}

function series(published: Published, name: string): readonly (readonly [number, number])[] {
  return published.series.find((s) => s.name === name)?.points ?? assert.fail(`no ${name}`);
}

function shipped(name: string): Published {
  return shippedPublished().find((p) => p.name === name) ?? assert.fail(`no ${name}`);
}

test('every shipped file is valid, has a source and is named after its file', () => {
  const all = shippedPublished();
  assert.ok(all.length >= 6);
  assert.equal(new Set(all.map((p) => p.name)).size, all.length);
  for (const published of all) assert.ok(published.source.length > 20, published.name);
});

test('the form that users write is accepted', () => {
  assert.equal(checkPublished(example(), 'mine.json').name, 'mine');
});

const mistakes: readonly (readonly [string, (form: Record<string, unknown>) => void, RegExp])[] = [
  ['schema', (f) => Object.assign(f, {schema: 'x'}), /at \$\.schema: expected "mmreplay/],
  ['missing field', (f) => delete f['kernel'], /at \$\.kernel: expected a field "kernel"/],
  ['unknown field', (f) => Object.assign(f, {colour: 1}), /\$\.colour: .*remove or rename/],
  ['no series', (f) => Object.assign(f, {series: []}), /at least one series/],
  ['ratio_to nobody', (f) => Object.assign(f, {ratio_to: 'c'}), /ratio_to: expected "first_x" or/],
  ['absolute with ratio_to', (f) => Object.assign(f, {compare: 'absolute'}), /remove the field/],
  ['negative fitted_from', (f) => Object.assign(f, {fitted_from: -1}), /0 or more/],
];

for (const [what, change, message] of mistakes) {
  test(`a mistake in the form is named with its place: ${what}`, () => {
    const form = example();
    change(form);
    assert.throws(
      () => checkPublished(form, 'mine.json'),
      (error: unknown) => {
        assert.ok(error instanceof UserError && error.exitCode === 3);
        assert.match(error.message, /^mine\.json: at \$/);
        assert.match(error.message, message);
        return true;
      },
    );
  });
}

test('points are checked one by one', () => {
  const bad = (points: unknown): Record<string, unknown> => ({
    ...example(),
    series: [{name: 'a', design: {}, points}],
  });
  assert.throws(
    () => checkPublished(bad([[1, 'x']]), 'f'),
    /series\[0\]\.points\[0\]\[1\]: .*number/,
  );
  assert.throws(() => checkPublished(bad([[1, 2, 3]]), 'f'), /a pair \[x, y\]/);
  assert.throws(
    () =>
      checkPublished(
        bad([
          [2, 1],
          [1, 1],
        ]),
        'f',
      ),
    /an x above 2/,
  );
  assert.throws(
    () =>
      checkPublished(
        bad([
          [1, 0],
          [2, 1],
        ]),
        'f',
      ),
    /reference y above 0/,
  );
});

test('a ratio to another series needs that series at every x', () => {
  const form: Record<string, unknown> = {...example(), ratio_to: 'b'};
  form['series'] = [
    {
      name: 'a',
      design: {},
      points: [
        [1, 10],
        [4, 15],
      ],
    },
    {name: 'b', design: {}, points: [[1, 11]]},
  ];
  assert.throws(() => checkPublished(form, 'f'), /an x that series "b" has too/);
});

test('the PTT shares are 1.50 to 1', () => {
  const ptt = shipped('pgd_lock_ptt_2019_shares');
  const [[, sync]] = series(ptt, 'sync_global_pgds');
  const [[, alloc]] = series(ptt, 'pgd_alloc');
  assert.equal((sync / alloc).toFixed(2), '1.50');
});

test('locktorture: the stated delays give 1000 ns at one writer, as the notes derive', () => {
  const {params} = shipped('qspinlock_4s_haswell_ex_locktorture').workload;
  const mean =
    Number(params['short_delay_ns']) / Number(params['short_delay_one_in_per_writer']) +
    Number(params['long_delay_ns']) / Number(params['long_delay_one_in_per_writer']);
  assert.equal(mean, 1000);
});

test('converted points are those of the source tables', (t) => {
  if (!existsSync(shared)) return t.skip(`source tables absent: ${shared}`);
  const table = (file: string, key?: string): {columns: string[]; rows: number[][]} => {
    const all = JSON.parse(readFileSync(join(shared, file), 'utf8'));
    return key === undefined ? all : all[key];
  };
  const same = (
    name: string,
    from: {columns: string[]; rows: number[][]},
    names: string[],
  ): void => {
    names.forEach((seriesName, i) => {
      const points = from.rows.map((row) => [row[0], row[i + 1]]);
      assert.deepEqual(series(shipped(name), seriesName), points, name);
    });
  };
  const kogan = 'qspinlock_4s_haswell_ex.json';
  same('qspinlock_4s_haswell_ex_locktorture', table(kogan, 'locktorture_total_ops_1e7'), [
    'stock',
    'cna',
  ]);
  same('qspinlock_4s_haswell_ex_open1', table(kogan, 'will_it_scale_open1_threads_ops_per_us'), [
    'stock',
    'cna',
  ]);
  same('tlb_flush2_invlpgb', table('tlb_flush2_invlpgb.json'), ['ipi', 'invlpgb']);
});
