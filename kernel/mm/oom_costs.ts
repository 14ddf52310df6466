// Base costs of the OOM killer and reaper in ticks, and the profile numbers of their functions.
// "Measured": kills in a memory cgroup (v1) of two processes, nine times, and process_mrelease of a
// frozen victim, on Linux 6.18 in a 2-vCPU EPYC guest, divided by that machine's kernelWork;
// docs/calibration.md has the method.

import {nsToTicks as ns} from '../../machine/time.ts';
import {scaledCosts} from '../costs.ts';
import type {Kernel} from '../kernel.ts';

export const COSTS_OOM = {
  /**
   * out_of_memory without the walk: constraints, notifier chain. Measured: from the last reclaim
   * to the first line printed, 13 us.
   */
  outOfMemoryTicks: ns(4_500),
  /** oom_badness of one process: the sum of its counters. Assumption. */
  badnessTicks: ns(120),
  /**
   * dump_header: some ninety lines of printk into the ring buffer, a console with loglevel 4 behind
   * it. Measured: 340 us (390 to 590 with a tracepoint at each line). Rate limits are not kept.
   */
  dumpHeaderTicks: ns(126_000),
  /** The lines that say who was killed, and the signal's own work. Measured: 18 us. */
  killTicks: ns(6_700),
  /** process_mrelease: pidfd and checks. Measured: a second call, which finds nothing, 4.9 us. */
  mreleaseTicks: ns(1_550),
} as const;

export type OomCosts = Readonly<Record<keyof typeof COSTS_OOM, number>>;

/** The costs on the machine of `kernel`. */
export function oomCosts(kernel: Kernel): OomCosts {
  return scaledCosts(COSTS_OOM, kernel.machine.topology.kernelWork);
}

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
