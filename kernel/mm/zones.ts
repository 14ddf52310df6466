// The memory of each node: one zone with its buddy lists, per-CPU lists, watermarks, and the order
// in which allocations of a node fall back to others (build_zonelists: by distance, nearer first,
// ties from the own node round).

import type {Kernel} from '../kernel.ts';
import {isBefore} from '../version.ts';
import {Buddy} from './buddy.ts';
import type {Pages} from './page.ts';
import type {PageLists} from './page_list.ts';
import {PerCpuPages} from './pcp.ts';
import {
  minFreeKbytes,
  nodeWatermarks,
  type PcpGeneration,
  pcpSizes,
  type Watermarks,
} from './watermarks.ts';

/** pglist_data with its one zone. */
export class Zone {
  /** NUMA policy counters of allocations: wanted here and got here, wanted elsewhere. */
  numaHit = 0;
  numaForeign = 0;

  constructor(
    readonly node: number,
    readonly buddy: Buddy,
    readonly pcp: PerCpuPages,
    readonly watermarks: Watermarks,
    /** Nodes by preference, this one first. */
    readonly fallback: readonly number[],
  ) {}

  /** Free pages, per-CPU lists not counted (NR_FREE_PAGES as zone_watermark_ok sees it). */
  get free(): number {
    return this.buddy.freePages;
  }
}

/** All zones, in order of nodes. */
export function makeZones(kernel: Kernel, pages: Pages, lists: PageLists): Zone[] {
  const {topology} = kernel.machine;
  const {version} = kernel.facts;
  const generation: PcpGeneration = isBefore(version, '5.14')
    ? 'fixed'
    : isBefore(version, '6.7')
      ? 'watermark'
      : 'auto';
  const sizes = pages.nodes.map(({first, end}) => end - first);
  const total = sizes.reduce((sum, size) => sum + size, 0);
  const tuning = {
    minFreeKbytes: minFreeKbytes(total, isBefore(version, '5.10') ? 65536 : undefined),
    watermarkScaleFactor: isBefore(version, '4.6') ? null : 10,
  };
  return pages.nodes.map((_, node) => {
    const watermarks = nodeWatermarks(sizes[node], total, tuning);
    const cpus = Math.max(
      topology.nodeOf.reduce((n, at) => (at === node ? n + 1 : n), 0),
      1,
    );
    const pcpSize = pcpSizes(sizes[node], watermarks.low, cpus, generation);
    const buddy = new Buddy(pages, lists, node);
    const pcp = new PerCpuPages(buddy, topology.cpuCount, pcpSize, generation);
    return new Zone(node, buddy, pcp, watermarks, fallbackOrder(kernel, node));
  });
}

function fallbackOrder(kernel: Kernel, node: number): number[] {
  const {topology} = kernel.machine;
  const cpuOf = (at: number): number => topology.nodeOf.indexOf(at);
  const from = cpuOf(node);
  const others: {node: number; ticks: number; turn: number}[] = [];
  for (let at = 0; at < topology.nodeCount; at++) {
    const turn = (at - node + topology.nodeCount) % topology.nodeCount;
    const ticks = at === node ? -1 : from < 0 ? 0 : topology.memoryTicks(from, at);
    others.push({node: at, ticks, turn});
  }
  others.sort((a, b) => a.ticks - b.ticks || a.turn - b.turn);
  return others.map((other) => other.node);
}
