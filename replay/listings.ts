// What can be chosen: machines, kernels and designs, for the listings of the command line.

import {AXES, KERNELS} from '../kernel/design.ts';
import {listMachines, type MachineListing} from '../machine/machines.ts';

/** One axis with its choices and the kernels that pick each. */
export interface AxisListing {
  readonly axis: string;
  readonly choices: readonly {readonly choice: string; readonly kernels: readonly string[]}[];
}

/** Every axis of the design. */
export function listDesigns(): AxisListing[] {
  return Object.entries(AXES).map(([axis, choices]) => ({
    axis,
    choices: choices.map((choice) => ({choice, kernels: kernelsWith(axis, choice)})),
  }));
}

function kernelsWith(axis: string, choice: string): string[] {
  return [...KERNELS.values()]
    .filter((facts) => (facts.design as Record<string, string>)[axis] === choice)
    .map((facts) => facts.version);
}

/** Every shipped machine. */
export function machines(): MachineListing[] {
  return listMachines();
}
