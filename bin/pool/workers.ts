// Runs in worker threads. Every worker has its own heap and its own copy of the code; what they
// share is the columns of loaded traces. A worker is sent one job at a time (a message takes 0.1
// ms, the shortest runs some ms) and is ended as soon as nothing is left for it.
//
// The first failing run in the order asked for decides, as in one thread: after a failure the runs
// after it are dropped, those being done are ended, those before it are still finished. Ctrl-C ends
// all.

import {Worker, type WorkerOptions} from 'node:worker_threads';
import {EXIT, UserError} from '../../formats/errors.ts';
import type {LoadedTrace} from '../../formats/reader.ts';
import type {RunReport} from '../../results/run.ts';
import {isCompiled, programPath} from '../package_info.ts';
import {errorOf, type Failure} from './failure.ts';
import {type ReplayJob, traceKey} from './jobs.ts';
import {Schedule} from './schedule.ts';

/** What a worker sends back. */
export type Answer = {readonly report: RunReport} | {readonly failure: Failure};

/** What to run. */
export interface Work {
  readonly jobs: readonly ReplayJob[];
  /** Jobs before this one are done. */
  readonly first: number;
  readonly workers: number;
  readonly loaded: readonly LoadedTrace[];
  /** Called as runs begin and end, in whatever order. */
  begun(index: number): void;
  ended(index: number, report: RunReport): void;
}

/** Runs all of `work`. Rejects with the error of the first failing run in the order of the jobs. */
export function runInWorkers(work: Work): Promise<void> {
  return new Crew(work).run();
}

class Crew {
  private readonly schedule: Schedule;
  /** Job of each worker. */
  private readonly busy = new Map<Worker, number>();
  private readonly ending: Promise<unknown>[] = [];
  /** Runs done. */
  private count: number;
  private failedAt = Infinity;
  private error: Error | null = null;
  private settle: () => void = () => {};

  constructor(private readonly work: Work) {
    this.count = work.first;
    const entries = work.jobs.slice(work.first).map(({trace, guessMs}, n) => ({
      index: work.first + n,
      key: traceKey(trace),
      guessMs,
    }));
    this.schedule = new Schedule(entries);
  }

  async run(): Promise<void> {
    process.once('SIGINT', this.interrupted);
    const over = new Promise<void>((resolve) => {
      this.settle = resolve;
    });
    try {
      for (let n = 0; n < this.work.workers; n++) this.give(this.hire(), null);
      await over;
    } finally {
      process.removeListener('SIGINT', this.interrupted);
      for (const worker of [...this.busy.keys()]) this.dismiss(worker);
      await Promise.all(this.ending);
    }
    if (this.error !== null) throw this.error;
  }

  private readonly interrupted = (): void => {
    const {jobs} = this.work;
    this.failedAt = -1;
    this.error = new UserError(
      `interrupted after ${this.count} of ${jobs.length} runs`,
      EXIT.interrupted,
    );
    this.settle();
  };

  private hire(): Worker {
    const worker = startWorker(this.work.loaded);
    worker.on('message', (answer: Answer) => this.answered(worker, answer));
    worker.on('error', (error) => this.broke(worker, error));
    worker.on('exit', (code) => this.broke(worker, new Error(`exit code ${code}`)));
    return worker;
  }

  /** Sends a worker its next job, or home. */
  private give(worker: Worker, last: number | null): void {
    const {jobs} = this.work;
    const index = this.schedule.next(last === null ? null : traceKey(jobs[last].trace));
    if (index === null) {
      this.dismiss(worker);
      return;
    }
    this.busy.set(worker, index);
    this.work.begun(index);
    worker.postMessage(jobs[index]);
  }

  private answered(worker: Worker, answer: Answer): void {
    const index = this.busy.get(worker);
    if (index === undefined) return;
    if ('report' in answer) {
      this.count++;
      this.work.ended(index, answer.report);
    } else this.failed(index, errorOf(answer.failure));
    if (this.busy.has(worker)) this.give(worker, index);
  }

  /** A worker is gone without an answer: out of memory, most likely. */
  private broke(worker: Worker, error: Error): void {
    const index = this.busy.get(worker);
    if (index === undefined) return;
    const {label} = this.work.jobs[index];
    const what = `${label}: a worker thread broke off (${error.message}); try it with --jobs 1`;
    this.failed(index, new UserError(what, EXIT.failed));
    this.dismiss(worker);
  }

  private failed(index: number, error: Error): void {
    if (index > this.failedAt) return;
    this.failedAt = index;
    this.error = error;
    this.schedule.failed(index);
    for (const [worker, job] of [...this.busy]) if (job > index) this.dismiss(worker);
  }

  private dismiss(worker: Worker): void {
    this.busy.delete(worker);
    this.ending.push(worker.terminate());
    if (this.busy.size === 0) this.settle();
  }
}

/** Starts a thread at worker.ts: compiled, or from the sources, which take the loader of tsx. */
function startWorker(loaded: readonly LoadedTrace[]): Worker {
  const options: WorkerOptions = {workerData: {loaded}};
  if (isCompiled) return new Worker(programPath('pool/worker'), options);
  const [tsx, worker] = [import.meta.resolve('tsx/esm/api'), import.meta.resolve('./worker.ts')];
  const code = `import('${tsx}').then((tsx) => { tsx.register(); return import('${worker}'); })`;
  return new Worker(code, {...options, eval: true, execArgv: []});
}
