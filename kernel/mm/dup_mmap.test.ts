// dup_mmap: what a child's address space is made of, and what the parent's becomes.

import assert from 'node:assert/strict';
import {test} from 'node:test';
import fc from 'fast-check';
import type {Code} from '../../machine/process.ts';
import {dup_mm, mmput} from '../fork_mm.ts';
import type {Kernel} from '../kernel.ts';
import type {MmStruct} from '../mm_types.ts';
import type {Task} from '../task.ts';
import {setStartBrk} from './brk.ts';
import {do_madvise} from './madvise.ts';
import {MADV_DONTFORK, MADV_WIPEONFORK} from './madvise_numbers.ts';
import {do_mlock} from './mlock.ts';
import {access, runProcess} from './mm_testing.ts';
import {do_mprotect} from './mprotect.ts';
import {sys_munmap} from './mmap_unmap.ts';
import {contentAt, layout, load, map, pfnAt, RW, store} from './mremap_testing.ts';
import {MM_ANONPAGES, MM_FILEPAGES, MM_SHMEMPAGES} from './rss.ts';
import {MMF_HAS_PINNED, MMF_VM_MERGE_ANY} from './user_mm.ts';
import {VM_LOCKED} from './vma_flags.ts';

const BASE = 2 ** 31;

/** Makes a child of the caller's mm, lets `look` look at it, and tears it down. */
function* withChild(k: Kernel, t: Task, look: (child: MmStruct) => Code | undefined): Code {
  const child = yield* dup_mm(k, t, t.mm!);
  assert.ok(child !== null);
  const more = look(child);
  if (more !== undefined) yield* more;
  yield* mmput(k, t, child);
}

test('private pages are shared until somebody writes; both sides count them', () => {
  runProcess(function* (k, t) {
    yield* map(k, t, BASE, 8);
    for (let i = 0; i < 5; i++) yield* store(k, t, BASE + i, 10 + i);
    yield* withChild(k, t, function* (child) {
      assert.deepEqual(layout(child, BASE), ['0-8']);
      assert.equal(child.user!.rss.counts[MM_ANONPAGES], 5);
      const frames = (mm: MmStruct): number[] =>
        Array.from({length: 8}, (_, i) => pfnAt(k, mm, BASE + i));
      assert.deepEqual(frames(child), frames(t.mm!));
      assert.equal(yield* access(k, t, BASE, true), 'cow');
      yield* store(k, t, BASE, 99);
      assert.equal(contentAt(k, child, BASE), 10);
      assert.equal(contentAt(k, t.mm!, BASE), 99);
      assert.notEqual(pfnAt(k, child, BASE), pfnAt(k, t.mm!, BASE));
    });
    assert.equal(t.mm!.user!.rss.counts[MM_ANONPAGES], 5);
    // Alone again: written in place.
    assert.equal(yield* access(k, t, BASE + 1, true), 'reuse');
  });
});

test('shared memory is mapped by both, its entries are not copied', () => {
  runProcess(function* (k, t) {
    const shm = k.mm.files.create('shmem', 8);
    yield* map(k, t, BASE, 8, RW, shm);
    yield* store(k, t, BASE + 3, 4);
    yield* withChild(k, t, function* (child) {
      assert.equal(shm.nrMaps, 2);
      assert.equal(child.user!.rss.counts[MM_SHMEMPAGES], 0);
      assert.equal(pfnAt(k, child, BASE + 3), 0);
      yield* store(k, t, BASE + 3, 5);
    });
    assert.equal(shm.nrMaps, 1);
    assert.equal(yield* load(k, t, BASE + 3), 5);
  });
});

test('MADV_DONTFORK stays behind, MADV_WIPEONFORK comes along empty', () => {
  runProcess(function* (k, t) {
    yield* map(k, t, BASE, 9);
    for (let i = 0; i < 9; i++) yield* store(k, t, BASE + i, 7);
    assert.equal(yield* do_madvise(k, t, BASE, 3, MADV_DONTFORK), 0);
    assert.equal(yield* do_madvise(k, t, BASE + 3, 3, MADV_WIPEONFORK), 0);
    yield* withChild(k, t, (child) => {
      assert.deepEqual(layout(child, BASE), ['3-6', '6-9']);
      assert.equal(pfnAt(k, child, BASE + 4), 0);
      assert.equal(contentAt(k, child, BASE + 7), 7);
      assert.equal(child.user!.rss.counts[MM_ANONPAGES], 3);
    });
  });
});

test('locks are not inherited; the heap and what the mm is told are', () => {
  runProcess(function* (k, t) {
    const user = k.mm.userOf(t.mm!);
    setStartBrk(user, (BASE - 100) * 4096);
    user.flags |= MMF_VM_MERGE_ANY | MMF_HAS_PINNED;
    yield* map(k, t, BASE, 4);
    yield* do_mlock(k, t, BASE, 4);
    yield* withChild(k, t, (child) => {
      const {space, flags, brkAddress, rss} = child.user!;
      assert.equal(space.lockedVm, 0);
      assert.equal(space.tree.first!.flags & VM_LOCKED, 0);
      assert.equal(brkAddress, (BASE - 100) * 4096);
      assert.equal(flags & MMF_VM_MERGE_ANY, MMF_VM_MERGE_ANY);
      assert.equal(flags & MMF_HAS_PINNED, 0);
      assert.equal(rss.counts[MM_ANONPAGES], 4);
      assert.equal(rss.counts[MM_FILEPAGES], 0);
    });
    assert.equal(user.space.lockedVm, 4);
  });
});

test('the family tree: a child of a child frees what nobody else has', () => {
  runProcess(function* (k, t) {
    yield* map(k, t, BASE, 4);
    yield* store(k, t, BASE, 1);
    const pfn = pfnAt(k, t.mm!, BASE);
    yield* withChild(k, t, function* (child) {
      const grandchild = yield* dup_mm(k, t, child);
      assert.equal(k.mm.pages.mapcount.get(pfn), 3);
      yield* mmput(k, t, grandchild!);
      assert.equal(k.mm.pages.mapcount.get(pfn), 2);
    });
    assert.equal(k.mm.pages.mapcount.get(pfn), 1);
    yield* sys_munmap(k, t, BASE, BASE + 4);
    assert.ok(k.mm.pages.mapcount.isZero(pfn));
  });
});

const STEP = fc.record({
  what: fc.constantFrom('store', 'store', 'load', 'protect', 'unmap'),
  at: fc.nat(39),
  pages: fc.integer({min: 1, max: 12}),
});

test('law: a child is what its parent was, whatever the parent does later', () => {
  fc.assert(
    fc.property(
      fc.array(STEP, {maxLength: 20}),
      fc.array(STEP, {maxLength: 20}),
      (first, later) => {
        runProcess(function* (k, t) {
          let content = 1;
          const steps = function* (list: typeof first): Code {
            for (const {what, at, pages} of list) {
              const vpn = BASE + at;
              if (what === 'store') yield* store(k, t, vpn, content++);
              else if (what === 'load') yield* load(k, t, vpn);
              else if (what === 'protect') yield* do_mprotect(k, t, vpn, pages, 1 + (at % 2) * 2);
              else yield* sys_munmap(k, t, vpn, vpn + pages);
            }
          };
          const contents = (mm: MmStruct): number[] =>
            Array.from({length: 40}, (_, i) => contentAt(k, mm, BASE + i));
          yield* map(k, t, BASE, 40);
          yield* steps(first);
          const before = contents(t.mm!);
          const shape = layout(t.mm!, BASE);
          const resident = t.mm!.user!.rss.counts[MM_ANONPAGES];
          yield* withChild(k, t, function* (child) {
            assert.deepEqual(layout(child, BASE), shape);
            assert.equal(child.user!.rss.counts[MM_ANONPAGES], resident);
            yield* steps(later);
            assert.deepEqual(contents(child), before);
          });
        });
      },
    ),
    {numRuns: 40},
  );
});
