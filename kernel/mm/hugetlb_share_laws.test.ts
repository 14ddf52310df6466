// Laws of shared page tables of hugetlb: processes map the same file by whole GBs, and fault, zap,
// protect, split, truncate and migrate it at the same time. In the end the pool is full, no page is
// mapped, and no page table is left. hugetlb_usage is not looked at: as in Linux, pages that one
// process faults into a shared table are taken from the count of whoever zaps them.

import assert from 'node:assert/strict';
import {test} from 'node:test';
import fc from 'fast-check';
import type {Code} from '../../machine/process.ts';
import {sys_wait4} from '../exit.ts';
import type {Kernel} from '../kernel.ts';
import type {Task} from '../task.ts';
import type {AddressSpace} from './address_space.ts';
import {hugetlb_file_setup, hugetlbfs_evict_inode} from './hugetlb_inode.ts';
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
import {do_pages_move} from './migrate_move.ts';
import {access} from './mm_testing.ts';
import {sys_munmap} from './mmap_unmap.ts';
import {do_mprotect} from './mprotect.ts';
import {do_mremap, MREMAP_FIXED, MREMAP_MAYMOVE} from './mremap.ts';
import {do_truncate, punch_hole} from './truncate.ts';

const BASE = 2 ** 31;
const GB = 2 ** 18;
const HUGE_PER_GB = 512;

const step = fc.record({
  what: fc.constantFrom(
    'map',
    'map',
    'access',
    'access',
    'access',
    'access',
    'fork',
    'fork',
    'unmap',
    'dontneed',
    'protect',
    'move',
    'migrate',
    'punch',
    'truncate',
  ),
  area: fc.nat(1),
  /** Huge page in the area. */
  page: fc.constantFrom(0, 1, 2, 511, 512, 513),
  n: fc.constantFrom(1, 2, 512, 1024),
  write: fc.boolean(),
});
type Step = typeof step extends fc.Arbitrary<infer T> ? T : never;

function* apply(k: Kernel, t: Task, one: Step, file: AddressSpace, rest: readonly Step[]): Code {
  const area = BASE + one.area * 4 * GB;
  const at = area + one.page * H;
  switch (one.what) {
    case 'map':
      yield* mapHuge(k, t, area, 1024, (one.write ? SHARED : PRIVATE) | NORESERVE, file);
      break;
    case 'access':
      yield* access(k, t, at + 3, one.write);
      break;
    case 'unmap':
      yield* sys_munmap(k, t, at, at + one.n * H);
      break;
    case 'dontneed':
      yield* do_madvise(k, t, at, one.n * H, MADV_DONTNEED);
      break;
    case 'protect':
      yield* do_mprotect(k, t, at, one.n * H, one.write ? 3 : 1);
      break;
    case 'move': {
      const to = BASE + (1 - one.area) * 4 * GB;
      yield* do_mremap(k, t, area, 2 * GB, 2 * GB, MREMAP_FIXED | MREMAP_MAYMOVE, to);
      break;
    }
    case 'migrate':
      if (t.mm!.user !== null) {
        yield* do_pages_move(k, t, t.mm!.user, at, one.n * H, one.write ? 1 : 0, true);
      }
      break;
    case 'punch':
      yield* punch_hole(k, t, file, one.page * H, (one.page + one.n) * H);
      break;
    case 'truncate':
      yield* do_truncate(k, t, file, one.write ? 1024 * H : one.page * H);
      break;
    default:
      yield* child(k, t, function* (c) {
        yield* applyAll(k, c, rest, file);
        yield* waitAll(k, c);
      });
  }
  const {default: h} = k.mm.hugetlb;
  assert.ok(h.resvHugePages >= 0 && h.resvHugePages <= h.freeHugePages);
}

function* waitAll(k: Kernel, t: Task): Code {
  while ((yield* sys_wait4(k, t, -1, 0)) >= 0);
}

function* applyAll(k: Kernel, t: Task, steps: readonly Step[], file: AddressSpace): Code {
  for (const [n, one] of steps.entries()) yield* apply(k, t, one, file, steps.slice(n + 1, n + 7));
}

for (const version of ['6.18', '5.5']) {
  test(`shared tables leave nothing behind (${version})`, () => {
    fc.assert(
      fc.property(fc.array(step, {maxLength: 14}), (steps) => {
        const k = withPool(
          8,
          function* (k, t) {
            const {default: h} = k.mm.hugetlb;
            const file = hugetlb_file_setup(k, h, 2 * HUGE_PER_GB * H);
            yield* applyAll(k, t, steps, file);
            yield* waitAll(k, t);
            yield* sys_munmap(k, t, BASE, BASE + 8 * GB);
            hugetlbfs_evict_inode(k, t, file);
          },
          version,
        );
        assert.deepEqual(counts(k), [8, 8, 0, 0]);
        assert.equal(k.mm.pt.used, 0);
        assert.equal(k.mm.hugetlb.temporary.size, 0);
        assert.deepEqual(k.checks.findings, []);
      }),
      {numRuns: 50},
    );
  });
}
