import assert from 'node:assert/strict';
import {test} from 'node:test';
import {compareRuns} from '../compare.ts';
import type {Comparison} from '../comparison.ts';
import {fixtureRun, fixtureRuns} from '../fixture.ts';
import {checkGolden} from '../golden.ts';
import {buildSweep, type SweepInput} from '../sweep.ts';
import {FORMATS, formatNamed} from './formats.ts';
import {lkpNumber} from './lkp.ts';
import {splitLabel} from './mmtests.ts';
import {colourWanted} from './options.ts';
import {drawTable} from './table.ts';
import {drawSweepWillItScale} from './will_it_scale.ts';

/** Twelve seeds; a faster design, one that differs in nothing, and one that ran another trace. */
function full(): Comparison {
  return compareRuns([
    {label: '4.19-pgd-list', runs: fixtureRuns(12)},
    {label: '4.19-lockless', runs: fixtureRuns(12, {pgd: 'lockless-2015-09', speed: 0.5})},
    {label: '4.19-other', runs: fixtureRuns(12, {pgd: 'pgd-list', traceHash: 'ffff0000'})},
  ]);
}

/** Three seeds, failures and a warning: nothing can be significant. */
function small(): Comparison {
  const warnings = {'huge pages are not modelled': 2};
  return compareRuns([
    {label: 'before', runs: fixtureRuns(3)},
    {label: 'after', runs: fixtureRuns(3, {pgd: 'lockless-v1', speed: 0.9, missed: 1, warnings})},
  ]);
}

for (const name of Object.keys(FORMATS)) {
  test(`format ${name} is what it was`, () => {
    const extension = name.includes('csv') || name === 'will-it-scale' ? 'csv' : 'txt';
    if (name !== 'json') checkGolden(`${name}.full.${extension}`, formatNamed(name)(full()));
    checkGolden(`${name}.small.${extension}`, formatNamed(name)(small()));
  });

  test(`format ${name} ends with one newline and has no trailing spaces in its lines`, () => {
    for (const comparison of [full(), small()]) {
      const text = formatNamed(name)(comparison);
      assert.match(text, /[^\n]\n$/);
      if (name !== 'lkp') assert.doesNotMatch(text, / \n/);
    }
  });

  test(`format ${name} has no star and no interval below the samples for them`, () => {
    const text = formatNamed(name)(small());
    if (name === 'table' || name === 'mmtests') assert.doesNotMatch(text, /%\*| % \*/);
    if (name === 'table') assert.doesNotMatch(text, /\[[+-]/);
  });
}

test('an unknown format names the choices', () => {
  assert.throws(() => formatNamed('xml'), /unknown format "xml"; choose one of table, mmtests/);
  assert.throws(() => formatNamed('constructor'), /unknown format/);
});

test('colour only when asked for', () => {
  // biome-ignore lint/suspicious/noControlCharactersInRegex: colour escapes start with ESC
  const colourEscape = /\u001b\[/;
  assert.doesNotMatch(drawTable(full()), colourEscape);
  assert.match(drawTable(full(), {color: true}), colourEscape);
});

test('NO_COLOR, the terminal and the flag decide about colour', () => {
  assert.equal(colourWanted({}, true), true);
  assert.equal(colourWanted({}, false), false);
  assert.equal(colourWanted({NO_COLOR: '1'}, true), false);
  assert.equal(colourWanted({NO_COLOR: ''}, true), true);
  assert.equal(colourWanted({NO_COLOR: '1'}, true, true), true);
});

test('json is the comparison and nothing else', () => {
  assert.deepEqual(JSON.parse(FORMATS['json'](full())), JSON.parse(JSON.stringify(full())));
});

test('mmtests splits labels as mmtests does', () => {
  assert.deepEqual(splitLabel('5.6.0-rc1-baseline-v3'), ['5.6.0-rc1', 'baseline-v3']);
  assert.deepEqual(splitLabel('5.17-rc1'), ['5.17-rc1', '']);
  assert.deepEqual(splitLabel('4.19-pgd-list'), ['4.19', 'pgd-list']);
  assert.deepEqual(splitLabel('patched'), ['patched', '']);
});

test('lkp numbers: two decimals, integer, four digits', () => {
  assert.equal(lkpNumber(24.471), '24.47');
  assert.equal(lkpNumber(13467005), '13467005');
  assert.equal(lkpNumber(179200000), '1.792e+08');
});

test('will-it-scale CSV of a sweep: the other mode stays empty, linear is n times one task', () => {
  const inputs: SweepInput[] = [1, 2, 8].flatMap((x) => [
    {label: 'qspinlock', x, runs: [{...fixtureRun(), throughput_ops_s: 1000 * x ** 0.5}]},
    {label: 'cna', x, runs: [{...fixtureRun(), throughput_ops_s: 1000 * x}]},
  ]);
  const text = drawSweepWillItScale(buildSweep(inputs));
  checkGolden('will-it-scale.sweep.csv', text);
  const rows = text.split('\n').filter((line) => /^\d/.test(line));
  for (const row of rows) assert.equal(row.split(',').length, 6, row);
  assert.ok(rows.includes('8,,,2828,20.00,8000'));
});
