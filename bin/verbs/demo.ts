// mmreplay demo (npm start): the bundled recorded fork storm on an 8-socket machine, pgd_list
// against its alternatives.

import {join} from 'node:path';
import type {Command} from 'commander';
import {loadTrace} from '../../formats/reader.ts';
import {DEFAULT_OPTIONS} from '../../replay/options.ts';
import type {Invocation} from '../main.ts';
import {packageRoot} from '../package_info.ts';
import {addJobsFlag} from '../replay_flags.ts';
import {compareDesigns} from './compare.ts';

const TRACE = 'workloads/samples/fork-storm.mmt.gz';
const MACHINE = 'westmere-ex-8s-80c';
const COPIES = 8;
/**
 * How much of the recording: the start of the storm, so that the table is there within the minute.
 */
const UNTIL_MS = 120;
/** What has to do with the lock, and the fault path, which reads a word beside it. */
const ONLY = 'pgd,do_user_addr_fault';
/** As many as tell a difference in any row of the table (results/compare.ts). */
const SEEDS = 15;

export function demoVerb(program: Command, invocation: Invocation): void {
  const command = program
    .command('demo')
    .description('the bundled fork storm on 8 sockets: pgd_list against padded and lockless')
    .option('--json', 'print the comparison as JSON', false);
  addJobsFlag(command).action(async ({jobs, json}: {jobs?: number; json: boolean}) => {
    const {out, err} = invocation;
    (json ? err : out).write(
      `$ mmreplay compare ${TRACE} --a pgd=pgd-list --b pgd=pgd-list-padded \\\n` +
        `    --b pgd=lockless-2015-09 --kernel 4.1 --machine ${MACHINE} --copies ${COPIES} ` +
        `--until ${UNTIL_MS} --seeds ${SEEDS} --only ${ONLY}\n\n`,
    );
    const trace = loadTrace(join(packageRoot(), TRACE));
    const flags = {
      ...DEFAULT_OPTIONS,
      a: ['pgd=pgd-list'],
      b: ['pgd=pgd-list-padded', 'pgd=lockless-2015-09'],
      seeds: SEEDS,
      format: 'table',
      json,
      all: false,
      only: ONLY,
      machine: MACHINE,
      kernel: '4.1',
      design: [],
      copies: COPIES,
      until: UNTIL_MS,
      maxTime: DEFAULT_OPTIONS.maxNs,
      ...(jobs === undefined ? {} : {jobs}),
    };
    out.write(await compareDesigns(trace, flags, invocation));
  });
}
