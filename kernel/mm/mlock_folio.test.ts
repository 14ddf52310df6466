import assert from 'node:assert/strict';
import {test} from 'node:test';
import type {Code} from '../../machine/process.ts';
import {pteSlot} from '../arch/x86/mm/pgtable.ts';
import {sys_clone} from '../fork.ts';
import type {Kernel} from '../kernel.ts';
import type {Task} from '../task.ts';
import {do_mlock} from './mlock.ts';
import {sys_munmap} from './mmap_unmap.ts';
import {ANON_RW, access, mapAnon, mapFile, runProcess} from './mm_testing.ts';
import {PG_mlocked, PG_unevictable} from './page_flags.ts';
import {VM_MAYSHARE, VM_SHARED} from './vma_flags.ts';

const BASE = 0x5_5555_0000;
const PAGES = 8;
const SECOND = 10_000_000_000;
const SHARED_RW = ANON_RW | VM_SHARED | VM_MAYSHARE;

function frames(k: Kernel, t: Task, start: number): number[] {
  return Array.from(
    {length: PAGES},
    (_, n) => k.mm.pt.entries[pteSlot(t.mm!.user!.pgd, start + n)],
  );
}

/** How many of the pages are locked into memory, and not just by half. */
function locked(k: Kernel, pfns: readonly number[]): number {
  const both = PG_mlocked | PG_unevictable;
  const count = pfns.filter((pfn) => (k.mm.pages.flags[pfn] & both) === both).length;
  assert.equal(pfns.filter((pfn) => (k.mm.pages.flags[pfn] & both) !== 0).length, count);
  return count;
}

function* touch(k: Kernel, t: Task, start: number, write: boolean): Code {
  for (let n = 0; n < PAGES; n++) yield* access(k, t, start + n, write);
}

test('a locked page is unlocked when its last locked mapping goes, though others map it', () => {
  runProcess(function* (k, t) {
    const file = k.mm.files.create('shmem', PAGES);
    for (const at of [0, 100, 200]) {
      mapFile(k, t.mm!, BASE + at, PAGES, file, 0, SHARED_RW);
      yield* touch(k, t, BASE + at, true);
    }
    const pfns = frames(k, t, BASE);
    yield* do_mlock(k, t, BASE, PAGES);
    yield* do_mlock(k, t, BASE + 100, PAGES);
    assert.equal(locked(k, pfns), PAGES);
    yield* sys_munmap(k, t, BASE, BASE + PAGES);
    assert.equal(locked(k, pfns), PAGES, 'the second mapping is locked, too');
    yield* sys_munmap(k, t, BASE + 100, BASE + 103);
    assert.equal(locked(k, pfns), PAGES - 3);
    yield* sys_munmap(k, t, BASE + 103, BASE + 100 + PAGES);
    assert.equal(locked(k, pfns), 0);
  });
});

test('a child inherits no locks: what its parent leaves behind is evictable', () => {
  runProcess(function* (k, t) {
    let pfns: number[] = [];
    const before: number[] = [];
    const program = function* (c: Task): Code {
      mapAnon(k, c.mm!, BASE, PAGES);
      yield* touch(k, c, BASE, true);
      yield* do_mlock(k, c, BASE, PAGES);
      pfns = frames(k, c, BASE);
      const grandchild = (g: Task): Code => k.sched.sleep(g, SECOND);
      yield* sys_clone(k, c, {flags: 0, childTid: 102, program: grandchild});
      // The locked process gets copies of half of the pages; the old ones are its child's alone.
      for (let n = 0; n < PAGES / 2; n++) yield* access(k, c, BASE + n, true);
      before.push(locked(k, pfns), locked(k, frames(k, c, BASE)));
    };
    yield* sys_clone(k, t, {flags: 0, childTid: 101, program});
    yield* k.sched.sleep(t, SECOND / 2);
    assert.deepEqual(before, [PAGES / 2, PAGES]);
    assert.deepEqual([locked(k, pfns), pfns.length], [0, PAGES]);
    for (const pfn of pfns) assert.ok(k.mm.pages.mapcount.get(pfn) === 1);
    yield* k.sched.sleep(t, SECOND);
  });
});
