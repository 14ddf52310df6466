// mmreplay sweep WORKLOAD workers=1,2,4..144: throughput over one parameter, a curve per design.

import type {Command} from 'commander';
import {EXIT, UserError} from '../../formats/errors.ts';
import {replayTrace} from '../../replay/replay.ts';
import {drawSweepWillItScale} from '../../results/draw/will_it_scale.ts';
import {drawSweepTable} from '../../results/draw/sweep_table.ts';
import type {RunReport} from '../../results/run.ts';
import {buildSweep, type SweepInput} from '../../results/sweep.ts';
import type {Params} from '../../workloads/params.ts';
import {workloadByName} from '../../workloads/registry.ts';
import {expandSweep} from '../../workloads/workload.ts';
import type {Invocation} from '../main.ts';
import {Progress} from '../progress.ts';
import {
  addReplayFlags,
  collect,
  replayOptions,
  type ReplayFlags,
  wholeNumber,
} from '../replay_flags.ts';
import {workloadTrace} from '../workload_trace.ts';

interface Flags extends ReplayFlags {
  compare: string[];
  seeds: number;
  format: string;
  json: boolean;
}

export function sweepVerb(program: Command, invocation: Invocation): void {
  const command = program
    .command('sweep <workload> [params...]')
    .description('replay a workload over the values of one parameter, a curve per design')
    .option('--compare <axis=choice>', 'a design to draw a curve of (repeatable)', collect, [])
    .option('--seeds <n>', 'seeds per point', wholeNumber(1, 1000), 1);
  addReplayFlags(command, 'haswell-ex-4s-e7-8895v3')
    .option('--format <name>', 'will-it-scale, table or json', 'will-it-scale')
    .option('--json', 'same as --format json', false)
    .action((name: string, words: string[], flags: Flags) => {
      const workload = workloadByName(name);
      const rows = expandSweep(workload, words);
      const x = variedParam(rows);
      const sweep = buildSweep(runAll(name, rows, x, flags, invocation), x, modeOf(rows[0], x));
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
    `sweep: ${names.length} parameters vary (${names.join(', ') || 'none'}); give several values to exactly one, like workers=1,2,4..144`,
    EXIT.usage,
  );
}

function runAll(
  name: string,
  rows: readonly Params[],
  x: string,
  flags: Flags,
  {err}: Invocation,
): SweepInput[] {
  const workload = workloadByName(name);
  const progress = new Progress(err);
  const designs = flags.compare.length > 0 ? flags.compare : [''];
  const inputs: SweepInput[] = [];
  for (const row of rows) {
    const traces = Array.from({length: flags.seeds}, (_, n) =>
      workloadTrace(workload, row, flags.seed + n),
    );
    for (const design of designs) {
      progress.show(`${x}=${row[x]} ${design}`);
      const overrides = design === '' ? flags.design : [...flags.design, ...design.split(',')];
      const runs = traces.map((trace, n): RunReport => {
        const run = replayTrace(trace, {
          machine: flags.machine,
          kernel: flags.kernel,
          design: overrides,
          options: {...replayOptions(flags), seed: flags.seed + n},
        });
        return inIterations(run, workload.iterations(row));
      });
      inputs.push({label: design === '' ? 'default' : design, x: Number(row[x]), runs});
    }
  }
  progress.clear();
  return inputs;
}
