// Numbers of the scheduler, with their origin. Times in ticks.
//
// Linux: kernel/sched/fair.c (sysctl_sched_latency 6 ms, sysctl_sched_min_granularity 0.75 ms,
// renamed sysctl_sched_base_slice in 6.6 and 0.7 ms from 6.13, sysctl_sched_wakeup_granularity 1
// ms, all times 1 + ilog2 of the CPUs, of which at most 8 count; sched_nr_latency 8;
// sysctl_sched_migration_cost 0.5 ms; sched_nr_migrate 32). HZ is 250, the default of Kconfig.hz
// and of the server kernels of Debian and Ubuntu.

import {nsToTicks} from '../../machine/time.ts';
import {isBefore} from '../version.ts';

export const HZ = 250;
export const JIFFY_TICKS = nsToTicks(1e9 / HZ);

/**
 * How `contextSwitch` of a machine file divides. It is a whole hand-over: wake-up, pick, switch,
 * other mm. Assumption.
 */
export const WAKE_SHARE = 0.25;
export const SCHEDULE_SHARE = 0.5;
export const MM_SWITCH_SHARE = 0.25;

/**
 * Idle states: leaving one takes `exitTicks`, and the CPU is in the deepest whose `residencyTicks`
 * it has been idle for. C1 and C1E of intel_idle's skx_cstates (2 and 10 us to leave, 2 and 20 us
 * to stay). Assumption: nothing deeper, as with the latency limit of server tuning profiles; and
 * the governor guesses right.
 */
export const IDLE_STATES: readonly {exitTicks: number; residencyTicks: number}[] = [
  {exitTicks: nsToTicks(2_000), residencyTicks: nsToTicks(2_000)},
  {exitTicks: nsToTicks(10_000), residencyTicks: nsToTicks(20_000)},
];
/**
 * Below the first residency the CPU still polls need_resched (idle loop entry): no IPI, no exit.
 * Assumption.
 */
export const POLL_IDLE_EXIT_TICKS = nsToTicks(150);

/** Body of the scheduler tick, after interrupt entry. Assumption. */
export const TICK_BODY_TICKS = nsToTicks(700);
/** Body of the reschedule interrupt and of a wake-up timer. Assumption. */
export const RESCHEDULE_BODY_TICKS = nsToTicks(50);
export const HRTIMER_BODY_TICKS = nsToTicks(200);
/** One run queue looked at while balancing, its lines apart. Assumption. */
export const BALANCE_PER_CPU_TICKS = nsToTicks(8);
/** Tasks looked at on the busiest queue (sched_nr_migrate). */
export const MIGRATE_SCAN = 32;

/** What a kernel version and a number of CPUs make of the sysctls. */
export interface FairTunables {
  readonly latencyTicks: number;
  readonly minGranularityTicks: number;
  readonly wakeupGranularityTicks: number;
  readonly latencyTasks: number;
  /** 6.6 on: one slice for all, and a woken task preempts when its deadline is the earlier one. */
  readonly eevdf: boolean;
  /** 6.12 on (DELAY_DEQUEUE, DELAY_ZERO): see fair.ts. */
  readonly delayDequeue: boolean;
}

export function fairTunables(version: string, cpuCount: number): FairTunables {
  const factor = 1 + Math.floor(Math.log2(Math.min(cpuCount, 8)));
  const base = isBefore(version, '6.13') ? 750_000 : 700_000;
  return {
    latencyTicks: nsToTicks(6_000_000 * factor),
    minGranularityTicks: nsToTicks(base * factor),
    wakeupGranularityTicks: nsToTicks(1_000_000 * factor),
    latencyTasks: 8,
    eevdf: !isBefore(version, '6.6'),
    delayDequeue: !isBefore(version, '6.12'),
  };
}
