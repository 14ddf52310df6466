// Traces that never touch a disk: what a generator writes is collected and read back, through the
// same bytes as a file.

import {loadTrace, type LoadedTrace} from '../formats/reader.ts';
import {memorySource} from '../formats/source.ts';
import type {ByteSink} from '../formats/writer.ts';

/** Reads back what `write` hands to the sink it is given. */
export function traceFrom(name: string, write: (sink: ByteSink) => void): LoadedTrace {
  const chunks: Uint8Array[] = [];
  write((chunk) => {
    chunks.push(chunk);
  });
  return loadTrace(memorySource(Buffer.concat(chunks), name));
}
