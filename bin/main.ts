// The command line: verbs, exit codes, errors in one line. Each verb is one file in verbs/.
//
// Exit codes: 0 fine, 1 a check or bar failed or a bound was hit, 2 usage, 3 bad input, 4 partial
// (losses), 130 interrupted.

import {Command, CommanderError, Help, Option} from 'commander';
import {EXIT} from '../formats/errors.ts';
import {version} from './package_info.ts';
import type {Output} from './streams.ts';
import {benchVerb} from './verbs/bench.ts';
import {compareVerb} from './verbs/compare.ts';
import {demoVerb} from './verbs/demo.ts';
import {generateVerb} from './verbs/generate.ts';
import {importVerb} from './verbs/import.ts';
import {infoVerb} from './verbs/info.ts';
import {designsVerb, machinesVerb, workloadsVerb} from './verbs/listings.ts';
import {replayVerb} from './verbs/replay.ts';
import {reportVerb} from './verbs/report.ts';
import {scenarioVerb} from './verbs/scenario.ts';
import {sweepVerb} from './verbs/sweep.ts';
import {validateVerb} from './verbs/validate.ts';
import {verifyVerb} from './verbs/verify.ts';

/** What a verb gets: its streams, and where to leave its exit code. */
export interface Invocation {
  readonly out: Output;
  readonly err: Output;
  exitCode: number;
}

/** Adds one verb to the program. */
export type Verb = (program: Command, invocation: Invocation) => void;

const VERBS: readonly Verb[] = [
  importVerb,
  generateVerb,
  infoVerb,
  replayVerb,
  verifyVerb,
  compareVerb,
  sweepVerb,
  scenarioVerb,
  validateVerb,
  benchVerb,
  reportVerb,
  machinesVerb,
  designsVerb,
  workloadsVerb,
  demoVerb,
];

/** Runs one command line and returns its exit code. Never throws for bad input. */
export async function main(argv: readonly string[], out: Output, err: Output): Promise<number> {
  const invocation: Invocation = {out, err, exitCode: EXIT.ok};
  const program = new Command('mmreplay')
    .description('replay Linux memory-management traces on a simulated multi-socket machine')
    .version(version())
    .exitOverride()
    .showHelpAfterError('(add --help for the options)')
    .configureHelp({optionDescription})
    .configureOutput({
      writeOut: (text) => out.write(text),
      writeErr: (text) => err.write(text),
    });
  for (const verb of VERBS) verb(program, invocation);
  for (const command of program.commands) command.exitOverride().copyInheritedSettings(program);
  try {
    await program.parseAsync(argv, {from: 'user'});
  } catch (error) {
    return exitCodeOf(error, err);
  }
  return invocation.exitCode;
}

const PLAIN_HELP = new Help();

/** As commander describes an option, without the defaults that say nothing: off, empty and none. */
function optionDescription(option: Option): string {
  const {defaultValue} = option;
  const silent = defaultValue === false || defaultValue === '' || Array.isArray(defaultValue);
  if (!silent) return PLAIN_HELP.optionDescription(option);
  return PLAIN_HELP.optionDescription(new Option(option.flags, option.description));
}

function exitCodeOf(error: unknown, err: Output): number {
  if (error instanceof CommanderError) return error.exitCode === 0 ? EXIT.ok : EXIT.usage;
  if (error instanceof Error && 'exitCode' in error && typeof error.exitCode === 'number') {
    err.write(`mmreplay: ${error.message}\n`);
    return error.exitCode;
  }
  throw error;
}
