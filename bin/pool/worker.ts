// A worker thread: does the jobs it is sent, one at a time, and sends back the report or what went
// wrong.

import {parentPort, workerData} from 'node:worker_threads';
import type {LoadedTrace} from '../../formats/reader.ts';
import {failureOf} from './failure.ts';
import {type ReplayJob, runJob, Traces} from './jobs.ts';
import type {Answer} from './workers.ts';

const {loaded} = workerData as {loaded: readonly LoadedTrace[]};
const traces = new Traces(loaded, 1);

parentPort?.on('message', (job: ReplayJob) => {
  parentPort?.postMessage(answerTo(job));
});

function answerTo(job: ReplayJob): Answer {
  try {
    return {report: runJob(job, traces)};
  } catch (error) {
    return {failure: failureOf(error)};
  }
}
