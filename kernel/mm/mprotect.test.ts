// Outcomes of the kernel's own selftests (tools/testing/selftests/mm) for calls that change
// protection and advice: soft-dirty.c, madv_populate.c, guard-regions.c, merge.c.

import assert from 'node:assert/strict';
import {test} from 'node:test';
import {walkSlot} from '../arch/x86/mm/pgtable.ts';
import {PTE_PROTNONE, PTE_SOFT_DIRTY, PTE_WRITE} from '../arch/x86/mm/pgtable_bits.ts';
import type {Kernel} from '../kernel.ts';
import type {Task} from '../task.ts';
import {do_madvise} from './madvise.ts';
import * as advice from './madvise_numbers.ts';
import {do_mlock, do_munlock} from './mlock.ts';
import {access, duplicate, runProcess, tearDown} from './mm_testing.ts';
import {sys_munmap} from './mmap_unmap.ts';
import {change_prot_numa, do_mprotect} from './mprotect.ts';
import {contentAt, layout, load, map, pfnAt, RW, store} from './mremap_testing.ts';
import {PG_mlocked, PG_unevictable} from './page_flags.ts';
import {VM_SOFTDIRTY} from './vma_flags.ts';

const BASE = 2 ** 31;

function word(k: Kernel, t: Task, vpn: number): number {
  return k.mm.pt.flags[walkSlot(t.mm!.user!.pgd, vpn)];
}

/** clear_refs(4) by hand: entries lose soft-dirty and write access, VMAs VM_SOFTDIRTY. */
function clearSoftDirty(k: Kernel, t: Task, start: number, pages: number): void {
  const {space, pgd} = t.mm!.user!;
  for (let vma = space.tree.first; vma !== null; vma = vma.next) vma.flags &= ~VM_SOFTDIRTY;
  for (let vpn = start; vpn < start + pages; vpn++) {
    const slot = walkSlot(pgd, vpn);
    if (k.mm.pt.flags[slot] !== 0) k.mm.pt.flags[slot] &= ~(PTE_SOFT_DIRTY | PTE_WRITE);
  }
}

test('soft-dirty: mprotect neither sets the bit nor hides the next write', () => {
  runProcess(function* (k, t) {
    yield* map(k, t, BASE, 4);
    yield* store(k, t, BASE, 1);
    assert.ok((word(k, t, BASE) & PTE_SOFT_DIRTY) !== 0);
    clearSoftDirty(k, t, BASE, 4);
    for (const prot of [1, RW]) {
      assert.equal(yield* do_mprotect(k, t, BASE, 4, prot), 0);
      assert.equal(word(k, t, BASE) & PTE_SOFT_DIRTY, 0, `prot ${prot}`);
    }
    assert.equal(word(k, t, BASE) & PTE_WRITE, 0);
    assert.equal(yield* access(k, t, BASE, true), 'reuse');
    assert.ok((word(k, t, BASE) & PTE_SOFT_DIRTY) !== 0);
  });
});

test('protection comes back writable where nobody else has the page (6.0+), else by a fault', () => {
  for (const [version, class1] of [
    ['6.18', 'none'],
    ['5.5', 'reuse'],
  ]) {
    runProcess(function* (k, t) {
      yield* map(k, t, BASE, 40);
      for (let i = 0; i < 40; i++) yield* store(k, t, BASE + i, 1);
      yield* do_mprotect(k, t, BASE, 40, 0);
      assert.equal(word(k, t, BASE) & 15, PTE_PROTNONE);
      assert.equal(yield* load(k, t, BASE), -1);
      yield* do_mprotect(k, t, BASE, 40, RW);
      assert.equal(yield* access(k, t, BASE, true), class1, version);
      const child = yield* duplicate(k, t, t.mm!);
      yield* do_mprotect(k, t, BASE, 40, 1);
      yield* do_mprotect(k, t, BASE, 40, RW);
      assert.equal(yield* access(k, t, BASE + 1, true), 'cow', version);
      yield* tearDown(k, t, child);
    }, version);
  }
});

test('mprotect: errors keep what was done before them', () => {
  runProcess(function* (k, t) {
    const mm = t.mm!;
    yield* map(k, t, BASE, 10);
    yield* map(k, t, BASE + 20, 10);
    assert.equal(yield* do_mprotect(k, t, BASE + 5, 20, 1), -12);
    assert.deepEqual(layout(mm, BASE), ['0-5', '5-10', '20-30']);
    assert.equal(yield* do_mprotect(k, t, BASE + 12, 2, 1), -12);
    assert.equal(yield* do_mprotect(k, t, BASE, 0, 1), 0);
    assert.equal(yield* do_mprotect(k, t, BASE, 5, 16), -22);
    assert.equal(yield* do_mprotect(k, t, BASE + 5, 5, RW), 0);
    assert.deepEqual(layout(mm, BASE), ['0-10', '20-30']);
  });
});

test('merge: neighbours that mprotect makes equal become one', () => {
  // Which of the three parts have pages, and how they can merge again.
  for (const faulted of [[], [0], [1], [2], [0, 1, 2]]) {
    runProcess(function* (k, t) {
      yield* map(k, t, BASE, 30);
      // Faulted before the split, so all parts share one anon_vma.
      for (const part of faulted) yield* store(k, t, BASE + part * 10, 1);
      yield* do_mprotect(k, t, BASE + 10, 10, 1);
      assert.deepEqual(layout(t.mm!, BASE), ['0-10', '10-20', '20-30']);
      yield* do_mprotect(k, t, BASE + 10, 10, RW);
      assert.deepEqual(layout(t.mm!, BASE), ['0-30']);
    });
  }
});

test('merge: pages inherited by fork keep mappings apart', () => {
  runProcess(function* (k, t) {
    const own = t.mm!;
    yield* map(k, t, BASE, 10);
    yield* store(k, t, BASE, 1);
    const child = yield* duplicate(k, t, own);
    t.mm = child;
    yield* map(k, t, BASE + 10, 10, 1);
    yield* do_mprotect(k, t, BASE + 10, 10, RW);
    assert.deepEqual(layout(child, BASE), ['0-10', '10-20']);
    t.mm = own;
    yield* tearDown(k, t, child);
  });
});

test('madv_populate: permissions, holes and soft-dirty', () => {
  runProcess(function* (k, t, log) {
    yield* map(k, t, BASE, 8, 1);
    yield* map(k, t, BASE + 100, 8, 2);
    const {MADV_POPULATE_READ: read, MADV_POPULATE_WRITE: write} = advice;
    assert.equal(yield* do_madvise(k, t, BASE, 8, read), 0);
    assert.equal(yield* do_madvise(k, t, BASE, 8, write), -22);
    assert.equal(yield* do_madvise(k, t, BASE + 100, 8, read), -22);
    log.take();
    assert.equal(yield* do_madvise(k, t, BASE + 100, 8, write), 0);
    assert.ok(!log.take().some((line) => line.startsWith('fault')));
    for (let i = 0; i < 8; i++) assert.notEqual(pfnAt(k, t.mm!, BASE + 100 + i), 0);
    yield* sys_munmap(k, t, BASE + 102, BASE + 103);
    for (const [start, pages] of [
      [100, 8],
      [102, 4],
      [96, 6],
    ]) {
      assert.equal(yield* do_madvise(k, t, BASE + start, pages, write), -12);
    }
    yield* map(k, t, BASE + 200, 4);
    yield* do_madvise(k, t, BASE + 200, 4, write);
    clearSoftDirty(k, t, BASE + 200, 4);
    yield* do_madvise(k, t, BASE + 200, 4, read);
    assert.equal(word(k, t, BASE + 200) & PTE_SOFT_DIRTY, 0);
    yield* do_madvise(k, t, BASE + 200, 4, write);
    assert.ok((word(k, t, BASE + 200) & PTE_SOFT_DIRTY) !== 0);
  });
});

test('guard-regions: faults, holes, what keeps guards and what drops them', () => {
  runProcess(function* (k, t) {
    const {MADV_GUARD_INSTALL: install, MADV_GUARD_REMOVE: remove} = advice;
    yield* map(k, t, BASE, 10);
    for (let i = 0; i < 10; i++) yield* store(k, t, BASE + i, 7);
    assert.equal(yield* do_madvise(k, t, BASE + 2, 3, install), 0);
    for (let i = 0; i < 10; i++) {
      assert.equal(yield* load(k, t, BASE + i), i >= 2 && i < 5 ? -1 : 7);
    }
    assert.equal(t.mm!.user!.rss.rss, 7);
    // One VMA still; mprotect, DONTNEED, FREE, COLD and PAGEOUT keep the guards.
    assert.deepEqual(layout(t.mm!, BASE), ['0-10']);
    const {MADV_DONTNEED, MADV_FREE, MADV_COLD, MADV_PAGEOUT} = advice;
    for (const other of [MADV_FREE, MADV_COLD, MADV_PAGEOUT, MADV_DONTNEED]) {
      assert.equal(yield* do_madvise(k, t, BASE, 10, other), 0);
      assert.equal(yield* load(k, t, BASE + 2), -1);
    }
    yield* do_mprotect(k, t, BASE, 10, 1);
    assert.equal(yield* load(k, t, BASE + 3), -1);
    assert.equal(yield* do_madvise(k, t, BASE + 3, 1, remove), 0);
    assert.equal(yield* load(k, t, BASE + 3), 0);
    yield* do_mprotect(k, t, BASE, 10, RW);
    for (const how of [advice.MADV_POPULATE_READ, advice.MADV_POPULATE_WRITE]) {
      assert.equal(yield* do_madvise(k, t, BASE, 10, how), -14);
    }
    // Over a hole: the rest is done, and the answer says that there was a hole.
    yield* map(k, t, BASE + 20, 10);
    assert.equal(yield* do_madvise(k, t, BASE + 5, 20, install), -12);
    assert.equal(yield* load(k, t, BASE + 24), -1);
    assert.equal(yield* load(k, t, BASE + 25), 0);
    // A locked range: no guards in, but out.
    assert.equal(yield* do_madvise(k, t, BASE + 22, 3, remove), 0);
    assert.equal(yield* do_mlock(k, t, BASE + 25, 5), 0);
    assert.equal(yield* do_madvise(k, t, BASE + 25, 5, install), -22);
    assert.equal(yield* do_madvise(k, t, BASE + 25, 5, remove), 0);
    // Mapped anew: gone.
    yield* map(k, t, BASE, 10);
    assert.equal(yield* load(k, t, BASE + 2), 0);
  });
});

test('guard-regions: fork inherits them, and each side removes its own', () => {
  runProcess(function* (k, t) {
    const own = t.mm!;
    yield* map(k, t, BASE, 4);
    yield* do_madvise(k, t, BASE, 2, advice.MADV_GUARD_INSTALL);
    const child = yield* duplicate(k, t, own);
    t.mm = child;
    assert.equal(yield* load(k, t, BASE), -1);
    yield* do_madvise(k, t, BASE, 2, advice.MADV_GUARD_REMOVE);
    assert.equal(yield* load(k, t, BASE), 0);
    t.mm = own;
    assert.equal(yield* load(k, t, BASE), -1);
    yield* tearDown(k, t, child);
  });
});

test('advice is for the mappings and the kernels it is for', () => {
  runProcess(function* (k, t) {
    const shm = k.mm.files.create('shmem', 16);
    yield* map(k, t, BASE, 16, RW, shm);
    yield* store(k, t, BASE, 3);
    for (const [what, result] of [
      [advice.MADV_WIPEONFORK, -22],
      [advice.MADV_FREE, -22],
      [advice.MADV_MERGEABLE, 0],
      [advice.MADV_DONTFORK, 0],
      [7, -22],
    ]) {
      assert.equal(yield* do_madvise(k, t, BASE, 16, what), result, `advice ${what}`);
    }
    yield* do_madvise(k, t, BASE, 16, advice.MADV_DONTNEED);
    assert.equal(yield* load(k, t, BASE), 3);
    const child = yield* duplicate(k, t, t.mm!);
    assert.deepEqual(layout(child, BASE), []);
    yield* tearDown(k, t, child);
  });
  runProcess(function* (k, t) {
    yield* map(k, t, BASE, 4);
    assert.equal(yield* do_madvise(k, t, BASE, 4, advice.MADV_FREE), -22);
    assert.equal(yield* do_madvise(k, t, BASE, 4, advice.MADV_DONTNEED), 0);
  }, '4.1');
});

test('MADV_FREE cleans pages and moves them to the file list; the next write keeps one', () => {
  runProcess(function* (k, t, log) {
    yield* map(k, t, BASE, 40);
    for (let i = 0; i < 40; i++) yield* store(k, t, BASE + i, 5);
    log.take();
    assert.equal(yield* do_madvise(k, t, BASE, 40, advice.MADV_FREE), 0);
    assert.deepEqual(log.take(), [
      'start madvise_free_single_vma',
      'end madvise_free_single_vma',
      'flush -1 (3)',
    ]);
    const lruvec = k.mm.lruvecs.ofFolio(pfnAt(k, t.mm!, BASE));
    assert.equal(lruvec.size[2], 40);
    assert.equal(yield* access(k, t, BASE, true), 'none');
    assert.equal(contentAt(k, t.mm!, BASE), 5);
    assert.equal(t.mm!.user!.rss.rss, 40);
  });
});

test('mlock populates, makes pages unevictable, and munlock takes that back', () => {
  runProcess(function* (k, t) {
    yield* map(k, t, BASE, 40);
    yield* store(k, t, BASE, 1);
    assert.equal(yield* do_mlock(k, t, BASE, 36), 0);
    const {space, rss} = t.mm!.user!;
    assert.equal(space.lockedVm, 36);
    assert.equal(rss.rss, 36);
    const {flags} = k.mm.pages;
    const locked = PG_mlocked | PG_unevictable;
    for (let i = 0; i < 36; i++) {
      assert.equal(flags[pfnAt(k, t.mm!, BASE + i)] & locked, locked, `page ${i}`);
    }
    assert.equal(yield* do_madvise(k, t, BASE, 40, advice.MADV_DONTNEED), -22);
    assert.equal(yield* do_madvise(k, t, BASE, 40, advice.MADV_DONTNEED_LOCKED), 0);
    assert.equal(rss.rss, 0);
    assert.equal(yield* do_mlock(k, t, BASE, 40), 0);
    assert.equal(yield* do_munlock(k, t, BASE, 40), 0);
    assert.equal(space.lockedVm, 0);
    assert.deepEqual(layout(t.mm!, BASE), ['0-40']);
    assert.equal(flags[pfnAt(k, t.mm!, BASE)] & locked, 0);
    assert.equal(yield* do_mlock(k, t, BASE + 30, 20), -12);
  });
});

test('NUMA hinting makes private pages fault once, and passes over shared ones', () => {
  runProcess(function* (k, t) {
    yield* map(k, t, BASE, 8);
    for (let i = 0; i < 8; i++) yield* store(k, t, BASE + i, 1);
    const vma = t.mm!.user!.space.tree.lookup(BASE)!;
    // One user, and the pages are on its node: left alone.
    assert.equal(yield* change_prot_numa(k, t, vma, BASE, BASE + 8), 0);
    t.mm!.users++;
    const child = yield* duplicate(k, t, t.mm!);
    assert.equal(yield* change_prot_numa(k, t, vma, BASE, BASE + 8), 0);
    yield* tearDown(k, t, child);
    assert.equal(yield* change_prot_numa(k, t, vma, BASE, BASE + 8), 8);
    assert.equal(word(k, t, BASE) & 15, PTE_PROTNONE);
    assert.equal(yield* change_prot_numa(k, t, vma, BASE, BASE + 8), 0);
    t.mm!.users--;
  });
});
