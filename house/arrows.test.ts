// The arrows between the top-level folders are one-way. This reads every import and refuses one
// against the table.
import assert from 'node:assert/strict';
import {readdirSync, readFileSync, statSync} from 'node:fs';
import {dirname, join, relative} from 'node:path';
import {test} from 'node:test';
import {fileURLToPath} from 'node:url';

const MAY_IMPORT: Readonly<Record<string, readonly string[]>> = {
  machine: [],
  kernel: ['machine'],
  formats: [],
  workloads: ['formats'],
  replay: ['formats', 'kernel', 'machine', 'results'],
  results: [],
  bin: ['formats', 'workloads', 'replay', 'results'],
};

/** The project's root, from the source tree or from dist/. */
function projectRoot(): string {
  let folder = dirname(fileURLToPath(import.meta.url));
  while (!readdirSync(folder).includes('package.json')) folder = dirname(folder);
  return folder;
}

function sourcesBelow(folder: string): string[] {
  return readdirSync(folder).flatMap((name) => {
    const path = join(folder, name);
    if (statSync(path).isDirectory()) return sourcesBelow(path);
    return name.endsWith('.ts') ? [path] : [];
  });
}

/** Every import that goes against the arrows, as `file -> target`. */
function wrongImports(root: string): string[] {
  const wrong: string[] = [];
  for (const [folder, allowed] of Object.entries(MAY_IMPORT)) {
    for (const file of sourcesBelow(join(root, folder))) {
      for (const match of readFileSync(file, 'utf8').matchAll(/from '(\.{1,2}\/[^']+)'/g)) {
        const target = relative(root, join(dirname(file), match[1]!)).split('/')[0]!;
        if (target !== folder && !allowed.includes(target))
          wrong.push(`${relative(root, file)} -> ${match[1]}`);
      }
    }
  }
  return wrong;
}

test('imports between folders follow the arrows of the house', () => {
  assert.deepEqual(wrongImports(projectRoot()), []);
});
