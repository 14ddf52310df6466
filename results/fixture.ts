// Runs for tests of results/: plausible shapes, no simulation. Values follow from the arguments
// alone.

import type {LatencyNs, LockReport, RunReport} from './run.ts';
import {RUN_SCHEMA} from './run.ts';

/** A latency distribution around a median. */
export function latency(p50: number): LatencyNs {
  return {mean: p50 * 1.2, p50, p90: p50 * 2, p99: p50 * 4, p999: p50 * 8, max: p50 * 20};
}

/** How one fixture run deviates from the default. */
export interface Fixture {
  readonly seed?: number;
  readonly pgd?: string;
  /** Scales every time; below 1 is a faster design. */
  readonly speed?: number;
  readonly traceHash?: string;
  readonly machineHash?: string;
  readonly missed?: number;
  readonly warnings?: Readonly<Record<string, number>>;
}

/**
 * One run of a fork storm; the seed moves all times by up to about 10 %, the same for every design.
 */
export function fixtureRun(fixture: Fixture = {}): RunReport {
  const {seed = 1, pgd = 'pgd-list', speed = 1} = fixture;
  const wobble = 1 + ((seed * 37) % 11) / 100;
  const time = speed * wobble * (1 + ((seed * 13 + pgd.length * 5) % 7) / 1000);
  const simulated = Math.round(50_000_000 * time);
  return {
    schema: RUN_SCHEMA,
    trace: {path: 'fork-storm.mmt', hash: fixture.traceHash ?? 'a1b2c3d4', events: 40_000},
    machine: {name: '2x8360Y', cpus: 144, hash: fixture.machineHash ?? '0f0f0f0f'},
    kernel: '4.19',
    design: {pgd, spinlock: 'qspinlock', notifier: 'G5'},
    seed,
    digest: `d${seed}${pgd.length}`,
    simulated_ns: simulated,
    host: {
      wall_s: 0.25,
      events: 600_000,
      ops: 10_000,
      events_per_s: 2_400_000,
      ops_per_s: 40_000,
      peak_rss_mb: 120,
    },
    replay: {
      order: 'causal',
      time: 'think',
      copies: 4,
      placement: 'scatter',
      operations: {done: 10_000, skipped: 2, failed: 1, differed: 3},
      edges: {program: 9_000, fork: 800, wait: 200},
      lateness_ns: latency(120),
      lost_events: 0,
    },
    ops: {
      fork: {count: 4000, ns: latency(Math.round(80_000 * time))},
      mmap: {count: 6000, ns: latency(1500)},
    },
    throughput_ops_s: 10_000 / (simulated / 1e9),
    cpu: {
      idle: 0.2,
      user: 0.3,
      functions: {native_queued_spin_lock_slowpath: 0.3 * speed, copy_page_range: 0.1},
    },
    locks: {pgd_lock: pgdLock(simulated, wobble, speed), mmap_lock: quietLock()},
    notifier: {
      calls: {'invalidate_range_start:unmap:kvm': 12},
      latency_ns: latency(900),
      retries: 3,
      eagain: 0,
    },
    tlb: {shootdowns: 420, ipis: Math.round(9000 * wobble)},
    faults: {minor: 81_920, major: 0},
    counters: {pgalloc: 163_840},
    checks: {
      missed_pgd_entries: fixture.missed ?? 0,
      stale_mappings: 0,
      soft_lockups: 0,
      lockdep: 0,
      sleep_in_atomic: 0,
      warnings: fixture.warnings ?? {},
      notes: {'access: by the recorder': 4},
      findings: fixture.missed ? ['pgd: mm 17 misses entry 402 after sync_global_pgds'] : [],
    },
  };
}

function pgdLock(simulated: number, wobble: number, speed: number): LockReport {
  const wait = Math.round(simulated * 40 * wobble * speed);
  return {
    acquired: 8000,
    contended: 6100,
    wait_ns: wait,
    hold_ns: Math.round(simulated / 3),
    handoff: {self: 100, l3: 3000, cross: 2900},
    cpu_share: Math.min(1, wait / (simulated * 144)),
    wait_ns_by_caller: {
      sync_global_pgds: Math.round(wait * 0.6),
      pgd_alloc: Math.round(wait * 0.4),
    },
  };
}

function quietLock(): LockReport {
  return {
    acquired: 20_000,
    contended: 0,
    wait_ns: 0,
    hold_ns: 4_000_000,
    handoff: {self: 20_000},
    cpu_share: 0,
    wait_ns_by_caller: {},
  };
}

/** Runs of one design under seeds 1..n. */
export function fixtureRuns(seeds: number, fixture: Fixture = {}): RunReport[] {
  return Array.from({length: seeds}, (_, i) => fixtureRun({...fixture, seed: i + 1}));
}
