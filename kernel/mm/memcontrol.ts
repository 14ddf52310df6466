// mm/memcontrol.c as far as reclaim needs it: what a memory cgroup may use and does. Charging and
// uncharging are a comparison and an addition; an allocation over the limit reclaims from the
// cgroup's own lists and tries again (vmscan.ts). Flat: no hierarchy, no memory.high, and charges
// are not batched per CPU (Linux's stock of 64 pages makes a limit bite up to 63 pages per CPU
// earlier). Cgroup 0 is the root and never charged.

import {assert, bug} from '../../machine/assert.ts';

/** One cgroup; sizes in pages. */
export class Memcg {
  usage = 0;
  /** Highest usage. */
  watermark = 0;
  /** memory.max; Infinity for none. */
  max = Infinity;
  /** Times that a charge found the cgroup at its limit, and that reclaim could not help. */
  maxEvents = 0;
  oomEvents = 0;

  constructor(readonly id: number) {}

  /** mem_cgroup_margin. */
  get margin(): number {
    return Math.max(this.max - this.usage, 0);
  }
}

/** All cgroups. */
export class Memcgs {
  /** By id; id 0 is the root. */
  readonly byId: Memcg[] = [new Memcg(0)];

  /** mkdir of a cgroup. Ids are not reused: pages that it was charged for may outlive it. */
  create(): Memcg {
    const memcg = new Memcg(this.byId.length);
    assert(memcg.id < 2 ** 16, 'more than 65535 memory cgroups');
    this.byId.push(memcg);
    return memcg;
  }

  of(id: number): Memcg {
    const memcg = this.byId[id];
    if (memcg === undefined) bug(`no memory cgroup ${id}`);
    return memcg;
  }

  /** try_charge_memcg without reclaim. */
  tryCharge(id: number, n: number): boolean {
    const memcg = this.of(id);
    if (memcg.usage + n > memcg.max) {
      memcg.maxEvents++;
      return false;
    }
    memcg.usage += n;
    memcg.watermark = Math.max(memcg.watermark, memcg.usage);
    return true;
  }

  uncharge(id: number, n: number): void {
    const memcg = this.of(id);
    memcg.usage -= n;
    if (memcg.usage < 0) bug(`memory cgroup ${id} uncharged below zero`);
  }
}
