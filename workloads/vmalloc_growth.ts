// vmalloc-growth: workers that allocate vmalloc areas, each larger than the one before, free every
// third, touch what they got from kernel mode, and fork now and then, so that address spaces made
// at different times meet kernel mappings made at different times. The bundled recording of the
// same name does this through a kernel interface; here the kernel's part is all there is. Lazily
// freed areas pile up until a purge, which is what makes some kernels sync every PGD.

import {UserError, EXIT} from '../formats/errors.ts';
import {KIND} from '../formats/kinds.ts';
import {FIXED_VMAS, Image} from './address_space.ts';
import {VmallocArea} from './kernel_memory.ts';
import {NOMINAL_NS, forkNs, vmallocNs} from './nominal.ts';
import {Stream} from './rng.ts';
import type {Gate, Script, Stage} from './stage.ts';
import {choice, defineWorkload, number, type ValuesOf} from './workload.ts';

const PARAMS = {
  workers: number('count', 2, 1, 1024, 'processes that allocate'),
  areas: number('count', 240, 1, 1_000_000, 'areas of each worker'),
  first: number('bytes', 16384, 4096, 2 ** 40, 'size of the first area'),
  step: number('bytes', 16384, 0, 2 ** 40, 'how much larger each next area is'),
  growth: number('factor', 1, 1, 2, 'and by which factor'),
  free_every: number(
    'count',
    3,
    0,
    1_000_000,
    'every so many areas the newest is freed; 0: none is',
  ),
  fork_every: number('count', 5, 0, 1_000_000, 'every so many areas a child is forked; 0: none is'),
  touch: number('share', 1, 0, 1, 'share of areas touched from kernel mode by worker and child'),
  pages: number('pages', 200, 0, 1_000_000, 'anonymous pages present in a worker'),
  think: number('ns', 5_000, 0, 1e12, 'mean computation between areas'),
  times: choice(['exponential', 'uniform', 'constant'], 'how think spreads around its mean'),
  cpus: number('count', 0, 0, 65_536, 'CPUs to spread over; 0: one per worker'),
};

type Values = ValuesOf<typeof PARAMS>;

const PAGE = 4096;

/** Size of area `i`, whole pages. */
function areaBytes(values: Values, i: number): number {
  const bytes = (values.first + values.step * i) * values.growth ** i;
  return Math.ceil(bytes / PAGE) * PAGE;
}

function childScript(newest: bigint, touch: boolean): Script {
  return function* (self) {
    if (touch) yield self.op(KIND.vmalloc_touch, NOMINAL_NS.vmallocFault, newest);
    yield self.exit();
  };
}

function workerScript(values: Values, space: VmallocArea, random: Stream, start: Gate): Script {
  return function* (self) {
    const image = new Image('/usr/bin/python3', FIXED_VMAS, values.pages);
    yield* image.map(self);
    yield* image.write(self, values.pages);
    yield self.arrive(start);
    for (let i = 0; i < values.areas; i++) {
      const bytes = areaBytes(values, i);
      const addr = space.take(bytes);
      const touch = random.chance(values.touch);
      yield self.think(random.timeNs(values.think, values.times));
      yield self.op(KIND.vmalloc, vmallocNs(bytes), addr, bytes);
      if (touch) yield self.op(KIND.vmalloc_touch, NOMINAL_NS.vmallocFault, addr);
      if (values.fork_every > 0 && i % values.fork_every === values.fork_every - 1) {
        const child = self.fork(childScript(addr, touch), forkNs(FIXED_VMAS, values.pages));
        yield;
        yield self.wait(child);
      }
      if (values.free_every > 0 && i % values.free_every === values.free_every - 1) {
        yield self.op(KIND.vfree, NOMINAL_NS.vmallocCall, addr, bytes);
      }
    }
    yield self.exit();
  };
}

/**
 * Most that all workers may allocate together: the vmalloc area of 4-level kernels less room for
 * others.
 */
const LIMIT_BYTES = 2 ** 44;

function check(values: Values): void {
  let total = 0;
  for (let i = 0; i < values.areas; i++) total += areaBytes(values, i) + PAGE;
  if (total * values.workers <= LIMIT_BYTES) return;
  throw new UserError(
    'vmalloc-growth: the areas need more than 16 TiB of addresses together; ' +
      'give a smaller step or growth, or fewer areas or workers',
    EXIT.usage,
  );
}

function cpus(values: Values): number {
  return values.cpus === 0 ? values.workers : values.cpus;
}

export const vmallocGrowth = defineWorkload({
  name: 'vmalloc-growth',
  summary: 'kernel mappings that grow, every third one freed, with forks between',
  imitates: 'the bundled recording vmalloc-growth',
  params: PARAMS,
  check,
  cpus,
  script(stage: Stage, values, seed) {
    const start = stage.gate(values.workers);
    const space = new VmallocArea();
    for (let i = 0; i < values.workers; i++) {
      const random = new Stream(seed, 'vmalloc-growth', i);
      const init = {comm: 'vmalloc', cpu: i % cpus(values)};
      stage.adopt(init, workerScript(values, space, random, start));
    }
  },
});
