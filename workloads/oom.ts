// oom: hogs that write more memory than there is, in a memory cgroup or on the whole machine, until
// the OOM killer chooses among them. Hog i of H wants (i + 1)/H of `bytes` (spread=ladder) or all
// of it (spread=equal), in runs with computation between, holds it for a while and exits. Sizes and
// oom_score_adj make victims predictable: the score is pages plus adj thousandths of the limit.
//
// The first process is the manager: it sets the limit, and is never killed (its oom_score_adj is
// -1000). With `rounds` it starts all hogs again when the last of them is gone. Who dies is for the
// replay to find out; a killed hog's remaining operations do not happen.

import {KIND} from '../formats/kinds.ts';
import {FIXED_VMAS, Image, PAGE_BYTES} from './address_space.ts';
import {forkNs, NOMINAL_NS} from './nominal.ts';
import {Stream} from './rng.ts';
import type {Actor, Script, Stage} from './stage.ts';
import {AREAS_TOP, mmap, touch} from './vm_calls.ts';
import {choice, defineWorkload, number, type ValuesOf} from './workload.ts';

const MIB = 2 ** 20;

const PARAMS = {
  hogs: number('count', 4, 1, 4096, 'processes that write memory'),
  bytes: number('bytes', 64 * MIB, PAGE_BYTES, 2 ** 40, 'memory that the largest of them writes'),
  spread: choice(['ladder', 'equal'], 'ladder: hog i of H writes (i+1)/H of it; equal: all of it'),
  limit: number('bytes', 96 * MIB, 0, 2 ** 42, 'memory.max around them; 0: the whole machine'),
  swap: number('bytes', 0, 0, 2 ** 37, 'swap area; 0: none'),
  adj: choice(
    ['none', 'ladder', 'spare-largest'],
    'oom_score_adj: 0 for all; up to 900 for the smallest; -1000 for the largest',
  ),
  order: choice(['together', 'largest-first', 'smallest-first'], 'who starts to write when'),
  stagger: number('ns', 2_000_000, 0, 1e12, 'time between two starts, unless together'),
  run: number('pages', 256, 1, 1_000_000, 'pages written at a time'),
  think: number('ns', 20_000, 0, 1e12, 'mean computation between two runs'),
  times: choice(['exponential', 'uniform', 'constant'], 'how think spreads around its mean'),
  hold: number('ns', 20_000_000, 0, 1e12, 'how long a hog keeps what it has'),
  rounds: number('count', 1, 1, 100_000, 'times that all hogs are started'),
  cpus: number('count', 0, 0, 65_536, 'CPUs to spread over; 0: one per hog'),
};

type Values = ValuesOf<typeof PARAMS>;

const PROGRAM = '/usr/bin/stress-ng';
const OWN_PAGES = 40;
const UNKILLABLE = -1000;
/** Highest adj of the ladder. */
const MOST_ADJ = 900;

/** Pages that hog `i` writes. */
export function hogPages(values: Values, i: number): number {
  const pages = Math.floor(values.bytes / PAGE_BYTES);
  if (values.spread === 'equal') return pages;
  return Math.max(1, Math.floor((pages * (i + 1)) / values.hogs));
}

function adjOf(values: Values, i: number): number {
  const last = values.hogs - 1;
  if (values.adj === 'spare-largest') return i === last ? UNKILLABLE : 0;
  if (values.adj === 'none' || last === 0) return 0;
  return Math.round((MOST_ADJ * (last - i)) / last);
}

/** Place of hog `i` in the order of starts. */
function turnOf(values: Values, i: number): number {
  if (values.order === 'together') return 0;
  return values.order === 'smallest-first' ? i : values.hogs - 1 - i;
}

function setAdj(self: Actor, adj: number): undefined {
  self.op(KIND.oom_score_adj, NOMINAL_NS.syscall, BigInt.asUintN(64, BigInt(adj)));
}

function hogScript(values: Values, random: Stream, i: number): Script {
  return function* (self) {
    const pages = hogPages(values, i);
    const first = AREAS_TOP - pages * PAGE_BYTES;
    yield setAdj(self, adjOf(values, i));
    yield self.sleep(turnOf(values, i) * values.stagger);
    yield mmap(self, first, pages * PAGE_BYTES);
    for (let page = 0; page < pages; page += values.run) {
      yield self.think(random.timeNs(values.think, values.times));
      yield touch(self, first + page * PAGE_BYTES, Math.min(values.run, pages - page), true);
    }
    yield self.sleep(values.hold);
    yield self.exit();
  };
}

function managerScript(values: Values, seed: number): Script {
  return function* (self) {
    const image = new Image(PROGRAM, FIXED_VMAS, OWN_PAGES);
    yield* image.map(self);
    yield* image.write(self, OWN_PAGES);
    if (values.swap > 0) {
      const path = self.intern('/swapfile');
      yield self.op(KIND.swapon, NOMINAL_NS.exit, path, Math.floor(values.swap / PAGE_BYTES));
    }
    if (values.limit > 0) yield self.op(KIND.memcg_limit, NOMINAL_NS.syscall, values.limit);
    yield setAdj(self, UNKILLABLE);
    const costNs = forkNs(FIXED_VMAS, OWN_PAGES);
    for (let round = 0; round < values.rounds; round++) {
      const hogs: Actor[] = [];
      for (let i = 0; i < values.hogs; i++) {
        const random = new Stream(seed, `oom ${round}`, i);
        hogs.push(self.fork(hogScript(values, random, i), costNs, undefined, i % cpus(values)));
        yield;
      }
      for (const hog of hogs) yield self.wait(hog);
    }
    yield self.exit();
  };
}

function cpus(values: Values): number {
  return values.cpus === 0 ? values.hogs : values.cpus;
}

export const oom = defineWorkload({
  name: 'oom',
  summary: 'processes that write more memory than a cgroup or the machine has',
  imitates: 'stress-ng --bigheap and --vm in a cgroup with memory.max (systemd-run -p MemoryMax=)',
  params: PARAMS,
  cpus,
  script(stage: Stage, values, seed) {
    stage.adopt({comm: 'oom', cpu: 0}, managerScript(values, seed));
  },
});
