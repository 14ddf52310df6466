// A workload to copy: N processes that each map one area, write it page by page and exit. Three
// things make a workload: parameters with bounds, scripts that yield after every operation, and a
// script() that puts tasks on the stage. Copy this file, change the name, add it to registry.ts,
// describe it in docs/workloads.md.

import {KIND} from '../formats/kinds.ts';
import {PAGE_BYTES} from './address_space.ts';
import {NOMINAL_NS} from './nominal.ts';
import {Stream} from './rng.ts';
import type {Script} from './stage.ts';
import {choice, defineWorkload, number, type ValuesOf} from './workload.ts';

const PARAMS = {
  tasks: number('count', 2, 1, 1024, 'processes'),
  pages: number('pages', 64, 1, 1_000_000, 'pages of the area'),
  think: number('ns', 1_000, 0, 1e9, 'mean computation before each run of pages'),
  times: choice(['exponential', 'uniform', 'constant'], 'how think spreads around its mean'),
};

type Values = ValuesOf<typeof PARAMS>;

const RUN_PAGES = 16;
const ADDR = 0x7f00_0000_0000;

/** One process. Draw only from the stream given: another task's draws must not shift this one's. */
function taskScript(values: Values, random: Stream): Script {
  return function* (self) {
    const bytes = values.pages * PAGE_BYTES;
    yield self.op(KIND.map, NOMINAL_NS.mapVma, ADDR, bytes, 0, 3, 0x22, 0); // rw, private anonymous
    for (let page = 0; page < values.pages; page += RUN_PAGES) {
      yield self.think(random.timeNs(values.think, values.times));
      const run = Math.min(RUN_PAGES, values.pages - page);
      yield self.op(KIND.touch, run * NOMINAL_NS.minorFault, ADDR + page * PAGE_BYTES, run, 1, 1);
    }
    yield self.exit();
  };
}

export const skeleton = defineWorkload({
  name: 'skeleton',
  summary: 'processes that write one area each',
  imitates: 'nothing: it shows how a workload is made',
  params: PARAMS,
  cpus: (values) => values.tasks,
  script(stage, values, seed) {
    for (let i = 0; i < values.tasks; i++) {
      stage.adopt({comm: 'skeleton', cpu: i}, taskScript(values, new Stream(seed, 'skeleton', i)));
    }
  },
});
