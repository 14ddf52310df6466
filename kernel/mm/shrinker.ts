// mm/shrinker.c: shrink_slab. Caches that can give memory back are asked in turn after every pass
// over LRU lists: in each pass a share of their objects that grows with the pass's effort, in
// batches of 128; what is too little for a batch is put off (nr_deferred). Registered here: large
// folios of which pages are unmapped (deferred_split_scan, 4.5+) and the huge page of zeros (3.8+).
// As in Linux what they free does not count as reclaimed pages: the allocation that waits finds it
// on its next try.

import type {Code} from '../../machine/process.ts';
import {nsToTicks} from '../../machine/time.ts';
import type {Kernel} from '../kernel.ts';
import type {Task} from '../task.ts';
import {isBefore} from '../version.ts';
import type {HugeMemory} from './huge_memory.ts';
import {deferred_split_scan} from './huge_memory_split.ts';
import {HPAGE_PMD_NR} from './page.ts';

const SHRINK_BATCH = 128;
const DEFAULT_SEEKS = 2;
/** One shrinker asked that has something: count, locks, deferred counts. Assumption. */
const SHRINKER_TICKS = nsToTicks(200);

/** struct shrinker. */
export interface Shrinker {
  readonly name: string;
  /** Objects are per node and cgroup; else they are one lot, asked for on node 0 of the root. */
  readonly aware: boolean;
  /** count_objects. Plain. */
  count(node: number, memcg: number): number;
  /** scan_objects: looks at up to `nr`, returns how many it freed. */
  scan(t: Task, node: number, memcg: number, nr: number): Code<number>;
}

/** shrinker_list of one kernel. */
export class Shrinkers {
  /** Objects freed, by shrinker. */
  readonly freed = new Map<string, number>();
  private readonly list: {readonly shrinker: Shrinker; deferred: number}[] = [];
  private readonly fn: number;

  constructor(readonly k: Kernel) {
    this.fn = k.fn('do_shrink_slab');
  }

  /** register_shrinker. */
  register(shrinker: Shrinker): void {
    this.list.push({shrinker, deferred: 0});
    this.freed.set(shrinker.name, 0);
  }

  /** True when a shrinker has something to give: callers need not enter shrink_slab otherwise. */
  hasWork(node: number, memcg: number): boolean {
    return this.list.some(({shrinker}) => countOf(shrinker, node, memcg) > 0);
  }

  /** shrink_slab of one node and cgroup (0: the root). Returns the objects freed. */
  *shrink_slab(t: Task, node: number, memcg: number, priority: number): Code<number> {
    let freed = 0;
    for (const entry of this.list) {
      const {shrinker} = entry;
      const freeable = countOf(shrinker, node, memcg);
      if (freeable === 0) continue;
      t.cpu.charge(SHRINKER_TICKS, this.fn);
      if (t.cpu.settle()) yield;
      const deferred = entry.deferred;
      const delta = Math.floor((Math.floor(freeable / 2 ** priority) * 4) / DEFAULT_SEEKS);
      let total = Math.min(Math.floor(deferred / 2 ** priority) + delta, 2 * freeable);
      let scanned = 0;
      while (total >= SHRINK_BATCH || total >= freeable) {
        const nr = Math.min(SHRINK_BATCH, total);
        const got = yield* shrinker.scan(t, node, memcg, nr);
        freed += got;
        this.freed.set(shrinker.name, this.freed.get(shrinker.name)! + got);
        total -= nr;
        scanned += nr;
        if (got === 0 || countOf(shrinker, node, memcg) === 0) break;
        if (this.k.sched.needsResched(t)) yield* this.k.sched.condResched(t);
      }
      entry.deferred = Math.min(Math.max(deferred + delta - scanned, 0), 2 * freeable);
    }
    return freed;
  }
}

function countOf(shrinker: Shrinker, node: number, memcg: number): number {
  if (shrinker.aware) return shrinker.count(node, memcg);
  return node === 0 && memcg === 0 ? shrinker.count(0, 0) : 0;
}

/** Registers what THP can give back. */
export function register_huge_shrinkers(shrinkers: Shrinkers, huge: HugeMemory): void {
  const {k} = huge;
  const {version} = k.facts;
  if (!isBefore(version, '3.8')) shrinkers.register(hugeZeroShrinker(huge));
  if (!isBefore(version, '4.5')) shrinkers.register(deferredSplitShrinker(huge));
}

function hugeZeroShrinker(huge: HugeMemory): Shrinker {
  return {
    name: 'thp-zero',
    aware: false,
    count: () => (huge.hugeZeroPfn !== 0 && huge.hugeZeroUsers === 0 ? HPAGE_PMD_NR : 0),
    *scan(t) {
      if (t.cpu.settle()) yield;
      return huge.shrinkHugeZero(t) ? HPAGE_PMD_NR : 0;
    },
  };
}

function deferredSplitShrinker(huge: HugeMemory): Shrinker {
  const isOf = (head: number, node: number, memcg: number): boolean => {
    const {pages} = huge.k.mm;
    return pages.nodeOf(head) === node && (pages.hasMemcgs ? pages.memcg[head] : 0) === memcg;
  };
  return {
    name: 'thp-deferred_split',
    aware: true,
    count(node, memcg) {
      if (huge.deferredSplit.size === 0) return 0;
      let count = 0;
      for (const head of huge.deferredSplit) if (isOf(head, node, memcg)) count++;
      return count;
    },
    scan: (t, node, memcg, nr) =>
      deferred_split_scan(huge, t, nr, (head) => isOf(head, node, memcg)),
  };
}
