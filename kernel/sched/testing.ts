// For tests: a kernel with nothing but locks and a scheduler on a real machine, and tasks on it.

import type {IpiMode} from '../../machine/ipi.ts';
import {Machine} from '../../machine/machine.ts';
import {loadMachine} from '../../machine/machines.ts';
import type {Code} from '../../machine/process.ts';
import {Checks} from '../checks.ts';
import {kernelFacts} from '../design.ts';
import type {Kernel} from '../kernel.ts';
import {LockRegistry} from '../locking/registry.ts';
import {Rcu} from '../rcu.ts';
import {Task} from '../task.ts';
import {Scheduler} from './core.ts';

/** A kernel of which only machine, checks, locks, scheduler and RCU exist. */
export interface BareKernel {
  readonly kernel: Kernel;
  readonly machine: Machine;
  readonly sched: Scheduler;
  readonly rcu: Rcu;
  readonly checks: Checks;
  /** A new task that runs `code`, on `cpu` only when that is given. */
  start(name: string, code: (t: Task) => Code<unknown>, cpu?: number): Task;
  run(until?: number): number;
}

export function bareKernel(
  machineName: string,
  version = '5.4',
  ipi: IpiMode = 'closed',
): BareKernel {
  const machine = new Machine(loadMachine(machineName), {seed: 1, ipi});
  const checks = new Checks();
  const facts = kernelFacts(version);
  const partial = {
    machine,
    checks,
    facts,
    design: facts.design,
    pgd: {switch_mm: null},
    fn: (name: string) => machine.profile.id(name),
  };
  const kernel = partial as unknown as Kernel;
  Object.assign(partial, {locks: new LockRegistry(kernel)});
  const sched = new Scheduler(kernel);
  Object.assign(partial, {sched});
  const rcu = new Rcu(kernel);
  Object.assign(partial, {rcu});
  let tid = 100;
  return {
    kernel,
    machine,
    sched,
    rcu,
    checks,
    start(name, code, cpu = -1) {
      const t = new Task(tid, tid, name, machine.cpus[Math.max(cpu, 0)], null);
      tid++;
      t.pinnedCpu = cpu;
      sched.startTask(t, code(t));
      return t;
    },
    run: (until) => machine.engine.run(until),
  };
}
