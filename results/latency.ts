// Latency distributions: an HDR histogram (3 significant digits, so a percentile is at most 0.1 % too high),
// plus exact count, sum, minimum and maximum, plus counts by power of two for the drawing.
//
// Values are integers: nanoseconds, or finer ticks when `ticksPerNs` says so (the machine's clock has 10 per ns).
// Recording costs about 20 ns on the host; a recorder costs about 8 KiB per power of two between 2048 ticks and
// the largest value. Merging is exact: merge(a, b) has the same summary as one recorder that saw everything.

import {build, type Histogram} from 'hdr-histogram-js';
import {assert} from './errors.ts';
import type {LatencyNs} from './run.ts';

const SIGNIFICANT_DIGITS = 3;
const LOG2_BUCKETS = 54;

/** Summary of nothing: all zeros. */
export const NO_LATENCY: LatencyNs = Object.freeze({
  mean: 0,
  p50: 0,
  p90: 0,
  p99: 0,
  p999: 0,
  max: 0,
});

/** Collects latencies of one kind of operation; see the head of the file for units and cost. */
export class LatencyRecorder {
  readonly ticksPerNs: number;
  readonly #histogram: Histogram;
  readonly #log2 = new Float64Array(LOG2_BUCKETS);
  #count = 0;
  #sumTicks = 0;
  #minTicks = Number.POSITIVE_INFINITY;
  #maxTicks = 0;

  constructor(ticksPerNs = 1) {
    assert(Number.isInteger(ticksPerNs) && ticksPerNs >= 1, 'ticksPerNs is a positive integer');
    this.ticksPerNs = ticksPerNs;
    this.#histogram = build({
      bitBucketSize: 64,
      autoResize: true,
      numberOfSignificantValueDigits: SIGNIFICANT_DIGITS,
      useWebAssembly: false,
    });
  }

  /** Adds `times` observations of one value, a non-negative integer number of ticks. */
  record(valueTicks: number, times = 1): void {
    assert(Number.isSafeInteger(valueTicks) && valueTicks >= 0, `latency ${valueTicks} ticks`);
    if (times === 1) this.#histogram.recordValue(valueTicks);
    else this.#histogram.recordValueWithCount(valueTicks, times);
    this.#log2[log2Bucket(valueTicks)] += times;
    this.#count += times;
    this.#sumTicks += valueTicks * times;
    if (valueTicks < this.#minTicks) this.#minTicks = valueTicks;
    if (valueTicks > this.#maxTicks) this.#maxTicks = valueTicks;
  }

  /** Adds everything that `other` saw. Both must use the same ticks. */
  merge(other: LatencyRecorder): void {
    assert(other.ticksPerNs === this.ticksPerNs, 'recorders with different ticks');
    if (other.#count === 0) return;
    this.#histogram.add(other.#histogram);
    for (let i = 0; i < LOG2_BUCKETS; i++) this.#log2[i] += other.#log2[i];
    this.#count += other.#count;
    this.#sumTicks += other.#sumTicks;
    this.#minTicks = Math.min(this.#minTicks, other.#minTicks);
    this.#maxTicks = Math.max(this.#maxTicks, other.#maxTicks);
  }

  get count(): number {
    return this.#count;
  }

  /** Smallest value seen in ns; 0 when nothing was recorded. */
  get minNs(): number {
    return this.#count === 0 ? 0 : this.#minTicks / this.ticksPerNs;
  }

  /** The value that `percentile` (0..100) percent of the observations do not exceed, in ns. */
  percentileNs(percentile: number): number {
    if (this.#count === 0) return 0;
    const ticks = this.#histogram.getValueAtPercentile(percentile);
    // The histogram answers with the top of a bucket; never print more than was ever seen.
    return Math.min(Math.max(ticks, this.#minTicks), this.#maxTicks) / this.ticksPerNs;
  }

  /** Mean and maximum are exact, percentiles within 0.1 %. */
  summary(): LatencyNs {
    if (this.#count === 0) return NO_LATENCY;
    return {
      mean: this.#sumTicks / this.#count / this.ticksPerNs,
      p50: this.percentileNs(50),
      p90: this.percentileNs(90),
      p99: this.percentileNs(99),
      p999: this.percentileNs(99.9),
      max: this.#maxTicks / this.ticksPerNs,
    };
  }

  /** Counts by power of two: `[fromNs, toNs)` and how many. Empty ends are left out, inner gaps are kept. */
  log2Counts(): readonly Log2Count[] {
    let first = 0;
    while (first < LOG2_BUCKETS && this.#log2[first] === 0) first++;
    let last = LOG2_BUCKETS - 1;
    while (last > first && this.#log2[last] === 0) last--;
    const counts: Log2Count[] = [];
    for (let i = first; i <= last && i < LOG2_BUCKETS; i++) {
      const from = i === 0 ? 0 : 2 ** (i - 1);
      const to = i === 0 ? 1 : 2 ** i;
      counts.push({
        fromNs: from / this.ticksPerNs,
        toNs: to / this.ticksPerNs,
        count: this.#log2[i],
      });
    }
    return counts;
  }
}

/** One bar of a power-of-two histogram. */
export interface Log2Count {
  readonly fromNs: number;
  readonly toNs: number;
  readonly count: number;
}

/** 0 -> 0, 1 -> 1, 2..3 -> 2, 4..7 -> 3, ... : the number of bits of the value. */
function log2Bucket(value: number): number {
  if (value < 2 ** 31) return 32 - Math.clz32(value);
  let bits = 32;
  while (2 ** bits <= value) bits++;
  return bits;
}
