// Collects what happens to operations while they are replayed: latencies by kind, outcomes,
// lateness.

import {KIND_BY_CODE, KIND_LIMIT} from '../formats/kinds.ts';
import {TICKS_PER_NS} from '../machine/time.ts';
import {LatencyRecorder} from '../results/latency.ts';
import type {OpReport} from '../results/run.ts';
import type {Outcome} from './bind/binding.ts';

/** Counts and latencies of one run's operations. */
export class OpRecorder {
  readonly lateness = new LatencyRecorder(TICKS_PER_NS);
  /** Invalidations that notifiers heard of, from their start to their end. */
  readonly invalidations = new LatencyRecorder(TICKS_PER_NS);
  done = 0;
  skipped = 0;
  failed = 0;
  /** Carried out, but with another result than recorded. */
  differed = 0;
  private readonly latencies: (LatencyRecorder | undefined)[] = new Array(KIND_LIMIT).fill(
    undefined,
  );

  record(kind: number, ticks: number, outcome: Outcome): void {
    if (outcome === 'skipped') {
      this.skipped++;
      return;
    }
    if (outcome === 'done') this.done++;
    else this.failed++;
    let latency = this.latencies[kind];
    if (latency === undefined) {
      latency = new LatencyRecorder(TICKS_PER_NS);
      this.latencies[kind] = latency;
    }
    latency.record(ticks);
  }

  /** Latencies by operation name, in kind order. */
  report(): Record<string, OpReport> {
    const ops: Record<string, OpReport> = {};
    this.latencies.forEach((latency, kind) => {
      const name = KIND_BY_CODE[kind]?.name;
      if (latency !== undefined && name !== undefined) {
        ops[name] = {count: latency.count, ns: latency.summary()};
      }
    });
    return ops;
  }
}
