// Simulated points against a published result. Computed here, drawn in draw/validation.ts.
//
// With ratios, the point that everything is divided by agrees by construction: it is the
// `reference` and counts in no error. Of the others, the leading `fitted_from` points of a series
// may have given parameters (`fitted`); the rest are predictions, and only they make the error that
// we state.

import {UserError} from './errors.ts';
import type {Bound, Published, PublishedSeries} from './published.ts';
import {median} from './stats.ts';

export const VALIDATE_SCHEMA = 'mmreplay.validate/1';

/** What the simulator found, in any unit of its own when ratios are compared. */
export interface Simulated {
  readonly series: string;
  readonly points: readonly (readonly [number, number])[];
}

export type PointKind = 'reference' | 'fitted' | 'predicted' | 'not-run';

export interface ValidationPoint {
  readonly series: string;
  readonly x: number;
  readonly kind: PointKind;
  /** What is compared: the ratio, or the value itself with `compare: absolute`. */
  readonly published: number;
  readonly simulated?: number;
  /** simulated / published - 1; for a bound, only the part outside it. */
  readonly error?: number;
  /** Before any ratio was taken. */
  readonly published_y: number;
  readonly simulated_y?: number;
  readonly bound?: Bound;
}

export interface ValidationResult {
  readonly name: string;
  readonly source: string;
  readonly status: 'run' | 'not-modelled';
  readonly x: string;
  readonly y: string;
  readonly compare: 'ratio' | 'absolute';
  readonly ratio_to?: string;
  readonly points: readonly ValidationPoint[];
  /**
   * Predicted points with a published value; points with only a bound are counted below instead.
   */
  readonly predicted: number;
  /** Predicted points of which the source gives a bound only, and how many are within it. */
  readonly bounds: {readonly total: number; readonly held: number};
  /** Median and largest absolute error over the predicted points; absent when there are none. */
  readonly median_abs_error?: number;
  readonly max_abs_error?: number;
}

export interface Validation {
  readonly schema: typeof VALIDATE_SCHEMA;
  readonly results: readonly ValidationResult[];
  /** Predicted points of all results together. */
  readonly predicted: number;
  readonly median_abs_error?: number;
}

/**
 * One published result against what was simulated. Points that were not simulated are `not-run`,
 * never an error.
 */
export function validate(published: Published, simulated: readonly Simulated[]): ValidationResult {
  for (const {series} of simulated) {
    if (!published.series.some((known) => known.name === series)) {
      throw new UserError(
        `${published.name} has no series "${series}"; simulate one that it has`,
        2,
      );
    }
  }
  const found = new Map(simulated.map((s) => [s.series, new Map(s.points)]));
  const points = published.series.flatMap((series) => seriesPoints(published, series, found));
  const errors = absoluteErrors(points);
  const bounds = points.filter((p) => p.kind === 'predicted' && p.bound !== undefined);
  return {
    name: published.name,
    source: published.source,
    status: published.workload.modelled ? 'run' : 'not-modelled',
    x: published.x.name,
    y: published.y.name,
    compare: published.compare,
    ...(published.ratio_to === undefined ? {} : {ratio_to: published.ratio_to}),
    points,
    predicted: errors.length,
    bounds: {total: bounds.length, held: bounds.filter((point) => point.error === 0).length},
    ...(errors.length > 0
      ? {median_abs_error: median(errors), max_abs_error: Math.max(...errors)}
      : {}),
  };
}

/** All results together, for `validate --json`. */
export function validationOf(results: readonly ValidationResult[]): Validation {
  const errors = results.flatMap((result) => absoluteErrors(result.points));
  return {
    schema: VALIDATE_SCHEMA,
    results,
    predicted: errors.length,
    ...(errors.length > 0 ? {median_abs_error: median(errors)} : {}),
  };
}

/** A bound that holds would flatter a median as an error of zero, so bounds are left out. */
function absoluteErrors(points: readonly ValidationPoint[]): number[] {
  return points
    .filter((point) => point.kind === 'predicted' && point.bound === undefined)
    .map((point) => Math.abs(point.error ?? 0));
}

type Found = ReadonlyMap<string, ReadonlyMap<number, number>>;

function seriesPoints(
  published: Published,
  series: PublishedSeries,
  found: Found,
): ValidationPoint[] {
  const mine = found.get(series.name);
  return series.points.map(([x, y], i) => {
    const below = referenceAt(published, series, x, found);
    const simulatedY = mine?.get(x);
    const expected = y / below.published;
    const bound = series.bound === undefined ? {} : {bound: series.bound};
    const facts = {series: series.name, x, published: expected, published_y: y, ...bound};
    if (below.isItself) {
      const own = simulatedY === undefined ? {} : {simulated: 1, simulated_y: simulatedY};
      return {...facts, kind: 'reference', ...own};
    }
    if (simulatedY === undefined || below.simulated === undefined || below.simulated === 0) {
      return {...facts, kind: 'not-run'};
    }
    const value = simulatedY / below.simulated;
    const kind = i < published.fitted_from ? 'fitted' : 'predicted';
    const error = errorOf(expected, value, series.bound);
    return {...facts, kind, simulated: value, simulated_y: simulatedY, error};
  });
}

interface Reference {
  readonly published: number;
  readonly simulated: number | undefined;
  /** The point in question is the reference. */
  readonly isItself: boolean;
}

function referenceAt(
  published: Published,
  series: PublishedSeries,
  x: number,
  found: Found,
): Reference {
  if (published.compare === 'absolute') return {published: 1, simulated: 1, isItself: false};
  if (published.ratio_to === 'first_x') {
    const [firstX, firstY] = series.points[0];
    const simulated = found.get(series.name)?.get(firstX);
    return {published: firstY, simulated, isItself: x === firstX};
  }
  const to = published.series.find((other) => other.name === published.ratio_to);
  const y = to?.points.find((point) => point[0] === x)?.[1];
  const simulated = found.get(published.ratio_to ?? '')?.get(x);
  return {published: y ?? Number.NaN, simulated, isItself: to === series};
}

function errorOf(expected: number, value: number, bound: Bound | undefined): number {
  const error = value / expected - 1;
  if (bound === 'at_most') return Math.max(0, error);
  if (bound === 'at_least') return Math.min(0, error);
  return error;
}
