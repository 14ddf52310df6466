// mmreplay bench: how fast the simulator itself is, against the goals of the design.

import {execFile} from 'node:child_process';
import {availableParallelism} from 'node:os';
import {join} from 'node:path';
import {promisify} from 'node:util';
import Table from 'cli-table3';
import type {Command} from 'commander';
import {EXIT, UserError} from '../../formats/errors.ts';
import {
  benchNames,
  GOALS,
  MEMORY_GOALS,
  RECORDINGS,
  RECORDINGS_VARIABLE,
} from '../../replay/benches.ts';
import type {Invocation} from '../main.ts';
import {isCompiled, packageRoot, programPath} from '../package_info.ts';
import {Progress} from '../progress.ts';

/** Name and version of what `bench --json` prints. */
const BENCH_SCHEMA = 'mmreplay.bench/1';

interface Figures {
  name: string;
  unit: string;
  ops_per_s: number;
  ns_per_op: number;
  rme_percent: number;
  samples: number;
  /** Host memory for each simulated page, where that was measured. */
  bytes_per_page?: number;
}

/** The same benchmark in as many processes as there are CPUs, at the same time. */
interface Together {
  name: string;
  unit: string;
  processes: number;
  /** Sum of their medians. */
  ops_per_s: number;
}

interface Flags {
  only: string;
  recordings?: string;
  check: boolean;
  json: boolean;
}

export function benchVerb(program: Command, invocation: Invocation): void {
  program
    .command('bench')
    .description('measure the simulator itself, one process per benchmark')
    .option('--only <text>', 'only benchmarks whose name contains this', '')
    .option('--recordings <folder>', 'also replay all traces (*.mmt) of this folder')
    .option('--check', 'exit 1 when a floor of the goals table is missed', false)
    .option('--json', 'print JSON', false)
    .action(async (flags: Flags) => {
      if (flags.recordings !== undefined) process.env[RECORDINGS_VARIABLE] = flags.recordings;
      const names = (await benchNames()).filter((name) => name.includes(flags.only));
      if (names.length === 0) {
        throw new UserError(
          `no benchmark contains "${flags.only}"; run without --only to see all`,
          EXIT.usage,
        );
      }
      const progress = new Progress(invocation.err);
      const results: Figures[] = [];
      for (const name of names) {
        progress.show(name);
        results.push(await runChild(name));
      }
      const together = names.includes(RECORDINGS) ? await runTogether(RECORDINGS) : null;
      progress.clear();
      const missed = results.filter(
        ({name, ops_per_s, bytes_per_page = 0}) =>
          ops_per_s < (GOALS[name]?.floor ?? 0) ||
          bytes_per_page > (MEMORY_GOALS[name]?.floor ?? Infinity),
      );
      if (flags.check && missed.length > 0) invocation.exitCode = EXIT.failed;
      invocation.out.write(flags.json ? json(results, together) : draw(results, together));
    });
}

/** Compiled, or from the sources. */
async function runChild(name: string): Promise<Figures> {
  const args = isCompiled
    ? [programPath('bench_child'), name]
    : ['--import', 'tsx', join(packageRoot(), 'bin', 'bench_child.ts'), name];
  const {stdout} = await promisify(execFile)(process.execPath, args);
  return JSON.parse(stdout) as Figures;
}

/** What this host does when all its CPUs replay, as for compare, sweep and their kind. */
async function runTogether(name: string): Promise<Together> {
  const processes = availableParallelism();
  const all = await Promise.all(Array.from({length: processes}, () => runChild(name)));
  const ops_per_s = all.reduce((sum, figures) => sum + figures.ops_per_s, 0);
  return {name, unit: all[0].unit, processes, ops_per_s};
}

function json(results: readonly Figures[], together: Together | null): string {
  const benchmarks = results.map((result) => ({
    ...result,
    ...GOALS[result.name],
    memory_goal: MEMORY_GOALS[result.name],
  }));
  const more = together === null ? {} : {together};
  return `${JSON.stringify({schema: BENCH_SCHEMA, benchmarks, ...more}, null, 1)}\n`;
}

function draw(results: readonly Figures[], together: Together | null): string {
  const table = new Table({
    head: ['benchmark', 'per second', 'ns each', '±', 'floor', 'target'],
    style: {head: [], border: []},
    colAligns: ['left', 'right', 'right', 'right', 'right', 'right'],
  });
  for (const result of results) {
    const goal = GOALS[result.name];
    table.push([
      result.name,
      `${millions(result.ops_per_s)} ${result.unit}`,
      result.ns_per_op.toFixed(1),
      `${result.rme_percent.toFixed(1)} %`,
      goal === undefined ? '' : millions(goal.floor),
      goal === undefined ? '' : millions(goal.target),
    ]);
  }
  return `${table.toString()}\n${results.map(memoryLine).join('')}${togetherLine(together)}`;
}

function togetherLine(together: Together | null): string {
  if (together === null) return '';
  const {name, processes, unit, ops_per_s} = together;
  const speed = `${millions(ops_per_s)} ${unit} per second`;
  return `${name}, ${processes} processes at once: ${speed} in all\n`;
}

function memoryLine({name, bytes_per_page}: Figures): string {
  if (bytes_per_page === undefined) return '';
  const goal = MEMORY_GOALS[name];
  const goals = goal === undefined ? '' : ` (floor ${goal.floor}, target ${goal.target})`;
  return `${name}: ${bytes_per_page.toFixed(1)} bytes of host memory for each page${goals}\n`;
}

function millions(perSecond: number): string {
  return `${(perSecond / 1e6).toFixed(perSecond < 1e6 ? 3 : 2)} M`;
}
