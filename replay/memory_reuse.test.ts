// What exit gives back is used again: after five lives of a process tree that maps, forks, swaps
// out and in and exits, nothing in the simulated kernel is larger than after two.

import assert from 'node:assert/strict';
import {test} from 'node:test';
import {kernelFacts} from '../kernel/design.ts';
import {loadMachine} from '../machine/machines.ts';
import {DEFAULT_OPTIONS} from './options.ts';
import {ReplayRun} from './replay_run.ts';
import {type ScaleRun, scaleTrace} from './scale_trace.ts';
import {compileTrace} from './tracks.ts';

const PAGES = 2 ** 15;
const LIVES = 2;
const MORE_LIVES = 5;

function runScale(scale: ScaleRun): ReplayRun {
  const compiled = compileTrace(scaleTrace(scale), Infinity);
  const run = new ReplayRun(
    compiled,
    loadMachine('1s2c1t'),
    kernelFacts('6.18', []),
    DEFAULT_OPTIONS,
  );
  run.execute();
  return run;
}

/** Lengths of all arrays, typed arrays, maps and sets that can be reached from `value`, by path. */
function lengths(
  value: unknown,
  path = '',
  found = new Map<string, number>(),
  seen = new Set<object>(),
): Map<string, number> {
  if (value === null || typeof value !== 'object' || seen.has(value)) return found;
  seen.add(value);
  if (ArrayBuffer.isView(value)) {
    found.set(path, value.byteLength);
  } else if (Array.isArray(value)) {
    found.set(path, value.length);
    for (const item of value) lengths(item, `${path}[]`, found, seen);
  } else if (value instanceof Map || value instanceof Set) {
    found.set(path, value.size);
    for (const item of value.values()) lengths(item, `${path}{}`, found, seen);
  } else {
    for (const [key, item] of Object.entries(value)) lengths(item, `${path}.${key}`, found, seen);
  }
  return found;
}

/** What is larger in `more`, by as much as one for every further life. */
function grown(few: ReplayRun, more: ReplayRun): string[] {
  const before = lengths(few.kernel);
  const wrong: string[] = [];
  for (const [path, length] of lengths(more.kernel)) {
    const old = before.get(path) ?? 0;
    if (length - old >= MORE_LIVES - LIVES) wrong.push(`${path}: ${old} -> ${length}`);
  }
  return wrong;
}

test('memory given back by exit is reused, page tables, swap slots and all', () => {
  const swapped = PAGES / 8;
  const few = runScale({pages: PAGES, swapped, lives: LIVES});
  const more = runScale({pages: PAGES, swapped, lives: MORE_LIVES});
  for (const run of [few, more]) {
    assert.equal(run.recorder.failed, 0);
    assert.equal(run.kernel.mm.swap.usedPages, 0, 'swap slots that nobody refers to');
  }
  const {counts} = more.kernel.mm.swap;
  assert.ok(counts.pswpout >= MORE_LIVES * swapped, `${counts.pswpout} pages written`);
  assert.ok(counts.pswpin >= (MORE_LIVES * swapped) / 2, `${counts.pswpin} pages read`);
  assert.equal(more.kernel.mm.pt.used, few.kernel.mm.pt.used);
  assert.equal(more.kernel.mm.zones[0].free, few.kernel.mm.zones[0].free);
  assert.deepEqual(grown(few, more), []);
});
