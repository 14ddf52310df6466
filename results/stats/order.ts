// Order statistics: quantiles, and a confidence interval for the median that assumes nothing about
// the distribution. The interval is a pair of order statistics; its confidence comes from the
// binomial distribution, exactly. Below six samples no such pair reaches 95 %, so there is no
// interval: `undefined`, never a guess.

import {assert} from '../errors.ts';
import {binomialCdfHalf} from './binomial.ts';

/** A closed interval with the confidence that it really has (at least the one asked for). */
export interface Interval {
  readonly lo: number;
  readonly hi: number;
  readonly confidence: number;
}

export function sorted(values: readonly number[]): number[] {
  return [...values].sort((a, b) => a - b);
}

/** Median; the mean of the two middle values when n is even. Needs at least one value. */
export function median(values: readonly number[]): number {
  return quantile(values, 0.5);
}

/** Linear interpolation between order statistics (type 7 of Hyndman and Fan, as in R and numpy). */
export function quantile(values: readonly number[], q: number): number {
  assert(values.length > 0 && q >= 0 && q <= 1, `quantile ${q} of ${values.length} values`);
  const xs = sorted(values);
  const at = (xs.length - 1) * q;
  const below = Math.floor(at);
  const above = Math.min(below + 1, xs.length - 1);
  return xs[below] + (xs[above] - xs[below]) * (at - below);
}

/**
 * Interval for the median of the distribution that the values were drawn from, at `confidence` or
 * better. Takes the k-th smallest and the k-th largest value with the largest k whose coverage 1 -
 * 2 P(Binomial(n, 1/2) <= k - 1) is still enough. `undefined` when n is too small (n < 6 at 95 %).
 */
export function medianInterval(values: readonly number[], confidence = 0.95): Interval | undefined {
  const n = values.length;
  let k = 0;
  while (k < Math.floor(n / 2) && 1 - 2 * binomialCdfHalf(k, n) >= confidence) k++;
  if (k === 0) return undefined;
  const xs = sorted(values);
  return {lo: xs[k - 1], hi: xs[n - k], confidence: 1 - 2 * binomialCdfHalf(k - 1, n)};
}
