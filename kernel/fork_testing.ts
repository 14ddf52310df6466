// For tests: a whole kernel on a small machine, and the fork storm that several of them run.

import type {Code} from '../machine/engine.ts';
import {Machine} from '../machine/machine.ts';
import {loadMachine} from '../machine/machines.ts';
import {kernelFacts} from './design.ts';
import {sys_wait4} from './exit.ts';
import {sys_clone} from './fork.ts';
import {startProcess} from './init_task.ts';
import {Kernel} from './kernel.ts';
import type {Task} from './task.ts';

/** A kernel on machine `name`. */
export function testKernel(
  name: string,
  version: string,
  overrides: readonly string[] = [],
  seed = 1,
): Kernel {
  const bounds = {maxEvents: 2e7, maxTicks: 2 ** 50, maxQueue: 2 ** 20};
  return new Kernel(
    new Machine(loadMachine(name), {seed, bounds}),
    kernelFacts(version, overrides),
  );
}

/** Runs until nothing is left to do, RCU callbacks included. Returns the time in ticks. */
export function runToEnd(k: Kernel): number {
  return k.machine.engine.run();
}

/** A program that does nothing but compute for `ticks`. */
export function computing(k: Kernel, ticks: number): (t: Task) => Code<unknown> {
  return (t) => k.sched.userRun(t, ticks);
}

/** `workers` processes on their own CPUs, each forking and reaping `children` children one after the other. */
export function forkStorm(
  k: Kernel,
  workers: number,
  children: number,
  child: (t: Task) => Code<unknown> = computing(k, 1000),
): {reaped: number[]} {
  const reaped: number[] = [];
  for (let w = 0; w < workers; w++) {
    startProcess(k, {
      tid: 100 + w,
      comm: `worker${w}`,
      pinnedCpu: w % k.machine.topology.cpuCount,
      *program(t) {
        for (let i = 0; i < children; i++) {
          const childTid = 1000 + w * children + i;
          yield* sys_clone(k, t, {flags: 0, childTid, pinnedCpu: -1, program: child});
          reaped.push(yield* sys_wait4(k, t, -1, 0));
        }
      },
    });
  }
  return {reaped};
}
