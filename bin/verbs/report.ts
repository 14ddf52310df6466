// mmreplay report FILE...: stored runs, drawn again: one run alone, or several compared.

import type {Command} from 'commander';
import {EXIT, UserError} from '../../formats/errors.ts';
import {compareRuns} from '../../results/compare.ts';
import {designText} from '../../results/compare_columns.ts';
import {FORMATS, formatNamed} from '../../results/draw/formats.ts';
import {colourWanted} from '../../results/draw/options.ts';
import {drawRun} from '../../results/draw/run.ts';
import type {RunReport} from '../../results/run.ts';
import {loadRuns} from '../../results/store.ts';
import type {Invocation} from '../main.ts';

interface Flags {
  format: string;
  all: boolean;
  json: boolean;
}

export function reportVerb(program: Command, {out}: Invocation): void {
  program
    .command('report <files...>')
    .description('draw stored runs again (from replay --json or compare --save)')
    .option('--format <name>', Object.keys(FORMATS).join(', '), 'table')
    .option('--all', 'also rows that are equal everywhere', false)
    .option('--json', 'same as --format json', false)
    .action((files: string[], {format, all, json}: Flags) => {
      const name = json ? 'json' : format;
      const draw = formatNamed(name);
      const runs = files.flatMap((file) => loadRuns(file));
      const designs = byDesign(runs);
      const color = colourWanted(process.env, out.isTerminal);
      if (designs.size < 2) {
        for (const run of runs) out.write(drawAlone(run, name, color));
        return;
      }
      const inputs = [...designs].map(([label, group]) => ({label, runs: group}));
      out.write(draw(compareRuns(inputs), {color, all}));
    });
}

/** A run that there is nothing to compare with: as `replay` prints it. */
function drawAlone(run: RunReport, format: string, color: boolean): string {
  if (format === 'json') return `${JSON.stringify(run)}\n`;
  if (format === 'table') return drawRun(run, {color});
  const text = `report: --format ${format} compares designs, and all runs have the same one`;
  throw new UserError(`${text}; take table or json, or name files of another design`, EXIT.usage);
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
