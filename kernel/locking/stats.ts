// Lock statistics by lock class, as /proc/lock_stat groups them: how often taken, how often waited
// for, for how long, on whose behalf, and how far the lock travelled from one holder's CPU to the
// next.
//
// Identities that a test holds: the sum of `handoff` is `acquired` minus the first acquisition of
// each lock (a lock's first holder has no predecessor); the sum over `waitTicksByCaller` is
// `waitTicks`; `contended` <= `acquired`. Cost: two additions per acquisition, three when the
// holder's CPU changes; callers are kept only for waits.

import type {Profile} from '../../machine/profile.ts';

/** Number of distances that the topology tells apart. */
const DISTANCES = 6;

/** One row of `LockRegistry.report`. Times are ticks. */
export interface LockReport {
  readonly acquired: number;
  readonly contended: number;
  readonly waitTicks: number;
  readonly holdTicks: number;
  /** Hand-offs by distance of the CPUs, index as in the topology's DISTANCE_NAMES. */
  readonly handoff: Float64Array;
  readonly waitTicksByCaller: ReadonlyMap<string, number>;
}

/** Counters of one lock class. */
export class LockStats {
  acquired = 0;
  contended = 0;
  waitTicks = 0;
  holdTicks = 0;
  /** Acquisitions of locks that nobody had held before. */
  first = 0;
  /** Hand-offs between different CPUs, by distance; those on one CPU are the rest. */
  readonly handoff = new Float64Array(DISTANCES);
  private readonly waits = new Map<number, number>();

  constructor(readonly className: string) {}

  /** The function with profile id `fn` waited for a lock of this class. */
  waited(fn: number, ticks: number): void {
    this.waitTicks += ticks;
    this.waits.set(fn, (this.waits.get(fn) ?? 0) + ticks);
  }

  /** Forgets what was counted: the measurement starts here. */
  reset(): void {
    this.acquired = 0;
    this.contended = 0;
    this.waitTicks = 0;
    this.holdTicks = 0;
    this.first = 0;
    this.handoff.fill(0);
    this.waits.clear();
  }

  report(profile: Profile): LockReport {
    const byCaller = new Map<string, number>();
    for (const [fn, ticks] of this.waits) byCaller.set(profile.names[fn], ticks);
    const handoff = this.handoff.slice();
    handoff[0] = this.acquired - this.first - handoff.reduce((sum, count) => sum + count, 0);
    return {
      acquired: this.acquired,
      contended: this.contended,
      waitTicks: this.waitTicks,
      holdTicks: this.holdTicks,
      handoff,
      waitTicksByCaller: byCaller,
    };
  }
}
