import assert from 'node:assert/strict';
import {test} from 'node:test';
import {
  FOLL_PIN,
  follow_page,
  get_user_page,
  populate_vma_page_range,
  unpin_user_page,
} from './gup.ts';
import {
  ANON_RW,
  access,
  duplicate,
  mapAnon,
  mapFile,
  runProcess,
  tearDown,
  unmap,
} from './mm_testing.ts';
import {VM_SHARED} from './vma_flags.ts';

const BASE = 0x5_5555_0000;

test('an anonymous write counts a page, a read does not, a write after it flushes one', () => {
  runProcess(function* (k, t, log) {
    mapAnon(k, t.mm!, BASE, 64);
    assert.equal(yield* access(k, t, BASE, true), 'minor anon');
    assert.deepEqual(log.take(), ['ANON 1', 'fault minor anon']);
    assert.equal(yield* access(k, t, BASE + 1, false), 'zero page');
    assert.deepEqual(log.take(), ['fault zero page']);
    assert.equal(yield* access(k, t, BASE + 1, true), 'cow');
    assert.deepEqual(log.take(), [
      'start wp_page_copy',
      'end wp_page_copy',
      'ANON 2',
      'flush 1 (3)',
      'fault cow',
    ]);
    assert.equal(yield* access(k, t, BASE + 1, true), 'none');
    assert.equal(yield* access(k, t, BASE + 64, false), 'sigsegv');
  });
});

test('file reads map around, writes copy at once or after the read', () => {
  runProcess(function* (k, t, log) {
    const file = k.mm.files.create('file', 40);
    mapFile(k, t.mm!, BASE + 3, 60, file, 0, ANON_RW);
    assert.equal(yield* access(k, t, BASE + 5, false), 'minor file');
    // The window begins at the VMA's start and reaches 16 pages from there.
    assert.deepEqual(log.take(), ['FILE 16', 'fault minor file']);
    assert.equal(yield* access(k, t, BASE + 18, false), 'none');
    assert.equal(yield* access(k, t, BASE + 19, false), 'minor file');
    // Aligned at page 16 of the table: three of the sixteen are mapped already.
    assert.deepEqual(log.take(), ['FILE 29', 'fault minor file']);
    assert.equal(yield* access(k, t, BASE + 41, true), 'cow');
    assert.deepEqual(log.take(), ['ANON 1', 'fault cow']);
    assert.equal(yield* access(k, t, BASE + 40, false), 'minor file');
    // Pages 32 to 42 of the window are in the file, one of them is the copy.
    assert.deepEqual(log.take(), ['FILE 39', 'fault minor file']);
    assert.equal(yield* access(k, t, BASE + 5, true), 'cow');
    assert.deepEqual(log.take(), [
      'start wp_page_copy',
      'end wp_page_copy',
      'FILE 38',
      'ANON 2',
      'flush 1 (3)',
      'fault cow',
    ]);
    assert.equal(yield* access(k, t, BASE + 50, false), 'sigbus');
  });
});

test('fork shares anonymous pages; the second of two writers reuses the page in place', () => {
  runProcess(function* (k, t, log) {
    const mm = t.mm!;
    mapAnon(k, mm, BASE, 100);
    for (let i = 0; i < 40; i++) yield* access(k, t, BASE + i, true);
    log.take();
    const child = yield* duplicate(k, t, mm);
    assert.deepEqual(log.take(), [
      'start copy_page_range',
      'ANON 40 not mine',
      'end copy_page_range',
      'flush -1 (3)',
    ]);
    assert.equal(yield* access(k, t, BASE, true), 'cow');
    assert.deepEqual(log.take().slice(2), ['flush 1 (3)', 'fault cow']);
    yield* tearDown(k, t, child);
    assert.deepEqual(log.take(), ['start unmap_vmas', 'ANON 0 not mine', 'end unmap_vmas']);
    assert.equal(yield* access(k, t, BASE + 1, true), 'reuse');
    assert.deepEqual(log.take(), ['fault reuse']);
    // Page 35 still is in the LRU batch, which holds a reference; the fault drains it.
    assert.equal(yield* access(k, t, BASE + 35, true), 'reuse');
  });
});

test('a mapping unmapped gives back every page and page table, and flushes what it spanned', () => {
  runProcess(function* (k, t, log) {
    const mm = t.mm!;
    const {user} = {user: k.mm.userOf(mm)};
    mapAnon(k, mm, BASE, 600);
    const free = (): number =>
      k.mm.zones.reduce(
        (n, {buddy, pcp}) => n + buddy.freePages + pcp.count.reduce((a, b) => a + b, 0),
        0,
      );
    const before = free();
    for (let i = 3; i < 600; i += 2) yield* access(k, t, BASE + i, true);
    assert.equal(user.rss.rss, 299);
    assert.equal(user.pgd.tables[0], 2);
    log.take();
    yield* unmap(k, t, mm, BASE, BASE + 600);
    assert.deepEqual(log.take(), [
      'start unmap_vmas',
      'ANON 44',
      'ANON 0',
      'end unmap_vmas',
      'flush -1 (3)',
    ]);
    assert.equal(user.pgd.tables[0], 0);
    assert.equal(user.pgd.tables[1], 0);
    k.mm.lruAdd.forEach((batch) => {
      assert.ok(batch.count < 31);
    });
    const waiting = k.mm.lruAdd.of(t.cpu.id).count;
    assert.equal(free(), before - waiting);
    assert.equal(k.mm.anon.used, 0);
  });
});

test('shared memory counts as SHMEM and stays in the cache', () => {
  runProcess(function* (k, t, log) {
    const shm = k.mm.files.create('shmem', 32);
    mapFile(k, t.mm!, BASE, 32, shm, 0, ANON_RW | VM_SHARED);
    assert.equal(yield* access(k, t, BASE, true), 'minor file');
    assert.deepEqual(log.take(), ['SHMEM 1', 'fault minor file']);
    assert.equal(yield* access(k, t, BASE + 1, false), 'minor file');
    assert.deepEqual(log.take(), ['SHMEM 1', 'SHMEM 2', 'fault minor file']);
    assert.equal(yield* access(k, t, BASE + 1, true), 'none');
    yield* unmap(k, t, t.mm!, BASE, BASE + 32);
    assert.equal(shm.nrpages, 2);
    assert.ok(log.take().includes('SHMEM 0'));
  });
});

test('fault-around passes over the start of the next readahead, until it is read', () => {
  runProcess(function* (k, t, log) {
    const file = k.mm.files.create('file', 16);
    k.mm.readahead.mark(file, 9);
    mapFile(k, t.mm!, BASE, 16, file);
    yield* access(k, t, BASE, false);
    assert.deepEqual(log.take(), ['FILE 15', 'fault minor file']);
    assert.equal(yield* access(k, t, BASE + 9, false), 'minor file');
    yield* unmap(k, t, t.mm!, BASE, BASE + 16);
    log.take();
    mapFile(k, t.mm!, BASE, 16, file);
    yield* access(k, t, BASE, false);
    assert.deepEqual(log.take(), ['FILE 16', 'fault minor file']);
  });
});

test('a pinned page is copied for the child, and unshared when it is pinned after the fork', () => {
  runProcess(function* (k, t, log) {
    const mm = t.mm!;
    const vma = mapAnon(k, mm, BASE, 8);
    assert.equal(yield* populate_vma_page_range(k, t, mm, vma, BASE, BASE + 8), 0);
    assert.deepEqual(
      log.take(),
      Array.from({length: 8}, (_, i) => `ANON ${i + 1}`),
    );
    const pinned = yield* get_user_page(k, t, mm, vma, BASE, FOLL_PIN);
    const child = yield* duplicate(k, t, mm);
    assert.equal(k.mm.pages.mapcount.get(pinned), 1);
    assert.equal(child.user!.rss.rss, 8);
    const shared = follow_page(k, mm.user!, BASE + 1, 0);
    assert.equal(k.mm.pages.mapcount.get(shared), 2);
    const own = yield* get_user_page(k, t, mm, vma, BASE + 1, FOLL_PIN);
    assert.notEqual(own, shared);
    assert.equal(mm.user!.rss.rss, 8);
    unpin_user_page(k, t, own);
    unpin_user_page(k, t, pinned);
    yield* tearDown(k, t, child);
    yield* tearDown(k, t, mm);
    assert.equal(k.mm.anon.used, 0);
  });
});

test('a large folio that reaches out of the window is mapped whole since 6.18', () => {
  const mapped = (version: string): string[] => {
    let lines: string[] = [];
    runProcess(function* (k, t, log) {
      const file = k.mm.files.create('file', 64);
      k.mm.largeFolios.mark(file, 12, 2);
      k.mm.largeFolios.mark(file, 24, 3);
      mapFile(k, t.mm!, BASE + 6, 40, file, 4);
      yield* access(k, t, BASE + 8, false);
      // Pages 4 to 19 of the file are the window; the folio of 12 to 15 lies in it.
      yield* access(k, t, BASE + 27, false);
      // Pages 20 to 29 of the window are new, and the folio of 24 to 31 reaches two pages further.
      lines = log.take().filter((line) => line.startsWith('FILE'));
    }, version);
    return lines;
  };
  assert.deepEqual(mapped('6.12'), ['FILE 16', 'FILE 26']);
  assert.deepEqual(mapped('6.18'), ['FILE 16', 'FILE 28']);
});
