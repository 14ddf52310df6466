// How a trace is replayed: the two independent choices of order and time, copies, placement,
// bounds.

import {UserError, EXIT} from '../formats/errors.ts';

/**
 * What must have happened before an operation may start, besides its own task's earlier operations.
 */
export const ORDERS = ['total', 'thread', 'resource', 'causal', 'none'] as const;
export type Order = (typeof ORDERS)[number];

/**
 * When an operation starts once it may: at once, at its recorded time, or after the recorded think
 * time.
 */
export const TIMES = ['asap', 'timed', 'scaled', 'think'] as const;
export type TimeMode = (typeof TIMES)[number];

/**
 * Where tasks start. `scatter` and `compact` spread the first CPU of each adopted task and leave
 * the rest to the scheduler; with `pin-` the task and its children stay there; `recorded` pins to
 * the first recorded CPU, `follow` moves each task to the recorded CPU before every operation,
 * `free` leaves everything to the scheduler.
 */
export const PLACEMENTS = [
  'scatter',
  'compact',
  'pin-scatter',
  'pin-compact',
  'recorded',
  'follow',
  'free',
] as const;
export type Placement = (typeof PLACEMENTS)[number];

/** Everything that decides a replay besides trace, machine and design. */
export interface ReplayOptions {
  readonly seed: number;
  readonly order: Order;
  readonly time: TimeMode;
  /** Divisor of recorded times for `scaled`: 2 is twice as fast. */
  readonly scale: number;
  readonly copies: number;
  /** Only what the recording holds up to this long after its first event, ns. */
  readonly untilNs: number;
  readonly placement: Placement;
  readonly ipi: 'event' | 'closed';
  /** Bounds of the run; hitting one is an error that names its flag. */
  readonly maxEvents: number;
  readonly maxNs: number;
  /** Audit PGDs after every sync walk and at the end, as scenarios do. */
  readonly audit: boolean;
  readonly lockdep: boolean;
}

export const DEFAULT_OPTIONS: ReplayOptions = {
  seed: 1,
  order: 'causal',
  time: 'think',
  scale: 1,
  copies: 1,
  untilNs: Infinity,
  placement: 'scatter',
  ipi: 'closed',
  maxEvents: 2e9,
  maxNs: 86_400e9,
  audit: false,
  lockdep: false,
};

/** `--time` as the user writes it: a mode, or `scaled=X`. */
export function parseTimeMode(text: string): {time: TimeMode; scale: number} {
  const scaled = /^scaled=(\d+(?:\.\d+)?)$/.exec(text);
  if (scaled !== null && Number(scaled[1]) > 0) return {time: 'scaled', scale: Number(scaled[1])};
  if (text !== 'scaled' && (TIMES as readonly string[]).includes(text)) {
    return {time: text as TimeMode, scale: 1};
  }
  throw new UserError(
    `--time ${text}: expected asap, timed, think or scaled=X with X > 0; choose one of them`,
    EXIT.usage,
  );
}

/** Checks that `text` is one of `choices`. */
export function oneOf<T extends string>(flag: string, text: string, choices: readonly T[]): T {
  if ((choices as readonly string[]).includes(text)) return text as T;
  throw new UserError(`${flag} ${text}: expected one of ${choices.join(', ')}`, EXIT.usage);
}
