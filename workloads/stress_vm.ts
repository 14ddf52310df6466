// stress-vm: stress-ng --vm. Each worker forks a child that may be killed for memory; the child
// maps its share of vm_bytes, gives advice, runs a method over it and unmaps it, over and over.
// With `vm_keep` it maps once. `vm_method=all` takes the methods one after the other, a round each.
//
// Beyond stress-ng's parameters: `rounds` stands for --vm-ops (whose unit differs by method),
// `swap` is a swap area that is switched on before the workers start, and `limit` a memory cgroup
// around all of them, as `systemd-run -p MemoryMax=` would put it.

import {KIND} from '../formats/kinds.ts';
import {FIXED_VMAS, Image, PAGE_BYTES} from './address_space.ts';
import {NOMINAL_NS, forkNs} from './nominal.ts';
import {Stream} from './rng.ts';
import type {Actor, Gate, Script, Stage, Step} from './stage.ts';
import {METHOD_NAMES, METHODS, type Method, runPass} from './stress_vm_methods.ts';
import {
  ANON,
  AREAS_TOP,
  MAP_ANONYMOUS,
  MAP_LOCKED,
  MAP_POPULATE,
  MAP_SHARED,
  madvise,
  mmap,
  munmap,
} from './vm_calls.ts';
import {choice, defineWorkload, number, type ValuesOf} from './workload.ts';

/** Advice that --vm-madvise knows. */
const ADVICE = {
  normal: 0,
  random: 1,
  sequential: 2,
  willneed: 3,
  dontneed: 4,
  mergeable: 12,
  unmergeable: 13,
  hugepage: 14,
  nohugepage: 15,
} as const;
type Advice = keyof typeof ADVICE;
const ADVICE_NAMES = Object.keys(ADVICE) as Advice[];

const PARAMS = {
  vm: number('count', 2, 1, 4096, 'workers'),
  vm_bytes: number('bytes', 256 * 2 ** 20, PAGE_BYTES, 2 ** 42, 'memory of all workers together'),
  vm_method: choice(['all', ...METHOD_NAMES], 'order of accesses; all: each method in turn'),
  vm_keep: number('count', 0, 0, 1, '1: map once and write it again, 0: map in every round'),
  vm_hang: number('ns', 0, 0, 3.6e12, 'sleep before unmapping'),
  vm_populate: number('count', 0, 0, 1, '1: MAP_POPULATE'),
  vm_locked: number('count', 0, 0, 1, '1: MAP_LOCKED'),
  vm_madvise: choice(
    ['any', 'none', ...ADVICE_NAMES],
    'advice for the buffer; any: drawn each time, as stress-ng does without --vm-madvise',
  ),
  rounds: number('count', 2, 1, 1_000_000, 'times that each worker goes over its buffer'),
  swap: number('bytes', 0, 0, 2 ** 37, 'swap area; 0: none'),
  limit: number('bytes', 0, 0, 2 ** 42, 'memory.max of a cgroup around all workers; 0: none'),
  cpus: number('count', 0, 0, 65_536, 'CPUs to spread over; 0: one per worker'),
};

type Values = ValuesOf<typeof PARAMS>;

const PROGRAM = '/usr/bin/stress-ng';
const SWAP_FILE = '/swapfile';
const COUNTER = AREAS_TOP + PAGE_BYTES;
/** Pages of stress-ng itself that a worker has written. */
const OWN_PAGES = 60;

/** Pages of one worker's buffer. */
function bufferPages({vm_bytes, vm}: Values): number {
  return Math.max(1, Math.floor(vm_bytes / vm / PAGE_BYTES));
}

function methodOf({vm_method}: Values, round: number): Method {
  return vm_method === 'all' ? METHOD_NAMES[round % METHOD_NAMES.length] : vm_method;
}

function* advise(
  self: Actor,
  values: Values,
  addr: number,
  bytes: number,
  random: Stream,
): Generator<Step, void, void> {
  const {vm_madvise} = values;
  if (vm_madvise === 'none') return;
  const name = vm_madvise === 'any' ? ADVICE_NAMES[random.below(ADVICE_NAMES.length)] : vm_madvise;
  yield madvise(self, addr, bytes, ADVICE[name]);
}

/** stress_vm_child. */
function childScript(values: Values, random: Stream): Script {
  const pages = bufferPages(values);
  const bytes = pages * PAGE_BYTES;
  const addr = AREAS_TOP - bytes;
  const flags =
    ANON |
    (values.vm_populate === 1 ? MAP_POPULATE : 0) |
    (values.vm_locked === 1 ? MAP_LOCKED : 0);
  return function* (self) {
    for (let round = 0; round < values.rounds; round++) {
      if (values.vm_keep === 0 || round === 0) {
        yield mmap(self, addr, bytes, flags);
        yield* advise(self, values, addr, bytes, random);
      }
      const buffer = {addr, pages, random};
      for (const pass of METHODS[methodOf(values, round)]) yield* runPass(self, buffer, pass);
      yield self.sleep(values.vm_hang);
      if (values.vm_keep === 1 && round < values.rounds - 1) continue;
      if (values.vm_madvise === 'any') yield* advise(self, values, addr, bytes, random);
      yield munmap(self, addr, bytes, pages);
    }
    yield self.exit();
  };
}

/** stress_vm: the parent, which would start the child again if it were killed. */
function workerScript(values: Values, random: Stream, start: Gate): Script {
  return function* (self) {
    yield mmap(self, COUNTER, PAGE_BYTES, MAP_SHARED | MAP_ANONYMOUS);
    yield self.arrive(start);
    const child = self.fork(childScript(values, random), forkNs(FIXED_VMAS + 1, OWN_PAGES));
    yield;
    yield self.wait(child);
    yield munmap(self, COUNTER, PAGE_BYTES, 0);
    yield self.exit();
  };
}

/** Swap and cgroup of a trace, set up by its first process. */
export function* setUpMemory(
  self: Actor,
  swapBytes: number,
  limitBytes: number,
): Generator<Step, void, void> {
  if (swapBytes > 0) {
    const path = self.intern(SWAP_FILE);
    yield self.op(KIND.swapon, NOMINAL_NS.exit, path, Math.floor(swapBytes / PAGE_BYTES));
  }
  if (limitBytes > 0) yield self.op(KIND.memcg_limit, NOMINAL_NS.syscall, limitBytes);
}

function mainScript(stage: Stage, values: Values, seed: number): Script {
  return function* (self) {
    const image = new Image(PROGRAM, FIXED_VMAS, OWN_PAGES);
    yield* image.map(self);
    yield* image.write(self, OWN_PAGES);
    yield* setUpMemory(self, values.swap, values.limit);
    const start = stage.gate(values.vm);
    const workers: Actor[] = [];
    for (let i = 0; i < values.vm; i++) {
      const script = workerScript(values, new Stream(seed, 'stress-vm', i), start);
      const cpu = i % cpus(values);
      workers.push(self.fork(script, forkNs(FIXED_VMAS, OWN_PAGES), undefined, cpu));
      yield;
    }
    for (const worker of workers) yield self.wait(worker);
    yield self.exit();
  };
}

function cpus(values: Values): number {
  return values.cpus === 0 ? values.vm : values.cpus;
}

export const stressVm = defineWorkload({
  name: 'stress-vm',
  summary: 'workers that map memory, go over it in many orders and unmap it',
  imitates: 'stress-ng 0.16 --vm N --vm-bytes B --vm-method M',
  params: PARAMS,
  cpus,
  script(stage: Stage, values, seed) {
    stage.adopt({comm: 'stress-ng', cpu: 0}, mainScript(stage, values, seed));
  },
});
