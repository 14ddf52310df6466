// What a comparison of designs is, as one plain JSON object (`mmreplay.compare/1`). compare.ts
// computes it, everything in draw/ only reads it; a comparison can be stored and drawn again later
// in another format.

import type {Better, TableName, Unit} from './metrics.ts';
import type {Interval} from './stats.ts';

export const COMPARE_SCHEMA = 'mmreplay.compare/1';

/**
 * What one cell says against the baseline on the same seeds:
 * - `baseline`: it is the baseline;
 * - `equal` (drawn `=`): the same value under every seed;
 * - `noise` (drawn `~`): no significant difference, or one below the noise floor;
 * - `better` / `worse` / `changed`: a difference that stands (`changed` where no direction is
 *   good);
 * - `untested`: the values differ, but there are too few seeds for any test to say more;
 * - `incomparable` (drawn `x`): another trace or machine, or no seed in common;
 * - `missing` (drawn `-`): one of the two has no such metric.
 */
export type Verdict =
  | 'baseline'
  | 'equal'
  | 'noise'
  | 'better'
  | 'worse'
  | 'changed'
  | 'untested'
  | 'incomparable'
  | 'missing';

/**
 * `test`: the paired test says so; `exact`: each side has one value under every seed, nothing was
 * sampled.
 */
export type Basis = 'test' | 'exact';

export interface Change {
  readonly verdict: Verdict;
  readonly basis?: Basis;
  /** Pairs (seeds) behind it. */
  readonly n: number;
  /** Median over seeds of new/old. */
  readonly ratio?: number;
  /** Confidence interval of that median; absent below 6 pairs. */
  readonly interval?: Interval;
  /** Median over seeds of new - old, in the unit of the row. */
  readonly difference?: number;
  /**
   * Signed-rank p-value, and the same after Holm's correction over the table. Only when sampled.
   */
  readonly p?: number;
  readonly p_holm?: number;
  readonly p_sign?: number;
}

export interface Cell {
  /**
   * One value per seed of the column, in the column's seed order; null where that run lacks the
   * metric.
   */
  readonly values: readonly (number | null)[];
  /** Absent when no run of the column has the metric. */
  readonly median?: number;
  /** Order-statistic interval of the median; absent below 6 samples. */
  readonly interval?: Interval;
  readonly change: Change;
}

export interface Row {
  readonly metric: string;
  readonly unit: Unit;
  readonly better: Better;
  /** One per column; the first is the baseline. */
  readonly cells: readonly Cell[];
}

export interface Table {
  readonly name: TableName;
  readonly rows: readonly Row[];
  /** How many p-values Holm's correction was over. */
  readonly tests: number;
  /**
   * Geometric means of the median ratios over all kinds of operation, one per latency percentile.
   */
  readonly geomeans: readonly Geomean[];
}

export interface Geomean {
  /** What the mean is over: `ops.*.p50_ns`. */
  readonly name: string;
  /** Rows in it: those above zero in every comparable column, the same set for all. */
  readonly rows: number;
  /** Geometric mean of new/old per column; 1 for the baseline; null for an incomparable column. */
  readonly ratios: readonly (number | null)[];
}

export interface Column {
  readonly label: string;
  readonly trace: {readonly path: string; readonly hash: string; readonly events: number};
  readonly machine: {readonly name: string; readonly cpus: number; readonly hash: string};
  readonly kernel: string;
  readonly design: Readonly<Record<string, string>>;
  readonly copies: number;
  readonly seeds: readonly number[];
  /** Digest of each run, in seed order. */
  readonly digests: readonly string[];
  /** Why the column cannot be compared with the baseline, in words. */
  readonly incomparable?: string;
  /** Runs with at least one failure, by check: `missed_pgd_entries` and the like. */
  readonly failures: Readonly<Record<string, number>>;
  /** Warnings of all runs together: "check before trusting this". */
  readonly warnings: Readonly<Record<string, number>>;
  /** Notes of all runs together: left out, without effect on the result. Absent in older files. */
  readonly notes?: Readonly<Record<string, number>>;
}

export interface Comparison {
  readonly schema: typeof COMPARE_SCHEMA;
  readonly alpha: number;
  readonly confidence: number;
  /** Relative changes smaller than this are noise whatever the test says. */
  readonly noise_floor: number;
  readonly columns: readonly Column[];
  readonly tables: readonly Table[];
}
