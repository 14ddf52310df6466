// The detectors of tasks that do not let go: soft lockup (20 s without a scheduling point, looked
// at every 4 s), hung task (120 s in uninterruptible sleep). The RCU stall (21 s) is with RCU.
//
// No events: a CPU's gap is looked at when it ends, at the scheduling point. The kernel's 4 s
// sample decides whether the gap was seen: it was if a sample fell later than 20 s after the gap
// began. Cost: one subtraction per point.

import {nsToTicks, ticksToNs} from '../../machine/time.ts';
import type {Kernel} from '../kernel.ts';
import type {Task} from '../task.ts';
import type {RunQueue} from './runqueue.ts';

export const SOFT_LOCKUP_TICKS = nsToTicks(20e9);
export const SAMPLE_TICKS = nsToTicks(4e9);
export const HUNG_TASK_TICKS = nsToTicks(120e9);

/** Soft lockups and hung tasks. */
export class Watchdog {
  /** Longest gap between scheduling points so far, over all CPUs. */
  longestGapTicks = 0;

  constructor(readonly kernel: Kernel) {}

  /** `rq`'s CPU passes a scheduling point; `t` is who ran. */
  touch(rq: RunQueue, now: number, t: Task | null): void {
    const gap = now - rq.schedulingPoint;
    if (gap > this.longestGapTicks) this.longestGapTicks = gap;
    if (gap > SOFT_LOCKUP_TICKS) this.gapEnds(rq, now, t);
    rq.schedulingPoint = now;
  }

  private gapEnds(rq: RunQueue, now: number, t: Task | null): void {
    const began = rq.schedulingPoint;
    const sample = (Math.floor((began + SOFT_LOCKUP_TICKS) / SAMPLE_TICKS) + 1) * SAMPLE_TICKS;
    if (sample > now) return;
    const {checks} = this.kernel;
    checks.softLockups++;
    const seconds = Math.floor(ticksToNs(sample - began) / 1e9);
    const who = t === null ? 'nobody' : `${t.comm}:${t.tid}`;
    checks.finding(`watchdog: BUG: soft lockup - CPU#${rq.cpu.id} stuck for ${seconds}s! [${who}]`);
  }

  /** `t` wakes after it slept since `sleptSince`. */
  woken(t: Task, sleptSince: number, now: number): void {
    if (t.se.interruptible || t.se.killable || now - sleptSince <= HUNG_TASK_TICKS) return;
    this.kernel.checks.count('hung_tasks');
    this.kernel.checks.finding(`INFO: task ${t.comm}:${t.tid} blocked for more than 120 seconds`);
  }
}
