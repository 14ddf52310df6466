// mmreplay report FILE...: stored runs, drawn again: one run alone, or several compared.

import type {Command} from 'commander';
import {compareRuns} from '../../results/compare.ts';
import {designText} from '../../results/compare_columns.ts';
import {formatNamed} from '../../results/draw/formats.ts';
import {colourWanted} from '../../results/draw/options.ts';
import {drawRun} from '../../results/draw/run.ts';
import type {RunReport} from '../../results/run.ts';
import {loadRuns} from '../../results/store.ts';
import type {Invocation} from '../main.ts';

export function reportVerb(program: Command, {out}: Invocation): void {
  program
    .command('report <files...>')
    .description('draw stored runs again (from replay --json or compare --save)')
    .option('--format <name>', 'table, mmtests, lkp, benchstat, csv, markdown, json', 'table')
    .option('--all', 'also rows that are equal everywhere', false)
    .action((files: string[], flags: {format: string; all: boolean}) => {
      const runs = files.flatMap((file) => loadRuns(file));
      const designs = byDesign(runs);
      if (designs.size < 2) {
        for (const run of runs) out.write(drawRun(run));
        return;
      }
      const inputs = [...designs].map(([label, group]) => ({label, runs: group}));
      const color = colourWanted(process.env, out.isTerminal);
      out.write(formatNamed(flags.format)(compareRuns(inputs), {color, all: flags.all}));
    });
}

/** Runs by design, in order of first appearance. */
function byDesign(runs: readonly RunReport[]): Map<string, RunReport[]> {
  const groups = new Map<string, RunReport[]>();
  for (const run of runs) {
    const label = designText(run);
    const group = groups.get(label);
    if (group === undefined) groups.set(label, [run]);
    else group.push(run);
  }
  return groups;
}
