// mmreplay verify TRACE: how close a replay comes to what the recorded kernel said.

import type {Command} from 'commander';
import {InvalidArgumentError, Option} from 'commander';
import {EXIT, UserError} from '../../formats/errors.ts';
import {ORDERS, parseTimeMode, type Order} from '../../replay/options.ts';
import {RECLAIM_MODES, type ReclaimMode} from '../../replay/reclaim_driver.ts';
import {VERIFY_DEFAULTS, verifyTrace} from '../../replay/verify.ts';
import {drawVerify} from '../../results/draw/verify.ts';
import {colourWanted} from '../../results/draw/options.ts';
import {agreementOf} from '../../results/verify.ts';
import {loadTraceOrRecording} from '../foreign_trace.ts';
import type {Invocation} from '../main.ts';
import {collect, wholeNumber} from '../replay_flags.ts';

interface Flags {
  machine: string;
  kernel: string;
  design: string[];
  seed: number;
  order: Order;
  time?: string;
  bar?: number;
  differences: number;
  each: number;
  durations: boolean;
  infer: boolean;
  reclaim: ReclaimMode;
  tolerant: boolean;
  json: boolean;
}

export function verifyVerb(program: Command, invocation: Invocation): void {
  const d = VERIFY_DEFAULTS;
  program
    .command('verify <trace>')
    .description('replay a recording and compare with what the recorded kernel said')
    .option('--machine <name>', 'machine: name, file or shorthand', d.machine)
    .option('--kernel <version>', 'kernel version that picks the design', d.kernel)
    .option('--design <axis=choice>', 'override one axis (repeatable)', collect, [])
    .option('--seed <n>', 'seed of everything random', wholeNumber(0), d.seed)
    .addOption(
      new Option('--order <order>', 'order in which states are replayed')
        .choices(ORDERS)
        .default(d.order),
    )
    .option('--time <mode>', 'time in which states are replayed (default: by what is in the trace)')
    .option('--bar <share>', 'exit code 1 when faults or rss agree less than this (0 to 1)', share)
    .option('--differences <n>', 'differences to list', wholeNumber(0), d.differences)
    .option('--each <n>', 'differences to list of each cause', wholeNumber(1), d.perCause)
    .option('--no-durations', 'leave out the second replay, for times')
    .option(
      '--no-infer',
      'take every file as fully cached when the recording begins, and no swap area',
    )
    .addOption(
      new Option('--reclaim <mode>', 'who chooses the pages that recorded reclaim takes')
        .choices(RECLAIM_MODES)
        .default(d.reclaim),
    )
    .option('--tolerant', 'verify what comes before a damage in the file', false)
    .option('--json', 'print the report as JSON', false)
    .action((path: string, flags: Flags) => verify(path, flags, invocation));
}

function verify(path: string, flags: Flags, invocation: Invocation): void {
  const trace = loadTraceOrRecording(path, flags.tolerant);
  if (trace.header.source === 'generated') {
    const remedy = 'give a recording (perf or ftrace text) or what import made of one';
    throw new UserError(`${path}: is generated, so no kernel answered in it; ${remedy}`);
  }
  const report = verifyTrace(trace, {
    machine: flags.machine,
    kernel: flags.kernel,
    design: flags.design,
    seed: flags.seed,
    order: flags.order,
    ...(flags.time === undefined ? {} : {time: parseTimeMode(flags.time).time}),
    differences: flags.differences,
    perCause: flags.each,
    durations: flags.durations,
    infer: flags.infer,
    reclaim: flags.reclaim,
  });
  const {out, err} = invocation;
  const color = colourWanted(process.env, out.isTerminal);
  out.write(flags.json ? `${JSON.stringify(report, null, 1)}\n` : drawVerify(report, {color}));
  if (trace.truncated !== undefined) {
    err.write(`mmreplay: ${trace.truncated.message}\n`);
    invocation.exitCode = EXIT.partial;
  }
  if (flags.bar === undefined || agreementOf(report) >= flags.bar) return;
  const {faults, rss} = report;
  err.write(
    `mmreplay: faults ${faults.agreement} and rss ${rss.agreement} agreed, bar ${flags.bar}\n`,
  );
  invocation.exitCode = EXIT.failed;
}

/** Reads a number from 0 to 1. */
function share(text: string): number {
  const value = Number(text);
  if (!(value >= 0 && value <= 1) || text === '') {
    throw new InvalidArgumentError('expected a number from 0 to 1');
  }
  return value;
}
