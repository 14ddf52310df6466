import assert from 'node:assert/strict';
import {test} from 'node:test';
import fc from 'fast-check';
import {compareRuns} from './compare.ts';
import type {Cell, Comparison} from './comparison.ts';
import {fixtureRun, fixtureRuns} from './fixture.ts';
import type {RunReport} from './run.ts';

function cell(comparison: Comparison, metric: string, column = 1): Cell {
  for (const table of comparison.tables) {
    const row = table.rows.find((candidate) => candidate.metric === metric);
    if (row) return row.cells[column];
  }
  return assert.fail(`no row ${metric}`);
}

function faster(speed: number, seeds: number): Comparison {
  return compareRuns([
    {label: 'a', runs: fixtureRuns(seeds)},
    {label: 'b', runs: fixtureRuns(seeds, {pgd: 'lockless-2015-09', speed})},
  ]);
}

test('a design against itself: every row is equal', () => {
  const comparison = compareRuns([
    {label: 'a', runs: fixtureRuns(8)},
    {label: 'again', runs: fixtureRuns(8)},
  ]);
  for (const table of comparison.tables) {
    assert.equal(table.tests, 0);
    for (const row of table.rows) assert.equal(row.cells[1].change.verdict, 'equal', row.metric);
  }
});

test('direction: more throughput and less time are better', () => {
  const comparison = faster(0.5, 12);
  assert.equal(cell(comparison, 'throughput_ops_s').change.verdict, 'better');
  assert.equal(cell(comparison, 'simulated_ns').change.verdict, 'better');
  assert.equal(cell(comparison, 'locks.pgd_lock.wait_ns').change.verdict, 'better');
  const slower = faster(2, 12);
  assert.equal(cell(slower, 'throughput_ops_s').change.verdict, 'worse');
  assert.equal(cell(slower, 'ops.fork.p99_ns').change.verdict, 'worse');
});

test('a metric that no seed moves is compared exactly, without a p-value', () => {
  const {change} = cell(faster(0.5, 12), 'cpu.native_queued_spin_lock_slowpath');
  assert.equal(change.basis, 'exact');
  assert.equal(change.p, undefined);
  assert.equal(change.ratio, 0.5);
});

test('too few seeds: untested, no interval, never better or worse', () => {
  const comparison = faster(0.5, 5);
  const {change, interval} = cell(comparison, 'throughput_ops_s');
  assert.equal(change.verdict, 'untested');
  assert.equal(change.interval, undefined);
  assert.equal(interval, undefined);
});

test('Holm counts: 6 seeds are enough for one row, not for four', () => {
  const {change} = cell(faster(0.5, 6), 'throughput_ops_s');
  assert.equal(change.p, 2 / 64);
  assert.equal(change.verdict, 'untested');
  assert.equal(cell(faster(0.5, 8), 'throughput_ops_s').change.verdict, 'better');
});

test('below the noise floor nothing counts, however significant', () => {
  const runs = (factor: number, label: string): {label: string; runs: RunReport[]} => ({
    label,
    runs: fixtureRuns(12, {pgd: label}).map((run, i) => ({
      ...run,
      throughput_ops_s: (1000 + i * 50) * factor * (1 + i * 1e-6),
    })),
  });
  const inputs = [runs(1, 'a'), runs(1.003, 'b')];
  assert.equal(cell(compareRuns(inputs), 'throughput_ops_s').change.verdict, 'noise');
  const strict = compareRuns(inputs, {noiseFloor: 0});
  assert.equal(cell(strict, 'throughput_ops_s').change.verdict, 'better');
});

test('another trace or machine is not compared', () => {
  for (const change of [{traceHash: 'other'}, {machineHash: 'other'}]) {
    const comparison = compareRuns([
      {label: 'a', runs: fixtureRuns(8)},
      {label: 'b', runs: fixtureRuns(8, change)},
    ]);
    assert.match(comparison.columns[1].incomparable ?? '', /is not the baseline's/);
    for (const table of comparison.tables) {
      for (const row of table.rows) {
        assert.deepEqual(row.cells[1].change, {verdict: 'incomparable', n: 0});
      }
    }
  }
});

test('runs are paired by seed, whatever their order', () => {
  const runs = fixtureRuns(9, {pgd: 'lockless', speed: 0.7});
  const a = {label: 'a', runs: fixtureRuns(9)};
  const inOrder = compareRuns([a, {label: 'b', runs}]);
  const reversed = compareRuns([a, {label: 'b', runs: [...runs].reverse()}]);
  const metric = 'ops.fork.p50_ns';
  assert.deepEqual(cell(inOrder, metric).change, cell(reversed, metric).change);
});

test('seeds that only one side has do not count', () => {
  const comparison = compareRuns([
    {label: 'a', runs: fixtureRuns(8)},
    {label: 'b', runs: [...fixtureRuns(10, {pgd: 'b', speed: 0.5})]},
  ]);
  assert.equal(cell(comparison, 'throughput_ops_s').change.n, 8);
  const disjoint = compareRuns([
    {label: 'a', runs: [fixtureRun({seed: 1})]},
    {label: 'b', runs: [fixtureRun({seed: 2})]},
  ]);
  assert.equal(disjoint.columns[1].incomparable, 'no seed in common with the baseline');
});

test('a lock that only one design has is missing, not zero', () => {
  const without = fixtureRuns(8, {pgd: 'none'}).map((run) => {
    const {pgd_lock: _, ...locks} = run.locks;
    return {...run, locks};
  });
  const comparison = compareRuns([
    {label: 'a', runs: fixtureRuns(8)},
    {label: 'b', runs: without},
  ]);
  const {change, median} = cell(comparison, 'locks.pgd_lock.wait_ns');
  assert.equal(change.verdict, 'missing');
  assert.equal(median, undefined);
});

test('a caller that one design never waits in is zero there', () => {
  const quiet = fixtureRuns(12, {pgd: 'quiet'}).map((run) => {
    const lock = {...run.locks['pgd_lock'], wait_ns_by_caller: {}};
    return {...run, locks: {...run.locks, pgd_lock: lock}};
  });
  const comparison = compareRuns([
    {label: 'a', runs: fixtureRuns(12)},
    {label: 'b', runs: quiet},
  ]);
  const {change, median} = cell(comparison, 'locks.pgd_lock.wait_ns.pgd_alloc');
  assert.equal(median, 0);
  assert.equal(change.verdict, 'better');
  assert.equal(change.ratio, 0);
});

test('bad input says what to do', () => {
  const a = {label: 'a', runs: fixtureRuns(2)};
  assert.throws(() => compareRuns([a]), /needs a baseline and at least one other/);
  assert.throws(() => compareRuns([a, {label: 'a', runs: fixtureRuns(2)}]), /same label/);
  assert.throws(() => compareRuns([a, {label: 'b', runs: []}]), /"b" has no runs/);
  const twice = {label: 'b', runs: [fixtureRun(), fixtureRun()]};
  assert.throws(() => compareRuns([a, twice]), /seed 1 twice/);
  const mixed = {label: 'b', runs: [fixtureRun(), fixtureRun({seed: 2, pgd: 'other'})]};
  assert.throws(() => compareRuns([a, mixed]), /mixes .*pgd-list.* and .*other/);
});

test('no p-value and no star without a test; intervals always contain the median', () => {
  const speeds = fc.double({min: 0.3, max: 3, noNaN: true});
  fc.assert(
    fc.property(speeds, fc.integer({min: 1, max: 14}), (speed, seeds) => {
      for (const table of faster(speed, seeds).tables) {
        for (const row of table.rows) {
          const {change} = row.cells[1];
          if (change.basis === 'test') assert.ok((change.p_holm ?? 1) <= 0.05);
          if (change.p !== undefined) assert.ok((change.p_holm ?? 0) >= change.p);
          if (change.interval === undefined) continue;
          assert.ok(change.n >= 6);
          const ratio = change.ratio ?? Number.NaN;
          assert.ok(change.interval.lo <= ratio && ratio <= change.interval.hi);
        }
      }
    }),
    {numRuns: 40},
  );
});
