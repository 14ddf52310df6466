// Loads a trace, or a foreign recording as if it had been imported first.

import {readFileSync} from 'node:fs';
import {UserError} from '../formats/errors.ts';
import {importBytes} from '../formats/import/import.ts';
import {loadTrace, type LoadedTrace} from '../formats/reader.ts';
import {memorySource} from '../formats/source.ts';

/** A trace file, or a recording of perf or ftrace in text form (plain, gzip or zstd). */
export function loadTraceOrRecording(path: string, tolerant: boolean): LoadedTrace {
  try {
    return loadTrace(path, {tolerant});
  } catch (error) {
    if (!(error instanceof UserError) || path === '-') throw error;
    const imported = importedOrNull(path);
    if (imported === null) throw error;
    return imported;
  }
}

function importedOrNull(path: string): LoadedTrace | null {
  try {
    const {trace} = importBytes(readFileSync(path), {}, path);
    return loadTrace(memorySource(trace, path));
  } catch {
    return null;
  }
}
