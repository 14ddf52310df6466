import assert from 'node:assert/strict';
import {describe, test} from 'node:test';
import fc from 'fast-check';
import {EXIT, UserError} from '../formats/errors.ts';
import {MAX_SWEEP, expandWords, parseValue, type ParamSpec} from './params.ts';
import {workloadByName} from './registry.ts';
import {expandSweep, parseParams} from './workload.ts';

const base = {default: 1, min: 0, max: 1e15, doc: ''};
const count: ParamSpec = {...base, name: 'n', unit: 'count', max: 1_000_000};
const time: ParamSpec = {...base, name: 'hold', unit: 'ns'};
const size: ParamSpec = {...base, name: 'size', unit: 'bytes'};
const share: ParamSpec = {...base, name: 'p', unit: 'share', max: 1};
const word: ParamSpec = {
  ...base,
  name: 'mode',
  unit: 'choice',
  default: 'a',
  choices: ['a', 'b'],
  max: 1,
};
const ALL = [count, time, size, share, word];

function values(...words: string[]): unknown[] {
  const name = words[0].split('=')[0];
  return expandWords('test', ALL, words).map((row) => row[name]);
}

function refused(words: string[], expected: RegExp): void {
  assert.throws(
    () => expandWords('test', ALL, words),
    (error) => {
      assert.ok(error instanceof UserError);
      assert.equal(error.exitCode, EXIT.usage);
      assert.match(error.message, expected);
      return true;
    },
  );
}

describe('one value', () => {
  test('takes the suffixes of its unit', () => {
    assert.equal(parseValue(time, '2us'), 2_000);
    assert.equal(parseValue(time, '1.5ms'), 1_500_000);
    assert.equal(parseValue(time, '7'), 7);
    assert.equal(parseValue(size, '4K'), 4096);
    assert.equal(parseValue(size, '0.5G'), 2 ** 29);
    assert.equal(parseValue(share, '0.25'), 0.25);
  });
  test('is refused with what to type instead', () => {
    refused(['n=many'], /n=many: expected a number; for example 1/);
    refused(['n=2us'], /expected a number/);
    refused(['n=1.5'], /whole number of count/);
    refused(['n=-1'], /out of range; give 0\.\.1000000/);
    refused(['p=1.01'], /out of range; give 0\.\.1 share/);
    refused(['hold=3min'], /plain or with ns, us, ms, s/);
    refused(['mode=c'], /expected one of a, b/);
    refused(['n='], /expected a number/);
  });
});

describe('words', () => {
  test('are key=value with a known key, given once', () => {
    refused(['n'], /expected key=value, for example n=1/);
    refused(['=3'], /expected key=value/);
    refused(['workers=3'], /test has no parameter workers; it has n, hold, size, p, mode/);
    refused(['n=1', 'n=2'], /n was given before/);
  });
  test('may write - for _ in a key', () => {
    const params = parseParams(workloadByName('fork-storm'), ['fork-max=3']);
    assert.equal(params['fork_max'], 3);
  });
});

describe('sweeps', () => {
  test('lists, ranges, steps and factors', () => {
    assert.deepEqual(values('n=1,2,4,8'), [1, 2, 4, 8]);
    assert.deepEqual(values('n=3..6'), [3, 4, 5, 6]);
    assert.deepEqual(values('n=0..100+40'), [0, 40, 80, 100]);
    assert.deepEqual(values('n=1..144*2'), [1, 2, 4, 8, 16, 32, 64, 128, 144]);
    assert.deepEqual(values('n=1..4,8,16..18'), [1, 2, 3, 4, 8, 16, 17, 18]);
    assert.deepEqual(values('n=1..3,2..4'), [1, 2, 3, 4]);
    assert.deepEqual(values('n=5..5'), [5]);
    assert.deepEqual(values('hold=1us..2us+500'), [1000, 1500, 2000]);
    assert.deepEqual(values('p=0.5..1+0.25'), [0.5, 0.75, 1]);
    assert.deepEqual(values('mode=a,b'), ['a', 'b']);
    assert.equal(values('n=1..144').length, 144);
  });
  test('multiply, the first word slowest', () => {
    const rows = expandWords('test', ALL, ['mode=a,b', 'n=1..2']);
    const pairs = rows.map((row) => `${row['mode']}${row['n']}`);
    assert.deepEqual(pairs, ['a1', 'a2', 'b1', 'b2']);
  });
  test('are refused when they fall, stand still or are too many', () => {
    refused(['n=6..3'], /first\.\.last, first\.\.last\+step or first\.\.last\*factor/);
    refused(['n=1..9*1'], /rising/);
    refused(['n=0..9*2'], /rising/);
    refused(['n=1..9+0'], /rising/);
    refused(['n=1..1000000'], new RegExp(`more than ${MAX_SWEEP}`));
    refused(['n=1..200', 'hold=1..200'], /combinations/);
  });
  test('always hold both ends, rise, and stay within bounds', () => {
    const range = fc.tuple(fc.nat(500), fc.nat(500), fc.integer({min: 1, max: 50}));
    fc.assert(
      fc.property(range, fc.boolean(), ([first, more, step], factor) => {
        const from = factor ? first + 1 : first;
        const last = from + more;
        const got = values(`n=${from}..${last}${factor ? `*${step + 1}` : `+${step}`}`) as number[];
        assert.equal(got[0], from);
        assert.equal(got.at(-1), last);
        got.forEach((value, i) => {
          assert.ok(i === 0 || value > got[i - 1]);
        });
      }),
      {seed: 1},
    );
  });
  test('one trace takes one combination', () => {
    const storm = workloadByName('fork-storm');
    assert.equal(expandSweep(storm, ['workers=1..144']).length, 144);
    assert.throws(() => parseParams(storm, ['workers=1,2']), /2 combinations given/);
  });
});
