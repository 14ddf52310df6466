// Grades times: a replay in causal order with think time, each call's simulated time against its
// recorded one.
//
// A recorded call lasts from its first event to sys_exit, the faults inside it included; here that
// is the sum of the operations from the call to the last one inside it. Of wait4 only the time on
// the CPU counts, on both sides: how long a child lives is not its work.
//  Recorded times contain the recorder: every tracepoint that fires costs
// about a microsecond, more than a page fault itself. So the same cost is added to the simulated
// side, for the number of tracepoints that fired in the recording; the model alone is given too.
// Medians are compared, because a recorded mean is moved by single interruptions of the guest;
// means are given beside them.

import {KIND} from '../formats/kinds.ts';
import type {Task} from '../kernel/task.ts';
import {ticksToNs} from '../machine/time.ts';
import type {DurationReport} from '../results/verify.ts';
import type {ReplayObserver} from './observer.ts';
import type {CompiledTrace} from './tracks.ts';
import type {Recorded, RecordedDuration} from './verify_record.ts';

/** Keeps how long every operation took. */
export class TimingObserver implements ReplayObserver {
  /** By operation, NaN where it did not end. */
  readonly ns: Float64Array;
  /** CPU time of the task when its wait4 began. */
  private readonly cpuTicks = new Map<Task, number>();

  constructor(
    private readonly compiled: CompiledTrace,
    private readonly engine: {readonly now: number},
  ) {
    this.ns = new Float64Array(compiled.opCount).fill(Number.NaN);
  }

  began(t: Task, op: number): void {
    if (this.isWait(op)) this.cpuTicks.set(t, this.ranTicks(t));
  }

  ended(t: Task, op: number, ticks: number): void {
    const before = this.cpuTicks.get(t);
    const waited = this.isWait(op) && before !== undefined;
    this.ns[op] = ticksToNs(waited ? this.ranTicks(t) - before : ticks);
  }

  private isWait(op: number): boolean {
    const {events} = this.compiled.trace;
    return events.kind[this.compiled.opEvent[op]] === KIND.wait4;
  }

  /** CPU time of a task that runs. */
  private ranTicks({se, cpu}: Task): number {
    return se.sumExecTicks + this.engine.now + cpu.pendingTicks - se.execStart;
  }
}

/** Less than any exception takes. */
const NO_FAULT_NS = 50;

interface Pair {
  readonly recordedNs: number;
  readonly simulatedNs: number;
  readonly records: number;
}

/** Recorded against simulated durations by name, most frequent first. */
export function gradeDurations(
  compiled: CompiledTrace,
  {durations, lives, opLife, recordCostNs}: Recorded,
  simulated: TimingObserver,
): Record<string, DurationReport> {
  const pairs = new Map<string, Pair[]>();
  for (const duration of durations) {
    // What an address space of unknown content costs is unknown, too; an exec leaves it behind.
    if (duration.name !== 'exec' && !(lives[opLife[duration.op]]?.known ?? false)) continue;
    const simulatedNs = simulatedTime(compiled, duration, simulated.ns);
    const sleptNs = duration.name === 'wait4' ? duration.sleptNs : 0;
    const recordedNs = duration.wallNs - duration.preemptedNs - sleptNs;
    // An access that does not fault here (what ksmd would have merged is not, in this order) has no
    // time to compare.
    const faulted = !duration.name.startsWith('page_fault') || simulatedNs >= NO_FAULT_NS;
    if (Number.isNaN(simulatedNs) || recordedNs <= 0 || !faulted) continue;
    const pair = {recordedNs, simulatedNs, records: duration.records};
    const list = pairs.get(duration.name);
    if (list === undefined) pairs.set(duration.name, [pair]);
    else list.push(pair);
  }
  const sorted = [...pairs].sort((a, b) => b[1].length - a[1].length || (a[0] < b[0] ? -1 : 1));
  return Object.fromEntries(sorted.map(([name, list]) => [name, report(list, recordCostNs)]));
}

/** Time of the call's operation and of those of the same task inside it. */
function simulatedTime(
  compiled: CompiledTrace,
  duration: RecordedDuration,
  ns: Float64Array,
): number {
  const {op, lastOp} = duration;
  let sum = ns[op];
  if (lastOp <= op) return sum;
  const track = compiled.opTrack[op];
  for (let inner = op + 1; inner <= lastOp; inner++) {
    if (compiled.opTrack[inner] === track && !Number.isNaN(ns[inner])) sum += ns[inner];
  }
  return sum;
}

function report(pairs: readonly Pair[], recordCostNs: number): DurationReport {
  const recorded = pairs.map((pair) => pair.recordedNs);
  const untraced = pairs.map((pair) => pair.simulatedNs);
  const traced = pairs.map((pair) => pair.simulatedNs + pair.records * recordCostNs);
  const corrected = median(pairs.map((pair) => pair.recordedNs - pair.records * recordCostNs));
  return {
    count: pairs.length,
    recorded_ns: median(recorded),
    simulated_ns: median(traced),
    ratio: median(traced) / median(recorded),
    recorded_mean_ns: mean(recorded),
    simulated_mean_ns: mean(traced),
    mean_ratio: mean(traced) / mean(recorded),
    records: mean(pairs.map((pair) => pair.records)),
    untraced_ns: median(untraced),
    raw_ratio: median(untraced) / median(recorded),
    corrected_ratio: corrected > 0 ? median(untraced) / corrected : null,
  };
}

function mean(values: readonly number[]): number {
  return values.reduce((sum, value) => sum + value, 0) / values.length;
}

function median(values: readonly number[]): number {
  const sorted = Float64Array.from(values).sort();
  const middle = sorted.length >> 1;
  return sorted.length % 2 === 1 ? sorted[middle] : (sorted[middle - 1] + sorted[middle]) / 2;
}
