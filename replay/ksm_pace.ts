// How the recorded ksmd was set up: recordings do not state what was written to /sys/kernel/mm/ksm,
// and mostly it was before they began.
//
// ksmd looks at pages_to_scan pages, sleeps, and goes on; so a full scan of `items` pages in which
// it slept n times says items / (n + 1) < pages_to_scan < items / n (that there is no further page
// is noticed by looking for one). Scans in which smart scan leaves pages out would say less: only
// those of the first scans that see the most pages count. It sleeps whole timer ticks: from the end
// of one scan to the start of the next is one sleep.

import {JIFFY_TICKS} from '../kernel/sched/tunables.ts';
import {ticksToNs} from '../machine/time.ts';
import type {KsmRecording, Scan} from './ksm_recording.ts';

/** Settings of ksmd as far as they show. */
export interface KsmPace {
  readonly pagesToScan: number;
  readonly sleepMs: number;
  readonly maxPageSharing: number;
  readonly useZeroPages: boolean;
}

const DEFAULTS: KsmPace = {
  pagesToScan: 100,
  sleepMs: 20,
  maxPageSharing: 256,
  useZeroPages: false,
};
/** Scans before smart scan first leaves a page out (should_skip_rmap_item). */
const FULL_SCANS = 3;

/** Infers the settings; null when the recording shows no scan. */
export function inferPace({scans, zeros, mostSharing}: KsmRecording): KsmPace | null {
  if (scans.length === 0) return null;
  return {
    pagesToScan: pagesToScan(scans),
    sleepMs: sleepMs(scans),
    maxPageSharing: Math.max(DEFAULTS.maxPageSharing, mostSharing),
    useZeroPages: zeros > 0,
  };
}

function pagesToScan(scans: readonly Scan[]): number {
  const most = Math.max(...scans.map(({items}) => items));
  const full = scans.filter(({items, sleeps}) => items === most && sleeps > 0).slice(0, FULL_SCANS);
  if (full.length === 0) return Math.max(most + 1, DEFAULTS.pagesToScan);
  const low = Math.max(...full.map(({items, sleeps}) => Math.floor(items / (sleeps + 1)) + 1));
  const high = Math.min(...full.map(({items, sleeps}) => Math.ceil(items / sleeps) - 1));
  return roundest(Math.min(low, high), Math.max(low, high));
}

/**
 * The number that a person would have written: fewest digits before the zeros, then nearest to the
 * middle.
 */
export function roundest(low: number, high: number): number {
  for (let unit = 10 ** Math.floor(Math.log10(Math.max(1, high))); unit >= 1; unit /= 10) {
    const middle = (low + high) / 2;
    const near = [Math.floor(middle / unit) * unit, Math.ceil(middle / unit) * unit];
    near.sort((a, b) => Math.abs(a - middle) - Math.abs(b - middle));
    const found = near.find((value) => value >= low && value <= high);
    if (found !== undefined) return found;
  }
  return low;
}

function sleepMs(scans: readonly Scan[]): number {
  const jiffyNs = ticksToNs(JIFFY_TICKS);
  const jiffies = scans
    .slice(1)
    .map(({startNs}, k) => Math.ceil((startNs - scans[k].endNs) / jiffyNs))
    .filter((count) => Number.isFinite(count) && count > 0)
    .sort((a, b) => a - b);
  if (jiffies.length === 0) return DEFAULTS.sleepMs;
  return (jiffies[jiffies.length >> 1] * jiffyNs) / 1e6;
}
