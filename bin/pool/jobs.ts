// One run of many: which trace, on what. A job is plain data, so that a worker can be sent it; a
// trace is made from its recipe where the run takes place, and stays there as long as runs of the
// same trace follow.

import type {LoadedTrace} from '../../formats/reader.ts';
import type {ReplayRequest} from '../../replay/replay.ts';
import {replayTrace} from '../../replay/replay.ts';
import type {RunReport} from '../../results/run.ts';
import {scenarioByName} from '../../workloads/catalogue.ts';
import type {Params} from '../../workloads/params.ts';
import {workloadByName} from '../../workloads/registry.ts';
import {scenarioTrace} from '../scenario_trace.ts';
import {workloadTrace} from '../workload_trace.ts';

/** Where a run's trace comes from: one of the loaded ones, or a generator. */
export type TraceRecipe =
  | {readonly from: 'loaded'; readonly index: number}
  | {
      readonly from: 'workload';
      readonly name: string;
      readonly params: Params;
      readonly seed: number;
    }
  | {readonly from: 'scenario'; readonly name: string; readonly seed: number};

/** One run. */
export interface ReplayJob {
  readonly trace: TraceRecipe;
  readonly request: ReplayRequest;
  /** What the line of progress says while it runs. */
  readonly label: string;
  /**
   * How long it may take on this host, ms: a guess, good for who comes first and whether workers
   * pay.
   */
  readonly guessMs: number;
}

/** Equal for equal recipes. */
export function traceKey(recipe: TraceRecipe): string {
  if (recipe.from === 'loaded') return `loaded ${recipe.index}`;
  const params = recipe.from === 'workload' ? JSON.stringify(recipe.params) : '';
  return `${recipe.from} ${recipe.name} ${params} ${recipe.seed}`;
}

/** The traces of one thread: the loaded ones, and the last few that were generated. */
export class Traces {
  private readonly kept = new Map<string, LoadedTrace>();

  constructor(
    private readonly loaded: readonly LoadedTrace[],
    private readonly room: number,
  ) {}

  get(recipe: TraceRecipe): LoadedTrace {
    if (recipe.from === 'loaded') return this.loaded[recipe.index];
    const key = traceKey(recipe);
    const known = this.kept.get(key);
    if (known !== undefined) return known;
    const [oldest] = this.kept.keys();
    if (this.kept.size >= this.room) this.kept.delete(oldest);
    const made = generated(recipe);
    this.kept.set(key, made);
    return made;
  }
}

function generated(recipe: Exclude<TraceRecipe, {from: 'loaded'}>): LoadedTrace {
  const {name, seed} = recipe;
  if (recipe.from === 'scenario') return scenarioTrace(scenarioByName(name), seed);
  return workloadTrace(workloadByName(name), recipe.params, seed);
}

/** Runs one job in this thread. */
export function runJob(job: ReplayJob, traces: Traces): RunReport {
  return replayTrace(traces.get(job.trace), job.request);
}
