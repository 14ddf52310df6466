// Latency distributions: 3 significant digits (a percentile is at most 0.1 % too high), plus exact
// count, mean, minimum and maximum.
//
// Values are integers: nanoseconds, or finer ticks when `ticksPerNs` says so (the machine's clock
// has 10 per ns). Recording is on the path of every simulated operation, so it only counts into an
// array whose cells are HDR histogram's own value classes; the percentiles come from that library
// when a summary is asked for. (Calling the library per value costs 140 ns on the host, the array
// 10 ns.) A recorder takes 8 KiB per power of two between 2048 ticks and its largest value.
// Merging is exact: merge(a, b) has the same summary as one recorder that saw everything.

import {build, type Histogram} from 'hdr-histogram-js';
import {assert} from './errors.ts';
import type {LatencyNs} from './run.ts';

const SIGNIFICANT_DIGITS = 3;
/** Values below 2048 have a cell each; above, 1024 cells per power of two (HDR's 3 digits). */
const LINEAR = 2048;
const PER_OCTAVE = 1024;

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
  #counts = new Float64Array(LINEAR);
  #folded: Histogram | undefined;
  #count = 0;
  #sumTicks = 0;
  #minTicks = Number.POSITIVE_INFINITY;
  #maxTicks = 0;

  constructor(ticksPerNs = 1) {
    assert(Number.isInteger(ticksPerNs) && ticksPerNs >= 1, 'ticksPerNs is a positive integer');
    this.ticksPerNs = ticksPerNs;
  }

  /** Adds `times` observations of one value, a non-negative integer number of ticks. */
  record(valueTicks: number, times = 1): void {
    if (!(Number.isSafeInteger(valueTicks) && valueTicks >= 0)) refuse(valueTicks);
    const cell = cellOf(valueTicks);
    if (cell >= this.#counts.length) this.#grow(cell);
    this.#counts[cell] += times;
    this.#count += times;
    this.#sumTicks += valueTicks * times;
    if (valueTicks < this.#minTicks) this.#minTicks = valueTicks;
    if (valueTicks > this.#maxTicks) this.#maxTicks = valueTicks;
    this.#folded = undefined;
  }

  #grow(cell: number): void {
    const cells = (Math.floor(cell / PER_OCTAVE) + 1) * PER_OCTAVE;
    const counts = new Float64Array(cells);
    counts.set(this.#counts);
    this.#counts = counts;
  }

  /** Adds everything that `other` saw. Both must use the same ticks. */
  merge(other: LatencyRecorder): void {
    assert(other.ticksPerNs === this.ticksPerNs, 'recorders with different ticks');
    const theirs = other.#counts;
    if (theirs.length > this.#counts.length) this.#grow(theirs.length - 1);
    for (let i = 0; i < theirs.length; i++) this.#counts[i] += theirs[i];
    this.#count += other.#count;
    this.#sumTicks += other.#sumTicks;
    this.#minTicks = Math.min(this.#minTicks, other.#minTicks);
    this.#maxTicks = Math.max(this.#maxTicks, other.#maxTicks);
    this.#folded = undefined;
  }

  #histogram(): Histogram {
    if (this.#folded) return this.#folded;
    const histogram = build({
      bitBucketSize: 64,
      autoResize: false,
      highestTrackableValue: Math.max(2, this.#maxTicks),
      numberOfSignificantValueDigits: SIGNIFICANT_DIGITS,
      useWebAssembly: false,
    });
    const last = cellOf(this.#maxTicks);
    for (let cell = cellOf(this.#minTicks); cell <= last; cell++) {
      const count = this.#counts[cell];
      if (count > 0) histogram.recordValueWithCount(lowestOf(cell), count);
    }
    this.#folded = histogram;
    return histogram;
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
    const ticks = this.#histogram().getValueAtPercentile(percentile);
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

  /**
   * Counts by power of two: `[fromNs, toNs)` and how many. Empty ends are left out, inner gaps are
   * kept.
   */
  log2Counts(): readonly Log2Count[] {
    const byBits: number[] = [];
    this.#counts.forEach((count, cell) => {
      const bits = bitsOf(lowestOf(cell));
      byBits[bits] = (byBits[bits] ?? 0) + count;
    });
    const first = byBits.findIndex((count) => count > 0);
    const last = byBits.findLastIndex((count) => count > 0);
    if (first < 0) return [];
    return byBits.slice(first, last + 1).map((count, i) => {
      const bits = first + i;
      const fromTicks = bits === 0 ? 0 : 2 ** (bits - 1);
      return {fromNs: fromTicks / this.ticksPerNs, toNs: 2 ** bits / this.ticksPerNs, count};
    });
  }
}

/** One bar of a power-of-two histogram. */
export interface Log2Count {
  readonly fromNs: number;
  readonly toNs: number;
  readonly count: number;
}

/** Apart from record(), whose fast path must not build a message that nobody reads. */
function refuse(valueTicks: number): never {
  throw new Error(`mmreplay bug: latency of ${valueTicks} ticks`);
}

/** HDR's value class of a value: the top 11 bits and how far they are shifted. */
function cellOf(value: number): number {
  if (value < LINEAR) return value;
  if (value < 2 ** 31) {
    const shift = 21 - Math.clz32(value);
    return shift * PER_OCTAVE + (value >>> shift);
  }
  let shift = 20;
  let top = value / 2 ** 20;
  while (top >= LINEAR) {
    top /= 2;
    shift++;
  }
  return shift * PER_OCTAVE + Math.floor(top);
}

/** The smallest value of a class: the inverse of cellOf. */
function lowestOf(cell: number): number {
  if (cell < LINEAR) return cell;
  const shift = Math.floor(cell / PER_OCTAVE) - 1;
  return (cell - shift * PER_OCTAVE) * 2 ** shift;
}

/** 0 -> 0, 1 -> 1, 2..3 -> 2, 4..7 -> 3, ... : the number of bits of the value. */
function bitsOf(value: number): number {
  if (value < 2 ** 31) return 32 - Math.clz32(value);
  let bits = 32;
  while (2 ** bits <= value) bits++;
  return bits;
}
