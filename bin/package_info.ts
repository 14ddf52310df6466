// Where the package is, and which version: the same from the source tree and from dist/.

import {readFileSync} from 'node:fs';
import {join} from 'node:path';
import {packageRoot} from '../formats/schema.ts';

export {packageRoot};

/** This runs as compiled, not from the sources. */
export const isCompiled = !import.meta.url.endsWith('.ts');

/** A compiled program of this folder, `bench_child` for instance: a bundle (docs/decisions.md). */
export function programPath(name: string): string {
  return join(packageRoot(), 'dist', 'bin', `${name}.js`);
}

export function version(): string {
  const text = readFileSync(join(packageRoot(), 'package.json'), 'utf8');
  return (JSON.parse(text) as {version: string}).version;
}
