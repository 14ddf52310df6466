// Every workload by name, in the order of the listings. A new one: copy skeleton.ts, add it here.

import {EXIT, UserError} from '../formats/errors.ts';
import {forkStorm} from './fork_storm.ts';
import {ksm} from './ksm.ts';
import {locktorture} from './locktorture.ts';
import {mmapChurn} from './mmap_churn.ts';
import {numaBalance} from './numa_balance.ts';
import {oom} from './oom.ts';
import {open1} from './open1.ts';
import {snapshot} from './snapshot.ts';
import {stressVm} from './stress_vm.ts';
import {thp} from './thp.ts';
import {swapoff} from './swapoff.ts';
import {vmallocGrowth} from './vmalloc_growth.ts';
import {vmallocSyncStorm} from './vmalloc_sync_storm.ts';
import type {Workload} from './workload.ts';

/** All workloads by name. */
export const WORKLOADS: ReadonlyMap<string, Workload> = new Map(
  [
    forkStorm,
    vmallocGrowth,
    vmallocSyncStorm,
    locktorture,
    open1,
    mmapChurn,
    stressVm,
    snapshot,
    ksm,
    thp,
    numaBalance,
    swapoff,
    oom,
  ].map((one) => [one.name, one]),
);

/** The workload called `name`. Throws UserError listing those that exist. */
export function workloadByName(name: string): Workload {
  const workload = WORKLOADS.get(name);
  if (workload !== undefined) return workload;
  throw new UserError(
    `workload ${name}: unknown; choose one of ${[...WORKLOADS.keys()].join(', ')}`,
    EXIT.usage,
  );
}
