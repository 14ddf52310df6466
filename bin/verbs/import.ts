// mmreplay import RECORDING: turns a foreign recording into a trace and accounts for every event of
// it.

import {basename} from 'node:path';
import Table from 'cli-table3';
import type {Command} from 'commander';
import {EXIT} from '../../formats/errors.ts';
import {type ImportSummary, importTrace} from '../../formats/import/import.ts';
import type {Invocation} from '../main.ts';
import {Progress} from '../progress.ts';

interface Flags {
  output?: string;
  provenance?: string;
  model?: string;
  release?: string;
  json: boolean;
}

/** `dir/fork-storm.perf.txt.zst` becomes `fork-storm.mmt` in the current folder. */
export function defaultOutput(input: string): string {
  if (input === '-') return '-';
  const name = basename(input).replace(/(\.(zst|gz|txt|perf|ftrace|trace|dat))+$/, '');
  return `${name}.mmt`;
}

export function importVerb(program: Command, invocation: Invocation): void {
  program
    .command('import <recording>')
    .description('turn perf script or tracefs text (plain, .gz, .zst, -) into a trace')
    .option('-o, --output <file>', 'trace to write (.gz compresses; default: NAME.mmt here)')
    .option('--provenance <text>', 'where the recording comes from, kept in the header')
    .option('--model <text>', 'CPU model of the recorded machine')
    .option('--release <text>', 'kernel release of the recorded machine')
    .option('--json', 'print the summary as JSON', false)
    .action((input: string, flags: Flags) => {
      const output = flags.output ?? defaultOutput(input);
      const progress = new Progress(invocation.err);
      const summary = importTrace(input, output, {
        ...(flags.provenance === undefined ? {} : {provenance: flags.provenance}),
        machine: {
          ...(flags.model === undefined ? {} : {model: flags.model}),
          ...(flags.release === undefined ? {} : {kernelRelease: flags.release}),
        },
        onProgress: (events) => progress.show(`${events} events`),
      });
      progress.clear();
      const messages = output === '-' ? invocation.err : invocation.out;
      messages.write(flags.json ? asJson(summary) : draw(summary));
      if (summary.partial) invocation.exitCode = EXIT.partial;
    });
}

function asJson(summary: ImportSummary): string {
  const {header, ...rest} = summary;
  const plain = {...header, baseNs: header.baseNs.toString(), seed: header.seed.toString()};
  return `${JSON.stringify({schema: 'mmreplay.import/1', ...rest, header: plain}, null, 1)}\n`;
}

function sum(counts: Readonly<Record<string, number>>): number {
  return Object.values(counts).reduce((total, n) => total + n, 0);
}

function draw(summary: ImportSummary): string {
  const table = new Table({
    head: ['stream', 'event', 'count'],
    style: {head: [], border: []},
    colAligns: ['left', 'left', 'right'],
  });
  const {operations, answers, unmodelled} = summary;
  for (const [stream, counts] of Object.entries({operations, answers, unmodelled})) {
    const rows = Object.entries(counts).sort((a, b) => b[1] - a[1]);
    rows.forEach(([name, n], i) => {
      table.push([i === 0 ? stream : '', name, n]);
    });
  }
  const total = sum(operations) + sum(answers) - summary.derived + sum(unmodelled);
  const size = `${(summary.bytes / 1e6).toFixed(2)} MB`;
  const lines = [
    `${summary.input} (${summary.format}) -> ${summary.output}, ${size}`,
    table.toString(),
    `${summary.events} events = ${sum(operations)} operations + ${sum(answers)} answers + ` +
      `${sum(unmodelled)} unmodelled${summary.derived > 0 ? ` - ${summary.derived} derived` : ''}` +
      `${total === summary.events ? '' : ' (DOES NOT ADD UP)'}; ` +
      `${summary.metadata} lines of metadata, ${summary.lost} lost, ${summary.reordered} out of order`,
    ...summary.warnings.map((warning) => `warning: ${warning}`),
    ...(summary.truncated === undefined ? [] : [`truncated: ${summary.truncated.message}`]),
  ];
  return `${lines.join('\n')}\n`;
}
