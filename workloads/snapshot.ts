// snapshot: a server with a large heap that forks to save it, as Redis does (BGSAVE): the child
// reads every page and exits while the parent goes on writing, so that what it writes is copied.
// One process tree of any size: with `bytes=64G` it maps 16 million pages, forks, and, under a
// memory `limit` below that, swaps them out and reads them back.
//
// `lives` runs the server several times, one after the other: memory of each must serve the next.

import {FIXED_VMAS, Image, PAGE_BYTES} from './address_space.ts';
import {NOMINAL_NS, forkNs} from './nominal.ts';
import type {Actor, Script, Stage} from './stage.ts';
import {setUpMemory} from './stress_vm.ts';
import {AREAS_TOP, mmap, munmap, touch} from './vm_calls.ts';
import {defineWorkload, number, type ValuesOf} from './workload.ts';

const PARAMS = {
  bytes: number('bytes', 64 * 2 ** 20, PAGE_BYTES, 2 ** 42, 'heap of the server'),
  snapshots: number('count', 1, 0, 10_000, 'forks of each server, one after the other'),
  writes: number('share', 0.1, 0, 1, 'share of the heap that the server writes meanwhile'),
  reads: number('count', 1, 0, 10_000, 'times that the server reads its whole heap afterwards'),
  lives: number('count', 1, 1, 10_000, 'servers, one after the other'),
  swap: number('bytes', 0, 0, 2 ** 37, 'swap area; 0: none'),
  limit: number('bytes', 0, 0, 2 ** 42, 'memory.max of a cgroup around all of it; 0: none'),
};

type Values = ValuesOf<typeof PARAMS>;

const PROGRAM = '/usr/bin/redis-server';
const OWN_PAGES = 200;
/** What writing one page out takes the child besides reading it, ns; an assumption. */
const SAVE_NS = 1_000;

/** The child: reads the heap, run by run, and writes it to a file that is not modelled. */
function saverScript(addr: number, pages: number): Script {
  return function* (self) {
    for (let page = 0; page < pages; page += RUN_PAGES) {
      const run = Math.min(RUN_PAGES, pages - page);
      yield touch(self, addr + page * PAGE_BYTES, run, false, 0);
      yield self.think(run * SAVE_NS);
    }
    yield self.exit();
  };
}
const RUN_PAGES = 4096;

function serverScript(values: Values): Script {
  const pages = Math.floor(values.bytes / PAGE_BYTES);
  const bytes = pages * PAGE_BYTES;
  const addr = AREAS_TOP - bytes;
  const written = Math.floor(pages * values.writes);
  const stride = written === 0 ? 1 : Math.floor(pages / written);
  return function* (self) {
    yield mmap(self, addr, bytes);
    yield touch(self, addr, pages, true);
    for (let i = 0; i < values.snapshots; i++) {
      const child = self.fork(saverScript(addr, pages), forkNs(FIXED_VMAS + 1, pages));
      yield;
      if (written > 0) yield touch(self, addr, written, true, NOMINAL_NS.minorFault, stride);
      yield self.wait(child);
    }
    for (let i = 0; i < values.reads; i++) yield touch(self, addr, pages, false, 0);
    yield munmap(self, addr, bytes, pages);
    yield self.exit();
  };
}

function mainScript(values: Values): Script {
  return function* (self: Actor) {
    const image = new Image(PROGRAM, FIXED_VMAS, OWN_PAGES);
    yield* image.map(self);
    yield* image.write(self, OWN_PAGES);
    yield* setUpMemory(self, values.swap, values.limit);
    for (let i = 0; i < values.lives; i++) {
      const server = self.fork(serverScript(values), forkNs(FIXED_VMAS, OWN_PAGES));
      yield;
      yield self.wait(server);
    }
    yield self.exit();
  };
}

export const snapshot = defineWorkload({
  name: 'snapshot',
  summary: 'a large process that forks to save its memory, and writes on',
  imitates: 'Redis BGSAVE; with swap and limit, the same on a machine that is too small',
  params: PARAMS,
  cpus: () => 2,
  script(stage: Stage, values) {
    stage.adopt({comm: 'redis-server', cpu: 0}, mainScript(values));
  },
});
