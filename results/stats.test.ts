import assert from 'node:assert/strict';
import {test} from 'node:test';
import fc from 'fast-check';
import {
  binomialCdfHalf,
  comparePaired,
  geometricMean,
  harmonicMean,
  holm,
  mean,
  median,
  medianInterval,
  normalUpperTail,
  pairsNeeded,
  quantile,
  signedRankTest,
  signTest,
  standardDeviation,
} from './stats.ts';

function near(actual: number, expected: number, tolerance = 1e-9): void {
  assert.ok(Math.abs(actual - expected) <= tolerance, `${actual} is not ${expected}`);
}

// Every assignment of signs, counted one by one: the definition, slow and obvious.
function bruteForceP(differences: readonly number[]): number {
  const xs = differences.filter((d) => d !== 0);
  const sizes = xs.map(Math.abs);
  const rank = sizes.map(
    (s) => sizes.filter((t) => t < s).length + (sizes.filter((t) => t === s).length + 1) / 2,
  );
  const seen = rank.reduce((sum, r, i) => sum + (xs[i] > 0 ? r : 0), 0);
  const total = rank.reduce((sum, r) => sum + r, 0);
  const low = Math.min(seen, total - seen);
  let hits = 0;
  for (let mask = 0; mask < 2 ** xs.length; mask++) {
    let sum = 0;
    for (let i = 0; i < xs.length; i++) if (mask & (1 << i)) sum += rank[i];
    if (sum <= low + 1e-9) hits++;
  }
  return xs.length === 0 ? 1 : Math.min(1, (2 * hits) / 2 ** xs.length);
}

test('quantiles follow type 7', () => {
  assert.equal(median([5, 1, 4, 2, 3]), 3);
  assert.equal(median([4, 1, 3, 2]), 2.5);
  near(quantile([1, 2, 3, 4], 0.9), 3.7);
  assert.equal(quantile([7], 0.99), 7);
});

test('means and spread', () => {
  near(harmonicMean([40, 60]) ?? 0, 48);
  near(geometricMean([2, 8]) ?? 0, 4);
  assert.equal(geometricMean([1, 0]), undefined);
  near(standardDeviation([2, 4, 4, 4, 5, 5, 7, 9]), Math.sqrt(32 / 7));
  near(mean([1, 2, 3, 4]), 2.5);
});

test('binomial tail against values counted by hand', () => {
  near(binomialCdfHalf(0, 6), 1 / 64);
  near(binomialCdfHalf(2, 10), 56 / 1024);
  near(binomialCdfHalf(9, 10), 1 - 1 / 1024);
  near(binomialCdfHalf(500, 1001), 0.5, 1e-12);
});

test('normal tail against table values', () => {
  near(normalUpperTail(0), 0.5, 1e-15);
  near(normalUpperTail(1.959963984540054), 0.025, 1e-12);
  near(normalUpperTail(3.090232306167813), 0.001, 1e-12);
  near(normalUpperTail(6), 9.865876450376946e-10, 1e-18);
  near(normalUpperTail(2.9999999), normalUpperTail(3.0000001), 1e-9);
});

test('no interval of the median below 6 samples', () => {
  assert.equal(medianInterval([1, 2, 3, 4, 5]), undefined);
  const six = medianInterval([6, 5, 4, 3, 2, 1]);
  assert.deepEqual(six, {lo: 1, hi: 6, confidence: 1 - 2 / 64});
});

test('interval of the median at n = 10 is the 2nd and the 9th value (97.85 %)', () => {
  const ten = medianInterval([1, 2, 3, 4, 5, 6, 7, 8, 9, 10]);
  assert.equal(ten?.lo, 2);
  assert.equal(ten?.hi, 9);
  near(ten?.confidence ?? 0, 1 - 2 * (11 / 1024));
});

test('signed-rank: depression data of Hollander and Wolfe (V = 40, p = 0.03906)', () => {
  const x = [1.83, 0.5, 1.62, 2.48, 1.68, 1.88, 1.55, 3.06, 1.3];
  const y = [0.878, 0.647, 0.598, 2.05, 1.06, 1.29, 1.06, 3.14, 1.29];
  const result = signedRankTest(x.map((v, i) => v - y[i]));
  assert.equal(result.statistic, 40);
  near(result.p, 0.0390625);
  assert.ok(result.exact);
});

test('signed-rank test on Darwin’s maize data (V = 96, exact p = 0.04126)', () => {
  const d = [49, -67, 8, 16, 6, 23, 28, 41, 14, 29, 56, 24, 75, 60, -48];
  const result = signedRankTest(d);
  assert.equal(result.statistic, 96);
  near(result.p, 0.041259765625);
});

test('all differences on one side: p = 2 / 2^n', () => {
  for (const n of [1, 5, 6, 10, 20]) {
    const result = signedRankTest(Array.from({length: n}, (_, i) => i + 1));
    near(result.p, 2 / 2 ** n, 1e-15);
  }
});

test('signed-rank p equals brute force, ties and zeros included', () => {
  const small = fc.array(fc.integer({min: -4, max: 4}), {maxLength: 10});
  fc.assert(
    fc.property(small, (differences) => {
      near(signedRankTest(differences).p, bruteForceP(differences), 1e-12);
    }),
  );
});

test('above 50 pairs: mean n(n+1)/4, variance n(n+1)(2n+1)/24, half a rank of continuity', () => {
  const n = 60;
  const result = signedRankTest(Array.from({length: n}, (_, i) => (i % 3 ? i + 1 : -(i + 1))));
  assert.ok(!result.exact);
  const deviation = Math.sqrt((n * (n + 1) * (2 * n + 1)) / 24);
  const z = (Math.abs(result.statistic - (n * (n + 1)) / 4) - 0.5) / deviation;
  near(result.p, 2 * normalUpperTail(z), 1e-12);
});

test('swapping A and B leaves the p-value', () => {
  fc.assert(
    fc.property(fc.array(fc.integer({min: -1000, max: 1000}), {maxLength: 70}), (d) => {
      near(signedRankTest(d).p, signedRankTest(d.map((x) => -x)).p, 1e-12);
      near(signTest(d).p, signTest(d.map((x) => -x)).p, 1e-12);
    }),
  );
});

test('sign test: 1 of 10 the other way is p = 22/1024', () => {
  const result = signTest([1, 1, 1, 1, 1, 1, 1, 1, 1, -1, 0]);
  assert.equal(result.n, 10);
  near(result.p, 22 / 1024);
});

test('Holm: textbook example and order kept', () => {
  const adjusted = holm([0.01, 0.04, 0.03, 0.005]);
  [0.03, 0.06, 0.06, 0.02].forEach((expected, i) => {
    near(adjusted[i], expected);
  });
});

test('Holm lies between the raw value and Bonferroni', () => {
  fc.assert(
    fc.property(fc.array(fc.double({min: 0, max: 1, noNaN: true}), {maxLength: 20}), (ps) => {
      holm(ps).forEach((adjusted, i) => {
        assert.ok(adjusted >= ps[i] && adjusted <= Math.min(1, ps[i] * ps.length) + 1e-12);
      });
    }),
  );
});

test('pairs needed: 6 for one row, 10 for 20 rows', () => {
  assert.equal(pairsNeeded(0.05, 1), 6);
  assert.equal(pairsNeeded(0.05, 20), 10);
});

test('pairs: equal, exact and sampled are told apart', () => {
  assert.equal(comparePaired([3, 4, 5], [3, 4, 5]).kind, 'equal');
  const exact = comparePaired([100, 100, 100], [50, 50, 50]);
  assert.equal(exact.kind, 'exact');
  assert.equal(exact.p, undefined);
  assert.equal(exact.ratio, 0.5);
  const sampled = comparePaired([1, 2, 3, 4, 5, 6], [2, 4, 6, 8, 10, 12.5]);
  assert.equal(sampled.kind, 'sampled');
  near(sampled.p ?? 1, 2 / 64);
  assert.equal(sampled.ratio, 2);
  assert.equal(sampled.ratioInterval?.lo, 2);
});

test('pairing sees a 1 % change under a spread of 50 % between seeds', () => {
  const a = [100, 150, 80, 120, 95, 140, 110, 70];
  const b = a.map((x, i) => x * (1.01 + i * 1e-4));
  const paired = comparePaired(a, b);
  near(paired.p ?? 1, 2 / 256);
  assert.ok((paired.ratioInterval?.lo ?? 0) > 1);
});

test('a zero in A has no ratio, but still a difference', () => {
  const paired = comparePaired([0, 0, 1], [2, 3, 4]);
  assert.equal(paired.ratio, undefined);
  assert.equal(paired.difference, 3);
});

test('ratio and interval scale with the unit', () => {
  const positive = fc.array(
    fc.tuple(fc.integer({min: 1, max: 999}), fc.integer({min: 1, max: 999})),
    {
      minLength: 6,
      maxLength: 12,
    },
  );
  fc.assert(
    fc.property(positive, (pairs) => {
      const a = pairs.map((p) => p[0]);
      const b = pairs.map((p) => p[1]);
      const once = comparePaired(a, b);
      const scaled = comparePaired(
        a.map((x) => x * 1024),
        b.map((x) => x * 1024),
      );
      assert.equal(once.kind, scaled.kind);
      near(once.ratio ?? 0, scaled.ratio ?? 0, 1e-9);
      if (once.ratioInterval) {
        assert.ok(once.ratioInterval.lo <= (once.ratio ?? 0));
        assert.ok(once.ratioInterval.hi >= (once.ratio ?? 0));
      }
    }),
  );
});
