// A workload's trace in memory, for the verbs that generate and replay in one go.

import type {LoadedTrace} from '../formats/reader.ts';
import {TraceWriter} from '../formats/writer.ts';
import {traceFrom} from '../replay/generated.ts';
import type {Params} from '../workloads/params.ts';
import type {Workload} from '../workloads/workload.ts';

/** Generates one trace of `workload`. */
export function workloadTrace(workload: Workload, params: Params, seed: number): LoadedTrace {
  const words = Object.entries(params).map(([key, value]) => `${key}=${value}`);
  return traceFrom(`${workload.name} ${words.join(' ')} --seed ${seed}`, (sink) => {
    workload.generate((header) => new TraceWriter(sink, header), params, seed);
  });
}
