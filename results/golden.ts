// Golden files for tests: what a user reads, compared byte for byte. UPDATE_GOLDENS=1 rewrites
// them.

import assert from 'node:assert/strict';
import {existsSync, readFileSync, writeFileSync} from 'node:fs';
import {dirname, join} from 'node:path';
import {fileURLToPath} from 'node:url';

/** Data folders lie in the source tree; compiled tests run from dist/ one level deeper. */
export function resultsFolder(): string {
  const here = dirname(fileURLToPath(import.meta.url));
  const source = join(here, '..', '..', 'results');
  return existsSync(join(here, 'golden')) ? here : source;
}

/** Fails with a hint when `text` is not what the golden file of that name holds. */
export function checkGolden(name: string, text: string): void {
  const path = join(resultsFolder(), 'golden', name);
  if (process.env['UPDATE_GOLDENS'] === '1') writeFileSync(path, text);
  assert.ok(existsSync(path), `no golden file ${name}; UPDATE_GOLDENS=1 writes it`);
  assert.equal(text, readFileSync(path, 'utf8'), `${name} differs; UPDATE_GOLDENS=1 rewrites it`);
}
