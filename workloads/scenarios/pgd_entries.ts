// Scenarios about entries that come, go and go stale: memory hotplug in both directions, EFI
// mappings, and vmalloc areas that processes meet by fault.

import {KIND} from '../../formats/kinds.ts';
import type {Expectation, Scenario, ScenarioRun, Verdict} from '../catalogue.ts';
import {PGDIR_BYTES, SECTION_BYTES, VmallocArea} from '../kernel_memory.ts';
import {NOMINAL_NS, vmallocNs} from '../nominal.ts';
import {Stream} from '../rng.ts';
import type {Actor, Gate, Stage} from '../stage.ts';
import {
  FIRST_SLOT,
  forkFreely,
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
 * Memory comes and goes in one slot: its top-level entry is freed and made anew. Children come and
 * go too; one that exits between the free and the walk shows what its PGD then names. Registrations
 * of die notifiers walk all PGDs as well, so the remover has to queue for pgd_lock, and exits queue
 * before it.
 */
function putRemoveWindow(stage: Stage, seed: number): void {
  sleepers(stage, 60);
  for (let i = 0; i < 6; i++) {
    stage.adopt({comm: 'forker', cpu: i + 1}, (self) =>
      forkFreely(self, 100, 5_000, new Stream(seed, 'forker', i)),
    );
  }
  for (let i = 0; i < 2; i++) {
    stage.adopt({comm: 'modprobe', cpu: 7 + i}, function* (self) {
      yield self.pin();
      for (let n = 0; n < 400; n++) yield self.op(KIND.register_die_notifier, NOMINAL_NS.syncAll);
      yield self.exit();
    });
  }
  stage.adopt({comm: 'memhp', cpu: 0}, function* (self) {
    const random = new Stream(seed, 'memhp');
    yield self.pin();
    for (let round = 0; round < ROUNDS; round++) {
      yield hotAdd(self, FIRST_SLOT);
      yield self.think(random.timeNs(40_000, 'uniform'));
      yield hotRemove(self, FIRST_SLOT);
    }
    yield self.exit();
  });
}

/** Pages of one EFI region. */
const EFI_PAGES = 4096;
/** A virtual address of the firmware's own, in the hole below the espfix stacks. */
const EFI_VIRTUAL = 0xffff_fd00_0000_0000n;

function efiMap(self: Actor, addr: number | bigint): undefined {
  self.op(KIND.efi_map, NOMINAL_NS.setMemory, addr, EFI_PAGES);
}

function efiUnmap(self: Actor, addr: number | bigint): undefined {
  self.op(KIND.efi_unmap, NOMINAL_NS.setMemory, addr, EFI_PAGES);
}

/**
 * A 1:1 mapping of the firmware lies in a slot whose memory has been removed: it is the last user
 * of the slot's PUD page, which swapper_pg_dir and every PGD name. Then the memory comes back.
 */
function putUnmapFreesPud(stage: Stage): void {
  sleepers(stage, 10);
  stage.adopt({comm: 'efi', cpu: 0}, function* (self) {
    for (let round = 0; round < 20; round++) {
      const slot = FIRST_SLOT + round;
      const region = slot * PGDIR_BYTES + 8 * SECTION_BYTES;
      yield hotAdd(self, slot);
      yield efiMap(self, region);
      yield hotRemove(self, slot);
      const child = forkSleeper(self, 400_000);
      yield;
      yield efiUnmap(self, region);
      yield hotAdd(self, slot);
      yield self.wait(child);
      yield hotRemove(self, slot);
    }
    yield self.exit();
  });
}

/**
 * Firmware calls on one CPU, memory added on another. The special PGD is on no list and belongs to
 * no task; it is copied from the reference before each call, and may lack what is added during one.
 */
function putSpecialPgds(stage: Stage, seed: number): void {
  sleepers(stage, 10);
  stage.adopt({comm: 'efi', cpu: 1}, function* (self) {
    yield self.pin();
    for (let i = 0; i < 200; i++) {
      yield efiMap(self, EFI_VIRTUAL);
      yield efiUnmap(self, EFI_VIRTUAL);
    }
    yield self.exit();
  });
  stage.adopt({comm: 'memhp', cpu: 0}, function* (self) {
    const random = new Stream(seed, 'memhp');
    yield self.pin();
    for (let i = 0; i < 60; i++) {
      yield hotAdd(self, FIRST_SLOT + i);
      yield self.think(random.timeNs(30_000, 'uniform'));
    }
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

const STALE: Expectation = {
  check: 'findings',
  matches: 'stale PGD entry|differs from the reference|use-after-free',
  atLeast: 1,
};
const FREED_IN_USE: Expectation = {
  check: 'findings',
  matches: 'unmap_pgd_range frees the PUD page',
  atLeast: 1,
};
const LACKS: Expectation = {check: 'findings', matches: 'lacks kernel entry', atLeast: 1};
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
    source: 'lockless pgd_alloc series (June 2015), patch 03; af2cf278ef4f',
    fault: [STALE],
    runs: [
      {...on, label: 'pgd-list 3.10', kernel: '3.10', design: ['pgd=pgd-list'], expected: 'caught'},
      {...on, label: 'pgd-list 4.1', design: ['pgd=pgd-list'], expected: 'caught'},
      {...on, label: 'pgd-list 4.13', kernel: '4.13', design: ['pgd=pgd-list'], expected: 'clean'},
      {...on, label: 'lockless-2015-09', design: ['pgd=lockless-2015-09'], expected: 'clean'},
    ],
    seeds: SEEDS,
    build: sceneOf('hotplug-remove-window', 9, putRemoveWindow),
  },
  {
    name: 'unmap-frees-pud',
    summary: 'tearing down an EFI mapping frees its PUD page while PGDs still point to it',
    source: 'lockless pgd_alloc series (June 2015), patch 01; unmap_pgd_range',
    fault: [FREED_IN_USE],
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
    summary: 'a PGD that belongs to no process lacks an entry that is added while it is in use',
    source:
      'lockless pgd_alloc series: H. Peter Anvin, 11 June 2015; kernel 3.14 gave EFI its own PGD',
    fault: [LACKS],
    runs: [
      {...on, label: 'pgd-list 4.1', design: ['pgd=pgd-list'], expected: 'caught'},
      {...on, label: 'lockless-2015-09', design: ['pgd=lockless-2015-09'], expected: 'caught'},
      {
        ...on,
        label: 'EFI on swapper_pg_dir 3.10',
        kernel: '3.10',
        design: ['pgd=pgd-list'],
        expected: 'clean',
      },
    ],
    seeds: SEEDS,
    build: sceneOf('efi-trampoline-pgds', 2, putSpecialPgds),
  },
  {
    name: 'vmalloc-fault-context',
    summary: 'a kernel access to a fresh vmalloc area takes a fault where no PGD was synchronised',
    source: 'eager sync since 5.8, preallocation since 5.9; lockless pgd_alloc series, patch 08',
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
