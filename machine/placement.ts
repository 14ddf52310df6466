// Orders in which a run of n threads takes CPUs: the first n of the permutation. The order decides
// at which thread count a curve first pays for SMT or for a second socket, so every result states
// it.

import {assertUnreachable} from './assert.ts';
import type {Topology} from './topology.ts';

/**
 * `compact` fills the cores of socket 0, then of the next socket, and only then the second threads
 * (will-it-scale's default pinning). `compact-smt` takes the threads of a core one after the other.
 * `scatter` goes round the sockets and inside a socket round its L3 groups; second threads come
 * last.
 */
export const PLACEMENTS = ['compact', 'compact-smt', 'scatter'] as const;
export type Placement = (typeof PLACEMENTS)[number];

/** All CPUs of the machine in the order asked for; every CPU exactly once. */
export function placement(topology: Topology, order: Placement): Int32Array {
  const cpus = Int32Array.from({length: topology.cpuCount}, (_, cpu) => cpu);
  const {coreOf, threadOf, cpuCount, coreCount} = topology;
  const key = new Float64Array(cpuCount);
  for (const cpu of cpus) {
    const core = coreOf[cpu];
    const thread = threadOf[cpu];
    switch (order) {
      case 'compact':
        key[cpu] = thread * coreCount + core;
        break;
      case 'compact-smt':
        key[cpu] = core * topology.threadsPerCore + thread;
        break;
      case 'scatter':
        key[cpu] = thread * coreCount + scatteredRank(topology, core);
        break;
      default:
        assertUnreachable(order);
    }
  }
  return cpus.sort((a, b) => key[a] - key[b]);
}

/**
 * Rank of a core when cores are dealt out one to each socket in turn, and inside a socket one to
 * each L3.
 */
function scatteredRank(topology: Topology, core: number): number {
  const {socketCount, coreCount, l3Count} = topology;
  const coresPerSocket = coreCount / socketCount;
  const coresPerL3 = coreCount / l3Count;
  const l3PerSocket = l3Count / socketCount;
  const socket = Math.floor(core / coresPerSocket);
  const inSocket = core % coresPerSocket;
  const l3 = Math.floor(inSocket / coresPerL3);
  const inL3 = inSocket % coresPerL3;
  return (inL3 * l3PerSocket + l3) * socketCount + socket;
}
