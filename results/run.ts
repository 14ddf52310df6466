// What one replay measured, as one plain JSON object. The names are fixed: other tools read them.
// replay/ fills this in; everything else in results/ only reads it. Nothing here knows about
// simulation.

/** Name and version of the schema that `replay --json` prints. */
export const RUN_SCHEMA = 'mmreplay.run/1';

/** Distribution of a latency, in simulated ns. */
export interface LatencyNs {
  readonly mean: number;
  readonly p50: number;
  readonly p90: number;
  readonly p99: number;
  readonly p999: number;
  readonly max: number;
}

/** How far a lock or line had to travel from one holder to the next. */
export type Distance = 'self' | 'smt' | 'l3' | 'socket' | 'cross' | 'two_hop';

/** One class of kernel lock over a whole run. */
export interface LockReport {
  readonly acquired: number;
  readonly contended: number;
  /** Total simulated ns spent waiting for it. */
  readonly wait_ns: number;
  /** Total simulated ns it was held. */
  readonly hold_ns: number;
  /** Hand-offs from one holder to the next by distance between their CPUs. */
  readonly handoff: Partial<Record<Distance, number>>;
  /** Share of all CPU time (CPUs x simulated time) spent waiting for it, 0..1. */
  readonly cpu_share: number;
  /**
   * Waiting ns by the kernel function that asked for the lock (`pgd_alloc`, `sync_global_pgds`,
   * ...).
   */
  readonly wait_ns_by_caller: Readonly<Record<string, number>>;
}

/** One kind of operation over a whole run. */
export interface OpReport {
  readonly count: number;
  readonly ns: LatencyNs;
}

/** What `mmreplay replay --json` prints. */
export interface RunReport {
  readonly schema: typeof RUN_SCHEMA;
  readonly trace: {readonly path: string; readonly hash: string; readonly events: number};
  readonly machine: {readonly name: string; readonly cpus: number; readonly hash: string};
  readonly kernel: string;
  readonly design: Readonly<Record<string, string>>;
  readonly seed: number;
  readonly digest: string;
  readonly simulated_ns: number;
  readonly host: {
    readonly wall_s: number;
    readonly events: number;
    readonly ops: number;
    readonly events_per_s: number;
    readonly ops_per_s: number;
    readonly peak_rss_mb: number;
  };
  readonly replay: {
    readonly order: string;
    readonly time: string;
    readonly copies: number;
    readonly placement: string;
    readonly operations: {
      readonly done: number;
      readonly skipped: number;
      readonly failed: number;
      readonly differed: number;
    };
    /** Dependency edges by kind: program, fork, wait, wake, lock, resource. */
    readonly edges: Readonly<Record<string, number>>;
    readonly lateness_ns: LatencyNs;
    readonly lost_events: number;
  };
  readonly ops: Readonly<Record<string, OpReport>>;
  /** Operations finished per simulated second, all kinds. */
  readonly throughput_ops_s: number;
  /**
   * Kernel functions by share of CPU time, 0..1 of CPUs x simulated time; self time, not children.
   */
  readonly cpu: {
    readonly idle: number;
    readonly user: number;
    readonly functions: Readonly<Record<string, number>>;
  };
  readonly locks: Readonly<Record<string, LockReport>>;
  readonly notifier: {
    readonly calls: Readonly<Record<string, number>>;
    readonly latency_ns: LatencyNs;
    readonly retries: number;
    readonly eagain: number;
  };
  readonly tlb: Readonly<Record<string, number>>;
  readonly faults: Readonly<Record<string, number>>;
  readonly counters: Readonly<Record<string, number>>;
  readonly checks: {
    readonly missed_pgd_entries: number;
    readonly stale_mappings: number;
    readonly soft_lockups: number;
    readonly lockdep: number;
    readonly sleep_in_atomic: number;
    /** Each warning once, with how often it came: "check before trusting this". */
    readonly warnings: Readonly<Record<string, number>>;
    /** As warnings, for what was left out and does not touch the result; absent in older files. */
    readonly notes?: Readonly<Record<string, number>>;
    /** Kernel BUG, oops or missed-entry findings, one line each. */
    readonly findings: readonly string[];
  };
}
