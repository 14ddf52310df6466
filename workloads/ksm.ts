// ksm: processes with mergeable memory of known contents, and ksmd. It is what the kernel's
// ksm_tests and a host full of equal guests do: write pages of which a share are duplicates or all
// zeros, let ksmd merge them, write to some now and then (copy on write; the new content may be one
// that others have), at the end take the memory back in one of several ways.
//
// Contents are stated, so what ksmd must arrive at is known: page i of the duplicates holds content
// i mod `contents`, the same in every process. With N pages of one content and M =
// max_page_sharing, pages_shared and pages_sharing follow ksm_tests' formula.

import {KIND} from '../formats/kinds.ts';
import {FIXED_VMAS, Image, PAGE_BYTES} from './address_space.ts';
import {NOMINAL_NS} from './nominal.ts';
import {Stream} from './rng.ts';
import type {Actor, Gate, Script, Stage, Step} from './stage.ts';
import {AREAS_TOP, madvise, mmap, munmap} from './vm_calls.ts';
import {choice, defineWorkload, number, type ValuesOf} from './workload.ts';

const PARAMS = {
  processes: number('count', 2, 1, 10_000, 'processes with mergeable memory'),
  pages: number('pages', 2048, 1, 16_000_000, 'mergeable pages of each'),
  zeros: number('share', 0.1, 0, 1, 'share of pages of zeros'),
  duplicates: number('share', 0.6, 0, 1, 'share of the others that have equals'),
  contents: number('count', 8, 1, 1_000_000, 'different contents among the duplicates'),
  pages_to_scan: number('pages', 1000, 1, 1_000_000, 'pages that ksmd looks at before it sleeps'),
  sleep_millisecs: number('count', 4, 0, 100_000, 'and how long it sleeps, ms'),
  max_page_sharing: number('pages', 256, 2, 1_000_000, 'most pages that one KSM page stands for'),
  use_zero_pages: choice(['no', 'yes'], 'pages of zeros are mapped to the page of zeros'),
  smart_scan: choice(['yes', 'no'], 'pages that did not merge for long are left out (6.7+)'),
  settle: number('ns', 100_000_000, 0, 1e12, 'time for ksmd before the first round'),
  rounds: number('count', 2, 0, 100_000, 'rounds of writes'),
  writes: number('share', 0.05, 0, 1, 'share of its pages that a process writes in a round'),
  rewrite: choice(['unique', 'duplicate'], 'what the written pages hold: nobody else has it'),
  interval: number('ns', 50_000_000, 0, 1e12, 'time between rounds'),
  finish: choice(
    ['exit', 'unmerge', 'stop', 'unmap'],
    'how memory is taken back: exit; MADV_UNMERGEABLE; run=2; munmap',
  ),
  cpus: number('count', 0, 0, 65_536, 'CPUs to spread over; 0: one per process'),
};

type Values = ValuesOf<typeof PARAMS>;
type Steps = Generator<Step, void, void>;

const MADV_MERGEABLE = 12;
const MADV_UNMERGEABLE = 13;
/** Copying 4 KiB on a write fault besides the fault itself; assumption. */
const COPY_NS = 400;
/** Contents: 0 is all zeros, duplicates from here on, then what each page has for itself. */
const FIRST_DUPLICATE = 1;

/** Where the pages of each kind begin: zeros first, then duplicates, then the others. */
interface Plan {
  readonly zeros: number;
  readonly duplicates: number;
}

function planOf({pages, zeros, duplicates}: Values): Plan {
  const zeroPages = Math.round(pages * zeros);
  return {zeros: zeroPages, duplicates: Math.round((pages - zeroPages) * duplicates)};
}

function cpus(values: Values): number {
  return values.cpus === 0 ? values.processes : values.cpus;
}

/**
 * Writes `pages` pages, every `stride`th from page `first` of the area on; page n then holds
 * `content + n * step`.
 */
function write(
  self: Actor,
  addr: number,
  [first, pages, stride]: readonly [number, number, number],
  [content, step]: readonly [number, number],
): undefined {
  if (pages === 0) return;
  const durationNs = pages * NOMINAL_NS.minorFault;
  self.op(KIND.write_content, durationNs, addr + first * PAGE_BYTES, pages, stride, content, step);
}

/** A content that no other page has and never had: by process, round and page. */
function uniqueContent(values: Values, process: number, round: number): number {
  const {contents, processes, pages} = values;
  return FIRST_DUPLICATE + contents + (round * processes + process) * pages;
}

function* fill(self: Actor, values: Values, process: number, addr: number): Steps {
  const {zeros, duplicates} = planOf(values);
  const {contents, pages} = values;
  yield write(self, addr, [0, zeros, 1], [0, 0]);
  for (let content = 0; content < Math.min(contents, duplicates); content++) {
    const equal = Math.ceil((duplicates - content) / contents);
    yield write(self, addr, [zeros + content, equal, contents], [FIRST_DUPLICATE + content, 0]);
  }
  const rest = zeros + duplicates;
  yield write(self, addr, [rest, pages - rest, 1], [uniqueContent(values, process, 0) + rest, 1]);
}

/**
 * One round of writes to random pages, in the order of their addresses as a loop over them has it.
 */
function* rewrite(
  self: Actor,
  values: Values,
  process: number,
  round: number,
  addr: number,
  random: Stream,
): Steps {
  const {pages, writes, contents} = values;
  for (let page = 0; page < pages; page++) {
    if (!random.chance(writes)) continue;
    const content =
      values.rewrite === 'duplicate'
        ? FIRST_DUPLICATE + random.below(contents)
        : uniqueContent(values, process, round) + page;
    const at = addr + page * PAGE_BYTES;
    yield self.op(KIND.write_content, NOMINAL_NS.minorFault + COPY_NS, at, 1, 1, content, 0);
  }
}

interface Gates {
  readonly start: Gate;
  readonly end: Gate;
  readonly stopped: Gate;
}

function processScript(values: Values, seed: number, process: number, gates: Gates): Script {
  return function* (self) {
    const {pages, rounds, interval, settle, finish} = values;
    const bytes = pages * PAGE_BYTES;
    const addr = AREAS_TOP - bytes;
    const random = new Stream(seed, 'ksm', process);
    const image = new Image('/usr/bin/ksm', FIXED_VMAS, 8);
    yield* image.map(self);
    yield* image.write(self, 8);
    yield mmap(self, addr, bytes);
    yield madvise(self, addr, bytes, MADV_MERGEABLE);
    yield self.arrive(gates.start);
    yield* fill(self, values, process, addr);
    yield self.sleep(settle);
    for (let round = 1; round <= rounds; round++) {
      yield* rewrite(self, values, process, round, addr, random);
      yield self.sleep(interval);
    }
    if (finish === 'unmerge') yield madvise(self, addr, bytes, MADV_UNMERGEABLE);
    if (finish === 'unmap') yield munmap(self, addr, bytes, pages);
    yield self.arrive(gates.end);
    if (finish === 'stop') yield self.arrive(gates.stopped);
    yield self.exit();
  };
}

/** echo VALUE > /sys/kernel/mm/ksm/FILE. */
function ksmFile(self: Actor, file: string, value: number): undefined {
  const path = self.intern(`/sys/kernel/mm/ksm/${file}`);
  self.op(KIND.sysfs_write, NOMINAL_NS.syscall, path, self.intern(String(value)));
}

/** The shell that sets ksmd up, and stops it. */
function shellScript(values: Values, gates: Gates): Script {
  return function* (self) {
    const image = new Image('/usr/bin/bash', FIXED_VMAS, 8);
    yield* image.map(self);
    yield ksmFile(self, 'pages_to_scan', values.pages_to_scan);
    yield ksmFile(self, 'sleep_millisecs', values.sleep_millisecs);
    // Files that an older kernel has not are only written to when they are to differ from the
    // default.
    if (values.max_page_sharing !== 256) {
      yield ksmFile(self, 'max_page_sharing', values.max_page_sharing);
    }
    if (values.use_zero_pages === 'yes') yield ksmFile(self, 'use_zero_pages', 1);
    if (values.smart_scan === 'no') yield ksmFile(self, 'smart_scan', 0);
    yield ksmFile(self, 'run', 1);
    yield self.arrive(gates.start);
    yield self.arrive(gates.end);
    if (values.finish === 'stop') {
      yield ksmFile(self, 'run', 2);
      yield self.arrive(gates.stopped);
    }
    yield self.exit();
  };
}

export const ksm = defineWorkload({
  name: 'ksm',
  summary: 'mergeable memory of known contents, merged by ksmd and written to',
  imitates:
    "the kernel's ksm_tests and ksm_functional_tests; stress-ng --ksm; hosts of equal guests",
  params: PARAMS,
  cpus,
  script(stage: Stage, values, seed) {
    const parties = values.processes + 1;
    const [start, end, stopped] = [stage.gate(parties), stage.gate(parties), stage.gate(parties)];
    const gates = {start, end, stopped};
    stage.adopt({comm: 'bash', cpu: 0}, shellScript(values, gates));
    for (let i = 0; i < values.processes; i++) {
      const init = {comm: 'ksm', cpu: i % cpus(values)};
      stage.adopt(init, processScript(values, seed, i, gates));
    }
  },
});
