// Laws of hugetlb accounting, whatever processes do: reservations are never more than free pages
// and never negative, every page is free or mapped or a file's, rss does not move, and when all
// processes are gone the pool is as it was.

import assert from 'node:assert/strict';
import {test} from 'node:test';
import fc from 'fast-check';
import type {Code} from '../../machine/process.ts';
import {sys_wait4} from '../exit.ts';
import type {Kernel} from '../kernel.ts';
import type {Task} from '../task.ts';
import {set_max_huge_pages} from './hugetlb_pool.ts';
import {ResvMap} from './hugetlb_resv.ts';
import {
  child,
  counts,
  H,
  mapHuge,
  NORESERVE,
  PRIVATE,
  SHARED,
  withPool,
} from './hugetlb_testing.ts';
import {do_madvise} from './madvise.ts';
import {MADV_DONTNEED} from './madvise_numbers.ts';
import {access} from './mm_testing.ts';
import {sys_munmap} from './mmap_unmap.ts';
import {do_mprotect} from './mprotect.ts';
import {do_mremap, MREMAP_FIXED, MREMAP_MAYMOVE} from './mremap.ts';

const BASE = 2 ** 31;
const SLOTS = 4;
const SPAN = 2048;

const step = fc.record({
  what: fc.constantFrom(
    'map',
    'map',
    'read',
    'write',
    'write',
    'write',
    'fork',
    'unmap',
    'dontneed',
    'protect',
    'move',
    'resize',
  ),
  slot: fc.nat(SLOTS - 1),
  page: fc.nat(3),
  n: fc.integer({min: 1, max: 4}),
  flags: fc.constantFrom(PRIVATE, SHARED, PRIVATE | NORESERVE, SHARED | NORESERVE),
});
type Step = typeof step extends fc.Arbitrary<infer T> ? T : never;

function checkPool(k: Kernel): void {
  const {default: h} = k.mm.hugetlb;
  assert.ok(h.resvHugePages >= 0, 'negative reservation');
  assert.ok(h.resvHugePages <= h.freeHugePages, 'more is promised than free');
  assert.ok(h.surplusHugePages >= 0 && h.surplusHugePages <= h.nrHugePages);
  assert.equal(
    h.nr.reduce((sum, n) => sum + n, 0),
    h.nrHugePages,
  );
  assert.equal(
    h.free.reduce((sum, n) => sum + n, 0),
    h.freeHugePages,
  );
  for (const [node, list] of h.freelists.entries()) assert.equal(list.length, h.free[node]);
}

function* apply(k: Kernel, t: Task, one: Step, rest: readonly Step[]): Code {
  const at = BASE + one.slot * SPAN;
  const page = at + one.page * H;
  switch (one.what) {
    case 'map':
      yield* mapHuge(k, t, at, one.n, one.flags);
      break;
    case 'read':
    case 'write':
      yield* access(k, t, page + 7, one.what === 'write');
      break;
    case 'fork':
      yield* child(k, t, (c) => applyAll(k, c, rest));
      break;
    case 'unmap':
      yield* sys_munmap(k, t, page, page + one.n * H);
      break;
    case 'dontneed':
      yield* do_madvise(k, t, page, one.n * H, MADV_DONTNEED);
      break;
    case 'protect':
      yield* do_mprotect(k, t, page, H, one.n < 3 ? 1 : 3);
      break;
    case 'move': {
      const to = BASE + ((one.slot + 1) % SLOTS) * SPAN;
      yield* do_mremap(k, t, at, one.n * H, one.n * H, MREMAP_FIXED | MREMAP_MAYMOVE, to);
      break;
    }
    default:
      set_max_huge_pages(k, t, k.mm.hugetlb.default, 3 + one.n);
  }
  checkPool(k);
}

function* applyAll(k: Kernel, t: Task, steps: readonly Step[]): Code {
  for (const [n, one] of steps.entries()) yield* apply(k, t, one, steps.slice(n + 1, n + 6));
}

for (const version of ['6.18', '5.5']) {
  test(`the pool is as before when everybody is gone (${version})`, () => {
    fc.assert(
      fc.property(fc.array(step, {maxLength: 14}), fc.nat(3), (steps, overcommit) => {
        let wanted = 6;
        for (const {what, n} of steps) if (what === 'resize') wanted = -Math.abs(n);
        const k = withPool(
          6,
          function* (k, t) {
            k.mm.hugetlb.default.nrOvercommit = overcommit;
            yield* applyAll(k, t, steps);
            const {user} = t.mm!;
            const rss = user === null ? [] : [...user.rss.counts];
            assert.ok(rss.every((n) => n === 0));
            while ((yield* sys_wait4(k, t, -1, 0)) >= 0) checkPool(k);
          },
          version,
        );
        const [total, free, reserved, surplus] = counts(k);
        assert.deepEqual([free, reserved, surplus], [total, 0, 0]);
        if (wanted > 0) assert.equal(total, 6);
        assert.equal(k.mm.hugetlb.restoreReserve.size, 0);
      }),
      {numRuns: 60},
    );
  });
}

test('a reserve map says what a set says', () => {
  const change = fc.record({add: fc.boolean(), from: fc.nat(30), n: fc.integer({min: 1, max: 9})});
  fc.assert(
    fc.property(fc.array(change, {maxLength: 30}), (changes) => {
      const map = new ResvMap(null);
      const set = new Set<number>();
      for (const {add, from, n} of changes) {
        const pages = Array.from({length: n}, (_, i) => from + i);
        const there = pages.filter((page) => set.has(page)).length;
        assert.equal(map.count(from, from + n), there);
        assert.equal(
          add ? map.add(from, from + n) : map.remove(from, from + n),
          add ? n - there : there,
        );
        for (const page of pages)
          if (add) set.add(page);
          else set.delete(page);
        const regions = map.list();
        for (const [i, [start, end]] of regions.entries()) {
          assert.ok(start < end);
          if (i > 0) assert.ok(regions[i - 1][1] < start, 'regions that touch are one');
        }
        assert.equal(
          regions.reduce((sum, [start, end]) => sum + end - start, 0),
          set.size,
        );
      }
    }),
  );
});
