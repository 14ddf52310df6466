// tools/testing/selftests/mm/ksm_tests.c and ksm_functional_tests.c: how many pages ksmd shares,
// and how sharing ends.
//
// Counts are looked at after further scans: a KSM page that everybody has left is noticed by ksmd,
// not by the last to leave.

import {
  advise,
  all,
  counter,
  inChild,
  load,
  map,
  mergeAny,
  movePages,
  NONE,
  poke,
  protect,
  R,
  RW,
  sleepMs,
  state,
  store,
  sysfs,
} from './moves.ts';
import {differs, holds, type Move, type Selftest} from './selftest.ts';
import {close, register, uffd, WP, writeProtect} from './uffd_moves.ts';

const ksm = (file: string, value: number): Move => sysfs(`/sys/kernel/mm/ksm/${file}`, value);

/** A daemon that is through with everything in a few milliseconds. */
const setUp = (more: Readonly<Record<string, number>> = {}): Move =>
  all(
    ksm('run', 2),
    ksm('max_page_sharing', more['max_page_sharing'] ?? 256),
    ksm('merge_across_nodes', more['merge_across_nodes'] ?? 1),
    ksm('use_zero_pages', more['use_zero_pages'] ?? 0),
    ksm('smart_scan', 0),
    ksm('pages_to_scan', 4000),
    ksm('sleep_millisecs', 2),
    ksm('run', 1),
  );

/** Three full scans and more: one for the checksums, one to merge. */
const scans = sleepMs(60);

/** pages_shared and pages_sharing of `n` equal pages. */
export function mergedCounts(n: number, maxPageSharing: number): [shared: number, sharing: number] {
  const whole = Math.floor(n / maxPageSharing);
  const rest = n % maxPageSharing;
  if (rest <= 1) return [whole, whole * (maxPageSharing - 1)];
  return [whole + 1, n - (whole + 1)];
}

const counts = (shared: number, sharing: number): Move =>
  all(counter('ksm-pages-shared', shared), counter('ksm-pages-sharing', sharing));

const merges = (n: number, max: number): readonly Move[] => [
  setUp({max_page_sharing: max}),
  map(0, n),
  store(0, n, 7),
  advise(0, n, 'mergeable'),
  scans,
  counts(...mergedCounts(n, max)),
  load(0, n, 7),
];

const PAGES = 512;
/** All pages equal and merged into one or two frames. */
const merged = (content: number): Move =>
  all(
    map(0, PAGES),
    advise(0, PAGES, 'nohugepage'),
    store(0, PAGES, content),
    advise(0, PAGES, 'mergeable'),
    scans,
  );
/** No two pages share a frame. */
const apart = (at = 0, pages = PAGES): Move => state('frames', at, pages, pages);
const HALF = PAGES / 2;

export const KSM: Selftest = {
  name: 'ksm',
  summary: 'KSM shares as many pages as the formula says, and unsharing leaves no duplicates',
  source: 'selftests/mm/ksm_tests.c, mm/ksm_functional_tests.c',
  cases: {
    ...Object.fromEntries(
      (
        [
          [2, 256],
          [3, 2],
          [10, 3],
          [256, 256],
          [257, 256],
          [258, 256],
          [512, 256],
          [600, 256],
        ] as const
      ).map(([n, max]) => [`merge ${n} pages, max_page_sharing ${max}`, merges(n, max)]),
    ),
    unmerge: [
      setUp(),
      map(0, 2),
      store(0, 2, 7),
      advise(0, 2, 'mergeable'),
      scans,
      counts(1, 1),
      store(0, 1, 8),
      store(1, 1, 9),
      scans,
      counts(0, 0),
      apart(0, 2),
    ],
    'unmerge, all': [
      setUp(),
      merged(7),
      counts(...mergedCounts(PAGES, 256)),
      advise(0, PAGES, 'unmergeable'),
      apart(),
      scans,
      counts(0, 0),
      load(0, PAGES, 7),
    ],
    'unmerge, write-protected by userfaultfd': [
      setUp(),
      merged(7),
      uffd(),
      register(0, PAGES, WP),
      writeProtect(0, PAGES, true),
      advise(0, PAGES, 'unmergeable'),
      apart(),
      state('uffd-wp', 0, PAGES, PAGES),
      load(0, PAGES, 7),
      close(),
      store(0, PAGES, 8),
    ],
    'unmerge, discarded': [
      setUp(),
      merged(7),
      advise(0, HALF, 'dontneed'),
      advise(0, PAGES, 'unmergeable'),
      apart(HALF, HALF),
      load(0, HALF, 0),
      load(HALF, HALF, 7),
    ],
    'zero pages': [
      setUp({use_zero_pages: 1}),
      merged(0),
      counts(0, 0),
      counter('ksm-zero-pages', PAGES),
      advise(0, HALF, 'unmergeable'),
      counter('ksm-zero-pages', HALF),
      store(HALF, HALF, 1, {each: 1}),
      counter('ksm-zero-pages', 0),
      load(0, HALF, 0),
    ],
    'zero pages not used': [setUp(), merged(0), counts(...mergedCounts(PAGES, 256))],
    'read-only, ptrace': [
      setUp(),
      map(0, PAGES),
      advise(0, PAGES, 'nohugepage'),
      store(0, PAGES, 7),
      protect(0, PAGES, R),
      advise(0, PAGES, 'mergeable'),
      scans,
      counts(...mergedCounts(PAGES, 256)),
      poke(0, HALF, 8),
      apart(0, HALF),
      advise(HALF, HALF, 'unmergeable'),
      apart(),
      protect(0, PAGES, RW),
      load(0, HALF, 8),
      load(HALF, HALF, 7),
    ],
    'PROT_NONE, ptrace': [
      setUp(),
      map(0, PAGES),
      advise(0, PAGES, 'nohugepage'),
      store(0, PAGES, 7),
      protect(0, PAGES, NONE),
      advise(0, PAGES, 'mergeable'),
      scans,
      counts(...mergedCounts(PAGES, 256)),
      poke(0, HALF, 8),
      apart(0, HALF),
      advise(HALF, HALF, 'unmergeable'),
      apart(),
      protect(0, PAGES, RW),
      load(0, HALF, 8),
      load(HALF, HALF, 7),
    ],
    'two nodes, merged across': [
      setUp(),
      map(0, 2),
      store(0, 2, 7),
      movePages(0, 1, 0),
      movePages(1, 1, 1),
      advise(0, 2, 'mergeable'),
      scans,
      counts(1, 1),
    ],
    'two nodes, kept apart': [
      setUp({merge_across_nodes: 0}),
      map(0, 2),
      store(0, 2, 7),
      movePages(0, 1, 0),
      movePages(1, 1, 1),
      advise(0, 2, 'mergeable'),
      scans,
      counts(0, 0),
    ],
    'merging pages of a child': [
      setUp(),
      merged(7),
      counter('ksm-merging-pages', PAGES),
      inChild('child', counter('ksm-merging-pages', 0)),
    ],
  },
  on: [
    holds('6.18'),
    holds('6.12'),
    differs('5.4', 'does not count zero pages', 'zero pages .*found ksm-zero-pages 0'),
  ],
};

export const KSM_PRCTL: Selftest = {
  name: 'ksm-prctl',
  summary:
    'PR_SET_MEMORY_MERGE makes everything mergeable, forks inherit it, taking it back unmerges (6.4+)',
  source: 'selftests/mm/ksm_functional_tests.c, mm/merge.c',
  cases: {
    'merge and unmerge': [
      setUp(),
      mergeAny(true),
      map(0, PAGES),
      store(0, PAGES, 7),
      scans,
      counts(...mergedCounts(PAGES, 256)),
      mergeAny(false),
      apart(),
      scans,
      counts(0, 0),
    ],
    fork: [
      setUp(),
      // ksmd forgets a process without any memory that it might merge.
      map(1000, 1),
      store(1000, 1, 5),
      mergeAny(true),
      inChild(
        'child',
        map(0, PAGES),
        store(0, PAGES, 7),
        scans,
        counts(...mergedCounts(PAGES, 256)),
        load(0, PAGES, 7),
      ),
    ],
    'adjacent mappings merge': [
      map(0, 5),
      map(5, 5),
      state('vmas', 0, 10, 1),
      mergeAny(true),
      map(10, 5),
      state('vmas', 0, 15, 1),
      mergeAny(false),
      map(15, 5),
      state('vmas', 0, 20, 1),
    ],
  },
  on: [
    holds('6.18'),
    holds('6.6'),
    differs('5.5', 'does not know it', 'merge and unmerge .*ksm-pages-shared 0'),
  ],
};
