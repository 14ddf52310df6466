// userfaultfd on shared memory, huge pages of hugetlbfs and transparent huge pages: missing, minor,
// write protection, poison.

import assert from 'node:assert/strict';
import {test} from 'node:test';
import type {Code} from '../../machine/process.ts';
import {PTE_HUGE, PTE_UFFD_WP} from '../arch/x86/mm/pgtable_bits.ts';
import type {Kernel} from '../kernel.ts';
import {set_max_huge_pages} from '../mm/hugetlb_pool.ts';
import {mapHuge} from '../mm/hugetlb_testing.ts';
import {MADV_DONTNEED, MADV_HUGEPAGE} from '../mm/madvise_numbers.ts';
import {do_madvise} from '../mm/madvise.ts';
import {MAP_PRIVATE, MAP_SHARED} from '../mm/mmap_prot.ts';
import {runProcess} from '../mm/mm_testing.ts';
import type {Task} from '../task.ts';
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
  UFFDIO_CONTINUE,
  UFFDIO_COPY,
  UFFDIO_POISON,
  UFFDIO_REGISTER,
  UFFDIO_ZEROPAGE,
  type UserfaultfdCtx,
} from './userfaultfd_types.ts';

const MISSING = 1;
const WP = 2;
const MINOR = 4;
const H = 512;

/** Answers faults with `ioctl` number `cmd` for `unit` pages; the flags that it saw. */
function* answer(
  k: Kernel,
  t: Task,
  ctx: UserfaultfdCtx,
  cmd: number,
  unit: number,
  count: number,
): Code<number[]> {
  const flags: number[] = [];
  yield* thread(k, t, function* (c) {
    for (let n = 0; n < count; n++) {
      const msg = yield* read(k, c, ctx);
      flags.push(msg.flags);
      const vpn = msg.vpn - ((msg.vpn - DST) % unit);
      if ((msg.flags & 2) !== 0) yield* protect(k, c, ctx, vpn, unit, false);
      else yield* ioctl(k, c, ctx, cmd, vpn, unit, 0, SRC + (vpn - DST));
    }
  });
  return flags;
}

test('shared memory: missing pages enter the file, minor faults find them there', () => {
  runProcess(function* (k, t) {
    yield* mapAt(k, t, DST, 4, true);
    yield* mapAt(k, t, SRC, 4);
    for (let n = 0; n < 4; n++) yield* store(k, t, SRC + n, 10 + n);
    const ctx = yield* open(k, t);
    yield* register(k, t, ctx, DST, 4, MISSING | MINOR);
    const flags = yield* answer(k, t, ctx, UFFDIO_COPY, 1, 1);
    assert.equal(yield* load(k, t, DST + 1), 11);
    assert.deepEqual(flags, [0]);
    yield* do_madvise(k, t, DST, 4, MADV_DONTNEED);
    const more = yield* answer(k, t, ctx, UFFDIO_CONTINUE, 1, 1);
    assert.equal(yield* load(k, t, DST + 1), 11);
    assert.deepEqual(more, [4]);
    assert.equal(yield* ioctl(k, t, ctx, UFFDIO_CONTINUE, DST, 1), -14);
    assert.equal(yield* ioctl(k, t, ctx, UFFDIO_COPY, DST + 1, 1, 0, SRC), -17);
    assert.equal(t.mm!.user!.rss.counts[3], 1);
  });
});

test('minor and write-protect together: CONTINUE may bring the page protected', () => {
  runProcess(function* (k, t) {
    yield* mapAt(k, t, DST, 2, true);
    yield* store(k, t, DST, 5);
    yield* do_madvise(k, t, DST, 2, MADV_DONTNEED);
    const ctx = yield* open(k, t);
    yield* register(k, t, ctx, DST, 2, WP | MINOR);
    assert.equal(yield* ioctl(k, t, ctx, UFFDIO_CONTINUE, DST, 1, 2), 0);
    const flags = yield* answer(k, t, ctx, UFFDIO_CONTINUE, 1, 1);
    assert.equal(yield* load(k, t, DST), 5);
    yield* store(k, t, DST, 6);
    assert.deepEqual(flags, [3]);
  });
});

test('hugetlb: a fill is a huge page, wherever the fault was', () => {
  for (const map of [MAP_PRIVATE, MAP_SHARED]) {
    runProcess(function* (k, t) {
      set_max_huge_pages(k, t, k.mm.hugetlb.default, 8);
      yield* mapHuge(k, t, DST, 2, map);
      yield* mapHuge(k, t, SRC, 2, MAP_PRIVATE);
      for (let n = 0; n < 2; n++) yield* store(k, t, SRC + n * H + 3, 20 + n);
      const ctx = yield* open(k, t);
      yield* register(k, t, ctx, DST, 2 * H, MISSING);
      const flags = yield* answer(k, t, ctx, UFFDIO_COPY, H, 2);
      assert.equal(yield* load(k, t, DST + H + 3), 21);
      yield* store(k, t, DST + 1, 7);
      assert.equal(yield* load(k, t, DST + 1), 7);
      assert.equal(yield* load(k, t, DST + 3), 20);
      assert.deepEqual(flags, [0, 1]);
      assert.equal(yield* ioctl(k, t, ctx, UFFDIO_COPY, DST, H, 0, SRC), -17);
      assert.equal(yield* ioctl(k, t, ctx, UFFDIO_ZEROPAGE, DST, H), -22);
      assert.equal(yield* ioctl(k, t, ctx, UFFDIO_COPY, DST, 1, 0, SRC), -22);
    });
  }
});

test('hugetlb: minor, write protection and its markers', () => {
  runProcess(function* (k, t) {
    set_max_huge_pages(k, t, k.mm.hugetlb.default, 8);
    yield* mapHuge(k, t, DST, 2, MAP_SHARED);
    yield* store(k, t, DST, 5);
    yield* do_madvise(k, t, DST, H, MADV_DONTNEED);
    const ctx = yield* open(k, t);
    yield* register(k, t, ctx, DST, 2 * H, WP | MINOR);
    const flags = yield* answer(k, t, ctx, UFFDIO_CONTINUE, H, 3);
    assert.equal(yield* load(k, t, DST), 5);
    assert.equal(yield* protect(k, t, ctx, DST, 2 * H, true), 0);
    yield* store(k, t, DST + 1, 6);
    // Nothing was there: the marker protects what comes.
    yield* store(k, t, DST + H, 6);
    assert.deepEqual(flags, [4, 3, 3]);
    yield* protect(k, t, ctx, DST, H, true);
    yield* do_madvise(k, t, DST, H, MADV_DONTNEED);
    assert.equal(wordOf(k, t, DST) & 0xf, 9, 'a marker is left');
  });
});

test('transparent huge pages are protected whole, and split when a part is', () => {
  runProcess(function* (k, t) {
    yield* mapAt(k, t, DST, H);
    yield* do_madvise(k, t, DST, H, MADV_HUGEPAGE);
    yield* store(k, t, DST + 5, 5);
    assert.ok((wordOf(k, t, DST) & PTE_HUGE) !== 0);
    const ctx = yield* open(k, t);
    yield* register(k, t, ctx, DST, H, WP);
    yield* protect(k, t, ctx, DST, H, true);
    assert.equal(wordOf(k, t, DST) & (PTE_HUGE | PTE_UFFD_WP), PTE_HUGE | PTE_UFFD_WP);
    const flags = yield* answer(k, t, ctx, 0, 1, 1);
    assert.equal(yield* load(k, t, DST + 5), 5);
    yield* store(k, t, DST + 5, 6);
    assert.deepEqual(flags, [3]);
    assert.equal(wordOf(k, t, DST) & (PTE_HUGE | PTE_UFFD_WP), PTE_UFFD_WP);
    assert.equal(wordOf(k, t, DST + 5) & PTE_UFFD_WP, 0);
  });
});

test('a poisoned page is SIGBUS, and only an empty entry can be poisoned', () => {
  runProcess(function* (k, t) {
    yield* mapAt(k, t, DST, 2);
    yield* store(k, t, DST + 1, 1);
    const ctx = yield* open(k, t);
    yield* register(k, t, ctx, DST, 2, MISSING);
    assert.equal(yield* ioctl(k, t, ctx, UFFDIO_POISON, DST, 1), 0);
    assert.equal(yield* ioctl(k, t, ctx, UFFDIO_POISON, DST + 1, 1), -17);
    assert.equal(yield* load(k, t, DST), -1);
    assert.equal(yield* store(k, t, DST, 1), 'sigbus');
  });
});

test('modes by kernel: what a generation does not have is EINVAL', () => {
  const registers = (version: string, shared: boolean, mode: number): number => {
    let ret = 0;
    runProcess(function* (k, t) {
      yield* mapAt(k, t, DST, 1, shared);
      const ctx = yield* open(k, t);
      ret = yield* ioctl(k, t, ctx, UFFDIO_REGISTER, DST, 1, mode);
    }, version);
    return ret;
  };
  assert.equal(registers('4.13', true, MISSING), 0);
  assert.equal(registers('5.4', false, WP), -22);
  assert.equal(registers('5.5', false, WP), -22);
  assert.equal(registers('6.6', false, WP), 0);
  assert.equal(registers('6.6', true, WP | MINOR), 0);
  assert.equal(registers('6.18', false, MINOR), -22);
});
