// A scaling sweep: throughput and idle time of each design over the number of tasks. The table that
// will-it-scale prints, and the input of a scaling plot. Medians over seeds; the samples stay in
// the object.

import {UserError} from './errors.ts';
import type {RunReport} from './run.ts';
import {median} from './stats.ts';

export const SWEEP_SCHEMA = 'mmreplay.sweep/1';

export interface SweepPoint {
  /** Number of tasks (or whatever `x` says). */
  readonly x: number;
  /** Median over seeds. */
  readonly ops_s: number;
  /** Share of CPU time that was idle, 0..1; median over seeds. */
  readonly idle: number;
  readonly seeds: readonly number[];
  readonly samples_ops_s: readonly number[];
}

export interface SweepSeries {
  readonly label: string;
  readonly kernel: string;
  readonly design: Readonly<Record<string, string>>;
  readonly points: readonly SweepPoint[];
}

export interface Sweep {
  readonly schema: typeof SWEEP_SCHEMA;
  readonly x: {readonly name: string};
  /** What the tasks were: `threads` share one mm, `processes` do not. */
  readonly mode: 'threads' | 'processes';
  readonly machine: RunReport['machine'];
  readonly series: readonly SweepSeries[];
}

/** Runs of one design at one x, one per seed. */
export interface SweepInput {
  readonly label: string;
  readonly x: number;
  readonly runs: readonly RunReport[];
}

/**
 * Collects runs into series by label. Throws UserError on an empty sweep, a machine that changes,
 * or a point twice.
 */
export function buildSweep(
  inputs: readonly SweepInput[],
  xName = 'tasks',
  mode: Sweep['mode'] = 'threads',
): Sweep {
  const first = inputs[0]?.runs[0];
  if (first === undefined) throw new UserError('a sweep needs at least one run', 2);
  const series = new Map<string, SweepInput[]>();
  for (const input of inputs) {
    for (const run of input.runs) {
      if (run.machine.hash !== first.machine.hash) {
        throw new UserError(
          `sweep "${input.label}" at ${input.x} ran on machine ${run.machine.name} ` +
            `(${run.machine.hash}), the others on ${first.machine.name} (${first.machine.hash}); ` +
            'sweep one machine at a time',
        );
      }
    }
    series.set(input.label, [...(series.get(input.label) ?? []), input]);
  }
  return {
    schema: SWEEP_SCHEMA,
    x: {name: xName},
    mode,
    machine: first.machine,
    series: [...series].map(([label, points]) => seriesOf(label, points)),
  };
}

function seriesOf(label: string, inputs: readonly SweepInput[]): SweepSeries {
  const points = [...inputs].sort((a, b) => a.x - b.x);
  points.forEach((point, i) => {
    if (point.runs.length === 0)
      throw new UserError(`sweep "${label}" has no run at ${point.x}`, 2);
    if (i > 0 && points[i - 1].x === point.x) {
      throw new UserError(`sweep "${label}" has ${point.x} twice; give one entry per point`);
    }
  });
  const [first] = points[0].runs;
  return {
    label,
    kernel: first.kernel,
    design: first.design,
    points: points.map(({x, runs}) => ({
      x,
      ops_s: median(runs.map((run) => run.throughput_ops_s)),
      idle: median(runs.map((run) => run.cpu.idle)),
      seeds: runs.map((run) => run.seed),
      samples_ops_s: runs.map((run) => run.throughput_ops_s),
    })),
  };
}
