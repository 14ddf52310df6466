// swapoff: processes squeezed into a memory cgroup until most of their memory is in swap, then
// `swapoff` while they live and touch it. The bundled recording's script does this with two Python
// processes of 48 MiB in a cgroup of 48 MiB. With `children` each process forks before the end, so
// that several address spaces have the same swap entries: that is what swapoff up to 5.0 searches,
// slot by slot.
//
// The first process is the shell: it switches the area on, makes the cgroup, lifts the limit again
// and calls swapoff.

import {EXIT, UserError} from '../formats/errors.ts';
import {KIND} from '../formats/kinds.ts';
import {FIXED_VMAS, Image, PAGE_BYTES} from './address_space.ts';
import {forkNs, NOMINAL_NS} from './nominal.ts';
import {Stream} from './rng.ts';
import type {Actor, Gate, Script, Stage, Step} from './stage.ts';
import {ANON, AREAS_TOP, mmap} from './vm_calls.ts';
import {choice, defineWorkload, number, type ValuesOf} from './workload.ts';

const MIB = 2 ** 20;

const PARAMS = {
  processes: number('count', 2, 1, 1024, 'processes with memory of their own'),
  bytes: number('bytes', 48 * MIB, PAGE_BYTES, 2 ** 40, 'memory that each writes'),
  limit: number('bytes', 48 * MIB, PAGE_BYTES, 2 ** 42, 'memory.max of the cgroup around them'),
  swap: number('bytes', 2 ** 30, MIB, 2 ** 37, 'size of the swap area'),
  children: number('count', 0, 0, 1024, 'children of each, forked when their parent is swapped'),
  touches: number('count', 2000, 0, 1e9, 'pages that each touches before swapoff'),
  during: number('count', 500, 0, 1e9, 'pages that each touches while swapoff runs'),
  order: choice(['random', 'sequential'], 'which pages are touched'),
  access: choice(['read-write', 'read', 'write'], 'what is done to a page touched'),
  think: number('ns', 2_000, 0, 1e12, 'mean computation before each touch'),
  times: choice(['exponential', 'uniform', 'constant'], 'how think spreads around its mean'),
  cpus: number('count', 0, 0, 65_536, 'CPUs to spread over; 0: one per process'),
};

type Values = ValuesOf<typeof PARAMS>;

const PROGRAM = '/usr/bin/python3';
const SHELL = '/usr/bin/bash';
const SWAP_FILE = '/swapfile';
/** Pages that shell and programs have written besides. */
const OWN_PAGES = 60;
/** Pages that one event of the first pass writes. */
const RUN_PAGES = 512;
/** A page that comes in from the device. */
const SWAP_IN_NS = 70_000;

function pagesOf({bytes}: Values): number {
  return Math.floor(bytes / PAGE_BYTES);
}

function addressOf(values: Values): number {
  return AREAS_TOP - pagesOf(values) * PAGE_BYTES;
}

/** Touches `count` pages, one after the other or drawn. */
function* touch(
  self: Actor,
  values: Values,
  count: number,
  random: Stream,
): Generator<Step, void, void> {
  const pages = pagesOf(values);
  const first = addressOf(values);
  for (let i = 0; i < count; i++) {
    const page = values.order === 'random' ? random.below(pages) : i % pages;
    const addr = first + page * PAGE_BYTES;
    yield self.think(random.timeNs(values.think, values.times));
    if (values.access !== 'write') yield self.op(KIND.touch, SWAP_IN_NS, addr, 1, 1, 0);
    if (values.access !== 'read') yield self.op(KIND.touch, NOMINAL_NS.minorFault, addr, 1, 1, 1);
  }
}

interface Gates {
  /** Everybody's memory is written. */
  readonly filled: Gate;
  /** Everything before swapoff is done; swapoff begins. */
  readonly off: Gate;
  /** Swapoff is done. */
  readonly over: Gate;
}

function childScript(values: Values, gates: Gates, random: Stream): Script {
  return function* (self) {
    yield self.arrive(gates.off);
    yield* touch(self, values, values.during, random);
    yield self.arrive(gates.over);
    yield self.exit();
  };
}

function processScript(values: Values, gates: Gates, seed: number, index: number): Script {
  return function* (self) {
    const pages = pagesOf(values);
    const first = addressOf(values);
    yield* new Image(PROGRAM, FIXED_VMAS, OWN_PAGES).exec(self, PROGRAM, OWN_PAGES);
    yield mmap(self, first, pages * PAGE_BYTES, ANON);
    for (let page = 0; page < pages; page += RUN_PAGES) {
      const run = Math.min(RUN_PAGES, pages - page);
      const addr = first + page * PAGE_BYTES;
      yield self.op(KIND.touch, run * NOMINAL_NS.minorFault, addr, run, 1, 1);
    }
    yield self.arrive(gates.filled);
    const random = new Stream(seed, 'swapoff', index);
    yield* touch(self, values, values.touches, random);
    const children: Actor[] = [];
    for (let c = 0; c < values.children; c++) {
      const stream = new Stream(seed, `swapoff ${index}`, c);
      children.push(self.fork(childScript(values, gates, stream), forkNs(FIXED_VMAS + 1, pages)));
      yield;
    }
    yield self.arrive(gates.off);
    yield* touch(self, values, values.during, random);
    yield self.arrive(gates.over);
    for (const child of children) yield self.wait(child);
    yield self.exit();
  };
}

function shellScript(values: Values, gates: Gates, seed: number): Script {
  return function* (self) {
    const image = new Image(SHELL, FIXED_VMAS, OWN_PAGES);
    yield* image.map(self);
    yield* image.write(self, OWN_PAGES);
    const path = self.intern(SWAP_FILE);
    yield self.op(KIND.swapon, NOMINAL_NS.exit, path, Math.floor(values.swap / PAGE_BYTES));
    const costNs = forkNs(FIXED_VMAS, OWN_PAGES);
    const forked: Actor[] = [];
    yield self.op(KIND.memcg_limit, NOMINAL_NS.syscall, values.limit);
    for (let i = 0; i < values.processes; i++) {
      const script = processScript(values, gates, seed, i);
      forked.push(self.fork(script, costNs, undefined, i % cpus(values)));
      yield;
    }
    yield self.arrive(gates.off);
    yield self.op(KIND.memcg_limit, NOMINAL_NS.syscall, 0);
    const swapped = Math.max(0, values.processes * values.bytes - values.limit) / PAGE_BYTES;
    yield self.op(KIND.swapoff, Math.ceil(swapped) * SWAP_IN_NS, path);
    yield self.arrive(gates.over);
    for (const one of forked) yield self.wait(one);
    yield self.exit();
  };
}

function check(values: Values): void {
  const {processes, bytes, limit, swap} = values;
  if (processes * bytes < limit + swap - PAGE_BYTES) return;
  throw new UserError(
    'swapoff: the processes need more memory than limit and swap have together; give more swap',
    EXIT.usage,
  );
}

function cpus(values: Values): number {
  return values.cpus === 0 ? values.processes : values.cpus;
}

export const swapoff = defineWorkload({
  name: 'swapoff',
  summary: 'processes most of whose memory is in swap, and swapoff while they touch it',
  imitates: 'the bundled recording swapoff (two Python processes in a cgroup of 48 MiB)',
  params: PARAMS,
  check,
  cpus,
  script(stage: Stage, values, seed) {
    const all = values.processes * (1 + values.children) + 1;
    const gates = {
      filled: stage.gate(values.processes),
      off: stage.gate(all),
      over: stage.gate(all),
    };
    stage.adopt({comm: 'swapoff.sh', cpu: 0}, shellScript(values, gates, seed));
  },
});
