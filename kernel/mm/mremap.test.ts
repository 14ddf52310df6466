// Outcomes of the kernel's selftests mremap_test.c and mremap_dontunmap.c, and what a move says.

import assert from 'node:assert/strict';
import {test} from 'node:test';
import {runProcess} from './mm_testing.ts';
import {do_mremap, MREMAP_DONTUNMAP, MREMAP_FIXED, MREMAP_MAYMOVE} from './mremap.ts';
import {layout, load, map, RW, store} from './mremap_testing.ts';

const BASE = 2 ** 31;
const FIXED = MREMAP_MAYMOVE | MREMAP_FIXED;

test('mremap_test: content survives at every alignment, and nothing is said in rss_stat', () => {
  // Source and destination offset, and size, in pages.
  for (const [source, target, pages] of [
    [0, 1025, 2],
    [256, 1025, 512],
    [256, 1280, 512],
    [0, 2049, 1024],
    [0, 2048, 1024],
    [256, 2304, 1280],
  ]) {
    runProcess(function* (k, t, log) {
      yield* map(k, t, BASE + source, pages);
      for (let i = 0; i < pages; i += 7) yield* store(k, t, BASE + source + i, i + 1);
      log.take();
      const from = BASE + source;
      assert.equal(yield* do_mremap(k, t, from, pages, pages, FIXED, BASE + target), BASE + target);
      const lines = log.take();
      assert.equal(lines[0], 'start move_page_tables');
      assert.ok(lines.includes('end unmap_vmas'));
      assert.ok(!lines.some((line) => line.startsWith('ANON')));
      for (let i = 0; i < pages; i += 7) {
        assert.equal(yield* load(k, t, BASE + target + i), i + 1);
      }
      assert.equal(yield* load(k, t, from), -1);
    });
  }
});

test('mremap: errors, growing in place and shrinking', () => {
  runProcess(function* (k, t) {
    yield* map(k, t, BASE, 10);
    assert.equal(yield* do_mremap(k, t, BASE, 10, 10, FIXED, BASE + 5), -22);
    assert.equal(yield* do_mremap(k, t, BASE + 50, 1, 1, 0, 0), -14);
    assert.equal(yield* do_mremap(k, t, BASE, 10, 20, 0, 0), BASE);
    assert.deepEqual(layout(t.mm!, BASE), ['0-20']);
    assert.equal(yield* do_mremap(k, t, BASE, 20, 5, 0, 0), BASE);
    assert.deepEqual(layout(t.mm!, BASE), ['0-5']);
    yield* map(k, t, BASE + 5, 1, 1);
    assert.equal(yield* do_mremap(k, t, BASE, 5, 9, 0, 0), -12);
  });
});

test('mremap_dontunmap: the old mapping stays, empty; shared memory shows in both', () => {
  runProcess(function* (k, t) {
    const flags = FIXED | MREMAP_DONTUNMAP;
    yield* map(k, t, BASE, 8);
    for (let i = 0; i < 8; i++) yield* store(k, t, BASE + i, 9);
    assert.equal(yield* do_mremap(k, t, BASE, 8, 8, flags, BASE + 100), BASE + 100);
    assert.equal(yield* load(k, t, BASE + 3), 0);
    assert.equal(yield* load(k, t, BASE + 103), 9);
    const shm = k.mm.files.create('shmem', 8);
    yield* map(k, t, BASE + 200, 8, RW, shm);
    yield* store(k, t, BASE + 200, 4);
    assert.equal(yield* do_mremap(k, t, BASE + 200, 8, 8, flags, BASE + 300), BASE + 300);
    assert.equal(yield* load(k, t, BASE + 200), 4);
    assert.equal(yield* load(k, t, BASE + 300), 4);
  });
});
