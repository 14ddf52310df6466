// mmreplay validate: simulated against published results, inputs frozen, the error printed.

import type {Command} from 'commander';
import {EXIT, UserError} from '../../formats/errors.ts';
import {drawValidation} from '../../results/draw/validation.ts';
import {metricAt} from '../../results/metric_path.ts';
import {loadPublished, type Published, shippedPublished} from '../../results/published.ts';
import type {RunReport} from '../../results/run.ts';
import {type Simulated, validate, type Validation, validationOf} from '../../results/validation.ts';
import {publishedRun} from '../../workloads/published.ts';
import type {Invocation} from '../main.ts';
import type {ReplayJob} from '../pool/jobs.ts';
import {replayGroups} from '../pool/replay_all.ts';
import {addJobsFlag, collect, wholeNumber} from '../replay_flags.ts';

interface Flags {
  results: string[];
  only: string;
  machine?: string;
  kernel?: string;
  seed: number;
  seeds: number;
  json: boolean;
  jobs?: number;
}

/** Mean time of a run of the shipped results, ms. */
const RUN_MS = 150;

export function validateVerb(program: Command, invocation: Invocation): void {
  const command = program
    .command('validate')
    .description('run published measurements and print how far off the model is')
    .option(
      '--results <file>',
      'measurements of your own (repeatable; instead of the shipped ones)',
      collect,
      [],
    )
    .option('--only <text>', 'only results whose name contains this', '')
    .option('--machine <name>', 'machine instead of the one that the result names')
    .option('--kernel <version>', 'kernel instead of the nearest to the one that the result names')
    .option('--seed <n>', 'seed of everything random', wholeNumber(0), 1)
    .option('--seeds <n>', 'runs of each point, of which the mean counts', wholeNumber(1, 100), 3)
    .option('--json', 'print JSON', false);
  addJobsFlag(command).action(async (flags: Flags) => {
    const all = flags.results.length > 0 ? flags.results.map(loadPublished) : shippedPublished();
    const chosen = all.filter((published) => published.name.includes(flags.only));
    if (chosen.length === 0) {
      const names = all.map((published) => published.name).join(', ');
      throw new UserError(
        `--only ${flags.only}: no result contains that; there are ${names}`,
        EXIT.usage,
      );
    }
    const validation = await validated(chosen, flags, invocation);
    invocation.out.write(
      flags.json ? `${JSON.stringify(validation, null, 1)}\n` : drawValidation(validation),
    );
  });
}

async function validated(
  results: readonly Published[],
  flags: Flags,
  {err}: Invocation,
): Promise<Validation> {
  const jobs = results.map((published) => jobsOf(published, flags));
  const reports = await replayGroups(jobs, {threads: flags.jobs, err});
  return validationOf(
    results.map((published, n) => validate(published, simulated(published, flags, reports[n]))),
  );
}

/** Every run of every point of a published result; none when the model cannot run it. */
function jobsOf(published: Published, flags: Flags): ReplayJob[] {
  const machine = machineOf(published, flags);
  if (machine === undefined) return [];
  return published.series.flatMap((series) =>
    series.points.flatMap(([x]) => {
      const {workload, params, placement} = publishedRun(published.workload, published.x.name, x);
      return Array.from({length: flags.seeds}, (_, n): ReplayJob => {
        const seed = flags.seed + n;
        return {
          trace: {from: 'workload', name: workload.name, params, seed},
          request: {
            machine,
            kernel: flags.kernel ?? published.kernel_model ?? '5.4',
            design: Object.entries(series.design).map(([axis, choice]) => `${axis}=${choice}`),
            options: {seed, placement},
          },
          label: `${published.name} ${series.name}: ${published.x.name} ${x}`,
          guessMs: RUN_MS,
        };
      });
    }),
  );
}

/** The machine that a result is run on; undefined when the model does not run it. */
function machineOf(published: Published, flags: Flags): string | undefined {
  return published.workload.modelled ? (flags.machine ?? published.machine.model) : undefined;
}

/** Each point's mean over the seeds, from the reports of jobsOf. */
function simulated(published: Published, flags: Flags, reports: readonly RunReport[]): Simulated[] {
  if (machineOf(published, flags) === undefined) return [];
  let at = 0;
  return published.series.map(({name, points, metric = 'throughput_ops_s'}): Simulated => {
    return {
      series: name,
      points: points.map(([x]) => {
        const runs = reports.slice(at, at + flags.seeds);
        at += flags.seeds;
        const sum = runs.map((run) => metricAt(run, metric)).reduce((a, b) => a + b);
        return [x, sum / runs.length] as const;
      }),
    };
  });
}
