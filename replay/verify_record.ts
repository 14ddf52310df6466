// The recorded kernel's answers, sorted by the operation that they belong to.
//
// An answer belongs to the last operation that its task began (a kernel-mode fault inside a system
// call is an operation of its own). Answers of tasks without operations (ksmd, kswapd, khugepaged)
// belong to the background.
//
// Recorded operations overlap; replayed in total order they do not. So expectations are serialised:
// every rss_stat record is taken as a change against the record before it of the same counter, and
// the expected value after operation n is the sum of the changes of operations 0..n. Where nothing
// overlapped this is the recorded value itself.
//
// Durations: from the event of the operation to sys_exit of its call (faults inside included),
// without the time that the task stood runnable but not running: that is the recorded machine's
// other load.

import type {FaultClass} from './verify_faults.ts';
import type {MmLife} from './verify_lives.ts';

export {flushName} from './flush_names.ts';
export {readRecorded} from './verify_reader.ts';

/** What the records say that a counter was after an operation. */
export interface RssSample {
  readonly op: number;
  readonly life: MmLife;
  readonly member: number;
  /** Pages after the operation, and how many the operation changed it by. */
  pages: number;
  change: number;
  /** Written by a task that replays nothing. */
  readonly background: boolean;
  /** Written after the operation had ended, by a call that is not in the recording. */
  readonly outside: boolean;
  /** Event of its last record. */
  event: number;
}

/** A recorded page fault. */
export interface RecordedFault {
  readonly op: number;
  readonly life: MmLife;
  readonly faultClass: FaultClass;
  /** When it began, and its last answer. */
  readonly startNs: number;
  readonly endNs: number;
}

/** A finished operation: when it ended, what it cost. */
export interface RecordedDuration {
  readonly op: number;
  readonly name: string;
  /** Last operation that began inside it; itself when none did. */
  readonly lastOp: number;
  /** Between its first and last event. */
  readonly wallNs: number;
  /** Of that, runnable but not running, and asleep. */
  readonly preemptedNs: number;
  readonly sleptNs: number;
  /** Tracepoints that fired in between: each costs the recorder's time. */
  readonly records: number;
}

/** All answers of a recording. */
export interface Recorded {
  readonly lives: readonly MmLife[];
  /** In order of operations. */
  readonly samples: readonly RssSample[];
  readonly faults: readonly RecordedFault[];
  readonly durations: readonly RecordedDuration[];
  /** tlb_flush records by `reason pages`, where pages is 0, 1, n or all. */
  readonly flushes: ReadonlyMap<string, number>;
  /** rss_stat records, and those of address spaces whose birth was not recorded. */
  readonly rssRecords: number;
  readonly unknownRecords: number;
  /**
   * Mean distance of the two records of one counter vector: what a record costs the recorded
   * kernel, in ns.
   */
  readonly recordCostNs: number;
  /**
   * Every record of a known address space by a task that replays something: operation (ascending),
   * life x 4 + member, change.
   */
  readonly stepOp: Int32Array;
  readonly stepKey: Int32Array;
  readonly stepChange: Int32Array;
  /** 1 where swapoff wrote the record: see Reader.unused. */
  readonly stepUnused: Uint8Array;
  /** Pages that swapoff brought in, in order: the operation that began next. */
  readonly unused: Int32Array;
  /**
   * Changes by tasks that replay nothing (kswapd): operation that began last, life x 4 + member,
   * change, flat.
   */
  readonly backgroundSteps: readonly number[];
  /**
   * Pages written in reclaim (mm_vmscan_write_folio), by operation: its own, and the background's
   * that began last.
   */
  readonly writtenIn: ReadonlyMap<number, number>;
  /** By operation: the address space of its task before it; -1 unknown number. */
  readonly opLife: Int32Array;
  /** By operation: 1 when its call gave an error there, too. */
  readonly opFailed: Uint8Array;
}
