// The sign test: the weakest assumption of all (pairs are independent), hence the weakest test.

import {binomialCdfHalf} from './binomial.ts';
import type {TestResult} from './signed_rank.ts';

/**
 * Two-sided exact sign test of "positive and negative differences are equally likely". Zeros are
 * dropped.
 */
export function signTest(differences: readonly number[]): TestResult {
  const plus = differences.filter((d) => d > 0).length;
  const minus = differences.filter((d) => d < 0).length;
  const n = plus + minus;
  if (n === 0) return {p: 1, n, exact: true, statistic: 0};
  const p = Math.min(1, 2 * binomialCdfHalf(Math.min(plus, minus), n));
  return {p, n, exact: true, statistic: plus};
}
