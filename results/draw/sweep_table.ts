// A sweep as a table: a row per x, a column per design, throughput and the ratio to the first
// design.

import Table from 'cli-table3';
import type {Sweep} from '../sweep.ts';
import {formatRate} from './number.ts';

/** Text of a sweep, ending in a newline. */
export function drawSweepTable(sweep: Sweep): string {
  const [baseline] = sweep.series;
  const table = new Table({
    head: [sweep.x.name, ...sweep.series.map((series) => series.label)],
    style: {head: [], border: []},
    colAligns: ['right', ...sweep.series.map((): 'right' => 'right')],
  });
  for (const {x} of baseline.points) {
    const first = throughputAt(sweep, 0, x);
    const cells = sweep.series.map((_, i) => {
      const value = throughputAt(sweep, i, x);
      if (value === undefined || first === undefined) return '';
      const ratio = i === 0 ? '' : ` (x${(value / first).toFixed(2)})`;
      return `${formatRate(value)}${ratio}`;
    });
    table.push([String(x), ...cells]);
  }
  return `${sweep.machine.name}\n${table.toString()}\n`;
}

function throughputAt(sweep: Sweep, series: number, x: number): number | undefined {
  return sweep.series[series].points.find((point) => point.x === x)?.ops_s;
}
