// The CSV of will-it-scale's runtest.py, so that its postprocess and plot scripts read ours:
//   tasks,processes,processes_idle,threads,threads_idle,linear
// `linear` is n times the single-task result. A sweep runs tasks in one mode; the other mode's
// fields stay empty (a zero would read as a measurement). Several designs: one CSV each, after a `#
// design` line.

import type {Comparison} from '../comparison.ts';
import type {Sweep, SweepPoint, SweepSeries} from '../sweep.ts';
import {configuration} from './cell.ts';

const HEADER = 'tasks,processes,processes_idle,threads,threads_idle,linear';

/** A scaling sweep, one CSV per series; the comment line is left out when there is only one. */
export function drawSweepWillItScale(sweep: Sweep): string {
  const blocks = sweep.series.map((series) => {
    const name = sweep.series.length > 1 ? [`# ${series.label}`] : [];
    return [...name, ...csvLines(series, sweep.mode)].join('\n');
  });
  return `${blocks.join('\n')}\n`;
}

function csvLines(series: Pick<SweepSeries, 'points'>, mode: Sweep['mode']): string[] {
  const single = series.points.find((point) => point.x === 1)?.ops_s;
  const zero = mode === 'threads' ? '0,,,0,100,0' : '0,0,100,,,0';
  return [HEADER, zero, ...series.points.map((point) => csvLine(point, mode, single))];
}

function csvLine(point: SweepPoint, mode: Sweep['mode'], single: number | undefined): string {
  const measured = [String(Math.round(point.ops_s)), (point.idle * 100).toFixed(2)];
  const other = ['', ''];
  const fields = mode === 'threads' ? [...other, ...measured] : [...measured, ...other];
  const linear = single === undefined ? '' : String(Math.round(single * point.x));
  return [String(point.x), ...fields, linear].join(',');
}

/**
 * A comparison is one point per design: tasks = copies of the trace, each replayed as its own
 * processes.
 */
export function drawWillItScale(comparison: Comparison): string {
  const {own} = configuration(comparison.columns);
  const headline = comparison.tables.find((table) => table.name === 'headline');
  const mechanism = comparison.tables.find((table) => table.name === 'mechanism');
  const throughput = headline?.rows.find((row) => row.metric === 'throughput_ops_s');
  const idle = mechanism?.rows.find((row) => row.metric === 'cpu.idle');
  const blocks = comparison.columns.map((column, i) => {
    const point = {
      x: column.copies,
      ops_s: throughput?.cells[i].median ?? 0,
      idle: idle?.cells[i].median ?? 0,
      seeds: column.seeds,
      samples_ops_s: [],
    };
    const lines = csvLines({points: [point]}, 'processes');
    return [`# ${column.label}: ${own[i] || 'as the others'}`, ...lines].join('\n');
  });
  return `${blocks.join('\n')}\n`;
}
