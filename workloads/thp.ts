// thp: processes that live on transparent huge pages and break them up, as stress-ng's --mmap with
// MADV_HUGEPAGE, --madvise and --fork together do to theirs. A round faults the area in, forks now
// and then (the child's writes copy), takes one page out of some of the huge pages (mprotect,
// munmap or MADV_DONTNEED, which split them in three ways), writes what is missing, lets the pages
// be collapsed again (MADV_COLLAPSE, or khugepaged in its own time), and gives the area back.

import {KIND} from '../formats/kinds.ts';
import {FIXED_VMAS, Image, PAGE_BYTES} from './address_space.ts';
import {forkNs, NOMINAL_NS} from './nominal.ts';
import {Stream} from './rng.ts';
import type {Actor, Gate, Script, Stage, Step} from './stage.ts';
import {
  ANON,
  AREAS_TOP,
  madvise,
  MAP_FIXED,
  mmap,
  munmap,
  PROT_READ,
  PROT_RW,
  touch,
} from './vm_calls.ts';
import {choice, defineWorkload, number, type ValuesOf} from './workload.ts';

const PARAMS = {
  processes: number('count', 2, 1, 10_000, 'processes'),
  size: number('bytes', 32 * 2 ** 20, 2 ** 21, 2 ** 42, 'area of each, in whole 2 MB'),
  rounds: number('count', 4, 1, 1_000_000, 'rounds of each'),
  enabled: choice(['madvise', 'always', 'never'], 'transparent_hugepage/enabled'),
  advise: choice(['yes', 'no'], 'MADV_HUGEPAGE for the area'),
  fault: choice(['write', 'read', 'sparse'], 'write all; read first; write one page of each 2 MB'),
  forks: number('share', 0.25, 0, 1, 'share of rounds that fork a child'),
  child_writes: number('share', 0.1, 0, 1, 'share of huge pages that the child writes to'),
  splits: number('share', 0.3, 0, 1, 'share of huge pages of which one page is taken'),
  split: choice(['mixed', 'mprotect', 'munmap', 'dontneed'], 'how it is taken'),
  collapse: choice(['madvise', 'khugepaged', 'none'], 'MADV_COLLAPSE; wait for khugepaged; not'),
  pages_to_scan: number('pages', 4096, 1, 2 ** 31, 'of khugepaged'),
  scan_sleep_millisecs: number('count', 10, 0, 1_000_000, 'of khugepaged, ms'),
  interval: number('ns', 20_000_000, 0, 1e12, 'wait for khugepaged in each round'),
  give_back: choice(['dontneed', 'munmap'], 'how a round ends'),
  cpus: number('count', 0, 0, 65_536, 'CPUs to spread over; 0: one per process'),
};

type Values = ValuesOf<typeof PARAMS>;
type Steps = Generator<Step, void, void>;

const HUGE_BYTES = 2 ** 21;
const HUGE_PAGES = HUGE_BYTES / PAGE_BYTES;
const MADV_DONTNEED = 4;
const MADV_HUGEPAGE = 14;
const MADV_COLLAPSE = 25;
/** Clearing 2 MB; assumption. */
const HUGE_FAULT_NS = 100_000;

/** An area of huge pages. */
interface Area {
  readonly addr: number;
  readonly huge: number;
}

function areaOf({size}: Values): Area {
  const huge = Math.floor(size / HUGE_BYTES);
  return {addr: AREAS_TOP - huge * HUGE_BYTES, huge};
}

function cpus(values: Values): number {
  return values.cpus === 0 ? values.processes : values.cpus;
}

/** A round's faults: one for each 2 MB where huge pages are to be had. */
function* faultIn(self: Actor, {fault, enabled, advise}: Values, {addr, huge}: Area): Steps {
  const hugeFaults = enabled === 'always' || (enabled === 'madvise' && advise === 'yes');
  const pageNs = hugeFaults ? HUGE_FAULT_NS / HUGE_PAGES : NOMINAL_NS.minorFault;
  if (fault === 'read') yield touch(self, addr, huge * HUGE_PAGES, false, pageNs);
  if (fault !== 'sparse') yield touch(self, addr, huge * HUGE_PAGES, true, pageNs);
  else yield touch(self, addr, huge, true, HUGE_FAULT_NS, HUGE_PAGES);
}

/** The child writes one page of some huge pages, which are shared with the parent, and exits. */
function childScript(values: Values, {addr, huge}: Area, random: Stream): Script {
  return function* (self) {
    for (let at = 0; at < huge; at++) {
      if (!random.chance(values.child_writes)) continue;
      const page = addr + at * HUGE_BYTES + random.below(HUGE_PAGES) * PAGE_BYTES;
      yield touch(self, page, 1, true);
    }
    yield self.exit();
  };
}

type Split = (self: Actor, page: number) => Steps;

const SPLITS: Readonly<Record<'mprotect' | 'munmap' | 'dontneed', Split>> = {
  *mprotect(self, page) {
    yield self.op(KIND.mprotect, NOMINAL_NS.mapVma, page, PAGE_BYTES, PROT_READ);
    yield self.op(KIND.mprotect, NOMINAL_NS.mapVma, page, PAGE_BYTES, PROT_RW);
  },
  *munmap(self, page) {
    yield munmap(self, page, PAGE_BYTES, 1);
    yield mmap(self, page, PAGE_BYTES, ANON | MAP_FIXED);
  },
  *dontneed(self, page) {
    yield madvise(self, page, PAGE_BYTES, MADV_DONTNEED);
  },
};
const SPLIT_NAMES = ['mprotect', 'munmap', 'dontneed'] as const;

/** Takes one page out of some of the huge pages, then makes the area whole again. */
function* splitSome(self: Actor, values: Values, {addr, huge}: Area, random: Stream): Steps {
  for (let at = 0; at < huge; at++) {
    if (!random.chance(values.splits)) continue;
    const page = addr + at * HUGE_BYTES + random.below(HUGE_PAGES) * PAGE_BYTES;
    const how = values.split === 'mixed' ? SPLIT_NAMES[random.below(3)] : values.split;
    yield* SPLITS[how](self, page);
  }
  if (values.advise === 'yes') yield madvise(self, addr, huge * HUGE_BYTES, MADV_HUGEPAGE);
  yield touch(self, addr, huge * HUGE_PAGES, true, 0);
}

function* collapse(self: Actor, values: Values, {addr, huge}: Area): Steps {
  if (values.collapse === 'khugepaged') yield self.sleep(values.interval);
  if (values.collapse === 'madvise') yield madvise(self, addr, huge * HUGE_BYTES, MADV_COLLAPSE);
}

function* round(self: Actor, values: Values, area: Area, random: Stream): Steps {
  const {addr, huge} = area;
  const bytes = huge * HUGE_BYTES;
  yield* faultIn(self, values, area);
  if (random.chance(values.forks)) {
    const costNs = forkNs(FIXED_VMAS, huge);
    const child = self.fork(childScript(values, area, random), costNs);
    yield;
    yield self.wait(child);
  }
  yield* splitSome(self, values, area, random);
  yield* collapse(self, values, area);
  if (values.give_back === 'dontneed') {
    yield madvise(self, addr, bytes, MADV_DONTNEED);
    return;
  }
  yield munmap(self, addr, bytes, huge);
  yield mmap(self, addr, bytes);
  if (values.advise === 'yes') yield madvise(self, addr, bytes, MADV_HUGEPAGE);
}

function processScript(values: Values, seed: number, process: number, gate: Gate): Script {
  return function* (self) {
    const area = areaOf(values);
    const random = new Stream(seed, 'thp', process);
    const image = new Image('/usr/bin/stress-ng', FIXED_VMAS, 8);
    yield* image.map(self);
    yield* image.write(self, 8);
    yield mmap(self, area.addr, area.huge * HUGE_BYTES);
    yield self.arrive(gate);
    if (values.advise === 'yes')
      yield madvise(self, area.addr, area.huge * HUGE_BYTES, MADV_HUGEPAGE);
    for (let i = 0; i < values.rounds; i++) yield* round(self, values, area, random);
    yield self.exit();
  };
}

/** The shell that sets huge pages up before the others begin. */
function shellScript(values: Values, gate: Gate): Script {
  const file = (self: Actor, name: string, value: string | number): undefined => {
    const path = self.intern(`/sys/kernel/mm/transparent_hugepage/${name}`);
    self.op(KIND.sysfs_write, NOMINAL_NS.syscall, path, self.intern(String(value)));
  };
  return function* (self) {
    const image = new Image('/usr/bin/bash', FIXED_VMAS, 8);
    yield* image.map(self);
    if (values.enabled !== 'madvise') yield file(self, 'enabled', values.enabled);
    if (values.collapse === 'khugepaged') {
      yield file(self, 'khugepaged/pages_to_scan', values.pages_to_scan);
      yield file(self, 'khugepaged/scan_sleep_millisecs', values.scan_sleep_millisecs);
    }
    yield self.arrive(gate);
    yield self.exit();
  };
}

export const thp = defineWorkload({
  name: 'thp',
  summary: 'huge pages faulted in, shared, split and collapsed again',
  imitates: 'the bundled recording thp; stress-ng --mmap with MADV_HUGEPAGE, --madvise, --fork',
  params: PARAMS,
  cpus,
  script(stage: Stage, values, seed) {
    const gate = stage.gate(values.processes + 1);
    stage.adopt({comm: 'bash', cpu: 0}, shellScript(values, gate));
    for (let i = 0; i < values.processes; i++) {
      const init = {comm: 'thp', cpu: i % cpus(values)};
      stage.adopt(init, processScript(values, seed, i, gate));
    }
  },
});
