// Where a task goes: select_task_rq_fair() for wake-ups and forks, and whom an idle CPU takes a
// task from.
//
// Wake-up (wake_affine, then select_idle_sibling): the previous CPU, or the waker's when that is
// less loaded; from there an idle core in the same L3, an idle CPU in the same L3, else the
// target's queue. As in Linux the search does not leave the L3; idle balancing does. Fork
// (find_idlest_group, find_idlest_group_cpu): own socket while it is at most a quarter full, else
// the socket and then the L3 with most idle CPUs; without an idle CPU the shortest queue. Not
// modelled: wake_wide, cpu capacity, the search-depth limit of select_idle_cpu (SIS_PROP,
// SIS_UTIL).

import type {Topology} from '../../machine/topology.ts';
import type {Task} from '../task.ts';
import type {RunQueue} from './runqueue.ts';
import {MIGRATE_SCAN} from './tunables.ts';

/** The idle CPUs and the choice among them. */
export class CpuSelector {
  /** 1 for each idle CPU. */
  readonly idle: Uint8Array;
  idleCount: number;
  private readonly idleInL3: Int32Array;
  private readonly idleInSocket: Int32Array;
  private readonly cpusOfL3: readonly Int32Array[];
  private readonly l3sOfSocket: readonly Int32Array[];
  private readonly cpusPerSocket: number;

  constructor(
    readonly topology: Topology,
    readonly rqs: readonly RunQueue[],
  ) {
    const {cpuCount, l3Count, socketCount, l3Of} = topology;
    this.idle = new Uint8Array(cpuCount).fill(1);
    this.idleCount = cpuCount;
    this.cpusPerSocket = cpuCount / socketCount;
    this.cpusOfL3 = members(l3Count, l3Of);
    const socketOfL3 = Int32Array.from(this.cpusOfL3, (cpus) => topology.socketOf[cpus[0]]);
    this.l3sOfSocket = members(socketCount, socketOfL3);
    this.idleInL3 = Int32Array.from(this.cpusOfL3, (cpus) => cpus.length);
    this.idleInSocket = new Int32Array(socketCount).fill(this.cpusPerSocket);
  }

  setIdle(cpu: number, idle: boolean): void {
    const step = (idle ? 1 : 0) - this.idle[cpu];
    if (step === 0) return;
    this.idle[cpu] += step;
    this.idleCount += step;
    this.idleInL3[this.topology.l3Of[cpu]] += step;
    this.idleInSocket[this.topology.socketOf[cpu]] += step;
  }

  /** CPU for a task that wakes; `here` is the waker's CPU, -1 for an interrupt without one. */
  forWakeUp(t: Task, here: number): number {
    if (t.pinnedCpu >= 0) return t.pinnedCpu;
    const previous = t.cpu.id;
    const target = here < 0 ? previous : this.affine(here, previous);
    if (this.idle[target] === 1) return target;
    const {l3Of} = this.topology;
    const l3 = l3Of[target];
    if (this.idleInL3[l3] === 0) return target;
    if (this.idle[previous] === 1 && l3Of[previous] === l3) return previous;
    return this.idleInDomain(this.cpusOfL3[l3], target);
  }

  /** CPU for a new task of a parent on `here`. */
  forFork(t: Task, here: number): number {
    if (t.pinnedCpu >= 0) return t.pinnedCpu;
    if (this.idleCount === 0) return this.shortestQueue(here);
    const socket = this.idlestSocket(this.topology.socketOf[here]);
    const l3s = this.l3sOfSocket[socket];
    const own = this.topology.l3Of[here];
    let best = this.topology.socketOf[here] === socket ? own : l3s[0];
    for (const l3 of l3s) if (this.idleInL3[l3] > this.idleInL3[best]) best = l3;
    return this.idleInDomain(this.cpusOfL3[best], here);
  }

  /**
   * The task that an idle `cpu` should take from another queue, null when there is none; nearest
   * queues first.
   */
  toPull(cpu: number): Task | null {
    const {topology} = this;
    const reach = [topology.l3Of, topology.socketOf, null];
    for (const domains of reach) {
      const task = this.fromBusiest(cpu, domains);
      if (task !== null) return task;
    }
    return null;
  }

  /** An idle CPU that may run a task queued on `cpu`, nearest first, -1 when there is none. */
  idleHelper(cpu: number): number {
    if (this.idleCount === 0) return -1;
    let best = -1;
    let nearest = Infinity;
    for (let other = 0; other < this.idle.length; other++) {
      if (this.idle[other] === 0) continue;
      const distance = this.topology.distance(cpu, other);
      if (distance >= nearest) continue;
      nearest = distance;
      best = other;
    }
    return best;
  }

  private affine(here: number, previous: number): number {
    if (here === previous || this.idle[previous] === 1) return previous;
    return this.rqs[here].running < this.rqs[previous].running ? here : previous;
  }

  /**
   * An idle core's CPU, else an idle CPU, starting after `from`; `cpus` holds at least one idle
   * CPU.
   */
  private idleInDomain(cpus: Int32Array, from: number): number {
    const start = Math.max(0, cpus.indexOf(from));
    let thread = -1;
    for (let i = 0; i < cpus.length; i++) {
      const cpu = cpus[(start + i) % cpus.length];
      if (this.idle[cpu] === 0) continue;
      if (this.coreIdle(cpu)) return cpu;
      if (thread < 0) thread = cpu;
    }
    return thread;
  }

  private coreIdle(cpu: number): boolean {
    for (const sibling of this.topology.siblings[cpu]) if (this.idle[sibling] === 0) return false;
    return true;
  }

  private idlestSocket(own: number): number {
    const busy = this.cpusPerSocket - this.idleInSocket[own];
    if (busy + 1 <= this.cpusPerSocket / 4) return own;
    let best = own;
    for (let socket = 0; socket < this.idleInSocket.length; socket++) {
      if (this.idleInSocket[socket] > this.idleInSocket[best]) best = socket;
    }
    return best;
  }

  private shortestQueue(here: number): number {
    let best = here;
    for (const rq of this.rqs) if (rq.running < this.rqs[best].running) best = rq.cpu.id;
    return best;
  }

  private fromBusiest(cpu: number, domains: Int32Array | null): Task | null {
    let busiest: RunQueue | null = null;
    let candidate: Task | null = null;
    for (const rq of this.rqs) {
      const id = rq.cpu.id;
      if (id === cpu || (domains !== null && domains[id] !== domains[cpu])) continue;
      if (rq.tasks.length === 0 || rq.tasks.length <= (busiest?.tasks.length ?? 0)) continue;
      const found = movable(rq);
      if (found === null) continue;
      busiest = rq;
      candidate = found;
    }
    return candidate;
  }
}

/** The task that has been off a CPU longest among the first few; pinned ones stay. */
function movable(rq: RunQueue): Task | null {
  let best: Task | null = null;
  const scan = Math.min(rq.tasks.length, MIGRATE_SCAN);
  for (let i = 0; i < scan; i++) {
    const t = rq.tasks[i];
    if (t.pinnedCpu >= 0) continue;
    if (best === null || t.se.lastRanAt < best.se.lastRanAt) best = t;
  }
  return best;
}

function members(groups: number, groupOf: Int32Array): Int32Array[] {
  const lists: number[][] = Array.from({length: groups}, () => []);
  groupOf.forEach((group, member) => {
    lists[group].push(member);
  });
  return lists.map((list) => Int32Array.from(list));
}
