// A against B on the same seeds. The simulator is deterministic, so a seed fixes every random draw
// of the workload (common random numbers): the two runs of a seed differ by the design alone, and
// the ratio B/A per seed has far less spread than A and B themselves. All statistics here are
// therefore on pairs; nothing compares two unpaired means.
//
// Three kinds of "different" are kept apart:
// - sampled: values vary with the seed; a test and an interval apply;
// - exact: each side has one value under every seed. The seed does not reach this metric, n copies
//   of one number are not n samples, so there is no test and no interval: the difference is simply
//   a fact about this workload;
// - equal: both sides agree under every seed.

import {median, medianInterval, type Interval} from './order.ts';
import {signedRankTest} from './signed_rank.ts';
import {signTest} from './sign_test.ts';

export type PairedKind = 'equal' | 'exact' | 'sampled';

export interface Paired {
  readonly kind: PairedKind;
  /** Seeds that both sides have. */
  readonly n: number;
  /** Median over seeds of B/A; absent when some A is 0 and its B is not, or signs differ. */
  readonly ratio?: number;
  /** Interval of that median; absent below 6 pairs. */
  readonly ratioInterval?: Interval;
  /** Median over seeds of B - A, in the metric's own unit. */
  readonly difference: number;
  /**
   * Signed-rank test (on log ratios where they exist, else on differences), before any correction.
   */
  readonly p?: number;
  readonly pSign?: number;
}

/**
 * Compares paired samples: `a[i]` and `b[i]` come from the same seed. Both have the same length, at
 * least 1.
 */
export function comparePaired(
  a: readonly number[],
  b: readonly number[],
  confidence = 0.95,
): Paired {
  const n = a.length;
  const differences = a.map((x, i) => b[i] - x);
  const ratios = ratiosOf(a, b);
  const ratio = ratios && median(ratios);
  const common = {n, difference: median(differences), ...(ratio === undefined ? {} : {ratio})};
  if (differences.every((d) => d === 0)) return {kind: 'equal', ...common, ratio: 1};
  if (n >= 2 && isConstant(a) && isConstant(b)) return {kind: 'exact', ...common};
  const tested = ratios?.every((r) => r > 0) ? ratios.map(Math.log) : differences;
  const ratioInterval = ratios && medianInterval(ratios, confidence);
  return {
    kind: 'sampled',
    ...common,
    ...(ratioInterval === undefined ? {} : {ratioInterval}),
    p: signedRankTest(tested).p,
    pSign: signTest(tested).p,
  };
}

function ratiosOf(a: readonly number[], b: readonly number[]): number[] | undefined {
  const ratios: number[] = [];
  for (let i = 0; i < a.length; i++) {
    if (a[i] === 0 && b[i] === 0) ratios.push(1);
    else if (a[i] === 0 || b[i] / a[i] < 0) return undefined;
    else ratios.push(b[i] / a[i]);
  }
  return ratios;
}

function isConstant(values: readonly number[]): boolean {
  return values.every((x) => x === values[0]);
}
