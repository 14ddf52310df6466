// A trace, compiled for replay: one track per task, its operations in order, and what happened
// between them.
//
// The trap that this file exists for: recorded waiting must not become think time, or the cost of
// the recorded kernel's locks is baked into the result for another lock. So the time between two
// operations of a task is split:
//   think   CPU time in user mode (and in system calls that the trace does not model), which replay
//           spends again;
//   sleep   time off the CPU, blocked outside a modelled operation, which replay spends as sleep;
//   rest    time inside operations (an exec with the faults and mappings in it is one), contention
//           intervals, and time runnable but not running: stripped, it re-emerges.
// An access (page fault) has no recorded end: the answers that follow it on the same task
// (rss_stat, tlb_flush) move its end forward. Generated traces carry explicit think and sleep
// operations, and nothing is derived for them.
//
// A tid that is used again after its exit starts a new track.

import type {LoadedTrace} from '../formats/reader.ts';

export {compileTrace, INTERRUPTED, NOBODY_YET, timeOrder} from './track_compiler.ts';

/** One task's life in the trace. */
export interface Track {
  readonly index: number;
  readonly tid: number;
  tgid: number;
  comm: string;
  /** Track of the parent, -1 for a task that exists when the trace begins. */
  parent: number;
  /** The fork operation that made it, -1 when it exists at the start. */
  forkOp: number;
  /** CPU of its first event. */
  firstCpu: number;
  /** Indices into CompiledTrace's operation columns, in order. */
  readonly ops: number[];
}

/** Operations of all tasks in trace order, as columns. */
export interface CompiledTrace {
  readonly trace: LoadedTrace;
  readonly tracks: readonly Track[];
  /** Number of operations. */
  readonly opCount: number;
  /**
   * Event index, track, think and sleep (ns) before it, recorded start (ns from the first
   * operation).
   */
  readonly opEvent: Int32Array;
  readonly opTrack: Int32Array;
  readonly opThinkNs: Float64Array;
  readonly opSleepNs: Float64Array;
  readonly opStartNs: Float64Array;
  /** Recorded duration (ns), NaN where the trace has no end for it. */
  readonly opDurationNs: Float64Array;
  /** Track that a fork operation starts, -1 for other operations. */
  readonly opChild: Int32Array;
  /**
   * For a wait4 that recorded which child it got: the child's track; INTERRUPTED when a signal
   * ended it; NOBODY_YET for a poll that got none; else -1.
   */
  readonly opReaped: Int32Array;
  /** Causal edges `from op -> to op` other than fork and program order, by kind. */
  readonly edges: readonly {
    readonly kind: 'wake' | 'wait' | 'lock';
    readonly from: number;
    readonly to: number;
  }[];
  /** Operations by recorded CPU count. */
  readonly recordedCpus: number;
  readonly durationNs: number;
}
