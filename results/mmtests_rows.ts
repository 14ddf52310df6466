// The numbers of an mmtests report: per operation the statistics that mmtests' Multiops prints,
// with its comparison. Sign: positive is always better. Rates compare as new*100/old - 100, times
// as 100 - new*100/old; the spread statistics always as times. Only the mean can carry a star, and
// only when our paired test says so.

import type {Comparison, Row} from './comparison.ts';
import {harmonicMean, mean, sorted, standardDeviation} from './stats.ts';

export interface MmtestsCell {
  readonly value: number;
  /** Percent, positive is better; undefined when the column cannot be compared. */
  readonly percent?: number;
  readonly star: boolean;
}

export interface MmtestsRow {
  readonly statistic: string;
  readonly operation: string;
  readonly cells: readonly (MmtestsCell | undefined)[];
}

interface Statistic {
  readonly name: string;
  readonly isMean: boolean;
  readonly isSpread: boolean;
  readonly of: (values: readonly number[]) => number;
}

/**
 * Statistics of a rate (`Hmean`) or of a time (`Amean`), in mmtests' order. One sample has only its
 * mean.
 */
export function statisticsOf(isRate: boolean, samples: number): readonly Statistic[] {
  const centre = isRate ? (xs: readonly number[]) => harmonicMean(xs) ?? mean(xs) : mean;
  const letter = isRate ? 'H' : 'A';
  const plain = {isMean: false, isSpread: false};
  const average = {name: `${letter}mean`, isMean: true, isSpread: false, of: centre};
  if (samples < 2) return [average];
  return [
    {name: 'Min', ...plain, of: (xs) => Math.min(...xs)},
    average,
    {name: 'Stddev', isMean: false, isSpread: true, of: standardDeviation},
    {name: 'CoeffVar', isMean: false, isSpread: true, of: coefficientOfVariation},
    {name: 'Max', ...plain, of: (xs) => Math.max(...xs)},
    {name: `B${letter}mean-95`, ...plain, of: (xs) => centre(best95(xs, isRate))},
  ];
}

function coefficientOfVariation(values: readonly number[]): number {
  const centre = mean(values);
  return centre === 0 ? 0 : (standardDeviation(values) * 100) / centre;
}

/** The best 95 % of the samples, at least one. */
function best95(values: readonly number[], isRate: boolean): number[] {
  const xs = sorted(values);
  if (isRate) xs.reverse();
  return xs.slice(0, Math.max(1, Math.floor(xs.length * 0.95)));
}

/**
 * All rows of one kind (rates or times), by statistic, then by operation, as mmtests orders them.
 */
export function mmtestsRows(comparison: Comparison, isRate: boolean): MmtestsRow[] {
  const headline = comparison.tables.find((table) => table.name === 'headline');
  const rows = (headline?.rows ?? []).filter((row) => (row.better === 'higher') === isRate);
  const samples = Math.max(...comparison.columns.map((column) => column.seeds.length));
  return statisticsOf(isRate, samples).flatMap((statistic) =>
    rows.map((row) => ({
      statistic: statistic.name,
      operation: row.metric,
      cells: cellsOf(row, statistic, isRate),
    })),
  );
}

function cellsOf(row: Row, statistic: Statistic, isRate: boolean): (MmtestsCell | undefined)[] {
  const values = row.cells.map((cell) => {
    const present = cell.values.filter((v): v is number => v !== null);
    return present.length === 0 ? undefined : statistic.of(present);
  });
  return row.cells.map(({change}, i) => {
    const value = values[i];
    if (value === undefined) return undefined;
    const old = values[0];
    if (change.verdict === 'incomparable' || old === undefined) return {value, star: false};
    const percent = isRate && !statistic.isSpread ? pdiff(old, value) : pndiff(old, value);
    return {value, percent, star: statistic.isMean && change.basis === 'test'};
  });
}

/** Change of a rate in percent, with mmtests' clamp for a zero baseline. */
export function pdiff(old: number, value: number): number {
  if (old === 0) return value === 0 ? 0 : 100;
  return (value * 100) / old - 100;
}

/** Change of a time in percent: less is positive. */
export function pndiff(old: number, value: number): number {
  if (old === 0) return value === 0 ? 0 : -99;
  return 100 - (value * 100) / old;
}
