// mmreplay sweep WORKLOAD workers=1,2,4..144: throughput over one parameter, a curve per design.

import type {Command} from 'commander';
import {EXIT, UserError} from '../../formats/errors.ts';
import {drawSweepWillItScale} from '../../results/draw/will_it_scale.ts';
import {drawSweepTable} from '../../results/draw/sweep_table.ts';
import type {RunReport} from '../../results/run.ts';
import {buildSweep, type SweepInput} from '../../results/sweep.ts';
import type {Params} from '../../workloads/params.ts';
import {workloadByName} from '../../workloads/registry.ts';
import {expandSweep} from '../../workloads/workload.ts';
import type {Invocation} from '../main.ts';
import type {ReplayJob} from '../pool/jobs.ts';
import {replayGroups} from '../pool/replay_all.ts';
import {
  addJobsFlag,
  addReplayFlags,
  collect,
  replayOptions,
  type ReplayFlags,
  wholeNumber,
} from '../replay_flags.ts';

interface Flags extends ReplayFlags {
  compare: string[];
  seeds: number;
  format: string;
  json: boolean;
  jobs?: number;
}

/** Guess of the time of a run of the first point, ms. */
const FIRST_POINT_MS = 10;

export function sweepVerb(program: Command, invocation: Invocation): void {
  const command = program
    .command('sweep <workload> [params...]')
    .description('replay a workload over the values of one parameter, a curve per design')
    .option('--compare <axis=choice>', 'a design to draw a curve of (repeatable)', collect, [])
    .option('--seeds <n>', 'seeds per point', wholeNumber(1, 1000), 1);
  addJobsFlag(addReplayFlags(command, 'haswell-ex-4s-e7-8895v3'))
    .option('--format <name>', 'will-it-scale, table or json', 'will-it-scale')
    .option('--json', 'same as --format json', false)
    .action(async (name: string, words: string[], flags: Flags) => {
      const workload = workloadByName(name);
      const rows = expandSweep(workload, words);
      const x = variedParam(rows);
      const points = await runAll(name, rows, x, flags, invocation);
      const sweep = buildSweep(points, x, modeOf(rows[0], x));
      if (flags.json || flags.format === 'json') {
        invocation.out.write(`${JSON.stringify(sweep, null, 1)}\n`);
      } else if (flags.format === 'table') invocation.out.write(drawSweepTable(sweep));
      else invocation.out.write(drawSweepWillItScale(sweep));
    });
}

/** Which columns of will-it-scale's table are filled. */
function modeOf(row: Params, x: string): 'threads' | 'processes' {
  return x === 'threads' || (x === 'tasks' && row.mode === 'threads') ? 'threads' : 'processes';
}

/** Throughput as the imitated program counts its work, where it does. */
function inIterations(run: RunReport, iterations: number | null): RunReport {
  if (iterations === null) return run;
  return {...run, throughput_ops_s: (iterations * 1e9) / run.simulated_ns};
}

/** The one parameter that has several values. */
function variedParam(rows: readonly Params[]): string {
  const names = Object.keys(rows[0]).filter((name) =>
    rows.some((row) => row[name] !== rows[0][name]),
  );
  if (names.length === 1) return names[0];
  throw new UserError(
    `sweep: ${names.length} parameters vary (${names.join(', ') || 'none'}); ` +
      'give several values to exactly one, like workers=1,2,4..144',
    EXIT.usage,
  );
}

/** One point of a curve. */
interface Point {
  readonly label: string;
  readonly row: Params;
}

async function runAll(
  name: string,
  rows: readonly Params[],
  x: string,
  flags: Flags,
  {err}: Invocation,
): Promise<SweepInput[]> {
  const designs = flags.compare.length > 0 ? flags.compare : [''];
  const points = rows.flatMap((row) => designs.map((label): Point => ({label, row})));
  const jobs = points.map(({label, row}) => jobsOf(name, row, rows[0], x, label, flags));
  const runs = await replayGroups(jobs, {threads: flags.jobs, tracesKept: flags.seeds, err});
  const workload = workloadByName(name);
  return points.map(({label, row}, n): SweepInput => {
    return {
      label: label === '' ? 'default' : label,
      x: Number(row[x]),
      runs: runs[n].map((run) => inIterations(run, workload.iterations(row))),
    };
  });
}

/** Every seed of one point. The more of x the longer a run takes, as a guess. */
function jobsOf(
  name: string,
  row: Params,
  firstRow: Params,
  x: string,
  label: string,
  flags: Flags,
): ReplayJob[] {
  const design = label === '' ? flags.design : [...flags.design, ...label.split(',')];
  const times = Number(row[x]) / Number(firstRow[x]);
  return Array.from({length: flags.seeds}, (_, n): ReplayJob => {
    const seed = flags.seed + n;
    return {
      trace: {from: 'workload', name, params: row, seed},
      request: {
        machine: flags.machine,
        kernel: flags.kernel,
        design,
        options: {...replayOptions(flags), seed},
      },
      label: `${x}=${row[x]} ${label}`,
      guessMs: FIRST_POINT_MS * (times > 0 && Number.isFinite(times) ? times : 1),
    };
  });
}
