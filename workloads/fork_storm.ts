// fork-storm: worker processes that fork, and children that touch a few pages, perhaps start
// threads or a program, and exit. It is the loop of `stress-ng --fork W --fork-max M`: fork M
// children, then wait for each of them. `wait=many` instead keeps M children alive all the time and
// waits for the oldest before it forks the next. Workers exist when the trace begins; they map and
// write their memory, meet, and start together.

import {KIND} from '../formats/kinds.ts';
import {FIXED_VMAS, Image} from './address_space.ts';
import {THREAD_NS, forkNs, openFilesNs} from './nominal.ts';
import {Stream} from './rng.ts';
import {CLONE, type Actor, type Gate, type Script, type Stage, type Step} from './stage.ts';
import {choice, defineWorkload, number, type ValuesOf} from './workload.ts';

const PARAMS = {
  workers: number('count', 4, 1, 4096, 'worker processes that fork'),
  children: number('count', 100, 1, 10_000_000, 'children of each worker'),
  fork_max: number('count', 1, 1, 100_000, 'children of a worker that may live at once'),
  wait: choice(
    ['each', 'many'],
    'each: fork fork_max, then wait for all; many: keep fork_max alive',
  ),
  vmas: number('count', 40, FIXED_VMAS, 65_530, 'areas of a worker (vm.max_map_count is 65530)'),
  pages: number(
    'pages',
    500,
    0,
    100_000_000,
    'anonymous pages present in a worker: fork copies them',
  ),
  child_pages: number('pages', 20, 0, 100_000_000, 'pages that a child writes: copy on write'),
  files: number(
    'count',
    0,
    0,
    1_000_000,
    'open files of a worker; 0: those that the model assumes',
  ),
  exec: number('share', 0, 0, 1, 'share of children that start a program'),
  threads: number('count', 0, 0, 1024, 'threads that each child starts'),
  think: number('ns', 0, 0, 1e12, 'mean computation of a worker before each fork'),
  life: number('ns', 0, 0, 1e12, 'mean computation of a child before it exits'),
  times: choice(
    ['exponential', 'uniform', 'constant'],
    'how think and life spread around their mean',
  ),
  placement: choice(['free', 'pinned'], 'pinned: worker i and its children run on CPU i'),
  cpus: number('count', 0, 0, 65_536, 'CPUs to spread or pin over; 0: one per worker'),
};

type Values = ValuesOf<typeof PARAMS>;

const PROGRAM = '/usr/bin/stress-ng';
const EXECED = '/bin/true';
const EXECED_PAGES = 30;

function threadScript(join: Gate): Script {
  return function* (self) {
    yield self.think(1_000);
    yield self.arrive(join);
    yield self.exit(false);
  };
}

/** Starts threads and joins them; the join is a barrier in the trace. */
function* runThreads(self: Actor, stage: Stage, count: number): Generator<Step, void, void> {
  if (count === 0) return;
  const join = stage.gate(count + 1);
  for (let i = 0; i < count; i++) {
    self.fork(threadScript(join), THREAD_NS, CLONE.thread);
    yield;
  }
  yield self.arrive(join);
}

/**
 * A child. It draws from its worker's stream before it starts, so that order of execution changes
 * nothing.
 */
function childScript(stage: Stage, values: Values, image: Image, random: Stream): Script {
  const execs = random.chance(values.exec);
  const lifeNs = random.timeNs(values.life, values.times);
  return function* (self) {
    const pages = Math.min(values.child_pages, values.pages);
    yield* image.write(self, pages);
    yield* runThreads(self, stage, values.threads);
    yield self.think(lifeNs);
    if (execs) yield* new Image(EXECED, 12, EXECED_PAGES).exec(self, EXECED, EXECED_PAGES);
    yield self.exit();
  };
}

function workerScript(stage: Stage, values: Values, random: Stream, start: Gate): Script {
  return function* (self) {
    const image = new Image(PROGRAM, values.vmas, values.pages);
    const costNs = forkNs(values.vmas, values.pages);
    if (values.placement === 'pinned') yield self.pin();
    if (values.files > 0)
      yield self.op(KIND.open_files, openFilesNs(values.files), values.files, 0);
    yield* image.map(self);
    yield* image.write(self, values.pages);
    yield self.arrive(start);
    const live: Actor[] = [];
    for (let i = 0; i < values.children; i++) {
      if (values.wait === 'many' && live.length === values.fork_max) yield self.wait(oldest(live));
      yield self.think(random.timeNs(values.think, values.times));
      live.push(self.fork(childScript(stage, values, image, random), costNs));
      yield;
      if (values.wait === 'each' && live.length === values.fork_max) {
        while (live.length > 0) yield self.wait(oldest(live));
      }
    }
    while (live.length > 0) yield self.wait(oldest(live));
    yield self.exit();
  };
}

function oldest(live: Actor[]): Actor {
  const [first] = live.splice(0, 1);
  return first;
}

function cpus(values: Values): number {
  return values.cpus === 0 ? values.workers : values.cpus;
}

export const forkStorm = defineWorkload({
  name: 'fork-storm',
  summary: 'processes that fork short-lived children as fast as they can',
  imitates: 'stress-ng 0.15 --fork W --fork-max M',
  params: PARAMS,
  cpus,
  script(stage: Stage, values, seed) {
    const start = stage.gate(values.workers);
    for (let i = 0; i < values.workers; i++) {
      const init = {comm: 'stress-ng-fork', cpu: i % cpus(values)};
      stage.adopt(init, workerScript(stage, values, new Stream(seed, 'fork-storm', i), start));
    }
  },
});
