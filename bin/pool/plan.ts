// How many threads some work is worth.
//
// A worker costs about a second of its CPU before it is as fast as this thread: it loads every
// module again (0.4 s), and runs slowly until V8 has compiled what is hot (the first run of a fork
// storm takes five times as long as the sixth). So n workers take COLD + rest / n where this thread
// takes rest. How long the rest takes is a guess before the first run. After it the runs done so
// far tell, but only once they have taken as long as a worker's start would have: until then this
// thread is cold as well.

import {availableParallelism} from 'node:os';
import {availableMemory} from 'node:process';
import type {ReplayJob} from './jobs.ts';

/** What a worker costs before it is worth anything, ms. */
const COLD_MS = 1000;
/** Least work for each worker, ms. */
const LEAST_MS = 500;
/** Room for the heap and the arenas of one run. */
const BYTES_PER_WORKER = 512 * 2 ** 20;

type Guess = Pick<ReplayJob, 'guessMs'>;

/** What the host has. */
export interface Host {
  readonly cpus: number;
  readonly freeBytes: number;
}

export function thisHost(): Host {
  return {cpus: availableParallelism(), freeBytes: availableMemory()};
}

/**
 * Workers for the jobs from `at` on, after the ones before it took `spentMs` in this thread; 1
 * means to go on in this thread.
 */
export function workersFor(
  jobs: readonly Guess[],
  at: number,
  spentMs: number,
  {cpus, freeBytes}: Host,
): number {
  if (at > 0 && spentMs < COLD_MS) return 1;
  const rest = guessOf(jobs.slice(at));
  const restMs = at === 0 ? rest : (rest * spentMs) / guessOf(jobs.slice(0, at));
  const room = Math.floor(freeBytes / BYTES_PER_WORKER);
  const most = Math.min(cpus, jobs.length - at, room, Math.floor(restMs / LEAST_MS));
  return most > 1 && COLD_MS + restMs / most < restMs ? most : 1;
}

function guessOf(jobs: readonly Guess[]): number {
  return jobs.reduce((sum, {guessMs}) => sum + guessMs, 0);
}
