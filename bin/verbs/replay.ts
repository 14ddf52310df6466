// mmreplay replay TRACE: one run, one report.

import type {Command} from 'commander';
import {EXIT} from '../../formats/errors.ts';
import {loadTrace} from '../../formats/reader.ts';
import {replayTrace} from '../../replay/replay.ts';
import {drawRun} from '../../results/draw/run.ts';
import type {Invocation} from '../main.ts';
import {addReplayFlags, replayOptions, type ReplayFlags} from '../replay_flags.ts';

interface Flags extends ReplayFlags {
  json: boolean;
  tolerant: boolean;
}

export function replayVerb(program: Command, invocation: Invocation): void {
  const command = program
    .command('replay <trace>')
    .description('replay a trace and report what it cost');
  addReplayFlags(command, 'icelake-2s-64t')
    .option('--tolerant', 'replay what comes before a damage in the file', false)
    .option('--json', 'print the report as JSON', false)
    .action((path: string, flags: Flags) => {
      const trace = loadTrace(path, {tolerant: flags.tolerant});
      const report = replayTrace(trace, {
        machine: flags.machine,
        kernel: flags.kernel,
        design: flags.design,
        options: replayOptions(flags),
      });
      invocation.out.write(flags.json ? `${JSON.stringify(report, null, 1)}\n` : drawRun(report));
      if (trace.truncated !== undefined) {
        invocation.err.write(`mmreplay: ${trace.truncated.message}\n`);
        invocation.exitCode = EXIT.partial;
      }
    });
}
