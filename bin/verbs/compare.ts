// mmreplay compare TRACE --a axis=x --b axis=y: designs against each other, paired by seed.

import type {Command} from 'commander';
import {loadTrace, type LoadedTrace} from '../../formats/reader.ts';
import {replayTrace} from '../../replay/replay.ts';
import {compareRuns, type Input} from '../../results/compare.ts';
import type {Comparison} from '../../results/comparison.ts';
import {formatNamed} from '../../results/draw/formats.ts';
import {colourWanted} from '../../results/draw/options.ts';
import {saveRuns} from '../../results/store.ts';
import type {RunReport} from '../../results/run.ts';
import type {Invocation} from '../main.ts';
import {Progress} from '../progress.ts';
import {
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
}

export function compareVerb(program: Command, invocation: Invocation): void {
  const command = program
    .command('compare <trace>')
    .description('replay a trace under several designs and compare them, paired by seed')
    .requiredOption('--a <axis=choice>', 'the baseline (comma separates several axes)', collect, [])
    .requiredOption('--b <axis=choice>', 'a design to compare (repeatable)', collect, [])
    .option('--seeds <n>', 'seeds per design', wholeNumber(1, 1000), 12);
  addReplayFlags(command, 'icelake-2s-64t')
    .option(
      '--format <name>',
      'table, mmtests, lkp, benchstat, will-it-scale, csv, markdown, json',
      'table',
    )
    .option('--all', 'also rows that are equal everywhere', false)
    .option('--only <text>', 'only mechanism rows whose name contains this', '')
    .option('--save <file>', 'keep every run as JSON lines')
    .option('--json', 'same as --format json', false)
    .action((path: string, flags: CompareFlags) => {
      invocation.out.write(compareDesigns(loadTrace(path), flags, invocation));
    });
}

/** Runs every design under every seed and draws the comparison. */
export function compareDesigns(
  trace: LoadedTrace,
  flags: CompareFlags,
  invocation: Invocation,
): string {
  const draw = formatNamed(flags.json ? 'json' : flags.format);
  const progress = new Progress(invocation.err);
  const designs = [...flags.a, ...flags.b];
  const inputs = designs.map((design, n): Input => {
    const runs: RunReport[] = [];
    for (let seed = flags.seed; seed < flags.seed + flags.seeds; seed++) {
      progress.show(`${design}: seed ${seed} (${n + 1} of ${designs.length} designs)`);
      runs.push(
        replayTrace(trace, {
          machine: flags.machine,
          kernel: flags.kernel,
          design: [...flags.design, ...design.split(',')],
          options: {...replayOptions(flags), seed},
        }),
      );
    }
    return {label: design, runs};
  });
  progress.clear();
  if (flags.save !== undefined)
    saveRuns(
      flags.save,
      inputs.flatMap((input) => input.runs),
    );
  const color = colourWanted(process.env, invocation.out.isTerminal);
  return draw(mechanismRows(compareRuns(inputs), flags.only), {color, all: flags.all});
}

/** The comparison with only those mechanism rows whose name contains `text`. */
function mechanismRows(comparison: Comparison, text: string): Comparison {
  const tables = comparison.tables.map((table) =>
    table.name === 'headline'
      ? table
      : {...table, rows: table.rows.filter((row) => row.metric.includes(text))},
  );
  return {...comparison, tables};
}
