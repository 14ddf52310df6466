// Scenarios about entries that come, go and go stale: memory hotplug in both directions, EFI
// mappings, and vmalloc areas that processes meet by fault.

import {KIND} from '../../formats/kinds.ts';
import type {Expectation, Scenario, ScenarioRun, Verdict} from '../catalogue.ts';
import {VmallocArea} from '../kernel_memory.ts';
import {NOMINAL_NS, forkNs, vmallocNs} from '../nominal.ts';
import {Stream} from '../rng.ts';
import {CLONE, type Actor, type Gate, type Script, type Stage} from '../stage.ts';
import {
  FIRST_SLOT,
  forkSleeper,
  hotAdd,
  hotRemove,
  sceneOf,
  sleepers,
  type Steps,
} from './pieces.ts';

const MACHINE = 'broadwell-2s-e5-2680v4';
const SEEDS = [1, 2, 3];
const ROUNDS = 60;

/**
 * One section of a slot goes while the next one comes: the top-level entry is freed and made anew.
 * Each round has two processes of its own, because a task that hits the BUG is gone.
 */
function putRemoveWindow(stage: Stage, seed: number): void {
  sleepers(stage, 60);
  stage.adopt({comm: 'memhp', cpu: 0}, function* (self) {
    const random = new Stream(seed, 'memhp');
    yield hotAdd(self, FIRST_SLOT, 0);
    for (let round = 0; round < ROUNDS; round++) {
      const waitNs = random.timeNs(40_000, 'uniform');
      const remover = self.fork(removeOnce(round), forkNs(6, 0), CLONE.fork, 1);
      yield;
      const adder = self.fork(addOnce(round + 1, waitNs), forkNs(6, 0), CLONE.fork, 2);
      yield;
      yield self.wait(remover);
      yield self.wait(adder);
    }
    yield hotRemove(self, FIRST_SLOT, ROUNDS);
    yield self.exit();
  });
}

function removeOnce(section: number): Script {
  return function* (self) {
    yield self.pin();
    yield self.sleep(50_000);
    yield hotRemove(self, FIRST_SLOT, section);
    yield self.exit();
  };
}

function addOnce(section: number, waitNs: number): Script {
  return function* (self) {
    yield self.pin();
    yield self.sleep(50_000);
    yield self.think(waitNs);
    yield hotAdd(self, FIRST_SLOT, section);
    yield self.exit();
  };
}

/**
 * In the hole below the espfix stacks: nothing else lives under this top-level entry, so its PUD
 * page empties.
 */
const EFI_ADDR = 0xffff_fd00_0000_0000n;
const EFI_PAGES = 512;

function efiMap(self: Actor): undefined {
  self.op(KIND.efi_map, NOMINAL_NS.setMemory, EFI_ADDR, EFI_PAGES);
}

function efiUnmap(self: Actor): undefined {
  self.op(KIND.efi_unmap, NOMINAL_NS.setMemory, EFI_ADDR, EFI_PAGES);
}

/**
 * Children copy the kernel half while the mapping exists and outlive it; then the slot is used
 * again.
 */
function putUnmapFreesPud(stage: Stage): void {
  sleepers(stage, 10);
  stage.adopt({comm: 'efi', cpu: 0}, function* (self) {
    for (let round = 0; round < 20; round++) {
      yield efiMap(self);
      const child = forkSleeper(self, 400_000);
      yield;
      yield efiUnmap(self);
      yield efiMap(self);
      yield self.wait(child);
      yield efiUnmap(self);
    }
    yield self.exit();
  });
}

/**
 * The special PGD of the firmware and the 1:1 trampoline must have what the kernel maps after they
 * were made.
 */
function putSpecialPgds(stage: Stage): void {
  sleepers(stage, 10);
  stage.adopt({comm: 'efi', cpu: 0}, function* (self) {
    yield efiMap(self);
    for (let i = 0; i < 12; i++) {
      yield hotAdd(self, FIRST_SLOT + 5 * i);
      yield self.sleep(50_000);
      yield efiUnmap(self);
      yield efiMap(self);
    }
    yield efiUnmap(self);
    yield self.exit();
  });
}

const AREA_BYTES = 4 * 2 ** 20;
const AREAS = 16;
const TOUCHERS = 4;

/**
 * Touches each area that another process has just made, in its own address space, before and after
 * giving up the CPU.
 */
function* toucher(self: Actor, addresses: readonly bigint[], gate: Gate): Steps {
  yield self.pin();
  for (const addr of addresses) {
    yield self.arrive(gate);
    yield self.op(KIND.vmalloc_touch, NOMINAL_NS.vmallocFault, addr);
    yield self.op(KIND.yield, NOMINAL_NS.syscall);
    yield self.op(KIND.vmalloc_touch, NOMINAL_NS.vmallocFault, addr);
    yield self.arrive(gate);
  }
  yield self.exit();
}

/**
 * Areas of 4 MiB: on 2-level kernels each needs a new synchronised entry. Two touchers share a CPU,
 * so a fault may come right after a switch of page tables. Die notifiers, registered now and then,
 * sync everything.
 */
function putFaultContext(stage: Stage): void {
  const space = new VmallocArea();
  const addresses = Array.from({length: AREAS}, () => space.take(AREA_BYTES));
  const gate = stage.gate(TOUCHERS + 1);
  for (let i = 0; i < TOUCHERS; i++) {
    const cpu = 1 + (i >> 1);
    stage.adopt({comm: 'toucher', cpu}, (self) => toucher(self, addresses, gate));
  }
  stage.adopt({comm: 'allocator', cpu: 0}, function* (self) {
    yield self.pin();
    for (const [i, addr] of addresses.entries()) {
      yield self.op(KIND.vmalloc, vmallocNs(AREA_BYTES), addr, AREA_BYTES);
      if (i % 4 === 3) yield self.op(KIND.register_die_notifier, NOMINAL_NS.syncAll);
      yield self.arrive(gate);
      yield self.arrive(gate);
    }
    yield self.exit();
  });
}

const BAD_ENTRY = {check: 'findings', matches: 'differs|freed|use-after-free', atLeast: 1} as const;
const FAULTED: Expectation = {
  check: 'metric',
  path: ['counters', 'vmalloc_faults'],
  atLeast: 1,
};
const on = {kernel: '4.1', machine: MACHINE};

/**
 * A run with 2-level paging: 4 MiB an entry. With 4 levels boot has populated the one entry that
 * areas ever need.
 */
function lazy(label: string, kernel: string, pgd: string, expected: Verdict): ScenarioRun {
  return {label, kernel, design: [pgd, 'paging=2-level'], machine: MACHINE, expected};
}

export const ENTRY_SCENARIOS: readonly Scenario[] = [
  {
    name: 'hotplug-remove-window',
    summary:
      'removed memory frees a PGD entry, copies are stale until the walk, the slot is reused',
    source: 'seed 003 patch 03; kernel.md A.3, A.5 (af2cf278ef4f), A.7',
    fault: [BAD_ENTRY, {check: 'stale_mappings', atLeast: 1}],
    runs: [
      {...on, label: 'pgd-list 3.10', kernel: '3.10', design: ['pgd=pgd-list'], expected: 'caught'},
      {...on, label: 'pgd-list 4.1', design: ['pgd=pgd-list'], expected: 'caught'},
      {...on, label: 'pgd-list 4.13', kernel: '4.13', design: ['pgd=pgd-list'], expected: 'clean'},
      {...on, label: 'lockless-2015-09', design: ['pgd=lockless-2015-09'], expected: 'clean'},
    ],
    seeds: SEEDS,
    build: sceneOf('hotplug-remove-window', 3, putRemoveWindow),
  },
  {
    name: 'unmap-frees-pud',
    summary: 'tearing down an EFI mapping frees its PUD page while PGDs still point to it',
    source: 'seed 003 patch 01; kernel.md A.3 (unmap_pgd_range), A.5',
    fault: [BAD_ENTRY, {check: 'stale_mappings', atLeast: 1}],
    runs: [
      {...on, label: 'pgd-list 4.1', design: ['pgd=pgd-list'], expected: 'caught'},
      {...on, label: 'pgd-list 4.13', kernel: '4.13', design: ['pgd=pgd-list'], expected: 'clean'},
      {...on, label: 'lockless-2015-09', design: ['pgd=lockless-2015-09'], expected: 'clean'},
    ],
    seeds: SEEDS,
    build: sceneOf('unmap-frees-pud', 1, putUnmapFreesPud),
  },
  {
    name: 'efi-trampoline-pgds',
    summary: 'PGDs that belong to no process must get new kernel entries too',
    source: 'seed 003: H. Peter Anvin, 11 June 2015',
    fault: [{check: 'missed_pgd_entries', atLeast: 1}],
    runs: [
      {...on, label: 'lockless-v1', design: ['pgd=lockless-v1'], expected: 'caught'},
      {...on, label: 'lockless-2015-09', design: ['pgd=lockless-2015-09'], expected: 'clean'},
      {...on, label: 'pgd-list', design: ['pgd=pgd-list'], expected: 'clean'},
    ],
    seeds: SEEDS,
    build: sceneOf('efi-trampoline-pgds', 1, putSpecialPgds),
  },
  {
    name: 'vmalloc-fault-context',
    summary: 'a kernel access to a fresh vmalloc area takes a fault where no PGD was synchronised',
    source:
      'kernel.md A.4, A.6 (eager sync since 5.8, preallocation since 5.9); seed 003 on patch 08',
    fault: [FAULTED],
    runs: [
      lazy('pgd-list 4.1', '4.1', 'pgd=pgd-list', 'caught'),
      lazy('lockless-2015-09', '4.1', 'pgd=lockless-2015-09', 'caught'),
      lazy('sync-at-vmalloc', '4.1', 'pgd=sync-at-vmalloc', 'clean'),
      lazy('pgd-list 6.6', '6.6', 'pgd=pgd-list', 'clean'),
      {
        ...on,
        label: 'preallocated 6.6',
        kernel: '6.6',
        design: ['pgd=preallocated'],
        expected: 'clean',
      },
    ],
    seeds: SEEDS,
    build: sceneOf('vmalloc-fault-context', 3, putFaultContext),
  },
];
