// End-to-end replay of the bundled recorded fork storm: decode once, then replay it whole in every call.

import {existsSync} from 'node:fs';
import {dirname, join} from 'node:path';
import {fileURLToPath} from 'node:url';
import {loadTrace, type LoadedTrace} from '../formats/reader.ts';
import type {Bench} from './benches.ts';
import {replayTrace} from './replay.ts';

function samplePath(): string {
  let folder = dirname(fileURLToPath(import.meta.url));
  while (!existsSync(join(folder, 'package.json'))) folder = dirname(folder);
  return join(folder, 'workloads/samples/fork-storm.mmt.gz');
}

let loaded: LoadedTrace | undefined;
let operations = 0;

function replayOnce(): void {
  loaded ??= loadTrace(samplePath());
  const report = replayTrace(loaded, {machine: 'epyc-2cpu-guest', kernel: '6.18', design: []});
  operations = report.host.ops;
}

export const benches: readonly Bench[] = [
  {
    name: 'fork storm',
    unit: 'operations',
    get perCall() {
      if (operations === 0) replayOnce();
      return operations;
    },
    fn: replayOnce,
  },
];
