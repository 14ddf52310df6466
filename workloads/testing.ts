// What the tests of this folder share: a generated trace in memory, decoded again by
// formats/reader.

import {loadTrace, type LoadedTrace} from '../formats/reader.ts';
import {memorySource} from '../formats/source.ts';
import {TraceWriter, type TraceSummary} from '../formats/writer.ts';
import {parseParams, type OpenTrace, type Workload} from './workload.ts';

/** A trace in memory. */
export interface MadeTrace {
  readonly bytes: Uint8Array;
  readonly summary: TraceSummary;
}

/** Runs `write` with a writer into memory. */
export function inMemory(write: (open: OpenTrace) => TraceSummary): MadeTrace {
  const chunks: Uint8Array[] = [];
  const summary = write((header) => new TraceWriter((chunk) => chunks.push(chunk), header));
  return {bytes: new Uint8Array(Buffer.concat(chunks)), summary};
}

/** Generates from `key=value` words. */
export function generate(workload: Workload, words: readonly string[], seed = 1): MadeTrace {
  return inMemory((open) => workload.generate(open, parseParams(workload, words), seed));
}

/** A made trace, decoded. */
export function decode(made: MadeTrace): LoadedTrace {
  return loadTrace(memorySource(made.bytes));
}
