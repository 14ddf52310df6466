// Scenarios about 1 GB entries of device-dax: what goes wrong when a patch of the series that
// taught mprotect about them is missing. The axis `pud` leaves out one at a time.

import {KIND} from '../../formats/kinds.ts';
import type {Expectation, Scenario, ScenarioRun} from '../catalogue.ts';
import {NOMINAL_NS} from '../nominal.ts';
import {Stream} from '../rng.ts';
import {type Actor, CLONE, type Stage} from '../stage.ts';
import {dealStrata, sceneOf} from './pieces.ts';

const MACHINE = '2s4c1t';
const SEEDS = [1, 2, 3];
const GB = 2 ** 30;
/** A multiple of 1 GB, below the stack. */
const AREA = 0x7e00_0000_0000;
const FILE = '/dev/dax0.0-1g';
const SHARED = 1;
const READ_WRITE = 3;
const WRITE_FAULT = 6;
const READ_FAULT = 4;
/** mprotect of one 1 GB entry, the flush of all CPUs included. */
const PROTECT_NS = 3_000;

function mapDevice(self: Actor): undefined {
  const file = self.intern(FILE);
  self.op(KIND.map, NOMINAL_NS.mapVma, AREA, GB, 0, READ_WRITE, SHARED, file);
}

function access(self: Actor, errorCode: number): undefined {
  self.op(KIND.access, NOMINAL_NS.minorFault, AREA + 4096, errorCode, 0);
}

function protect(self: Actor, prot: number): undefined {
  self.op(KIND.mprotect, PROTECT_NS, AREA, GB, prot);
}

/** One process maps a device, writes to it, changes the protection, unmaps it. */
function putProtect(prot: number): (stage: Stage) => void {
  return (stage) => {
    stage.adopt({comm: 'dax', cpu: 0}, function* (self) {
      yield mapDevice(self);
      yield access(self, WRITE_FAULT);
      yield protect(self, prot);
      yield self.op(KIND.munmap, NOMINAL_NS.mapVma, AREA, GB);
      yield self.exit();
    });
  };
}

const ROUNDS = 500;
/** From the meeting on, mprotect has changed the entry within that time. */
const SPREAD_NS = 22_000;
/** By then the other thread has mapped the device and waits. */
const MAPPED_NS = 40_000;

/**
 * In each round one thread maps the device anew and reads, so that the entry is writable and clean;
 * then it makes it executable while another thread writes for the first time, somewhere in the time
 * that the call takes.
 */
function putDirtyRace(stage: Stage, seed: number): void {
  stage.adopt({comm: 'dax', cpu: 0}, function* (self) {
    const gate = stage.gate(2);
    const [delays] = dealStrata(ROUNDS, SPREAD_NS, 1, new Stream(seed, 'writer'));
    yield self.pin();
    self.fork(
      function* (writer) {
        yield writer.pin();
        for (const ns of delays) {
          // The last to arrive goes on at once, the other must be woken: the writer comes last.
          yield writer.think(MAPPED_NS);
          yield writer.arrive(gate);
          yield writer.think(ns);
          yield access(writer, WRITE_FAULT);
          yield writer.arrive(gate);
        }
        yield writer.exit(false);
      },
      NOMINAL_NS.exit,
      CLONE.thread,
      1,
    );
    for (let round = 0; round < ROUNDS; round++) {
      yield mapDevice(self);
      yield access(self, READ_FAULT);
      yield self.arrive(gate);
      yield protect(self, READ_WRITE | 4);
      yield self.arrive(gate);
      yield self.op(KIND.munmap, NOMINAL_NS.mapVma, AREA, GB);
    }
    yield self.exit(false);
  });
}

/** Nothing was refused: what is clean is not clean for want of trying. */
const DONE: readonly Expectation[] = [
  {check: 'metric', path: ['replay', 'operations', 'failed'], atMost: 0},
  {check: 'metric', path: ['replay', 'operations', 'skipped'], atMost: 0},
];

/** The series without one patch, and with all of them. */
function runs(without: string, label: string): readonly ScenarioRun[] {
  const clean = (kernel: string): ScenarioRun => ({
    label: kernel,
    kernel,
    design: [],
    machine: MACHINE,
    expected: 'clean',
    also: DONE,
  });
  return [
    {label, kernel: '6.12', design: [`pud=${without}`], machine: MACHINE, expected: 'caught'},
    clean('6.12'),
    clean('6.18'),
  ];
}

const SOURCE = 'Peter Xu, mm/mprotect: fix dax puds, 7 Aug 2024';

export const PUD_SCENARIOS: readonly Scenario[] = [
  {
    name: 'pud-leaf-prot-none',
    summary: 'a PROT_NONE 1 GB entry is no leaf to pud_leaf: zap takes it for a damaged table',
    source: SOURCE,
    fault: [{check: 'findings', matches: 'bad pud', atLeast: 1}],
    runs: runs('leaf-present', '6.12 without pud_leaf of PSE alone'),
    seeds: SEEDS,
    build: sceneOf('pud-leaf-prot-none', 8, putProtect(0)),
  },
  {
    name: 'pud-dirty-race',
    summary:
      'mprotect reads, changes and writes a 1 GB entry back: a dirty bit set meanwhile is lost',
    source: SOURCE,
    fault: [{check: 'findings', matches: 'dirty bit', atLeast: 1}],
    runs: runs('no-invalidate', '6.12 without pudp_invalidate'),
    seeds: SEEDS,
    build: sceneOf('pud-dirty-race', 8, putDirtyRace),
  },
  {
    name: 'shadow-stack-zap',
    summary: 'a dirty 1 GB entry made read-only says shadow stack: zap warns',
    source: SOURCE,
    fault: [{check: 'findings', matches: 'arch_check_zapped_pud', atLeast: 1}],
    runs: runs('no-saved-dirty', '6.12 without mksaveddirty in pud_modify'),
    seeds: SEEDS,
    build: sceneOf('shadow-stack-zap', 8, putProtect(1)),
  },
];
