// userfaultfd write protection: who writes waits, markers stand for pages that are not there, forks
// and zaps keep or lose them. Laws by random calls.

import assert from 'node:assert/strict';
import {test} from 'node:test';
import fc from 'fast-check';
import type {Code} from '../../machine/process.ts';
import {
  MARKER_UFFD_WP,
  PTE_KIND,
  PTE_MARKER,
  PTE_UFFD_WP,
  PTE_WRITE,
} from '../arch/x86/mm/pgtable_bits.ts';
import {pteSlot} from '../arch/x86/mm/pgtable.ts';
import {sys_clone} from '../fork.ts';
import type {Kernel} from '../kernel.ts';
import {do_madvise} from '../mm/madvise.ts';
import {MADV_DONTNEED} from '../mm/madvise_numbers.ts';
import {do_mprotect} from '../mm/mprotect.ts';
import {runProcess} from '../mm/mm_testing.ts';
import type {Task} from '../task.ts';
import {userfaultfd_close, userfaultfd_read} from './userfaultfd_ioctl.ts';
import {
  DST,
  ioctl,
  load,
  mapAt,
  open,
  protect,
  read,
  register,
  SRC,
  store,
  thread,
  wordOf,
} from './userfaultfd_testing.ts';
import {
  UFFD_FEATURE_EVENT_FORK,
  UFFD_FEATURE_WP_ASYNC,
  UFFD_FEATURE_WP_UNPOPULATED,
  UFFDIO_COPY,
  UFFDIO_UNREGISTER,
  type UserfaultfdCtx,
} from './userfaultfd_types.ts';

const WP = 2;

/** A thread that answers `count` faults by releasing the page; `pages` are those that it saw. */
function* releaser(k: Kernel, t: Task, ctx: UserfaultfdCtx, count: number): Code<number[]> {
  const pages: number[] = [];
  yield* thread(k, t, function* (c) {
    for (let n = 0; n < count; n++) {
      const msg = yield* read(k, c, ctx);
      assert.equal(msg.flags, 3, 'write, write-protected');
      pages.push(msg.vpn - DST);
      yield* protect(k, c, ctx, msg.vpn, 1, false);
    }
  });
  return pages;
}

test('a store waits until the page is released, a load does not', () => {
  runProcess(function* (k, t, log) {
    yield* mapAt(k, t, DST, 4);
    for (let n = 0; n < 4; n++) yield* store(k, t, DST + n, 5);
    const ctx = yield* open(k, t);
    yield* register(k, t, ctx, DST, 4, WP);
    log.take();
    assert.equal(yield* protect(k, t, ctx, DST, 4, true), 0);
    const heard = log.take().filter((line) => /start|end/.test(line));
    assert.deepEqual(heard, ['start change_protection', 'end change_protection']);
    const seen = yield* releaser(k, t, ctx, 1);
    assert.equal(yield* load(k, t, DST), 5);
    yield* store(k, t, DST + 2, 6);
    assert.equal(yield* load(k, t, DST + 2), 6);
    assert.deepEqual(seen, [2]);
    assert.equal(wordOf(k, t, DST) & (PTE_UFFD_WP | PTE_WRITE), PTE_UFFD_WP);
    assert.equal(yield* ioctl(k, t, ctx, UFFDIO_UNREGISTER, DST, 4), 0);
    assert.equal(wordOf(k, t, DST) & (PTE_UFFD_WP | PTE_WRITE), PTE_WRITE);
  });
});

test('mprotect there and back leaves pages protected', () => {
  runProcess(function* (k, t) {
    yield* mapAt(k, t, DST, 2);
    yield* store(k, t, DST, 5);
    const ctx = yield* open(k, t);
    yield* register(k, t, ctx, DST, 2, WP);
    yield* protect(k, t, ctx, DST, 2, true);
    yield* do_mprotect(k, t, DST, 2, 1);
    yield* do_mprotect(k, t, DST, 2, 3);
    const seen = yield* releaser(k, t, ctx, 1);
    yield* store(k, t, DST, 6);
    assert.deepEqual(seen, [0]);
  });
});

test('anonymous pages that are not there: marked with WP_UNPOPULATED only', () => {
  for (const features of [0, UFFD_FEATURE_WP_UNPOPULATED]) {
    runProcess(function* (k, t) {
      yield* mapAt(k, t, DST, 4);
      const ctx = yield* open(k, t, features);
      yield* register(k, t, ctx, DST, 4, WP);
      yield* protect(k, t, ctx, DST, 4, true);
      const seen = yield* releaser(k, t, ctx, features === 0 ? 0 : 2);
      yield* store(k, t, DST + 1, 6);
      assert.equal(yield* load(k, t, DST + 2), 0);
      yield* store(k, t, DST + 2, 6);
      assert.deepEqual(seen, features === 0 ? [] : [1, 2]);
      yield* userfaultfd_close(k, t, ctx);
      yield* store(k, t, DST + 3, 7);
      assert.equal(wordOf(k, t, DST + 3) & PTE_UFFD_WP, 0);
    });
  }
});

test('DONTNEED drops anonymous protection; memory of files keeps it in a marker', () => {
  for (const shared of [false, true]) {
    runProcess(function* (k, t) {
      yield* mapAt(k, t, DST, 2, shared);
      yield* store(k, t, DST, 5);
      const ctx = yield* open(k, t);
      yield* register(k, t, ctx, DST, 2, WP);
      yield* protect(k, t, ctx, DST, 2, true);
      yield* do_madvise(k, t, DST, 2, MADV_DONTNEED);
      const slot = pteSlot(t.mm!.user!.pgd, DST);
      const marker = slot >= 0 && (k.mm.pt.flags[slot] & PTE_KIND) === PTE_MARKER;
      assert.equal(marker, shared);
      if (shared) assert.equal(k.mm.pt.entries[slot], MARKER_UFFD_WP);
      const seen = yield* releaser(k, t, ctx, shared ? 1 : 0);
      assert.equal(yield* load(k, t, DST), shared ? 5 : 0);
      yield* store(k, t, DST, 6);
      assert.deepEqual(seen, shared ? [0] : []);
    });
  }
});

test('a child keeps protection when its context is told of, and loses it otherwise', () => {
  for (const features of [0, UFFD_FEATURE_EVENT_FORK]) {
    runProcess(function* (k, t) {
      yield* mapAt(k, t, DST, 2);
      yield* store(k, t, DST, 5);
      const ctx = yield* open(k, t, features);
      yield* register(k, t, ctx, DST, 2, WP);
      yield* protect(k, t, ctx, DST, 2, true);
      let child: UserfaultfdCtx | null = null;
      let faults = 0;
      if (features !== 0) {
        yield* thread(k, t, function* (c) {
          const msg = yield* read(k, c, ctx);
          child = msg.child;
          const fault = yield* read(k, c, child!);
          faults++;
          yield* protect(k, c, child!, fault.vpn, 1, false);
        });
      }
      let done = false;
      yield* sys_clone(k, t, {
        flags: 0,
        childTid: 700,
        pinnedCpu: 2,
        *program(c) {
          assert.equal((wordOf(k, c, DST) & PTE_UFFD_WP) !== 0, features !== 0);
          yield* store(k, c, DST, 6);
          assert.equal(yield* load(k, c, DST), 6);
          done = true;
        },
      });
      while (!done) yield* k.sched.userRun(t, 10_000);
      assert.equal(faults, features === 0 ? 0 : 1);
      assert.equal(yield* load(k, t, DST), 5);
      assert.equal(wordOf(k, t, DST) & PTE_UFFD_WP, PTE_UFFD_WP);
    });
  }
});

test('asynchronous protection lets the write through and forgets', () => {
  runProcess(function* (k, t) {
    yield* mapAt(k, t, DST, 2);
    yield* store(k, t, DST, 5);
    const ctx = yield* open(k, t, UFFD_FEATURE_WP_ASYNC);
    yield* register(k, t, ctx, DST, 2, WP);
    yield* protect(k, t, ctx, DST, 2, true);
    yield* store(k, t, DST, 6);
    yield* store(k, t, DST + 1, 6);
    assert.equal(wordOf(k, t, DST) & (PTE_UFFD_WP | PTE_WRITE), PTE_WRITE);
  });
});

test('law: a protected page never changes without its reader seeing a fault', () => {
  const step = fc.tuple(
    fc.constantFrom('protect', 'release', 'store', 'load', 'copy', 'mprotect', 'dontneed'),
    fc.integer({min: 0, max: 7}),
    fc.integer({min: 1, max: 4}),
  );
  const property = fc.property(fc.array(step, {maxLength: 25}), fc.boolean(), (steps, shared) => {
    runProcess(function* (k, t) {
      yield* mapAt(k, t, DST, 8, shared);
      yield* mapAt(k, t, SRC, 1);
      yield* store(k, t, SRC, 99);
      const ctx = yield* open(k, t, UFFD_FEATURE_WP_UNPOPULATED);
      yield* register(k, t, ctx, DST, 8, WP);
      const trapped = new Set<number>();
      yield* thread(k, t, function* (c) {
        for (;;) {
          const msg = yield* userfaultfd_read(k, c, ctx);
          if (typeof msg === 'number') return;
          trapped.add(msg.vpn - DST);
          yield* protect(k, c, ctx, msg.vpn, 1, false);
        }
      });
      const held = new Set<number>();
      let stamp = 1;
      for (const [what, at, n] of steps) {
        const pages = Math.min(n, 8 - at);
        const all = Array.from({length: pages}, (_, i) => at + i);
        if (what === 'protect' || what === 'release') {
          const on = what === 'protect';
          assert.equal(yield* protect(k, t, ctx, DST + at, pages, on), 0);
          for (const page of all)
            if (on) held.add(page);
            else held.delete(page);
        } else if (what === 'store') {
          trapped.clear();
          yield* store(k, t, DST + at, stamp++);
          assert.equal(trapped.has(at), held.has(at), `store to page ${at}`);
          held.delete(at);
        } else if (what === 'load') {
          trapped.clear();
          yield* load(k, t, DST + at);
          assert.equal(trapped.size, 0);
        } else if (what === 'copy') {
          const ret = yield* ioctl(k, t, ctx, UFFDIO_COPY, DST + at, 1, 2, SRC);
          if (ret === 0) held.add(at);
        } else if (what === 'mprotect') {
          yield* do_mprotect(k, t, DST + at, pages, 1);
          yield* do_mprotect(k, t, DST + at, pages, 3);
        } else {
          yield* do_madvise(k, t, DST + at, pages, MADV_DONTNEED);
          if (!shared) for (const page of all) held.delete(page);
        }
      }
      yield* userfaultfd_close(k, t, ctx);
      for (let n = 0; n < 8; n++) {
        yield* store(k, t, DST + n, 1);
        assert.equal(wordOf(k, t, DST + n) & PTE_UFFD_WP, 0);
      }
    });
  });
  fc.assert(property, {numRuns: 40});
});
