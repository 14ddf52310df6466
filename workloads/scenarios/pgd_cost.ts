// Scenarios about what pgd_lock costs: the line it shares, and the storm in which every fork walks
// all PGDs.

import type {Expectation, Scenario, ScenarioRun, Verdict} from '../catalogue.ts';
import {forkStorm} from '../fork_storm.ts';
import {vmallocSyncStorm} from '../vmalloc_sync_storm.ts';
import {parseParams, type OpenTrace, type Workload} from '../workload.ts';
import type {TraceSummary} from '../../formats/writer.ts';

const SEEDS = [1, 2, 3];

function ofWorkload(
  workload: Workload,
  words: readonly string[],
): (open: OpenTrace, seed: number) => TraceSummary {
  return (open, seed) => workload.generate(open, parseParams(workload, words), seed);
}

/** 72 CPUs fork small processes as fast as they can: about 4,000 operations. */
const SHARING_WORDS = [
  'workers=72',
  'children=12',
  'vmas=6',
  'pages=4',
  'child_pages=0',
  'placement=pinned',
];
const WAIT = ['locks', 'pgd_lock', 'wait_ns'];

/** The published profile: 10.93 % under sync_global_pgds to 7.27 % under pgd_alloc, 1.50 : 1. */
const CALLERS = ['locks', 'pgd_lock', 'wait_ns_by_caller'];
/** As many workers as CPUs: the host was saturated, every CPU forked and freed stacks. */
const STORM_MACHINE = '2s8c2t@broadwell-2s-e5-2680v4';
const STORM_WORDS = ['live=15000', 'workers=32', 'forks=24', 'sessions=4', 'child_pages=0'];
const SYNC_TO_ALLOC: Expectation = {
  check: 'ratio',
  path: [...CALLERS, 'sync_global_pgds'],
  over: [...CALLERS, 'pgd_alloc'],
  atLeast: 1.1,
  atMost: 2,
};
const NO_SYNC: readonly Expectation[] = [
  {check: 'metric', path: [...CALLERS, 'sync_global_pgds'], atMost: 0},
];

function sharing(pgd: string, expected: Verdict): ScenarioRun {
  const machine = 'haswell-ex-4s-e7-8895v3';
  const also: readonly Expectation[] = [{check: 'metric', path: WAIT, atLeast: 1}];
  return {label: pgd, kernel: '4.1', design: [`pgd=${pgd}`], machine, expected, also};
}

function storm(
  label: string,
  kernel: string,
  design: readonly string[],
  more: Pick<ScenarioRun, 'expected' | 'also'>,
): ScenarioRun {
  return {label, kernel, design, machine: STORM_MACHINE, ...more};
}

export const COST_SCENARIOS: readonly Scenario[] = [
  {
    name: 'pgd-lock-false-sharing',
    summary: 'pgd_lock shares a cache line with pgd_list; on a line of its own it costs less',
    source:
      "lockless pgd_alloc series (June 2015), cover letter: Waiman Long's report and proposal",
    fault: [{check: 'against', path: WAIT, run: 'pgd-list-padded', atLeast: 1.02}],
    runs: [sharing('pgd-list-padded', 'clean'), sharing('pgd-list', 'caught')],
    seeds: SEEDS,
    build: ofWorkload(forkStorm, SHARING_WORDS),
  },
  {
    name: 'vmalloc-sync-storm',
    summary: 'thousands of live processes, VMAP_STACK: forks walk pgd_list under pgd_lock',
    source: 'Chen-Yu Tsai, stable@, 12 Dec 2019 (PTT, v4.19.88); 763802b53a42',
    fault: [SYNC_TO_ALLOC],
    runs: [
      storm('4.19 syncs', '4.19', ['vmalloc-sync=alloc'], {expected: 'caught'}),
      storm('4.19 without the sync', '4.19', ['vmalloc-sync=none'], {
        expected: 'clean',
        also: NO_SYNC,
      }),
      storm('6.6 preallocates', '6.6', ['pgd=preallocated'], {expected: 'clean', also: NO_SYNC}),
    ],
    seeds: SEEDS,
    build: ofWorkload(vmallocSyncStorm, STORM_WORDS),
  },
];
