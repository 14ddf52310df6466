// Scenarios about new PGDs and walks over existing ones: initialisation against synchronisation,
// and what a walk over the task list may and may not rely on. All of them add memory to empty 512
// GiB slots of the direct map, where nothing repairs a missing entry later: vmalloc_fault serves
// only the vmalloc area.
//
// The store-buffering window of pgd-late-init-barrier is between the creator's store that makes its
// mm visible and its load of the reference entry, against the walker's store of that entry and its
// load of the list. A new process is the last on the list, so its store must wait in the store
// buffer until the walk has come to the end; two other processes keep the walk short. x86 bounds
// that wait by nothing: a buffer of 56 stores that each miss to the other socket takes 7 us to
// drain. The runs set the mean to DRAIN_NS, so that a short trace meets what a machine meets once
// in months.
//
// Forker and adder meet before each round; then the forks are dealt over SPREAD_NS in strata, so
// that some lie in the window on every seed. LEAD_NS is how much later than the forker the adder
// starts. Together they leave room for a fork that takes 10 us less or more to become visible; the
// counter pgd_missed_unseen says how many forks met the window.
//
// v1 and v2 also write user entry 0 of every PGD that they visit (pgd-index), and BUG on it in the
// next walk, which vmemmap_populate already starts. So each round has an adder of its own, and the
// forker execs before it: fresh PGDs.

import {KIND} from '../../formats/kinds.ts';
import type {Expectation, Scenario, ScenarioRun, Verdict} from '../catalogue.ts';
import {NOMINAL_NS, forkNs} from '../nominal.ts';
import {Stream} from '../rng.ts';
import {CLONE, type Gate, type Script, type Stage} from '../stage.ts';
import {
  FIRST_SLOT,
  SLOT_LIMIT,
  dealStrata,
  forkFreely,
  forkSleeper,
  hotAdd,
  sceneOf,
  sleepers,
} from './pieces.ts';

/** Two sockets of the generation that the series was written for. */
const MACHINE = 'broadwell-2s-e5-2680v4';
const SEEDS = [1, 2, 3];

function run(design: string, expected: Verdict, more: Partial<ScenarioRun> = {}): ScenarioRun {
  const pgd = [`pgd=${design}`];
  return {label: design, kernel: '4.1', design: pgd, machine: MACHINE, expected, ...more};
}

const DRAIN_NS = 4_000;
const LEAD_NS = 40_000;
const SPREAD_NS = 40_000;
const ROUNDS = SLOT_LIMIT - FIRST_SLOT;
const CHILD_LIFE_NS = 400_000;
const PROGRAM = '/bin/true';

/** Adds memory on CPU 0, some time after the meeting. */
function adderScript(gate: Gate, slot: number): Script {
  return function* (self) {
    yield self.pin();
    yield self.arrive(gate);
    yield self.think(LEAD_NS);
    yield hotAdd(self, slot);
    yield self.exit();
  };
}

function putLateInit(stage: Stage, seed: number): void {
  const gate = stage.gate(2);
  const [starts] = dealStrata(ROUNDS, SPREAD_NS, 1, new Stream(seed, 'starts'));
  stage.adopt({comm: 'forker', cpu: 1}, function* (self) {
    yield self.pin();
    for (const [round, thinkNs] of starts.entries()) {
      yield self.op(KIND.exec, NOMINAL_NS.exec, self.intern(PROGRAM));
      const script = adderScript(gate, FIRST_SLOT + round);
      const adder = self.fork(script, forkNs(6, 0), CLONE.fork, 0);
      yield;
      yield self.arrive(gate);
      yield self.think(thinkNs);
      const child = forkSleeper(self, CHILD_LIFE_NS);
      yield;
      yield self.wait(child);
      yield self.wait(adder);
    }
    yield self.exit();
  });
}

function putForkRace(stage: Stage, seed: number): void {
  for (let i = 0; i < 8; i++) {
    stage.adopt({comm: 'forker', cpu: i + 1}, (self) =>
      forkFreely(self, 110, 20_000, new Stream(seed, 'forker', i)),
    );
  }
  stage.adopt({comm: 'memhp', cpu: 0}, function* (self) {
    const random = new Stream(seed, 'memhp');
    for (let i = 0; i < 80; i++) {
      yield self.think(random.timeNs(150_000, 'exponential'));
      yield hotAdd(self, FIRST_SLOT + i);
    }
    yield self.exit();
  });
}

/**
 * Zombies are on the task list without an mm while memory is added. Nobody waits for the adder: it
 * may die of an oops.
 */
function putNullMm(stage: Stage): void {
  const gate = stage.gate(5);
  for (let i = 0; i < 4; i++) {
    stage.adopt({comm: 'parent', cpu: i + 1}, function* (self) {
      const child = forkSleeper(self, 0);
      yield;
      yield self.sleep(2_000_000);
      yield self.arrive(gate);
      yield self.sleep(5_000_000);
      yield self.wait(child);
      yield self.exit();
    });
  }
  stage.adopt({comm: 'memhp', cpu: 0}, function* (self) {
    yield self.arrive(gate);
    for (let i = 0; i < 4; i++) yield hotAdd(self, FIRST_SLOT + i);
    yield self.exit();
  });
}

/** Nothing races: processes exist, memory is added, every PGD must have the entry. */
function putIndex(stage: Stage): void {
  sleepers(stage, 20);
  stage.adopt({comm: 'memhp', cpu: 0}, function* (self) {
    for (let i = 0; i < 8; i++) {
      yield hotAdd(self, FIRST_SLOT + 3 * i);
      yield self.sleep(100_000);
    }
    yield self.exit();
  });
}

/**
 * Processes whose leader has exited while two threads live on: the leader's mm is NULL, the group's
 * is not.
 */
function putLeaderExit(stage: Stage): void {
  const processes = 6;
  const gate = stage.gate(2 * processes + 1);
  for (let i = 0; i < processes; i++) {
    const cpu = i + 1;
    const leader = stage.adopt({comm: 'leader', cpu}, function* (self) {
      yield self.exit(false);
    });
    for (let thread = 0; thread < 2; thread++) {
      const init = {comm: 'thread', cpu, tgid: leader.tid, parentTid: leader.tid};
      stage.adopt(init, function* (self) {
        yield self.sleep(1_000_000);
        yield self.arrive(gate);
        yield self.sleep(5_000_000);
        yield self.exit(false);
      });
    }
  }
  stage.adopt({comm: 'memhp', cpu: 0}, function* (self) {
    yield self.arrive(gate);
    for (let i = 0; i < 4; i++) yield hotAdd(self, FIRST_SLOT + i);
    yield self.exit();
  });
}

/** Children are reaped all the time, so task structs are freed while walks stand on them. */
function putWithoutRcu(stage: Stage, seed: number): void {
  sleepers(stage, 200);
  for (let i = 0; i < 6; i++) {
    stage.adopt({comm: 'forker', cpu: i + 1}, function* (self) {
      const random = new Stream(seed, 'forker', i);
      for (let n = 0; n < 120; n++) {
        yield self.think(random.timeNs(5_000, 'uniform'));
        const child = forkSleeper(self, 0);
        yield;
        yield self.wait(child);
      }
      yield self.exit();
    });
  }
  stage.adopt({comm: 'memhp', cpu: 0}, function* (self) {
    const random = new Stream(seed, 'memhp');
    for (let i = 0; i < 100; i++) {
      yield hotAdd(self, FIRST_SLOT + i);
      yield self.think(random.timeNs(20_000, 'uniform'));
    }
    yield self.exit();
  });
}

const MISSED: Expectation = {check: 'missed_pgd_entries', atLeast: 1};
const NULL_MM: Expectation = {check: 'findings', matches: 'NULL pointer', atLeast: 1};
const WRONG_ENTRY: Expectation = {check: 'findings', matches: 'user entry 0', atLeast: 1};
const NO_RCU: Expectation = {check: 'findings', matches: 'suspicious RCU usage', atLeast: 1};
/**
 * A creator that read the old reference and that the walk did not see: nothing else counts here.
 */
const UNSEEN: Expectation = {
  check: 'metric',
  path: ['counters', 'pgd_missed_unseen'],
  atLeast: 1,
};
const SLOW_STORES = {costsNs: {storeBufferDrain: DRAIN_NS}};
const BARRIER = 'lockless pgd_alloc series: Oleg Nesterov on patch 06, 12 to 14 June 2015';

export const INIT_SCENARIOS: readonly Scenario[] = [
  {
    name: 'pgd-late-init-barrier',
    summary: 'a new PGD misses an entry for good: smp_wmb in arch_pgd_init_late against a walk',
    source: BARRIER,
    fault: [UNSEEN],
    runs: [
      run('lockless-v1', 'caught', SLOW_STORES),
      run('lockless-v2', 'caught', SLOW_STORES),
      run('lockless-2015-09', 'clean', SLOW_STORES),
      run('pgd-list', 'clean', SLOW_STORES),
    ],
    seeds: SEEDS,
    build: sceneOf('pgd-late-init-barrier', 2, putLateInit),
  },
  {
    name: 'pgd-null-mm',
    summary: 'a walk reads mm->pgd of a task before it tests mm: zombies have none',
    source: 'lockless pgd_alloc series (June 2015): Waiman Long and Oleg Nesterov on patch 02',
    fault: [NULL_MM],
    runs: [
      run('lockless-v1', 'caught'),
      run('lockless-2015-09', 'clean'),
      run('pgd-list', 'clean'),
    ],
    seeds: SEEDS,
    build: sceneOf('pgd-null-mm', 5, putNullMm),
  },
  {
    name: 'pgd-index',
    summary: 'a walk writes the first entry of each PGD instead of the one for the address',
    source: 'lockless pgd_alloc series: Oleg Nesterov on patch 02, 12 June 2015',
    fault: [WRONG_ENTRY],
    runs: [
      run('lockless-v1', 'caught'),
      run('lockless-v2', 'caught'),
      run('lockless-2015-09', 'clean'),
      run('pgd-list', 'clean'),
    ],
    seeds: SEEDS,
    build: sceneOf('pgd-index', 1, putIndex),
  },
  {
    name: 'pgd-leader-exit',
    summary: 'the leader has exited, threads live on: their mm must still be visited',
    source: 'lockless pgd_alloc series (June 2015): Linus Torvalds and Oleg Nesterov on patch 07',
    fault: [MISSED, NULL_MM],
    runs: [
      run('lockless-v1', 'caught'),
      run('lockless-2015-09', 'clean'),
      run('pgd-list', 'clean'),
    ],
    seeds: SEEDS,
    build: sceneOf('pgd-leader-exit', 7, putLeaderExit),
  },
  {
    name: 'pgd-walk-without-rcu',
    summary: 'a walk over the task list without rcu_read_lock while children are reaped',
    source: 'lockless pgd_alloc series: Oleg Nesterov on patch 02, 12 June 2015',
    fault: [NO_RCU],
    runs: [
      run('lockless-v1', 'caught'),
      run('lockless-v2', 'caught'),
      run('lockless-2015-09', 'clean'),
      run('pgd-list', 'clean'),
    ],
    seeds: SEEDS,
    build: sceneOf('pgd-walk-without-rcu', 7, putWithoutRcu),
  },
  {
    name: 'pgd-fork-race',
    summary: 'memory is added while eight CPUs fork, nobody waits for anybody',
    source: 'lockless pgd_alloc series: Oleg Nesterov on patch 02, 12 June 2015',
    fault: [MISSED, NULL_MM, WRONG_ENTRY],
    runs: [
      run('lockless-v1', 'caught'),
      run('lockless-v2', 'caught'),
      run('lockless-2015-09', 'clean'),
      run('pgd-list', 'clean'),
      run('pgd-list-padded', 'clean'),
    ],
    seeds: SEEDS,
    build: sceneOf('pgd-fork-race', 9, putForkRace),
  },
];
