// Runs on disk. A stored file is what `replay --json` printed (one report), a JSON array of
// reports, or one report per line; all three are read. Writing goes through a temporary file and a
// rename, so that a reader never sees half a file.

import {readdirSync, readFileSync, renameSync, statSync, unlinkSync, writeFileSync} from 'node:fs';
import {join} from 'node:path';
import {orUserError, UserError} from './errors.ts';
import type {RunReport} from './run.ts';
import {checkRunReport} from './run_check.ts';
import {parseJson, readJson} from './shape.ts';

/** Writes one report, indented, so that a diff of two stored runs is readable. */
export function saveRun(path: string, run: RunReport): void {
  writeWhole(path, `${JSON.stringify(run, null, 2)}\n`);
}

/** Writes several reports, one per line (JSON Lines). */
export function saveRuns(path: string, runs: readonly RunReport[]): void {
  writeWhole(path, runs.map((run) => `${JSON.stringify(run)}\n`).join(''));
}

/** Before runs that take long: UserError when what they give could not be written to `path`. */
export function checkWritable(path: string): void {
  const partial = `${path}.partial`;
  orUserError(path, 'write', () => {
    writeFileSync(partial, '');
    unlinkSync(partial);
    if (isFolder(path)) throw Object.assign(new Error(path), {code: 'EISDIR'});
  });
}

function writeWhole(path: string, text: string): void {
  const partial = `${path}.partial`;
  orUserError(path, 'write', () => {
    writeFileSync(partial, text);
    renameSync(partial, path);
  });
}

/** The one report in a file; UserError when there are several or when it is not a report. */
export function loadRun(path: string): RunReport {
  const runs = loadRuns(path);
  if (runs.length !== 1) {
    throw new UserError(
      `${path}: expected one run, found ${runs.length}; name a file with one run`,
    );
  }
  return runs[0];
}

/**
 * All reports in a file, or in the `.json` and `.jsonl` files of a folder in order of their names.
 */
export function loadRuns(path: string): RunReport[] {
  if (isFolder(path)) {
    const names = readdirSync(path).filter((name) => /\.jsonl?$/.test(name));
    return names.sort().flatMap((name) => loadRuns(join(path, name)));
  }
  return reportsIn(path).map(({value, at}) => checkRunReport(value, path, at));
}

function isFolder(path: string): boolean {
  try {
    return statSync(path).isDirectory();
  } catch {
    return false;
  }
}

function reportsIn(path: string): {value: unknown; at: string}[] {
  if (path.endsWith('.jsonl')) return linesOf(path);
  const whole = readJson(path);
  if (!Array.isArray(whole)) return [{value: whole, at: '$'}];
  return whole.map((value, i) => ({value, at: `$[${i}]`}));
}

function linesOf(path: string): {value: unknown; at: string}[] {
  const values: {value: unknown; at: string}[] = [];
  const text = orUserError(path, 'read', () => readFileSync(path, 'utf8'));
  text.split('\n').forEach((line, i) => {
    if (line.trim() !== '') values.push({value: parseJson(line, path), at: `line ${i + 1} $`});
  });
  return values;
}
