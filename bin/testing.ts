// What tests of the command line share.

import {mkdtempSync, rmSync} from 'node:fs';
import {tmpdir} from 'node:os';
import {join} from 'node:path';
import {main} from './main.ts';
import {TextOutput} from './streams.ts';

/** What a command printed, and its exit code. */
export interface Result {
  readonly code: number;
  readonly out: string;
  readonly err: string;
}

/** Carries out a command in this process. */
export async function run(...argv: string[]): Promise<Result> {
  const [out, err] = [new TextOutput(), new TextOutput()];
  const code = await main(argv, out, err);
  return {code, out: out.text, err: err.text};
}

/** Calls `body` with a folder that is removed afterwards. */
export async function inScratch(body: (folder: string) => Promise<void>): Promise<void> {
  const folder = mkdtempSync(join(tmpdir(), 'mmreplay-'));
  try {
    await body(folder);
  } finally {
    rmSync(folder, {recursive: true});
  }
}
