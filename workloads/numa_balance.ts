// numa-balance: memory that lies on the wrong node, and threads that read it in a loop. What the
// autonuma benchmark (numa01, numa02 of Andrea Arcangeli, as mmtests runs them) and `perf bench
// numa mem` do, with the placement under control: thread i runs on CPU run_cpu + i, its memory is
// first touched on touch_cpu, which is to be a CPU of another node. numa01 is two processes whose
// threads all share one area (shared), numa02 threads with an area each.
//
// The loops read `lines` cache lines of every page from memory: how long they take is where the
// memory is. The kernel's scan begins after a second of run time and covers 256 MB a second, so a
// run should compute for several seconds.

import {EXIT, UserError} from '../formats/errors.ts';
import {KIND} from '../formats/kinds.ts';
import {PAGE_BYTES} from './address_space.ts';
import {NOMINAL_NS, THREAD_NS} from './nominal.ts';
import {Stream} from './rng.ts';
import {type Actor, CLONE, type Gate, type Script, type Stage, type Step} from './stage.ts';
import {choice, defineWorkload, number, type ValuesOf} from './workload.ts';

const PARAMS = {
  processes: number('count', 1, 1, 1024, 'processes'),
  threads: number('count', 4, 1, 4096, 'threads of each, the first one included'),
  mib: number('count', 16, 0, 1 << 20, 'MiB of each thread alone'),
  shared_mib: number('count', 0, 0, 1 << 20, 'MiB that all threads of a process use'),
  remote: number('share', 1, 0, 1, 'share of each area that is first touched on touch_cpu'),
  loops: number('count', 1200, 1, 1_000_000, 'times that a thread walks its memory'),
  lines: number('count', 64, 1, 64, 'cache lines read of each page'),
  in_flight: number('count', 10, 1, 64, 'lines asked for at a time; 1: a chain of pointers'),
  access: choice(['write', 'read'], 'what the walks do'),
  think: number('ns', 0, 0, 1e12, 'mean computation after each walk'),
  run_cpu: number('count', 0, 0, 65_535, 'CPU of the first thread; the others follow'),
  touch_cpu: number('count', 4, 0, 65_535, 'CPU on which the memory is first touched'),
  placement: choice(
    ['pinned', 'moved'],
    'pinned: threads stay where they run; moved: they run from touch_cpu on for half of the loops',
  ),
  pages: choice(['small', 'huge'], 'huge: MADV_HUGEPAGE'),
  balancing: choice(['on', 'off'], 'off: kernel.numa_balancing is set to 0 first'),
  scan_delay: number('ns', 1e9, 1e6, 1e12, 'scan_delay_ms and scan_period_min_ms, if not 1 s'),
};

type Values = ValuesOf<typeof PARAMS>;

const MIB_PAGES = 2 ** 20 / PAGE_BYTES;
const AREA = 0x7f00_0000_0000;
/** Areas begin at multiples of 2 MB and do not touch. */
const ALIGN = 2 ** 21;
const MADV_HUGEPAGE = 14;
/** A walk in pieces, as a program that looks at the time does. */
const RUN_PAGES = 1024;
/** A line from memory, and a page fault, for the nominal time. */
const LINE_NS = 100;

interface Area {
  readonly addr: number;
  readonly pages: number;
}

function areaAt(index: number, mib: number, largest: number): Area {
  const stride = Math.ceil((largest * 2 ** 20 + ALIGN) / ALIGN) * ALIGN;
  return {addr: AREA + index * stride, pages: mib * MIB_PAGES};
}

/** Areas of one process: thread i's is number i, the shared one is last. */
function areas(values: Values): Area[] {
  const largest = Math.max(values.mib, values.shared_mib);
  const own = Array.from({length: values.threads}, (_, i) => areaAt(i, values.mib, largest));
  return [...own, areaAt(values.threads, values.shared_mib, largest)];
}

function* map(self: Actor, values: Values, area: Area): Generator<Step, void, void> {
  const bytes = area.pages * PAGE_BYTES;
  if (bytes === 0) return;
  yield self.op(KIND.map, NOMINAL_NS.mapVma, area.addr, bytes, 0, 3, 0x22, 0);
  if (values.pages === 'huge') {
    yield self.op(KIND.madvise, NOMINAL_NS.syscall, area.addr, bytes, MADV_HUGEPAGE);
  }
}

/** Writes pages [from, to) of an area, 512 to an operation. */
function* touch(self: Actor, area: Area, from: number, to: number): Generator<Step, void, void> {
  for (let page = from; page < to; page += 512) {
    const n = Math.min(512, to - page);
    yield self.op(KIND.touch, n * NOMINAL_NS.minorFault, area.addr + page * PAGE_BYTES, n, 1, 1);
  }
}

/** What an administrator would write to /proc/sys and debugfs before. */
function* setUp(self: Actor, values: Values): Generator<Step, void, void> {
  const write = (path: string, value: number): undefined => {
    const text = self.intern(String(value));
    self.op(KIND.sysfs_write, NOMINAL_NS.syscall, self.intern(path), text);
  };
  if (values.balancing === 'off') yield write('/proc/sys/kernel/numa_balancing', 0);
  if (values.scan_delay === 1e9) return;
  const directory = '/sys/kernel/debug/sched/numa_balancing';
  const ms = Math.round(values.scan_delay / 1e6);
  yield write(`${directory}/scan_delay_ms`, ms);
  yield write(`${directory}/scan_period_min_ms`, ms);
}

function go(self: Actor, cpu: number): undefined {
  self.op(KIND.sched_setaffinity, NOMINAL_NS.syscall, cpu);
}

function* walk(self: Actor, values: Values, area: Area): Generator<Step, void, void> {
  const {lines, in_flight: inFlight} = values;
  const write = values.access === 'write' ? 1 : 0;
  for (let page = 0; page < area.pages; page += RUN_PAGES) {
    const n = Math.min(RUN_PAGES, area.pages - page);
    const ns = Math.ceil((n * lines * LINE_NS) / inFlight);
    const addr = area.addr + page * PAGE_BYTES;
    yield self.op(KIND.walk_lines, ns, addr, n, 1, write, lines, inFlight);
  }
}

function* loops(
  self: Actor,
  values: Values,
  mine: readonly Area[],
  random: Stream,
  count: number,
): Generator<Step, void, void> {
  for (let loop = 0; loop < count; loop++) {
    for (const area of mine) yield* walk(self, values, area);
    yield self.think(random.timeNs(values.think, 'exponential'));
  }
}

/** One thread: waits until the memory is there, then walks. */
function threadBody(
  self: Actor,
  values: Values,
  index: number,
  mine: readonly Area[],
  start: Gate,
  seed: number,
): Generator<Step, void, void> {
  const random = new Stream(seed, 'numa-balance', index);
  const runCpu = values.run_cpu + index;
  return (function* () {
    const away = values.placement === 'moved' ? values.loops >> 1 : 0;
    yield go(self, away > 0 ? values.touch_cpu + index : runCpu);
    yield self.arrive(start);
    if (away > 0) {
      yield* loops(self, values, mine, random, away);
      yield go(self, runCpu);
    }
    yield* loops(self, values, mine, random, values.loops - away);
  })();
}

function processScript(
  values: Values,
  first: number,
  start: Gate,
  join: Gate,
  seed: number,
): Script {
  return function* (self) {
    const all = areas(values);
    const shared = all[values.threads];
    if (first === 0) yield* setUp(self, values);
    for (const area of all) yield* map(self, values, area);
    yield go(self, values.touch_cpu);
    for (const area of all) yield* touch(self, area, 0, Math.round(area.pages * values.remote));
    yield go(self, values.run_cpu + first);
    for (const area of all) {
      yield* touch(self, area, Math.round(area.pages * values.remote), area.pages);
    }
    const used = (i: number): Area[] => [all[i], shared].filter((area) => area.pages > 0);
    for (let i = 1; i < values.threads; i++) {
      const script: Script = function* (thread) {
        yield* threadBody(thread, values, first + i, used(i), start, seed);
        yield thread.arrive(join);
        yield thread.exit(false);
      };
      self.fork(script, THREAD_NS, CLONE.thread, values.run_cpu + first + i);
      yield;
    }
    yield* threadBody(self, values, first, used(0), start, seed);
    yield self.arrive(join);
    yield self.exit();
  };
}

function check(values: Values): void {
  if (values.mib + values.shared_mib > 0) return;
  throw new UserError('numa-balance: mib and shared_mib are both 0; give one of them', EXIT.usage);
}

export const numaBalance = defineWorkload({
  name: 'numa-balance',
  summary: 'threads that read memory first touched on another node, until it comes to them',
  imitates: 'autonuma-benchmark numa01 and numa02 (mmtests), perf bench numa mem',
  params: PARAMS,
  check,
  cpus(values) {
    const tasks = values.processes * values.threads;
    const away = values.placement === 'moved' ? tasks : 1;
    return Math.max(values.touch_cpu + away, values.run_cpu + tasks);
  },
  script(stage: Stage, values, seed) {
    const tasks = values.processes * values.threads;
    const start = stage.gate(tasks);
    for (let p = 0; p < values.processes; p++) {
      const first = p * values.threads;
      const join = stage.gate(values.threads);
      const init = {comm: 'numa', cpu: values.run_cpu + first};
      stage.adopt(init, processScript(values, first, start, join, seed));
    }
  },
});
