// A simulated machine: the engine with the CPUs, TLBs, lines and interrupts that a topology
// describes.

import {CacheLine} from './cache_line.ts';
import {Cpu} from './cpu.ts';
import {Engine, type Bounds} from './engine.ts';
import {Ipi, type IpiMode} from './ipi.ts';
import {LineArena} from './line_arena.ts';
import {Profile} from './profile.ts';
import {Rng} from './rng.ts';
import {StoreBuffers} from './store_buffer.ts';
import {Tlb} from './tlb.ts';
import type {Topology} from './topology.ts';

/** How a machine is run. */
export interface MachineOptions {
  seed: number;
  ipi?: IpiMode;
  bounds?: Bounds;
}

/** Everything below the kernel. */
export class Machine {
  readonly engine: Engine;
  readonly cpus: readonly Cpu[];
  readonly tlbs: readonly Tlb[];
  readonly profile = new Profile();
  readonly ipi: Ipi;
  readonly lines: LineArena;
  readonly storeBuffers: StoreBuffers;
  readonly seed: number;

  constructor(
    readonly topology: Topology,
    options: MachineOptions,
  ) {
    this.seed = options.seed;
    this.engine = new Engine(options.bounds);
    this.cpus = Array.from({length: topology.cpuCount}, (_, id) => new Cpu(id, this));
    this.tlbs = this.cpus.map(() => new Tlb());
    this.ipi = new Ipi(this, options.ipi ?? 'closed');
    this.lines = new LineArena(topology);
    this.storeBuffers = new StoreBuffers(
      topology.cpuCount,
      {drainTicks: (_cpu, rng) => Math.ceil(rng.nextExp(topology.storeBufferDrainTicks))},
      this.rng('store-buffer'),
    );
    for (const cpu of this.cpus) {
      const sibling = topology.siblingOf(cpu.id);
      cpu.sibling = sibling < 0 ? null : this.cpus[sibling];
    }
  }

  /** A random stream of its own for `purpose`; the same for the same seed on every host. */
  rng(purpose: string): Rng {
    return new Rng(this.seed, purpose);
  }

  /** A named line with its memory on `homeNode`. */
  line(name: string, homeNode = 0): CacheLine {
    return new CacheLine(name, this.topology, homeNode);
  }
}
