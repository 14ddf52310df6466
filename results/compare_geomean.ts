// Geometric means over the operations of the headline table, one per percentile, always over one
// set of rows for all columns: a geomean over different sets compares nothing. Mechanism rows have
// none; a mean of waits and holds says nothing.

import type {Column, Geomean, Row} from './comparison.ts';
import {geometricMean} from './stats.ts';

const OPERATION = /^ops\..*\.(p\d+_ns)$/;

/** One per percentile with at least two operations that every comparable column has above zero. */
export function geomeansOf(rows: readonly Row[], columns: readonly Column[]): Geomean[] {
  const groups = new Map<string, Row[]>();
  for (const row of rows) {
    const percentile = OPERATION.exec(row.metric)?.[1];
    if (percentile === undefined) continue;
    groups.set(percentile, [...(groups.get(percentile) ?? []), row]);
  }
  const geomeans: Geomean[] = [];
  for (const [percentile, group] of groups) {
    const usable = group.filter((row) => isPositiveEverywhere(row, columns));
    if (usable.length < 2) continue;
    const ratios = columns.map((column, i) => {
      if (column.incomparable !== undefined) return null;
      return geometricMean(usable.map((row) => ratioAt(row, i) ?? 0)) ?? null;
    });
    geomeans.push({name: `ops.*.${percentile}`, rows: usable.length, ratios});
  }
  return geomeans;
}

function ratioAt(row: Row, column: number): number | undefined {
  return column === 0 ? 1 : row.cells[column].change.ratio;
}

function isPositiveEverywhere(row: Row, columns: readonly Column[]): boolean {
  return columns.every((column, i) => {
    if (column.incomparable !== undefined) return true;
    return (row.cells[i].median ?? 0) > 0 && (ratioAt(row, i) ?? 0) > 0;
  });
}
