// Base costs of the OOM killer and reaper in ticks, and the profile numbers of their functions.
// None of them is in a recording: all are assumptions.

import {nsToTicks as ns} from '../../machine/time.ts';
import type {Kernel} from '../kernel.ts';

export const COSTS_OOM = {
  /** out_of_memory without the walk: constraints, notifier chain. */
  outOfMemoryTicks: ns(2_000),
  /** oom_badness of one process: the sum of its counters. */
  badnessTicks: ns(120),
  /**
   * dump_header: some hundred lines of printk into the ring buffer, no console behind it. Rate
   * limits are not kept.
   */
  dumpHeaderTicks: ns(400_000),
  /** The line that says who was killed, and the signal's own work. */
  killTicks: ns(6_000),
  /** process_mrelease: pidfd and checks. */
  mreleaseTicks: ns(700),
} as const;

const NAMES = [
  'out_of_memory',
  'oom_badness',
  'oom_kill_process',
  'mem_cgroup_out_of_memory',
  'oom_reaper',
  'process_mrelease',
  'pagefault_out_of_memory',
] as const;

/** Profile ids by function name. */
export type OomFns = Readonly<Record<(typeof NAMES)[number], number>>;

/** Interns every name. */
export function oomFns(kernel: Kernel): OomFns {
  return Object.fromEntries(NAMES.map((name) => [name, kernel.fn(name)])) as OomFns;
}
