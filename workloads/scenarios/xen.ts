// Scenarios of Xen PV guests, whose page tables the hypervisor pins read-only: a PGD that is missed
// by xen_mm_pin_all before a suspend, and one that is written with a plain store.

import {KIND} from '../../formats/kinds.ts';
import type {Scenario, ScenarioRun, Verdict} from '../catalogue.ts';
import {NOMINAL_NS} from '../nominal.ts';
import {Stream} from '../rng.ts';
import type {Stage} from '../stage.ts';
import {forkFreely, forkSleeper, sceneOf} from './pieces.ts';

const MACHINE = 'westmere-2s-x5650';
const SEEDS = [1, 2, 3];

function run(pgd: string, paging: string, expected: Verdict): ScenarioRun {
  const design = [`pgd=${pgd}`, `paging=${paging}`];
  return {label: pgd, kernel: '4.1', design, machine: MACHINE, expected};
}

/**
 * Suspends while five CPUs fork. stop_machine can stop a fork between pgd_alloc and the task list:
 * such a PGD is on pgd_list already, but no walk over tasks finds it.
 */
function putPinRace(stage: Stage, seed: number): void {
  for (let i = 0; i < 5; i++) {
    stage.adopt({comm: 'forker', cpu: i + 1}, (self) =>
      forkFreely(self, 150, 10_000, new Stream(seed, 'forker', i)),
    );
  }
  stage.adopt({comm: 'xenbus', cpu: 0}, function* (self) {
    const random = new Stream(seed, 'xenbus');
    for (let i = 0; i < 60; i++) {
      yield self.sleep(random.timeNs(200_000, 'exponential'));
      yield self.op(KIND.suspend, NOMINAL_NS.stopMachine);
      yield self.op(KIND.resume, NOMINAL_NS.stopMachine);
    }
    yield self.exit();
  });
}

/** Every fork and every exec initialises a PGD that Xen may have pinned. */
function putRawStore(stage: Stage): void {
  stage.adopt({comm: 'forker', cpu: 0}, function* (self) {
    const program = self.intern('/bin/true');
    for (let i = 0; i < 10; i++) {
      const plain = forkSleeper(self, 1_000);
      yield;
      yield self.wait(plain);
      const execs = self.fork(function* (child) {
        yield child.op(KIND.exec, NOMINAL_NS.exec, program);
        yield child.exit();
      }, NOMINAL_NS.exec);
      yield;
      yield self.wait(execs);
    }
    yield self.exit();
  });
}

export const XEN_SCENARIOS: readonly Scenario[] = [
  {
    name: 'xen-pin-race',
    summary:
      'suspend pins every PGD; one that a fork has made but not published must be pinned too',
    source: 'lockless pgd_alloc series (June 2015): Oleg Nesterov and Boris Ostrovsky on patch 07',
    fault: [{check: 'findings', matches: 'not pinned at suspend', atLeast: 1}],
    runs: [
      run('lockless-v1', 'pae-private', 'caught'),
      run('lockless-2015-09', 'pae-private', 'caught'),
      run('pgd-list', 'pae-private', 'clean'),
    ],
    seeds: SEEDS,
    build: sceneOf('xen-pin-race', 6, putPinRace),
  },
  {
    name: 'xen-raw-store',
    summary: 'arch_pgd_init_late writes a pinned PGD with a plain store instead of set_pgd',
    source: 'lockless pgd_alloc series: Boris Ostrovsky on patch 06, 11 June 2015',
    fault: [{check: 'findings', matches: 'plain store to entry', atLeast: 1}],
    runs: [
      run('lockless-v1', '4-level-xen', 'caught'),
      run('lockless-v2', '4-level-xen', 'clean'),
      run('lockless-2015-09', '4-level-xen', 'clean'),
      run('pgd-list', '4-level-xen', 'clean'),
    ],
    seeds: SEEDS,
    build: sceneOf('xen-raw-store', 1, putRawStore),
  },
];
