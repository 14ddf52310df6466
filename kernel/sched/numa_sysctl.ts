// The knobs of NUMA balancing: kernel.numa_balancing, and scan_delay_ms, scan_period_min_ms,
// scan_period_max_ms and scan_size_mb, which are files of /sys/kernel/debug/sched/numa_balancing
// (5.13+) or sysctls kernel.numa_balancing_* (before). Both names are taken.

import {EINVAL} from '../errno.ts';
import type {NumaBalancing, NumaSettings} from './numa.ts';

const PATH = /^\/(?:proc\/sys\/kernel|sys\/kernel\/debug\/sched)\/numa_balancing(?:[_/](\w+))?$/;
const KNOBS: Readonly<Record<string, Exclude<keyof NumaSettings, 'enabled'>>> = {
  scan_delay_ms: 'scanDelayMs',
  scan_period_min_ms: 'scanPeriodMinMs',
  scan_period_max_ms: 'scanPeriodMaxMs',
  scan_size_mb: 'scanSizeMb',
};

/** True for a path of this file's. */
export function isNumaPath(path: string): boolean {
  return PATH.test(path);
}

/**
 * Writes `value` to `path`: 0 or -EINVAL. Balancing cannot be switched on where there is one node,
 * or no balancing in this kernel.
 */
export function numa_store(numa: NumaBalancing, path: string, value: string): number {
  const knob = PATH.exec(path)?.[1];
  const number = Number(value);
  if (!Number.isInteger(number) || number < 0) return -EINVAL;
  if (knob === undefined) {
    numa.settings.enabled = number !== 0 && numa.k.sched.taskWork !== null;
    return 0;
  }
  const name = KNOBS[knob];
  if (name === undefined || number === 0) return -EINVAL;
  numa.settings[name] = number;
  return 0;
}
