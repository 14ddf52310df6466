// mm/vmscan.c: reclaim with the classic pair of LRU lists (6.18 with lru_gen off).
//
// One pass over a node or a cgroup's lists (shrink_lruvec) scans size >> priority pages of each
// kind in rounds of 32, anonymous against file memory by what reclaiming each has cost; priority
// goes from 12 to 0 until enough is freed. Callers: an allocation below the min watermark
// (try_to_free_pages), a charge over a cgroup's limit (try_to_free_mem_cgroup_pages), kswapd. Not
// modelled: MGLRU, demotion, proportional stopping (a round that reaches its goal ends
// there).

import type {Code} from '../../machine/process.ts';
import type {Kernel} from '../kernel.ts';
import {JIFFY_TICKS} from '../sched/tunables.ts';
import type {Task} from '../task.ts';
import {
  LRU_ACTIVE_ANON,
  LRU_ACTIVE_FILE,
  LRU_INACTIVE_ANON,
  LRU_INACTIVE_FILE,
  type Lruvec,
} from './lru.ts';
import {blk_finish_plug, blk_start_plug} from './blk_plug.ts';
import {drain_all_pages} from './page_alloc.ts';
import {shrink_active_list, shrink_inactive_list} from './vmscan_lists.ts';

export const SWAP_CLUSTER_MAX = 32;
export const DEF_PRIORITY = 12;
/** MEM_CGROUP: retries of a charge that finds nothing to reclaim. */
const MAX_RECLAIM_RETRIES = 16;

/** Who reclaims: decides what counts as whose work. */
export type Reclaimer = 'kswapd' | 'direct' | 'memcg';

/** struct scan_control. */
export class ScanControl {
  priority = DEF_PRIORITY;
  nrReclaimed = 0;
  nrScanned = 0;
  deactivateAnon = false;
  deactivateFile = false;
  fileIsTiny = false;
  cacheTrimMode = false;
  /** Pages found under writeback, and pages looked at, in this pass. */
  writeback = 0;
  taken = 0;

  constructor(
    readonly who: Reclaimer,
    readonly nrToReclaim: number,
    /** Cgroup whose memory must shrink, 0 for everybody's. */
    readonly memcg: number,
  ) {}
}

/** inactive_is_low: the inactive list should be refilled from the active one. */
export function inactive_is_low(lruvec: Lruvec, inactive: number): boolean {
  const {size} = lruvec;
  const pages = size[inactive] + size[inactive + 1];
  const gb = Math.floor(pages / 2 ** 18);
  const ratio = gb === 0 ? 1 : Math.floor(Math.sqrt(10 * gb));
  return size[inactive] * ratio < size[inactive + 1];
}

/** prepare_scan_control. */
function prepare_scan_control(k: Kernel, lruvec: Lruvec, sc: ScanControl): void {
  const {size} = lruvec;
  sc.deactivateAnon = inactive_is_low(lruvec, LRU_INACTIVE_ANON);
  sc.deactivateFile = inactive_is_low(lruvec, LRU_INACTIVE_FILE);
  const inactive = Math.floor(size[LRU_INACTIVE_FILE] / 2 ** sc.priority);
  sc.cacheTrimMode = inactive > 0 && !sc.deactivateFile;
  sc.fileIsTiny = false;
  if (sc.memcg !== 0) return;
  const zone = k.mm.zones[lruvec.node];
  const file = size[LRU_ACTIVE_FILE] + size[LRU_INACTIVE_FILE];
  const anon = size[LRU_INACTIVE_ANON];
  const tiny = file + zone.free <= zone.watermarks.high;
  sc.fileIsTiny = tiny && !sc.deactivateAnon && Math.floor(anon / 2 ** sc.priority) > 0;
}

/** get_scan_count: pages to scan of each list. */
export function get_scan_count(k: Kernel, lruvec: Lruvec, sc: ScanControl): number[] {
  const {swap} = k.mm;
  const {size} = lruvec;
  const anonOf = (): [number, number] => {
    if (swap.areas.free <= 0) return [0, 1];
    if (sc.memcg !== 0 && swap.swappiness === 0) return [0, 1];
    if (sc.priority === 0 && swap.swappiness > 0) return [1, 1];
    if (sc.fileIsTiny) return [1, 0];
    if (sc.cacheTrimMode) return [0, 1];
    const total = lruvec.anonCost + lruvec.fileCost;
    const anonCost = total + lruvec.anonCost;
    const fileCost = total + lruvec.fileCost;
    const all = anonCost + fileCost;
    const ap = Math.floor((swap.swappiness * (all + 1)) / (anonCost + 1));
    const fp = Math.floor(((200 - swap.swappiness) * (all + 1)) / (fileCost + 1));
    return [ap / (ap + fp), fp / (ap + fp)];
  };
  const [anon, file] = anonOf();
  return [LRU_INACTIVE_ANON, LRU_ACTIVE_ANON, LRU_INACTIVE_FILE, LRU_ACTIVE_FILE].map((lru) => {
    const share = lru <= LRU_ACTIVE_ANON ? anon : file;
    return Math.floor(Math.floor(size[lru] / 2 ** sc.priority) * share);
  });
}

/** shrink_lruvec. */
function* shrink_lruvec(k: Kernel, t: Task, lruvec: Lruvec, sc: ScanControl): Code {
  const {swap} = k.mm;
  prepare_scan_control(k, lruvec, sc);
  t.cpu.charge(swap.costs.shrinkLruvecTicks, swap.fns.shrink_lruvec);
  const left = get_scan_count(k, lruvec, sc);
  const before = sc.nrReclaimed;
  const enough = (): boolean =>
    sc.nrReclaimed - before >= sc.nrToReclaim && sc.priority < DEF_PRIORITY;
  // Only active anonymous pages left: that ends the rounds, as in Linux.
  const more = (): boolean =>
    left[LRU_INACTIVE_ANON] > 0 || left[LRU_ACTIVE_FILE] > 0 || left[LRU_INACTIVE_FILE] > 0;
  const plugged = blk_start_plug(k, t);
  while (more() && !enough()) {
    for (let lru = LRU_INACTIVE_ANON; lru <= LRU_ACTIVE_FILE; lru++) {
      if (left[lru] <= 0) continue;
      const n = Math.min(left[lru], SWAP_CLUSTER_MAX);
      left[lru] -= n;
      const active = lru === LRU_ACTIVE_ANON || lru === LRU_ACTIVE_FILE;
      if (!active) {
        sc.nrReclaimed += yield* shrink_inactive_list(k, t, n, lruvec, sc, lru);
      } else if (lru === LRU_ACTIVE_ANON ? sc.deactivateAnon : sc.deactivateFile) {
        yield* shrink_active_list(k, t, n, lruvec, sc.memcg, lru);
      }
    }
    if (k.sched.needsResched(t)) yield* k.sched.condResched(t);
  }
  if (plugged) blk_finish_plug(k, t);
  if (swap.areas.free > 0 && inactive_is_low(lruvec, LRU_INACTIVE_ANON)) {
    yield* shrink_active_list(k, t, SWAP_CLUSTER_MAX, lruvec, sc.memcg, LRU_ACTIVE_ANON);
  }
}

/** shrink_node: every cgroup's lists on the node, or the target's. */
export function* shrink_node(k: Kernel, t: Task, node: number, sc: ScanControl): Code {
  const {lruvecs, swap} = k.mm;
  sc.writeback = 0;
  sc.taken = 0;
  const {shrinkers} = k.mm;
  const targets = sc.memcg === 0 ? swap.memcgs.byId.map(({id}) => id) : [sc.memcg];
  for (const memcg of targets) {
    // With nothing to scan this can go round for long.
    if (k.sched.needsResched(t)) yield* k.sched.condResched(t);
    yield* shrink_lruvec(k, t, lruvecs.of(node, memcg), sc);
    if (shrinkers.hasWork(node, memcg)) {
      yield* shrinkers.shrink_slab(t, node, memcg, sc.priority);
    }
    if (sc.memcg !== 0) return;
    if (sc.who !== 'kswapd' && sc.nrReclaimed >= sc.nrToReclaim) return;
  }
}

/** do_try_to_free_pages over `nodes`. Returns the pages freed. */
function* do_try_to_free_pages(
  k: Kernel,
  t: Task,
  nodes: readonly number[],
  sc: ScanControl,
): Code<number> {
  for (sc.priority = DEF_PRIORITY; sc.priority >= 0; sc.priority--) {
    for (const node of nodes) {
      yield* shrink_node(k, t, node, sc);
      if (sc.nrReclaimed >= sc.nrToReclaim) return sc.nrReclaimed;
    }
    // Everything looked at is being written: wait for the disk, not for luck.
    if (sc.taken > 0 && sc.writeback === sc.taken) yield* reclaim_throttle(k, t, 25);
    else if (sc.priority === 1 && sc.nrReclaimed === 0) yield* reclaim_throttle(k, t, 1);
  }
  return sc.nrReclaimed;
}

/** reclaim_throttle: until a write is over, at most so many jiffies (HZ/10 for writeback). */
export function* reclaim_throttle(k: Kernel, t: Task, jiffies: number): Code {
  const {swap} = k.mm;
  if (t.cpu.settle()) yield;
  if (swap.writebacks === 0) return;
  const queue = swap.throttled;
  queue.prepare(t);
  yield* k.sched.blockTimeout(t, queue, jiffies * JIFFY_TICKS);
  queue.finish(t);
}

/** try_to_free_pages: direct reclaim for an allocation on `node`. False: nothing could be freed. */
export function* try_to_free_pages(k: Kernel, t: Task, node: number): Code<boolean> {
  const sc = new ScanControl('direct', SWAP_CLUSTER_MAX, 0);
  const zone = k.mm.zones[node];
  const freed = yield* do_try_to_free_pages(k, t, zone.fallback, sc);
  // __alloc_pages_direct_reclaim: what was freed may sit on the CPUs' lists.
  if (freed > 0 && zone.free < zone.watermarks.min) drain_all_pages(k);
  return freed > 0;
}

/** try_to_free_mem_cgroup_pages. Returns the pages freed. */
export function* try_to_free_mem_cgroup_pages(
  k: Kernel,
  t: Task,
  memcg: number,
  n: number,
): Code<number> {
  const nodes = k.mm.zones[k.machine.topology.nodeOf[t.cpu.id]].fallback;
  const sc = new ScanControl('memcg', Math.max(n, SWAP_CLUSTER_MAX), memcg);
  k.mm.swap.probe?.memcgReclaim(memcg, true, 0);
  const freed = yield* do_try_to_free_pages(k, t, nodes, sc);
  k.mm.swap.probe?.memcgReclaim(memcg, false, freed);
  return freed;
}

/** try_charge_memcg's slow path: reclaims until n pages fit. False: the cgroup is out of memory. */
export function* memcg_reclaim(k: Kernel, t: Task, memcg: number, n: number): Code<boolean> {
  const group = k.mm.swap.memcgs.of(memcg);
  for (let retries = MAX_RECLAIM_RETRIES; retries > 0; retries--) {
    if (t.sigkill) return false;
    // A frame: below here is code that gives way often, and callers are many.
    const freed = (yield try_to_free_mem_cgroup_pages(k, t, memcg, n)) as number;
    if (group.margin >= n || freed > 0) return true;
  }
  group.oomEvents++;
  const {mem_cgroup_oom} = k.mm.hooks;
  return mem_cgroup_oom !== null && (yield* mem_cgroup_oom(t, memcg, n));
}
