// End-to-end replay: decode once, then replay whole in every call. Of the bundled recorded fork
// storm, which is the heaviest kind (a fork and its exit of a process with 166 areas are two
// operations), and of all recordings of a folder.

import {readdirSync} from 'node:fs';
import {join} from 'node:path';
import {loadTrace, type LoadedTrace} from '../formats/reader.ts';
import {packageRoot} from '../formats/schema.ts';
import {type Bench, RECORDINGS_VARIABLE} from './benches.ts';
import {replayTrace} from './replay.ts';

/**
 * A replay runs so much code that the first few are compiled: they take up to three times as long.
 */
const WARM_UPS = 10;

function samplePath(): string {
  return join(packageRoot(), 'workloads/samples/fork-storm.mmt.gz');
}

/** A benchmark that replays `paths` one after the other on the machine of the recordings. */
function replayOf(name: string, paths: () => string[]): Bench {
  let loaded: LoadedTrace[] | undefined;
  let operations = 0;
  const fn = () => {
    loaded ??= paths().map((path) => loadTrace(path));
    operations = 0;
    for (const trace of loaded) {
      const report = replayTrace(trace, {machine: 'epyc-2cpu-guest', kernel: '6.18', design: []});
      operations += report.host.ops;
    }
  };
  return {
    name,
    unit: 'operations',
    get perCall() {
      if (operations === 0) fn();
      return operations;
    },
    warmUps: WARM_UPS,
    fn,
  };
}

const folder = process.env[RECORDINGS_VARIABLE];

/** Traces of the folder that `bench --recordings` names. */
export function recordings(path: string): string[] {
  return readdirSync(path)
    .filter((name) => name.endsWith('.mmt') || name.endsWith('.mmt.gz'))
    .sort()
    .map((name) => join(path, name));
}

export const benches: readonly Bench[] = [
  replayOf('fork storm', () => [samplePath()]),
  ...(folder === undefined ? [] : [replayOf('recordings', () => recordings(folder))]),
];
