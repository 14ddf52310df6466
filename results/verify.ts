// How close a replay came to the recorded kernel, as one plain JSON object. The names are fixed:
// other tools read them. replay/ fills this in; nothing here knows about simulation.

/** Name and version of the schema that `verify --json` prints. */
export const VERIFY_SCHEMA = 'mmreplay.verify/1';

/**
 * Recorded against simulated times of one kind of call or fault, as medians over the same
 * operations: a recorded mean is moved by single interruptions of the guest. A recorded time
 * contains the recorder's work, so `simulated_ns` is the model's time plus `records` times
 * `record_cost_ns`; `untraced_ns` is the model alone.
 */
export interface DurationReport {
  readonly count: number;
  /** Without time runnable but not running. */
  readonly recorded_ns: number;
  readonly simulated_ns: number;
  /** simulated_ns / recorded_ns. */
  readonly ratio: number;
  /** The same for means. */
  readonly recorded_mean_ns: number;
  readonly simulated_mean_ns: number;
  readonly mean_ratio: number;
  /** Tracepoints that fired per operation, mean. */
  readonly records: number;
  /** Median of the model alone. */
  readonly untraced_ns: number;
  /** untraced_ns / recorded_ns: the recorder on one side only. */
  readonly raw_ratio: number;
  /**
   * untraced_ns against recorded_ns without the recorder's share; null when nothing of that is
   * left.
   */
  readonly corrected_ratio: number | null;
}

/** One kind of disagreement: how often, and the first of them. */
export interface CauseReport {
  readonly cause: string;
  readonly count: number;
  /** Event index of the first. */
  readonly first_event: number;
}

/** One disagreement. */
export interface DifferenceReport {
  readonly event: number;
  readonly time_ns: number;
  readonly tid: number;
  readonly comm: string;
  readonly operation: string;
  readonly cause: string;
  readonly expected: string;
  readonly found: string;
}

/** Counts of one thing on both sides. */
export interface CountPair {
  readonly recorded: number;
  readonly simulated: number;
}

/** What `mmreplay verify --json` prints. */
export interface VerifyReport {
  readonly schema: typeof VERIFY_SCHEMA;
  readonly trace: {readonly path: string; readonly hash: string; readonly events: number};
  readonly machine: {readonly name: string; readonly cpus: number; readonly hash: string};
  readonly kernel: string;
  readonly design: Readonly<Record<string, string>>;
  readonly seed: number;
  /** How states were replayed; durations are replayed causal + think. */
  readonly replay: {readonly order: string; readonly time: string; readonly digest: string};
  readonly faults: {
    /** Recorded page faults in address spaces that the recording shows from their birth. */
    readonly recorded: number;
    /** Of these, faults here too and of the same class. */
    readonly agreed: number;
    /** agreed / recorded; 1 when there are none. */
    readonly agreement: number;
    /** Of these, did not fault here. */
    readonly missing: number;
    /** Faults here during operations that have none in the recording. */
    readonly extra: number;
    /** Recorded faults that cannot be graded: the address space is older than the recording. */
    readonly before_trace: number;
    readonly classes: Readonly<
      Record<string, {readonly recorded: number; readonly agreed: number}>
    >;
  };
  readonly rss: {
    /** Counters compared, each after an operation that the recording shows to have changed it. */
    readonly samples: number;
    readonly exact: number;
    readonly agreement: number;
    /** Mean of |simulated - recorded| over all samples, in pages. */
    readonly mean_abs_error: number;
    readonly max_abs_error: number;
    /** Samples whose change by the operation is exact, whatever went wrong before. */
    readonly changes_exact: number;
    readonly members: Readonly<Record<string, {readonly samples: number; readonly exact: number}>>;
    /**
     * Every rss_stat record on its own: how many of the recorded ones have an equal one in the same
     * operation.
     */
    readonly records: CountPair & {readonly matched: number};
    readonly before_trace: number;
  };
  /**
   * Inputs that no recording states, taken from its answers: file pages that fault-around passed
   * over, in how many files; large folios of files; replays it took. Of reclaim: slots of the swap
   * area that was there before (0: none was missing; its size is assumed); the limit of the cgroup
   * when the model chooses what goes; pages whose going was an input, in how many operations.
   */
  readonly inferred: {
    readonly file_pages: number;
    readonly files: number;
    readonly large_folios: number;
    readonly replays: number;
    readonly swap_area_pages: number;
    readonly memcg_limit_pages: number;
    readonly reclaimed_pages: number;
    readonly reclaim_operations: number;
  };
  /**
   * Pages written to swap, faults that brought one in, and pages that swapoff brought in; null when
   * nothing was swapped.
   */
  readonly swap: {
    readonly written: CountPair;
    readonly faults: CountPair;
    readonly unused: CountPair;
  } | null;
  /** What ksmd did there and here, when it was recorded. */
  readonly ksm?:
    | {
        readonly full_scans: CountPair;
        /** Pages made or mapped to a KSM page, and of these the new KSM pages. */
        readonly merges: CountPair;
        readonly ksm_pages: CountPair;
        /** Pages replaced by the page of zeros; merges that were tried in vain. */
        readonly zero_pages: CountPair;
        readonly failed: CountPair;
        /**
         * ksmd's settings, and the contents of pages: for how many merges the page is certain, lies
         * between certain ones, or was not found.
         */
        readonly inferred: {
          readonly pages_to_scan: number;
          readonly sleep_ms: number;
          readonly max_page_sharing: number;
          readonly contents_certain: number;
          readonly contents_placed: number;
          readonly contents_unplaced: number;
        };
      }
    | undefined;
  readonly durations: Readonly<Record<string, DurationReport>>;
  /** What one tracepoint record costs the recorded kernel: part of every recorded duration. */
  readonly record_cost_ns: number;
  /** Flushes by reason and pages. */
  readonly tlb: Readonly<Record<string, CountPair>>;
  /**
   * Events of the recording that the model does not know, and operations that it did not carry out.
   */
  readonly unmodelled: Readonly<Record<string, number>>;
  readonly warnings: Readonly<Record<string, number>>;
  readonly findings: readonly string[];
  readonly causes: readonly CauseReport[];
  readonly differences: readonly DifferenceReport[];
}

/** The smaller of the two agreements: what --bar is compared with. */
export function agreementOf(report: VerifyReport): number {
  return Math.min(report.faults.agreement, report.rss.agreement);
}
