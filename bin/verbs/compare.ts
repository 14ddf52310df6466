// mmreplay compare TRACE --a axis=x --b axis=y: designs against each other, paired by seed.

import type {Command} from 'commander';
import {EXIT, UserError} from '../../formats/errors.ts';
import {loadTrace, type LoadedTrace} from '../../formats/reader.ts';
import {compareRuns, type Input} from '../../results/compare.ts';
import type {Comparison} from '../../results/comparison.ts';
import {FORMATS, formatNamed} from '../../results/draw/formats.ts';
import {colourWanted} from '../../results/draw/options.ts';
import {checkWritable, saveRuns} from '../../results/store.ts';
import type {RunReport} from '../../results/run.ts';
import type {Invocation} from '../main.ts';
import {replayAll} from '../pool/replay_all.ts';
import type {ReplayJob} from '../pool/jobs.ts';
import {guessMs} from '../pool/guess.ts';
import {
  addJobsFlag,
  addReplayFlags,
  collect,
  replayOptions,
  type ReplayFlags,
  wholeNumber,
} from '../replay_flags.ts';

export interface CompareFlags extends ReplayFlags {
  a: string[];
  b: string[];
  seeds: number;
  format: string;
  json: boolean;
  all: boolean;
  only: string;
  save?: string;
  jobs?: number;
}

export function compareVerb(program: Command, invocation: Invocation): void {
  const command = program
    .command('compare <trace>')
    .description('replay a trace under several designs and compare them, paired by seed')
    .requiredOption(
      '--a <axis=choice>',
      'the baseline, as pgd=pgd-list (comma separates several axes)',
      collect,
      [],
    )
    .requiredOption('--b <axis=choice>', 'a design to compare with it (repeatable)', collect, [])
    .option('--seeds <n>', 'seeds per design', wholeNumber(1, 1000), 12);
  addJobsFlag(addReplayFlags(command, 'icelake-2s-64t'))
    .option('--format <name>', Object.keys(FORMATS).join(', '), 'table')
    .option('--all', 'also rows that are equal everywhere', false)
    .option(
      '--only <text>',
      'only mechanism rows whose name contains this (or one of these, comma separated)',
      '',
    )
    .option('--save <file>', 'keep every run as JSON lines')
    .option('--json', 'same as --format json', false)
    .action(async (path: string, flags: CompareFlags) => {
      invocation.out.write(await compareDesigns(loadTrace(path), flags, invocation));
    });
}

/** Runs every design under every seed and draws the comparison. */
export async function compareDesigns(
  trace: LoadedTrace,
  flags: CompareFlags,
  invocation: Invocation,
): Promise<string> {
  const draw = formatNamed(flags.json ? 'json' : flags.format);
  const designs = designsOf(flags);
  if (flags.save !== undefined) checkWritable(flags.save);
  const runs = await runAndSave(trace, jobsOf(trace, designs, flags), flags, invocation);
  const inputs = designs.map((design, n): Input => {
    const first = n * flags.seeds;
    return {label: design, runs: runs.slice(first, first + flags.seeds)};
  });
  const color = colourWanted(process.env, invocation.out.isTerminal);
  return draw(mechanismRows(compareRuns(inputs), flags.only), {color, all: flags.all});
}

/** The baseline and what is compared with it; UserError for too few or the same twice. */
function designsOf({a, b}: CompareFlags): string[] {
  const designs = [...a, ...b];
  const again = designs.find((design, i) => designs.indexOf(design) < i);
  if (again !== undefined) {
    throw new UserError(`compare: ${again} is given twice; name each design once`, EXIT.usage);
  }
  if (a.length > 0 && b.length > 0) return designs;
  const text = 'compare: expected a baseline and another design; add for example';
  throw new UserError(`${text} --a pgd=pgd-list --b pgd=lockless-2015-09`, EXIT.usage);
}

/** Design by design, every seed of it. */
function jobsOf(trace: LoadedTrace, designs: readonly string[], flags: CompareFlags): ReplayJob[] {
  const options = replayOptions(flags);
  const guess = guessMs(trace, options);
  return designs.flatMap((design) =>
    Array.from({length: flags.seeds}, (_, n): ReplayJob => {
      const seed = flags.seed + n;
      return {
        trace: {from: 'loaded', index: 0},
        request: {
          machine: flags.machine,
          kernel: flags.kernel,
          design: [...flags.design, ...design.split(',')],
          options: {...options, seed},
        },
        label: `${design} seed ${seed}`,
        guessMs: guess,
      };
    }),
  );
}

/**
 * The reports of all jobs. What `--save` asks for is written even if a run fails: the runs before
 * it.
 */
async function runAndSave(
  trace: LoadedTrace,
  jobs: readonly ReplayJob[],
  {jobs: threads, save}: CompareFlags,
  {err}: Invocation,
): Promise<RunReport[]> {
  const done: RunReport[] = [];
  try {
    return await replayAll(jobs, {
      threads,
      loaded: [trace],
      err,
      done: (report) => done.push(report),
    });
  } finally {
    if (save !== undefined && done.length > 0) saveRuns(save, done);
  }
}

/**
 * The comparison with only those mechanism rows whose name contains one of `texts`, comma
 * separated.
 */
function mechanismRows(comparison: Comparison, texts: string): Comparison {
  const wanted = texts.split(',');
  const tables = comparison.tables.map((table) => {
    if (table.name === 'headline') return table;
    const rows = table.rows.filter((row) => wanted.some((text) => row.metric.includes(text)));
    if (rows.length > 0 || table.rows.length === 0) return {...table, rows};
    const examples = table.rows.slice(0, 3).map((row) => row.metric);
    const text = `--only ${texts}: no row of the ${table.name} table contains that`;
    throw new UserError(`${text}; it has ${examples.join(', ')}, ...`, EXIT.usage);
  });
  return {...comparison, tables};
}
