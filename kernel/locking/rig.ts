// A small machine with locks and one pinned task per CPU, for tests and benchmarks of locks: no
// scheduler, no mm.

import {Machine} from '../../machine/machine.ts';
import {loadMachine} from '../../machine/machines.ts';
import type {Code} from '../../machine/process.ts';
import type {Topology} from '../../machine/topology.ts';
import {Checks} from '../checks.ts';
import {type Choice, kernelFacts} from '../design.ts';
import {Task} from '../task.ts';
import {LockRegistry} from './registry.ts';

/** A machine, its locks and what its tasks do. */
export class LockRig {
  readonly machine: Machine;
  readonly checks = new Checks();
  readonly locks: LockRegistry;
  readonly fn: number;
  private nextTid = 1;

  constructor(machine: string | Topology, policy: Choice<'spinlock'>, seed = 1) {
    const topology = typeof machine === 'string' ? loadMachine(machine) : machine;
    this.machine = new Machine(topology, {seed});
    const {design} = kernelFacts('6.12', [`spinlock=${policy}`]);
    this.locks = new LockRegistry({machine: this.machine, design, checks: this.checks});
    this.fn = this.machine.profile.id('rig');
  }

  /** A task that runs `program` on `cpu` from the present on. */
  start(cpu: number, program: (t: Task) => Code<unknown>): Task {
    const tid = this.nextTid++;
    const on = this.machine.cpus[cpu];
    const t = new Task(tid, tid, `task${tid}`, on, null);
    t.process = this.machine.engine.spawn(t.comm, program(t), on);
    on.process = t.process;
    t.process.onDone = () => {
      if (on.process === t.process) on.process = null;
    };
    return t;
  }

  /** Work of `ticks` by `t`; the caller yields when it returns true. */
  work(t: Task, ticks: number): boolean {
    t.cpu.stall(ticks, this.fn);
    return t.cpu.settle();
  }
}
