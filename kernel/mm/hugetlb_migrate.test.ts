// Huge pages of a pool on the move: the kernel's selftest migration (private_anon_htlb,
// shared_anon_htlb), and what becomes of the pool.

import assert from 'node:assert/strict';
import {test} from 'node:test';
import {walkSlot} from '../arch/x86/mm/pgtable.ts';
import {PTHREAD_FLAGS} from '../clone_flags.ts';
import {sys_wait4} from '../exit.ts';
import {sys_clone} from '../fork.ts';
import type {Kernel} from '../kernel.ts';
import type {Task} from '../task.ts';
import {FOLL_PIN, FOLL_WRITE, get_user_page, unpin_user_page} from './gup.ts';
import {
  child,
  counts,
  H,
  mapHuge,
  NORESERVE,
  PRIVATE,
  SHARED,
  until,
  withPool,
} from './hugetlb_testing.ts';
import {do_pages_move} from './migrate_move.ts';
import {access} from './mm_testing.ts';
import {sys_munmap} from './mmap_unmap.ts';

const BASE = 2 ** 31;

function pfnAt(k: Kernel, t: Task, vpn: number): number {
  return k.mm.pt.entries[walkSlot(t.mm!.user!.pgd, vpn)] & 0x7fff_ffff;
}

for (const [name, flags] of [
  ['private', PRIVATE],
  ['shared', SHARED],
] as const) {
  test(`migration selftest: every move succeeds while another thread reads (${name})`, () => {
    const k = withPool(4, function* (k, t, log) {
      yield* mapHuge(k, t, BASE, 2, flags);
      yield* access(k, t, BASE, true);
      k.mm.pages.content[pfnAt(k, t, BASE) + 3] = 77;
      let stop = false;
      let reads = 0;
      yield* sys_clone(k, t, {
        flags: PTHREAD_FLAGS,
        childTid: 300,
        childTgid: 100,
        pinnedCpu: 1,
        *program(c) {
          while (!stop) {
            const seen = yield* access(k, c, BASE + 3, false);
            assert.notEqual(seen, 'sigsegv');
            assert.notEqual(seen, 'sigbus');
            reads++;
            yield* k.sched.userRun(c, 3000);
          }
        },
      });
      log.take();
      for (let round = 0; round < 20; round++) {
        const node = 1 - k.mm.pages.nodeOf(pfnAt(k, t, BASE));
        const {moved, failed} = yield* do_pages_move(k, t, t.mm!.user!, BASE, H, node, false);
        assert.deepEqual([moved, failed], [H, 0], `round ${round}`);
        assert.equal(k.mm.pages.nodeOf(pfnAt(k, t, BASE)), node);
        yield* k.sched.userRun(t, 200_000);
      }
      stop = true;
      assert.ok(reads > 20, `${reads} reads`);
      assert.equal(k.mm.pages.content[pfnAt(k, t, BASE) + 3], 77);
      assert.deepEqual(counts(k), [4, 3, 1, 0]);
      assert.equal(t.mm!.user!.hugetlbUsage, H);
      yield* sys_munmap(k, t, BASE, BASE + 2 * H);
      assert.deepEqual(counts(k), [4, 4, 0, 0]);
    });
    assert.deepEqual(k.checks.findings, []);
  });
}

test('without a free page on the target a temporary one is made, and the old one goes', () => {
  withPool(2, function* (k, t) {
    const {default: h} = k.mm.hugetlb;
    yield* mapHuge(k, t, BASE, 2, PRIVATE);
    yield* access(k, t, BASE, true);
    yield* access(k, t, BASE + H, true);
    assert.deepEqual(h.nr, [1, 1]);
    const {moved} = yield* do_pages_move(k, t, t.mm!.user!, BASE, 2 * H, 1, false);
    assert.equal(moved, H);
    assert.deepEqual(h.nr, [0, 2]);
    assert.deepEqual(counts(k), [2, 0, 0, 0]);
    yield* sys_munmap(k, t, BASE, BASE + 2 * H);
    assert.deepEqual(counts(k), [2, 2, 0, 0]);
  });
});

test('a pinned page stays; a page of a shared table is found by all who had it', () => {
  withPool(4, function* (k, t, log) {
    yield* mapHuge(k, t, BASE, 1, PRIVATE);
    yield* access(k, t, BASE, true);
    const {user} = t.mm!;
    const vma = user!.space.tree.lookup(BASE)!;
    const pfn = yield* get_user_page(k, t, t.mm!, vma, BASE, FOLL_WRITE | FOLL_PIN);
    const target = 1 - k.mm.pages.nodeOf(pfn);
    const pinned = yield* do_pages_move(k, t, user!, BASE, H, target, false);
    assert.deepEqual([pinned.moved, pinned.failed], [0, H]);
    assert.equal(pfnAt(k, t, BASE), pfn);
    unpin_user_page(k, t, pfn);
    assert.equal((yield* do_pages_move(k, t, user!, BASE, H, target, false)).moved, H);
    yield* sys_munmap(k, t, BASE, BASE + H);

    yield* mapHuge(k, t, BASE, 512, SHARED | NORESERVE);
    yield* access(k, t, BASE, true);
    let ready = false;
    let go = false;
    const c = yield* child(k, t, function* (c) {
      yield* access(k, c, BASE, false);
      ready = true;
      yield* until(k, c, () => go);
      // One of the two has left the table, the other's entry has moved.
      assert.ok((pfnAt(k, c, BASE) === 0) !== (pfnAt(k, t, BASE) === 0));
      yield* access(k, c, BASE, false);
      assert.ok(pfnAt(k, c, BASE) > 0);
    });
    yield* until(k, t, () => ready);
    const node = 1 - k.mm.pages.nodeOf(pfnAt(k, t, BASE));
    log.take();
    const {moved} = yield* do_pages_move(k, t, user!, BASE, H, node, true);
    assert.equal(moved, H);
    assert.equal(log.take().filter((line) => line.startsWith('start')).length, 2);
    go = true;
    yield* until(k, t, () => c.done);
    yield* access(k, t, BASE, false);
    assert.equal(k.mm.pages.nodeOf(pfnAt(k, t, BASE)), node);
    yield* sys_wait4(k, t, -1, 0);
    yield* sys_munmap(k, t, BASE, BASE + 512 * H);
    assert.deepEqual(counts(k), [4, 4, 0, 0]);
  });
});
