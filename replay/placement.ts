// On which CPU each task of each copy starts, and whether it stays there.

import {placement as cpuOrder} from '../machine/placement.ts';
import type {Topology} from '../machine/topology.ts';
import type {Placement} from './options.ts';
import type {CompiledTrace, Track} from './tracks.ts';

/** Deals out CPUs to the tasks that exist when the trace begins. */
export class Placer {
  private readonly order: Int32Array;
  private next = 0;

  constructor(
    private readonly topology: Topology,
    private readonly compiled: CompiledTrace,
    private readonly placement: Placement,
  ) {
    const kind = placement.endsWith('compact') ? 'compact' : 'scatter';
    this.order = cpuOrder(topology, kind);
  }

  /** True when tasks and their children keep the CPU they were given. */
  get pins(): boolean {
    return this.placement === 'recorded' || this.placement.startsWith('pin-');
  }

  /** True when every operation runs on the CPU that it was recorded on. */
  get follows(): boolean {
    return this.placement === 'follow';
  }

  /** CPU on which operation `op` was recorded. */
  cpuOfOp(op: number, copy: number): number {
    const {opEvent, trace, recordedCpus} = this.compiled;
    return (trace.events.cpu[opEvent[op]] + copy * recordedCpus) % this.topology.cpuCount;
  }

  /** CPU of an adopted task, -1 to leave it to the scheduler. */
  cpuOf(track: Track, copy: number): number {
    if (this.placement === 'free') return -1;
    if (this.placement === 'recorded' || this.follows) {
      return (track.firstCpu + copy * this.compiled.recordedCpus) % this.topology.cpuCount;
    }
    return this.order[this.next++ % this.order.length];
  }
}
