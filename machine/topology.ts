// A machine ready to be asked: who sits where, how far two CPUs are apart, what a line transfer
// costs. Built once from a MachineSpec, immutable afterwards, shared by everything that simulates.
// CPUs are numbered as Linux enumerates them on x86: the first thread of every core, socket by
// socket, then the second threads in the same order, so that cpu n and cpu n + cores are siblings.
// Lookups cost a few typed-array reads and never allocate; sizes are linear in CPUs plus sockets
// squared, so 1,024 CPUs are as cheap as two.
//
// Line transfers follow the measured classes of the machine file. Between different L3s of one
// socket the price depends on the line's home node: the class `sameSocket` when its home is in that
// socket, `sameSocketRemoteHome` when the request has to ask another socket's memory controller
// first. Routes of three and more hops, which only a ring of six or more sockets has, extend the
// one- and two-hop costs linearly.

import {createHash} from 'node:crypto';
import {type MachineSpec, socketHops} from './spec_types.ts';
import {nsToTicks} from './time.ts';
import {MachineCosts} from './topology_costs.ts';

/** Names of the distances, indexed by what `distance` returns; the names of the run report. */
export const DISTANCE_NAMES = ['self', 'smt', 'l3', 'socket', 'cross', 'two_hop'] as const;

export const DISTANCE_SELF = 0;
export const DISTANCE_SMT = 1;
export const DISTANCE_L3 = 2;
export const DISTANCE_SOCKET = 3;
export const DISTANCE_CROSS = 4;
export const DISTANCE_TWO_HOP = 5;

/** Layout and distances of one machine; the costs in ticks are the fields of MachineCosts. */
export class Topology extends MachineCosts {
  readonly spec: MachineSpec;
  readonly name: string;
  /** 16 hex digits over every number and flag of the spec, not over names and sources. */
  readonly hash: string;
  readonly cpuCount: number;
  readonly coreCount: number;
  readonly l3Count: number;
  readonly socketCount: number;
  readonly nodeCount: number;
  readonly threadsPerCore: number;
  /**
   * By cpu: core, L3 group, socket, memory node, thread number inside the core. Numbers are
   * machine-wide.
   */
  readonly coreOf: Int32Array;
  readonly l3Of: Int32Array;
  readonly socketOf: Int32Array;
  readonly nodeOf: Int32Array;
  readonly threadOf: Int32Array;
  /** By memory node: its socket. */
  readonly socketOfNode: Int32Array;
  /** By cpu: the CPUs of its core, ascending, itself included. */
  readonly siblings: readonly Int32Array[];
  readonly nodeMemoryBytes: number;
  readonly ghz: number;
  readonly ticksPerCycle: number;

  private readonly hops: Uint8Array;
  private readonly crossTicks: Float64Array;
  private readonly memoryTicksBySocket: Float64Array;

  constructor(spec: MachineSpec) {
    super(spec);
    const {layout} = spec;
    this.spec = spec;
    this.name = spec.name;
    this.hash = hashOf(spec);
    const sockets = layout.sockets.value;
    const coresPerL3 = layout.coresPerL3.value;
    const coresPerSocket = layout.l3PerSocket.value * coresPerL3;
    this.socketCount = sockets;
    this.threadsPerCore = layout.threadsPerCore.value;
    this.coreCount = sockets * coresPerSocket;
    this.l3Count = sockets * layout.l3PerSocket.value;
    this.cpuCount = this.coreCount * this.threadsPerCore;
    this.nodeCount = sockets * layout.nodesPerSocket.value;
    this.nodeMemoryBytes = layout.nodeMemoryGib.value * 2 ** 30;
    this.ghz = layout.ghz.value;
    this.ticksPerCycle = nsToTicks(1) / this.ghz;
    const coresPerNode = coresPerSocket / layout.nodesPerSocket.value;
    this.coreOf = byCpu(this.cpuCount, (cpu) => cpu % this.coreCount);
    this.threadOf = byCpu(this.cpuCount, (cpu) => Math.floor(cpu / this.coreCount));
    this.l3Of = this.coreOf.map((core) => Math.floor(core / coresPerL3));
    this.socketOf = this.coreOf.map((core) => Math.floor(core / coresPerSocket));
    this.nodeOf = this.coreOf.map((core) => Math.floor(core / coresPerNode));
    this.socketOfNode = byCpu(this.nodeCount, (node) =>
      Math.floor(node / layout.nodesPerSocket.value),
    );
    const cores = Array.from({length: this.coreCount}, (_, core) =>
      byCpu(this.threadsPerCore, (thread) => core + thread * this.coreCount),
    );
    this.siblings = Array.from(this.coreOf, (core) => cores[core]);

    this.hops = socketHops(layout.links.value, sockets);
    this.crossTicks = byHops(this.hops, 0, this.crossSocketTicks, this.twoHopTicks);
    this.memoryTicksBySocket = byHops(
      this.hops,
      this.memoryLocalTicks,
      this.memoryRemoteTicks,
      this.memoryTwoHopTicks,
    );
  }

  /** Distance between two CPUs, an index into DISTANCE_NAMES; two_hop means two hops or more. */
  distance(a: number, b: number): number {
    if (a === b) return DISTANCE_SELF;
    if (this.coreOf[a] === this.coreOf[b]) return DISTANCE_SMT;
    if (this.l3Of[a] === this.l3Of[b]) return DISTANCE_L3;
    const from = this.socketOf[a];
    const to = this.socketOf[b];
    if (from === to) return DISTANCE_SOCKET;
    return this.hops[from * this.socketCount + to] === 1 ? DISTANCE_CROSS : DISTANCE_TWO_HOP;
  }

  /**
   * Ticks to move a line from the cache of `from` to `to` when its memory is on node `homeNode`.
   */
  transferTicks(from: number, to: number, homeNode: number): number {
    if (from === to) return this.l1HitTicks;
    if (this.coreOf[from] === this.coreOf[to]) return this.smtTicks;
    if (this.l3Of[from] === this.l3Of[to]) return this.sameL3Ticks;
    const socket = this.socketOf[from];
    const target = this.socketOf[to];
    if (socket !== target) return this.crossTicks[socket * this.socketCount + target];
    return this.socketOfNode[homeNode] === socket
      ? this.sameSocketTicks
      : this.sameSocketRemoteHomeTicks;
  }

  /**
   * Ticks to move a line from somewhere in `socket` to `to`, for callers that know a holder's
   * socket but not its CPU. Inside the own socket that is another L3 where the socket has several,
   * the common L3 else.
   */
  socketTransferTicks(socket: number, to: number, homeNode: number): number {
    const target = this.socketOf[to];
    if (socket !== target) return this.crossTicks[socket * this.socketCount + target];
    if (this.l3Count === this.socketCount) return this.sameL3Ticks;
    return this.socketOfNode[homeNode] === socket
      ? this.sameSocketTicks
      : this.sameSocketRemoteHomeTicks;
  }

  /** The next thread of the same core, going round; -1 when cores have one thread. */
  siblingOf(cpu: number): number {
    return this.threadsPerCore === 1 ? -1 : (cpu + this.coreCount) % this.cpuCount;
  }

  /** Ticks of a load by `cpu` that misses every cache and is served by the memory of `node`. */
  memoryTicks(cpu: number, node: number): number {
    return this.memoryTicksBySocket[
      this.socketOf[cpu] * this.socketCount + this.socketOfNode[node]
    ];
  }

  /** Links between the sockets of two CPUs on the shortest way; 0 inside one socket. */
  socketHopsBetween(a: number, b: number): number {
    return this.hops[this.socketOf[a] * this.socketCount + this.socketOf[b]];
  }
}

function byCpu(count: number, value: (index: number) => number): Int32Array {
  return Int32Array.from({length: count}, (_, index) => value(index));
}

/**
 * Cost per pair of sockets from the costs of 0, 1 and 2 hops; each hop after the second costs as
 * much as the second.
 */
function byHops(hops: Uint8Array, none: number, one: number, two: number): Float64Array {
  return Float64Array.from(hops, (count) => {
    if (count === 0) return none;
    return count === 1 ? one : two + (count - 2) * (two - one);
  });
}

function hashOf(spec: MachineSpec): string {
  const lines: string[] = [];
  for (const [name, group] of Object.entries({
    layout: spec.layout,
    costsNs: spec.costsNs,
    model: spec.model,
  })) {
    for (const [key, field] of Object.entries(group))
      lines.push(`${name}.${key}=${String(field.value)}`);
  }
  return createHash('sha256').update(lines.sort().join('\n')).digest('hex').slice(0, 16);
}
