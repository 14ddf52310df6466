// Means and spreads over one set of samples.

import {assert} from '../errors.ts';

export function mean(values: readonly number[]): number {
  assert(values.length > 0, 'mean of nothing');
  return values.reduce((sum, x) => sum + x, 0) / values.length;
}

/**
 * Harmonic mean, the right mean of rates; 0 when a value is 0, `undefined` when one is negative.
 */
export function harmonicMean(values: readonly number[]): number | undefined {
  assert(values.length > 0, 'mean of nothing');
  if (values.some((x) => x < 0)) return undefined;
  if (values.some((x) => x === 0)) return 0;
  return values.length / values.reduce((sum, x) => sum + 1 / x, 0);
}

/** Geometric mean; `undefined` unless every value is above 0. */
export function geometricMean(values: readonly number[]): number | undefined {
  if (values.length === 0 || values.some((x) => !(x > 0))) return undefined;
  return Math.exp(values.reduce((sum, x) => sum + Math.log(x), 0) / values.length);
}

/** Sample standard deviation (n - 1); 0 for one value. */
export function standardDeviation(values: readonly number[]): number {
  if (values.length < 2) return 0;
  const centre = mean(values);
  const squares = values.reduce((sum, x) => sum + (x - centre) ** 2, 0);
  return Math.sqrt(squares / (values.length - 1));
}
