// mmreplay validate: simulated against published results, inputs frozen, the error printed.

import type {Command} from 'commander';
import {replayTrace} from '../../replay/replay.ts';
import {drawValidation} from '../../results/draw/validation.ts';
import {metricAt} from '../../results/metric_path.ts';
import {
  loadPublished,
  type Published,
  type PublishedSeries,
  shippedPublished,
} from '../../results/published.ts';
import {type Simulated, validate, validationOf} from '../../results/validation.ts';
import {publishedRun} from '../../workloads/published.ts';
import type {Invocation} from '../main.ts';
import {Progress} from '../progress.ts';
import {collect, wholeNumber} from '../replay_flags.ts';
import {workloadTrace} from '../workload_trace.ts';

interface Flags {
  results: string[];
  only: string;
  machine?: string;
  kernel?: string;
  seed: number;
  seeds: number;
  json: boolean;
}

export function validateVerb(program: Command, invocation: Invocation): void {
  program
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
    .option('--json', 'print JSON', false)
    .action((flags: Flags) => {
      const all = flags.results.length > 0 ? flags.results.map(loadPublished) : shippedPublished();
      const results = all
        .filter((published) => published.name.includes(flags.only))
        .map((published) => validate(published, simulate(published, flags, invocation)));
      const validation = validationOf(results);
      invocation.out.write(
        flags.json ? `${JSON.stringify(validation, null, 1)}\n` : drawValidation(validation),
      );
    });
}

/** Runs every point of a published result that the model can run; the mean over the seeds. */
function simulate(published: Published, flags: Flags, {err}: Invocation): Simulated[] {
  const machine = flags.machine ?? published.machine.model;
  if (!published.workload.modelled || machine === undefined) return [];
  const progress = new Progress(err);
  const simulated = published.series.map(
    (series): Simulated => ({
      series: series.name,
      points: series.points.map(([x]) => {
        progress.show(`${published.name} ${series.name}: ${published.x.name} ${x}`);
        const seeds = Array.from({length: flags.seeds}, (_, n) => flags.seed + n);
        const values = seeds.map((seed) =>
          simulatePoint(published, series, x, seed, machine, flags),
        );
        return [x, values.reduce((sum, value) => sum + value) / values.length] as const;
      }),
    }),
  );
  progress.clear();
  return simulated;
}

function simulatePoint(
  published: Published,
  series: PublishedSeries,
  x: number,
  seed: number,
  machine: string,
  flags: Flags,
): number {
  const run = publishedRun(published.workload, published.x.name, x);
  const report = replayTrace(workloadTrace(run.workload, run.params, seed), {
    machine,
    kernel: flags.kernel ?? published.kernel_model ?? '5.4',
    design: Object.entries(series.design).map(([axis, choice]) => `${axis}=${choice}`),
    options: {seed, placement: run.placement},
  });
  return metricAt(report, series.metric ?? 'throughput_ops_s');
}
