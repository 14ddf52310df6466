// Every `$ mmreplay` block of the README and the docs is run and compared with what the page shows.
// A line of three dots stands for any number of lines. Commands run in a scratch folder that sees
// the project's folders.

import assert from 'node:assert/strict';
import {mkdtempSync, readdirSync, readFileSync, rmSync, symlinkSync} from 'node:fs';
import {tmpdir} from 'node:os';
import {join} from 'node:path';
import {after, before, test} from 'node:test';
import {main} from './main.ts';
import {packageRoot} from './package_info.ts';
import {TextOutput} from './streams.ts';

interface Example {
  readonly page: string;
  readonly line: number;
  readonly command: string;
  readonly expected: readonly string[];
}

/** The commands of one page with the output that it shows for each. */
function examplesOf(page: string): Example[] {
  const lines = readFileSync(join(packageRoot(), page), 'utf8').split('\n');
  const examples: Example[] = [];
  let inside = false;
  let expected: string[] = [];
  lines.forEach((line, n) => {
    if (line.startsWith('```')) inside = line === '```console';
    else if (inside && line.startsWith('$ mmreplay ')) {
      expected = [];
      examples.push({page, line: n + 1, command: line.slice('$ mmreplay '.length), expected});
    } else if (inside) expected.push(line);
  });
  return examples;
}

/** Splits a command line at spaces; single quotes hold words together. */
function wordsOf(command: string): string[] {
  return [...command.matchAll(/'([^']*)'|(\S+)/g)].map((match) => match[1] ?? match[2]);
}

/** A regular expression that the output must match. */
function patternOf(expected: readonly string[]): RegExp {
  const quoted = (line: string): string => line.trimEnd().replace(/[.*+?^${}()|[\]\\]/g, '\\$&');
  const parts = expected.map((line) =>
    line.trim() === '...' ? '(?:.*\\n)*?' : `${quoted(line)} *\\n`,
  );
  return new RegExp(`^${parts.join('')}$`);
}

const home = process.cwd();
let scratch = '';

before(() => {
  scratch = mkdtempSync(join(tmpdir(), 'mmreplay-docs-'));
  for (const folder of ['workloads', 'formats', 'results', 'docs']) {
    symlinkSync(join(packageRoot(), folder), join(scratch, folder));
  }
  process.chdir(scratch);
});

after(() => {
  process.chdir(home);
  rmSync(scratch, {recursive: true});
});

const pages = [
  'README.md',
  ...readdirSync(join(packageRoot(), 'docs')).map((name) => `docs/${name}`),
];
const examples = pages.filter((page) => page.endsWith('.md')).flatMap(examplesOf);

test('the README shows examples', () => {
  assert.ok(examples.filter((example) => example.page === 'README.md').length >= 8);
});

for (const example of examples) {
  test(`${example.page}:${example.line} $ mmreplay ${example.command}`, async () => {
    const out = new TextOutput();
    const err = new TextOutput();
    await main(wordsOf(example.command), out, err);
    assert.equal(err.text, '');
    const pattern = patternOf(example.expected);
    if (!pattern.test(out.text)) assert.equal(out.text, example.expected.join('\n'));
  });
}
