// Many independent runs: in this thread when they are few and short, else in worker threads.
// Reports come back in the order of the jobs and are the same either way, but for the host's times
// in them.

import type {LoadedTrace} from '../../formats/reader.ts';
import type {RunReport} from '../../results/run.ts';
import type {Output} from '../streams.ts';
import {Progress} from '../progress.ts';
import {type ReplayJob, runJob, Traces} from './jobs.ts';
import {thisHost, workersFor} from './plan.ts';
import {sharedTrace} from './shared_trace.ts';
import {runInWorkers} from './workers.ts';

export interface ReplayAllOptions {
  /** Threads at once; 1: this one; undefined: as many as the work is worth. */
  readonly threads: number | undefined;
  /** Traces that jobs name by index. */
  readonly loaded?: readonly LoadedTrace[];
  /** Generated traces to keep while in this thread (1). */
  readonly tracesKept?: number;
  /** Where progress is shown. */
  readonly err: Output;
  /** Told of each report in the order of the jobs, as soon as all before it are there. */
  done?(report: RunReport): void;
}

/**
 * Runs all jobs. Throws the error of the first of them that fails, after the ones before it are
 * done.
 */
export async function replayAll(
  jobs: readonly ReplayJob[],
  options: ReplayAllOptions,
): Promise<RunReport[]> {
  const progress = new Progress(options.err);
  try {
    return await new Runs(jobs, options, progress).all();
  } finally {
    progress.clear();
  }
}

/** As replayAll for jobs in groups: the reports in the same groups. */
export async function replayGroups(
  groups: readonly (readonly ReplayJob[])[],
  options: ReplayAllOptions,
): Promise<RunReport[][]> {
  const reports = await replayAll(groups.flat(), options);
  return groups.map((group) => reports.splice(0, group.length));
}

class Runs {
  private readonly reports: (RunReport | undefined)[];
  private count = 0;
  /** Reports handed to `done`. */
  private told = 0;

  constructor(
    private readonly jobs: readonly ReplayJob[],
    private readonly options: ReplayAllOptions,
    private readonly progress: Progress,
  ) {
    this.reports = jobs.map(() => undefined);
  }

  async all(): Promise<RunReport[]> {
    const {jobs, options} = this;
    const {loaded = [], tracesKept = 1, threads} = options;
    const traces = new Traces(loaded, tracesKept);
    const host = thisHost();
    let spentMs = 0;
    for (let at = 0; at < jobs.length; at++) {
      const chosen = threads === undefined ? workersFor(jobs, at, spentMs, host) : threads;
      const workers = Math.min(chosen, jobs.length - at);
      if (workers > 1) {
        await this.share(at, workers);
        break;
      }
      const began = performance.now();
      this.begun(at);
      this.ended(at, runJob(jobs[at], traces));
      spentMs += performance.now() - began;
    }
    return this.reports as RunReport[];
  }

  private share(first: number, workers: number): Promise<void> {
    return runInWorkers({
      jobs: this.jobs,
      first,
      workers,
      loaded: (this.options.loaded ?? []).map(sharedTrace),
      begun: (index) => this.begun(index),
      ended: (index, report) => this.ended(index, report),
    });
  }

  private begun(index: number): void {
    this.progress.show(`${this.count} of ${this.jobs.length} runs done: ${this.jobs[index].label}`);
  }

  private ended(index: number, report: RunReport): void {
    this.reports[index] = report;
    this.count++;
    for (; this.reports[this.told] !== undefined; this.told++) {
      this.options.done?.(this.reports[this.told] as RunReport);
    }
  }
}
