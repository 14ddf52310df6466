// mmap-churn: tasks that map, touch and unmap in a loop. The kinds are will-it-scale's test cases
// (tests/*.c), one iteration of its counter being what it counts there: a page touched, a mapping
// made and undone, a brk. `threads` share one address space, and with it mmap_lock; `processes` do
// not.
//
// Areas lie side by side as mmap packs them, so neighbours merge where the kernel would merge them:
// threads then share a VMA and its lock. `layout=apart` leaves a page between. The files of
// page_fault2, page_fault3 and mmap2 are each task's own. malloc1 is what glibc makes of
// malloc(128 MB): a mapping one page larger, whose header is written. stress_mmap follows stress-ng
// --mmap: pages unmapped one by one in random order, then mapped back in another.

import {KIND} from '../formats/kinds.ts';
import {FIXED_VMAS, Image, PAGE_BYTES} from './address_space.ts';
import {NOMINAL_NS, THREAD_NS, forkNs} from './nominal.ts';
import {Stream} from './rng.ts';
import {CLONE, type Actor, type Gate, type Script, type Stage, type Step} from './stage.ts';
import {
  ANON,
  AREAS_TOP,
  brk,
  MAP_FIXED,
  MAP_PRIVATE,
  MAP_SHARED,
  mmap,
  munmap,
  PROT_READ,
  touch,
} from './vm_calls.ts';
import {choice, defineWorkload, number, type ValuesOf} from './workload.ts';

const KINDS = [
  'page_fault1',
  'page_fault2',
  'page_fault3',
  'mmap1',
  'mmap2',
  'brk1',
  'brk2',
  'malloc1',
  'stress_mmap',
] as const;

const PARAMS = {
  kind: choice(KINDS, "will-it-scale's test case, or stress-ng --mmap"),
  threads: number('count', 4, 1, 4096, 'threads of each process'),
  processes: number('count', 1, 1, 4096, 'processes'),
  iterations: number('count', 0, 0, 10_000_000, 'rounds of each task; 0: 2 that touch, else 1000'),
  size: number('bytes', 128 * 2 ** 20, PAGE_BYTES, 2 ** 38, 'area of a task (MEMSIZE)'),
  layout: choice(['adjacent', 'apart'], 'adjacent: as mmap packs areas, so that they may merge'),
  placement: choice(['pinned', 'free'], 'pinned: task i runs on CPU i, as will-it-scale has it'),
  cpus: number('count', 0, 0, 65_536, 'CPUs to pin over; 0: one per task'),
};

type Values = ValuesOf<typeof PARAMS>;

/** Pages of heap that the C library has used before the test begins. */
const HEAP_PAGES = 4;
/** Page faults that end in a copy of a page, and that make a file page writable. */
const COPY_NS = 900;

/** What a task has of its own. */
interface Own {
  readonly addr: number;
  readonly bytes: number;
  readonly file: string;
  readonly heapEnd: number;
  readonly random: Stream;
}

type Round = (self: Actor, own: Own) => Generator<Step, void, void>;

function pagesOf(bytes: number): number {
  return Math.ceil(bytes / PAGE_BYTES);
}

function faulting(flags: number, faultNs: number): Round {
  return function* (self, {addr, bytes, file}) {
    const pages = pagesOf(bytes);
    yield mmap(self, addr, bytes, flags, flags === ANON ? '' : file);
    yield touch(self, addr, pages, true, faultNs);
    yield munmap(self, addr, bytes, pages);
  };
}

function mapping(flags: number): Round {
  return function* (self, {addr, bytes, file}) {
    yield mmap(self, addr, bytes, flags, flags === ANON ? '' : file);
    yield munmap(self, addr, bytes, 0);
  };
}

function* heap(self: Actor, {heapEnd}: Own): Generator<Step, void, void> {
  yield brk(self, heapEnd + PAGE_BYTES);
  yield brk(self, heapEnd);
}

function* mallocFree(self: Actor, {addr, bytes}: Own): Generator<Step, void, void> {
  yield mmap(self, addr, bytes);
  yield touch(self, addr, 1, true);
  yield munmap(self, addr, bytes, 1);
}

/** stress-ng --mmap: holes in random order, the rest at once, then every page back at its place. */
function* stressMmap(self: Actor, own: Own): Generator<Step, void, void> {
  const {addr, bytes, random} = own;
  const pages = pagesOf(bytes);
  yield mmap(self, addr, bytes);
  yield touch(self, addr, pages, true);
  for (const page of random.permutation(pages)) {
    yield munmap(self, addr + page * PAGE_BYTES, PAGE_BYTES, 1);
  }
  for (const page of random.permutation(pages)) {
    const at = addr + page * PAGE_BYTES;
    yield mmap(self, at, PAGE_BYTES, ANON | MAP_FIXED);
    yield touch(self, at, 1, true);
    yield self.op(KIND.mprotect, NOMINAL_NS.mapVma, at, PAGE_BYTES, PROT_READ);
  }
  yield munmap(self, addr, bytes, pages);
}

const ROUNDS: Readonly<Record<Values['kind'], Round>> = {
  page_fault1: faulting(ANON, NOMINAL_NS.minorFault),
  page_fault2: faulting(MAP_PRIVATE, COPY_NS),
  page_fault3: faulting(MAP_SHARED, COPY_NS),
  mmap1: mapping(ANON),
  mmap2: mapping(MAP_PRIVATE),
  brk1: heap,
  brk2: heap,
  malloc1: mallocFree,
  stress_mmap: stressMmap,
};

function touches(kind: Values['kind']): boolean {
  return kind.startsWith('page_fault') || kind === 'stress_mmap';
}

function roundsOf(values: Values): number {
  if (values.iterations > 0) return values.iterations;
  return touches(values.kind) ? 2 : 1000;
}

/** Bytes of a task's area, in whole pages; malloc adds one for its header. */
function areaBytes({kind, size}: Values): number {
  return (pagesOf(size) + (kind === 'malloc1' ? 1 : 0)) * PAGE_BYTES;
}

function ownOf(values: Values, seed: number, task: number, image: Image): Own {
  const bytes = areaBytes(values);
  const gap = values.layout === 'apart' ? PAGE_BYTES : 0;
  const thread = task % values.threads;
  return {
    bytes,
    addr: AREAS_TOP - (thread + 1) * (bytes + gap),
    file: `/tmp/willitscale.${task}`,
    heapEnd: image.heapEnd + (values.kind === 'brk2' ? PAGE_BYTES : 0),
    random: new Stream(seed, 'mmap-churn', task),
  };
}

/** A thread's loop between the common start and the join. */
function* loop(self: Actor, values: Values, own: Own, start: Gate): Generator<Step, void, void> {
  if (values.placement === 'pinned') yield self.pin();
  yield self.arrive(start);
  const rounds = roundsOf(values);
  for (let i = 0; i < rounds; i++) yield* ROUNDS[values.kind](self, own);
}

function threadScript(values: Values, own: Own, start: Gate, join: Gate): Script {
  return function* (self) {
    yield* loop(self, values, own, start);
    yield self.arrive(join);
    yield self.exit(false);
  };
}

/** One process: its first thread is the process itself. */
function processScript(
  stage: Stage,
  values: Values,
  seed: number,
  first: number,
  image: Image,
  start: Gate,
): Script {
  return function* (self) {
    const join = stage.gate(values.threads);
    if (values.kind === 'brk2') yield brk(self, image.heapEnd + PAGE_BYTES);
    for (let i = 1; i < values.threads; i++) {
      const own = ownOf(values, seed, first + i, image);
      const cpu = (first + i) % cpus(values);
      self.fork(threadScript(values, own, start, join), THREAD_NS, CLONE.thread, cpu);
      yield;
    }
    yield* loop(self, values, ownOf(values, seed, first, image), start);
    yield self.arrive(join);
    yield self.exit();
  };
}

/** will-it-scale's main: sets up, forks the processes, waits for them. */
function mainScript(stage: Stage, values: Values, seed: number): Script {
  return function* (self) {
    const image = new Image(`/usr/bin/${values.kind}`, FIXED_VMAS, HEAP_PAGES);
    yield* image.map(self);
    yield brk(self, image.heapEnd);
    yield* image.write(self, HEAP_PAGES);
    const start = stage.gate(values.processes * values.threads);
    const children: Actor[] = [];
    for (let i = 0; i < values.processes; i++) {
      const first = i * values.threads;
      const script = processScript(stage, values, seed, first, image, start);
      const costNs = forkNs(FIXED_VMAS, HEAP_PAGES);
      children.push(self.fork(script, costNs, CLONE.fork, first % cpus(values)));
      yield;
    }
    for (const child of children) yield self.wait(child);
    yield self.exit();
  };
}

function cpus(values: Values): number {
  return values.cpus === 0 ? values.processes * values.threads : values.cpus;
}

/** What will-it-scale's counter would have come to, over all tasks. */
function iterations(values: Values): number {
  const perRound = touches(values.kind)
    ? pagesOf(values.size)
    : values.kind.startsWith('brk')
      ? 2
      : 1;
  return values.processes * values.threads * roundsOf(values) * perRound;
}

export const mmapChurn = defineWorkload({
  name: 'mmap-churn',
  summary: 'threads or processes that map, touch and unmap in a loop',
  imitates: 'will-it-scale page_fault1 to 3, mmap1, mmap2, brk1, brk2, malloc1; stress-ng --mmap',
  params: PARAMS,
  cpus,
  iterations,
  script(stage: Stage, values, seed) {
    stage.adopt({comm: values.kind, cpu: 0}, mainScript(stage, values, seed));
  },
});
