// How a published measurement is run: which workload with which parameters stands for its x axis. A
// file of published results names a workload either by its source's name (below) or by one of ours,
// with our parameters; then x is the parameter of that name.

import {EXIT, UserError} from '../formats/errors.ts';
import type {Params} from './params.ts';
import {workloadByName} from './registry.ts';
import {parseParams, type Workload} from './workload.ts';

/** The workload part of a published result. */
export interface PublishedWorkload {
  readonly name: string;
  readonly params: Readonly<Record<string, string | number | boolean>>;
}

/** What to generate for one x. */
export interface PublishedRun {
  readonly workload: Workload;
  readonly params: Params;
  /** CPUs in the order in which threads take them. */
  readonly placement: 'pin-compact' | 'pin-scatter' | 'scatter';
}

/** Acquisitions of all tasks together in one run: enough for a rate within a few percent. */
const ACQUISITIONS = 60_000;
const LEAST_EACH = 150;
/**
 * A 100 ms delay that comes once in 200,000 acquisitions becomes 1,000 of 100 us: same mean, far
 * less noise.
 */
const LONG_SPLIT = 1_000;

type Translate = (
  params: PublishedWorkload['params'],
  x: number,
) => [name: string, words: string[]];

function each(tasks: number, perIteration: number): number {
  return Math.max(LEAST_EACH, Math.round(ACQUISITIONS / perIteration / tasks));
}

/** Workloads that go by the name their source gave them. */
const BY_SOURCE_NAME: Readonly<Record<string, Translate>> = {
  will_it_scale_open1_threads: (_params, x) => [
    'open1',
    [`tasks=${x}`, `iterations=${each(x, 2)}`],
  ],
  locktorture: (_params, x) => [
    'locktorture',
    [`writers=${x}`, `acquisitions=${each(x, 1)}`, `long_split=${LONG_SPLIT}`],
  ],
};

/**
 * What stands for one x of a published result. Throws UserError for a workload that nobody knows.
 */
export function publishedRun(published: PublishedWorkload, xName: string, x: number): PublishedRun {
  const translate = BY_SOURCE_NAME[published.name] ?? ownWorkload(published.name, xName);
  const [name, words] = translate(published.params, x);
  const workload = workloadByName(name);
  const scatter = published.params['placement'] === 'scatter';
  return {
    workload,
    params: parseParams(workload, words),
    placement: scatter ? 'pin-scatter' : 'pin-compact',
  };
}

/** One of our workloads: params are its own, x is the one called `xName`. */
function ownWorkload(name: string, xName: string): Translate {
  const workload = workloadByName(name);
  if (!workload.params.some((param) => param.name === xName)) {
    const known = workload.params.map((param) => param.name).join(', ');
    throw new UserError(
      `${name} has no parameter ${xName} for the x axis; name one of ${known}`,
      EXIT.badInput,
    );
  }
  return (params, x) => [
    name,
    [
      ...Object.entries(params)
        .filter(([key]) => key !== 'placement')
        .map(([key, value]) => `${key}=${value}`),
      `${xName}=${x}`,
    ],
  ];
}
