// The scale run, once: a process tree of 4 M pages (16 GiB) that is written, forked, partly swapped
// out and read back, and exits. Too large to be repeated; its figure of merit is the host memory
// for each simulated page, everything included. A small run before it takes what does not depend on
// size (code, the machine's tables) out of the difference.

import type {Bench} from './benches.ts';
import {replayTrace} from './replay.ts';
import {type ScaleRun, scaleOperations, scaleTrace} from './scale_trace.ts';

const LARGE: ScaleRun = {pages: 2 ** 22, swapped: 2 ** 18, lives: 1};
const SMALL: ScaleRun = {pages: 2 ** 14, swapped: 2 ** 10, lives: 1};

function run(scale: ScaleRun): void {
  const report = replayTrace(scaleTrace(scale), {
    machine: '1s2c1t',
    kernel: '6.18',
    design: [],
  });
  if (report.replay.operations.failed > 0) throw new Error('benchmark went wrong');
}

export const benches: readonly Bench[] = [
  {
    name: 'process tree of 4 M pages',
    unit: 'page operations',
    perCall: scaleOperations(LARGE),
    fn: () => run(LARGE),
    once: {pages: LARGE.pages, warmUp: () => run(SMALL)},
  },
];
