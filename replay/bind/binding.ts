// Binds trace operations to the kernel's entry points: a table from operation kind to simulated
// code.
//
// Addresses become page numbers (address >>> 12, exact for all 64 bits). What the kernel does not
// model yet is charged a base cost and named in `warnings` (user_memory.ts); an operation without a
// binding is skipped and counted.

import type {EventColumns} from '../../formats/columns.ts';
import type {Kernel} from '../../kernel/kernel.ts';
import type {Task} from '../../kernel/task.ts';
import type {Code} from '../../machine/process.ts';
import type {PageContents} from '../contents.ts';
import type {RecordedFiles} from './recorded_files.ts';

/** How an operation ended. */
export type Outcome = 'done' | 'skipped' | 'failed';

/** What bindings of one copy of a trace share. */
export interface BindingContext {
  readonly kernel: Kernel;
  readonly events: EventColumns;
  readonly strings: readonly string[];
  readonly copy: number;
  /** What recorded names (addresses, ids) stand for in this run, by binding. */
  readonly names: Map<string, number>;
  /** Files of the recording; every binding that maps a file by name gets it here. */
  readonly files: RecordedFiles;
  /** What pages hold; null in a replay that does not need to know. */
  readonly contents: PageContents | null;
  /**
   * Where a quick binding stopped that returned LATER or BLOCKS; read before anything else runs.
   */
  resume: number;
  /** Simulated pid of a recorded one. */
  pidOf(recordedTid: number): number;
  /**
   * Simulated pid of the child that a recorded wait4 returned, 0 when any child will do,
   * NO_CHILD_YET when it polled and got none.
   */
  reapedPid(op: number): number;
}

/** reapedPid of a poll that found no dead child. */
export const NO_CHILD_YET = -1;

/** Carries out operation `op`, which is event `i`, for `t`. */
export type Binding = (context: BindingContext, t: Task, i: number, op: number) => Code<Outcome>;

/**
 * From a quick binding: the process's resumption is queued; yield, then call it again from
 * `context.resume`.
 */
export const LATER = 'later';
/** From a quick binding: go on with the other half, which finds `context.resume`. */
export const BLOCKS = 'blocks';

/**
 * What a quick binding says: all of them names, so that comparing two is comparing their addresses.
 */
export type QuickOutcome = Outcome | typeof LATER | typeof BLOCKS;

/**
 * The plain half of a binding: never yields. `from`: where it stopped before with LATER, 0 at
 * first.
 */
export type QuickBinding = (
  context: BindingContext,
  t: Task,
  i: number,
  from: number,
) => QuickOutcome;

/** Bindings by kind code. */
export type BindingTable = readonly (readonly [kind: number, binding: Binding])[];
export type QuickBindingTable = readonly (readonly [kind: number, binding: QuickBinding])[];

/** Page number of the address in argument `k`. */
export function vpnArg(events: EventColumns, i: number, k: number): number {
  const at = events.argStart[i] + k;
  return events.argHi[at] * 0x100000 + (events.argLo[at] >>> 12);
}

/** A length that no address space has: what a call with a garbage length is given. */
const NO_SPACE_PAGES = 2 ** 45;
/** Bytes of a page: traces give bytes, the kernel counts pages. */
export const PAGE_BYTES = 4096;

/** Pages that the length in argument `k` takes, from `offset` bytes into the first on. */
export function lengthPages(events: EventColumns, i: number, k: number, offset = 0): number {
  const at = events.argStart[i] + k;
  if (events.argHi[at] >= 0x100_0000) return NO_SPACE_PAGES;
  return Math.ceil((offset + events.argHi[at] * 2 ** 32 + events.argLo[at]) / PAGE_BYTES);
}

/** True when the address in argument `k` is the start of a page: most calls refuse others. */
export function isAligned(events: EventColumns, i: number, k: number): boolean {
  return events.argLo[events.argStart[i] + k] % PAGE_BYTES === 0;
}

/** Argument `k`, of which the kernel looks at the low half: flags, a protection, an advice. */
export function flagsArg(events: EventColumns, i: number, k: number): number {
  return events.argLo[events.argStart[i] + k];
}

/** A kernel result (negative errno on failure) as an outcome. */
export function outcomeOf(result: number): Outcome {
  return result < 0 ? 'failed' : 'done';
}
