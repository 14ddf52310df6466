// brk: the heap is one mapping that grows and shrinks at its end.

import assert from 'node:assert/strict';
import {test} from 'node:test';
import {setStartBrk, sys_brk} from './brk.ts';
import {access, runProcess} from './mm_testing.ts';
import {do_mlockall, MCL_FUTURE} from './mlock.ts';
import {layout, load, map, store} from './mremap_testing.ts';
import {MM_ANONPAGES} from './rss.ts';

const PAGE = 4096;
const BASE = 2 ** 20;
const START = BASE * PAGE + 100;

test('grows by whole pages, within a page without a mapping', () => {
  runProcess(function* (k, t) {
    const user = k.mm.userOf(t.mm!);
    setStartBrk(user, START);
    // The page of the start belongs to the program's data.
    assert.equal(yield* sys_brk(k, t, START + 50), START + 50);
    assert.deepEqual(layout(t.mm!, BASE), []);
    assert.equal(yield* sys_brk(k, t, START + 3 * PAGE), START + 3 * PAGE);
    assert.deepEqual(layout(t.mm!, BASE), ['1-4']);
    assert.equal(yield* sys_brk(k, t, START + 5 * PAGE), START + 5 * PAGE);
    assert.deepEqual(layout(t.mm!, BASE), ['1-6']);
    assert.equal(yield* access(k, t, BASE + 5, true), 'minor anon');
    assert.equal(yield* access(k, t, BASE + 6, true), 'sigsegv');
    assert.equal(user.space.brk, BASE + 6);
  });
});

test('shrinks: pages are gone and come back empty', () => {
  runProcess(function* (k, t) {
    const user = k.mm.userOf(t.mm!);
    setStartBrk(user, BASE * PAGE);
    yield* sys_brk(k, t, (BASE + 8) * PAGE);
    for (let i = 0; i < 8; i++) yield* store(k, t, BASE + i, 7);
    assert.equal(yield* sys_brk(k, t, (BASE + 2) * PAGE), (BASE + 2) * PAGE);
    assert.equal(user.rss.counts[MM_ANONPAGES], 2);
    assert.deepEqual(layout(t.mm!, BASE), ['0-2']);
    yield* sys_brk(k, t, (BASE + 4) * PAGE);
    assert.deepEqual(layout(t.mm!, BASE), ['0-4']);
    assert.deepEqual([yield* load(k, t, BASE + 1), yield* load(k, t, BASE + 2)], [7, 0]);
  });
});

test('what cannot be leaves the heap as it is: below the start, into another mapping', () => {
  runProcess(function* (k, t) {
    const user = k.mm.userOf(t.mm!);
    setStartBrk(user, BASE * PAGE);
    const end = (BASE + 4) * PAGE;
    yield* sys_brk(k, t, end);
    assert.equal(yield* sys_brk(k, t, BASE * PAGE - 1), end);
    assert.equal(yield* sys_brk(k, t, 0), end);
    yield* map(k, t, BASE + 400, 1);
    // The stack guard gap of 256 pages stays free as well.
    assert.equal(yield* sys_brk(k, t, (BASE + 200) * PAGE), end);
    assert.equal(yield* sys_brk(k, t, (BASE + 140) * PAGE), (BASE + 140) * PAGE);
    assert.deepEqual(layout(t.mm!, BASE), ['0-140', '400-401']);
  });
});

test('after mlockall(MCL_FUTURE) the heap is there at once, and locked', () => {
  runProcess(function* (k, t) {
    const user = k.mm.userOf(t.mm!);
    setStartBrk(user, BASE * PAGE);
    yield* do_mlockall(k, t, MCL_FUTURE);
    yield* sys_brk(k, t, (BASE + 4) * PAGE);
    assert.equal(user.rss.counts[MM_ANONPAGES], 4);
    assert.equal(user.space.lockedVm, 4);
    yield* sys_brk(k, t, (BASE + 1) * PAGE);
    assert.equal(user.space.lockedVm, 1);
  });
});
