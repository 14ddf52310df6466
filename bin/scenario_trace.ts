// A scenario's trace in memory.

import type {LoadedTrace} from '../formats/reader.ts';
import {TraceWriter} from '../formats/writer.ts';
import {traceFrom} from '../replay/generated.ts';
import type {Scenario} from '../workloads/catalogue.ts';

/** Builds the trace of `scenario` under one seed. */
export function scenarioTrace(scenario: Scenario, seed: number): LoadedTrace {
  return traceFrom(`${scenario.name} --seed ${seed}`, (sink) => {
    scenario.build((header) => new TraceWriter(sink, header), seed);
  });
}
