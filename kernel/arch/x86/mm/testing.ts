// A small machine with a kernel on it, for tests of this folder.

import {Machine} from '../../../../machine/machine.ts';
import {loadMachine} from '../../../../machine/machines.ts';
import type {Code} from '../../../../machine/process.ts';
import {kernelFacts} from '../../../design.ts';
import {startProcess} from '../../../init_task.ts';
import {Kernel} from '../../../kernel.ts';
import type {Task} from '../../../task.ts';

/** What a test asks for. */
export interface TestSpec {
  readonly machine?: string;
  readonly version?: string;
  readonly design?: readonly string[];
  readonly seed?: number;
}

/** A kernel that has booted, nothing running on it. */
export function bootKernel(spec: TestSpec = {}): Kernel {
  const machine = new Machine(loadMachine(spec.machine ?? '2s2c1t'), {seed: spec.seed ?? 1});
  return new Kernel(machine, kernelFacts(spec.version ?? '4.1', spec.design ?? []));
}

/** Starts a process with an address space of its own on `cpu`. */
export function startOn(
  k: Kernel,
  cpu: number,
  program: (t: Task) => Code<unknown>,
  tid = 100 + cpu,
): Task {
  return startProcess(k, {tid, comm: `p${tid}`, program, pinnedCpu: cpu});
}
