// The flags that several verbs share, and their checking.

import {type Command, InvalidArgumentError, Option} from 'commander';
import {
  DEFAULT_OPTIONS,
  ORDERS,
  PLACEMENTS,
  parseTimeMode,
  type ReplayOptions,
} from '../replay/options.ts';

/** Flags as commander delivers them. */
export interface ReplayFlags {
  machine: string;
  kernel: string;
  design: string[];
  seed: number;
  order: ReplayOptions['order'];
  time: string;
  copies: number;
  until?: number;
  placement: ReplayOptions['placement'];
  ipi: ReplayOptions['ipi'];
  maxEvents: number;
  maxTime: number;
  audit: boolean;
  lockdep: boolean;
}

/** Reads a whole number between bounds. */
export function wholeNumber(min: number, max = Number.MAX_SAFE_INTEGER): (text: string) => number {
  return (text) => {
    const value = Number(text);
    if (!Number.isInteger(value) || value < min || value > max) {
      throw new InvalidArgumentError(`expected a whole number from ${min} to ${max}`);
    }
    return value;
  };
}

/** Collects a repeatable flag. */
export function collect(value: string, earlier: string[]): string[] {
  return [...earlier, value];
}

/** Adds the flags that say on what and how a trace is replayed. */
export function addReplayFlags(command: Command, machine: string): Command {
  const d = DEFAULT_OPTIONS;
  return command
    .option(
      '--machine <name>',
      'name (see mmreplay machines), file, or shorthand like 8s18c2t',
      machine,
    )
    .option(
      '--kernel <version>',
      'kernel version that picks the design (see mmreplay designs)',
      '4.1',
    )
    .option(
      '--design <axis=choice>',
      'override one axis (repeatable; see mmreplay designs)',
      collect,
      [],
    )
    .option('--seed <n>', 'seed of everything random', wholeNumber(0), d.seed)
    .addOption(
      new Option('--order <order>', 'what an operation waits for; docs/trace-schema.md says more')
        .choices(ORDERS)
        .default(d.order),
    )
    .option(
      '--time <mode>',
      'when it starts then: asap, timed (as recorded), scaled=X (X times as fast) or ' +
        'think (after the recorded think time)',
      d.time,
    )
    .option(
      '--copies <n>',
      'instances of the recorded process tree',
      wholeNumber(1, 4096),
      d.copies,
    )
    .option(
      '--until <ms>',
      'replay only this much of the recording, in recorded time',
      wholeNumber(1),
    )
    .addOption(
      new Option(
        '--placement <how>',
        'where tasks start and whether they stay; docs/trace-schema.md says more',
      )
        .choices(PLACEMENTS)
        .default(d.placement),
    )
    .addOption(
      new Option(
        '--ipi <form>',
        'interrupts: every arrival an event, or all arrivals computed at once (ten times faster)',
      )
        .choices(['event', 'closed'])
        .default(d.ipi),
    )
    .option(
      '--max-events <n>',
      'give up after this many simulated events',
      wholeNumber(1),
      d.maxEvents,
    )
    .option('--max-time <ns>', 'give up after this much simulated time', wholeNumber(1), d.maxNs)
    .option('--audit', 'check every PGD after every walk (slow)', false)
    .option('--lockdep', 'check the order of lock classes', false);
}

/** Adds the flag of verbs that do many runs. */
export function addJobsFlag(command: Command): Command {
  return command.option(
    '--jobs <n>',
    'runs at once, in threads (default: as many as this host has CPUs, for work that pays it)',
    wholeNumber(1, 1024),
  );
}

/** Options of a replay from its flags. */
export function replayOptions(flags: ReplayFlags): ReplayOptions {
  return {
    seed: flags.seed,
    order: flags.order,
    ...parseTimeMode(flags.time),
    copies: flags.copies,
    untilNs: flags.until === undefined ? Infinity : flags.until * 1e6,
    placement: flags.placement,
    ipi: flags.ipi,
    maxEvents: flags.maxEvents,
    maxNs: flags.maxTime,
    audit: flags.audit,
    lockdep: flags.lockdep,
  };
}
