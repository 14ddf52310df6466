import assert from 'node:assert/strict';
import {test} from 'node:test';
import fc from 'fast-check';
import {drawValidation} from './draw/validation.ts';
import {checkGolden} from './golden.ts';
import {type Published, shippedPublished} from './published.ts';
import {type Simulated, validate, validationOf} from './validation.ts';

function shipped(name: string): Published {
  return shippedPublished().find((p) => p.name === name) ?? assert.fail(`no ${name}`);
}

/** The published curve itself, in another unit, off by a factor at each x. */
function scaled(published: Published, unit: number, off: (x: number) => number): Simulated[] {
  return published.series.map(({name, points}) => ({
    series: name,
    points: points.map(([x, y]): [number, number] => [x, y * unit * off(x)]),
  }));
}

test('a curve that is exact up to its unit has no error', () => {
  for (const published of shippedPublished()) {
    const result = validate(
      published,
      scaled(published, 1e6, () => 1),
    );
    for (const point of result.points) {
      assert.notEqual(point.kind, 'not-run');
      if (point.kind !== 'reference') assert.ok(Math.abs(point.error ?? 1) < 1e-12, point.series);
    }
  }
});

test('the reference point is never a prediction, however many points are fitted', () => {
  const published = {...shipped('qspinlock_4s_haswell_ex_open1'), fitted_from: 0};
  const result = validate(
    published,
    scaled(published, 1, (x) => (x === 1 ? 5 : 1)),
  );
  const [first] = result.points;
  assert.equal(first.kind, 'reference');
  assert.equal(first.error, undefined);
  assert.equal(result.predicted, result.points.length - published.series.length);
});

test('fitted points do not count in the error', () => {
  const published = {...shipped('qspinlock_4s_haswell_ex_open1'), fitted_from: 3};
  const result = validate(
    published,
    scaled(published, 1, (x) => (x <= 4 && x > 1 ? 9 : 1)),
  );
  assert.equal(result.points.filter((p) => p.kind === 'fitted').length, 4);
  assert.ok((result.median_abs_error ?? 1) < 1e-12);
});

test('errors are relative to the published ratio, and their median is stated', () => {
  const published = shipped('qspinlock_4s_haswell_ex_locktorture');
  const result = validate(
    published,
    scaled(published, 1, (x) => (x === 1 ? 1 : 1.1)),
  );
  assert.ok(Math.abs((result.median_abs_error ?? 0) - 0.1) < 1e-9);
  const worse = validate(
    published,
    scaled(published, 1, (x) => (x === 1 ? 1 : 0.8)),
  );
  const all = validationOf([result, worse]);
  assert.equal(all.predicted, 36);
  assert.ok(Math.abs((all.median_abs_error ?? 0) - 0.15) < 1e-9);
});

test('a bound is an error only outside', () => {
  const published = shipped('pgd_lock_ptt_2019_capacity');
  const at = (capacity: number): number | undefined => {
    const result = validate(published, [
      {series: 'sync on every vmap purge', points: [[15_000, capacity]]},
      {series: 'sync removed', points: [[15_000, 1000]]},
    ]);
    return result.points[0].error;
  };
  assert.equal(at(200), 0);
  assert.ok(Math.abs((at(666.6) ?? 0) - 1) < 1e-9);
  const held = validate(
    published,
    scaled(published, 1, () => 1),
  );
  assert.deepEqual(held.bounds, {total: 1, held: 1});
  assert.equal(held.predicted, 0);
});

test('what was not simulated is not-run, and no error', () => {
  const published = shipped('qspinlock_4s_haswell_ex_open1');
  const result = validate(published, [
    {
      series: 'stock',
      points: [
        [1, 1],
        [2, 1.5],
      ],
    },
  ]);
  assert.equal(result.predicted, 1);
  assert.equal(result.points.filter((p) => p.kind === 'not-run').length, 17);
  assert.equal(validate(published, []).median_abs_error, undefined);
  assert.throws(() => validate(published, [{series: 'mcs', points: []}]), /no series "mcs"/);
});

test('the unit of the simulated values does not matter for ratios', () => {
  const published = shipped('tlb_flush2_invlpgb');
  fc.assert(
    fc.property(fc.double({min: 1e-6, max: 1e6, noNaN: true}), (unit) => {
      const off = (x: number): number => 1 + x / 100;
      const one = validate(published, scaled(published, 1, off)).median_abs_error ?? 0;
      const other = validate(published, scaled(published, unit, off)).median_abs_error ?? 0;
      assert.ok(Math.abs(one - other) < 1e-9);
    }),
  );
});

test('validation, drawn', () => {
  const results = shippedPublished().map((published) =>
    published.workload.modelled
      ? validate(
          published,
          scaled(published, 2, (x) => (x > 8 ? 1.12 : 1)),
        )
      : validate(published, []),
  );
  checkGolden('validation.txt', drawValidation(validationOf(results)));
});
