// The recordings of a folder, replayed on every CPU of this host at once: what compare and its like
// get.

import {availableParallelism} from 'node:os';
import {loadTrace} from '../formats/reader.ts';
import type {ReplayJob} from './pool/jobs.ts';
import {replayAll} from './pool/replay_all.ts';
import type {Output} from './streams.ts';

/** Replays of each recording by each thread, so that their start does not decide. */
const REPEATS = 8;

/** What all CPUs together did, the start of their threads included. */
export interface AllThreads {
  readonly name: string;
  readonly threads: number;
  readonly unit: string;
  readonly ops_per_s: number;
}

/**
 * Replays all traces of `folder` on the machine that they were recorded on, REPEATS times on each
 * CPU.
 */
export async function benchAllThreads(folder: string, err: Output): Promise<AllThreads> {
  const {recordings} = await import('../replay/replay.bench.ts');
  const threads = availableParallelism();
  const loaded = recordings(folder).map((path) => loadTrace(path));
  const jobs = Array.from({length: REPEATS * threads}).flatMap(() =>
    loaded.map(
      ({path}, index): ReplayJob => ({
        trace: {from: 'loaded', index},
        request: {machine: 'epyc-2cpu-guest', kernel: '6.18', design: []},
        label: path,
        guessMs: 0,
      }),
    ),
  );
  const began = performance.now();
  const reports = await replayAll(jobs, {threads, loaded, err});
  const seconds = (performance.now() - began) / 1000;
  const operations = reports.reduce((sum, report) => sum + report.host.ops, 0);
  const name = 'replay: recordings, all CPUs at once';
  return {name, threads, unit: 'operations', ops_per_s: operations / seconds};
}
