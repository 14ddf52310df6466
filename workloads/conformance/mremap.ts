// tools/testing/selftests/mm/mremap_test.c and mremap_dontunmap.c.

import {
  all,
  call,
  DONTUNMAP,
  DONTUNMAP_FIXED,
  EFAULT,
  EINVAL,
  FIXED,
  load,
  loadDies,
  map,
  mapShared,
  remap,
  state,
  store,
  unmap,
} from './moves.ts';
import {addr, differs, holds, type Move, PAGE, type Selftest} from './selftest.ts';

/** Alignments in pages. */
const PTE = 1;
const HALF = 256;
const PMD = 512;
const PUD = 2 ** 18;

/** First page of the destination: far from the source, itself aligned to 1 GB. */
const FAR = 2 ** 22;

/** A region `align` pages off the next greater alignment moves to one that is so, too. */
function moves(source: number, target: number, pages: number, preceding = 0): readonly Move[] {
  const from = source;
  const to = FAR + target;
  const stride = Math.max(1, Math.floor(pages / 512));
  const pattern = {stride, each: 1};
  const count = Math.floor(pages / stride);
  const before = preceding === 0 ? [] : [map(to - preceding, preceding)];
  const fill = preceding === 0 ? [] : [store(to - preceding, preceding / 16, 9, {stride: 16})];
  const kept = preceding === 0 ? [] : [load(to - preceding, preceding / 16, 9, {stride: 16})];
  return [
    map(from, pages),
    store(from, count, 1000, pattern),
    ...before,
    ...fill,
    remap(from, pages, pages, FIXED, to),
    load(to, count, 1000, pattern),
    loadDies(from),
    ...kept,
  ];
}

/**
 * A mapping that ends `offset` pages after 10 grows over a hole of one page, up to its neighbour.
 */
const expandMerges = (offset: number): readonly Move[] => [
  map(10, offset + 3),
  unmap(10 + offset + 1, 1),
  remap(10, offset + 1, offset + 2, 0),
  state('vmas', 10, offset + 3, 1),
  state('vma-pages', 10, 1, offset + 3),
];

/** As before, but what is said to grow is only the end of the mapping. */
const expandTail: readonly Move[] = [
  map(10, 7),
  unmap(15, 1),
  remap(14, 1, 2, 0),
  state('vmas', 10, 7, 1),
  state('vma-pages', 10, 1, 7),
];

export const MREMAP: Selftest = {
  name: 'mremap',
  summary: 'mremap keeps every byte at every alignment, and refuses what it must',
  source: 'selftests/mm/mremap_test.c',
  cases: {
    overlap: [map(0, 4), remap(0, 2, 2, FIXED, 1, EINVAL), remap(0, 2, 2, FIXED, 0, EINVAL)],
    'destination misaligned': [
      map(0, 2),
      call('mremap', [addr(0), 2 * PAGE, 2 * PAGE, FIXED, addr(8) + 1024], EINVAL),
    ],
    'source misaligned': [
      map(0, 2),
      call('mremap', [addr(0) + 1024, 2 * PAGE, 2 * PAGE, FIXED, addr(8)], EINVAL),
    ],
    'not mapped': [remap(0, 1, 1, 0, 0, EFAULT)],
    '2 PTEs': moves(PTE, PTE, 2),
    '2M, 1M to PTE': moves(HALF, PTE, PMD),
    '2M, 1M to 1M': moves(HALF, HALF, PMD),
    '4M, PMD to PTE': moves(PMD, PTE, 2 * PMD),
    '4M, PMD to 1M': moves(PMD, HALF, 2 * PMD),
    '4M, PMD to PMD': moves(PMD, PMD, 2 * PMD),
    '2G, PUD to PTE': moves(PUD, PTE, 2 * PUD),
    '2G, PUD to 1M': moves(PUD, HALF, 2 * PUD),
    '2G, PUD to PMD': moves(PUD, PMD, 2 * PUD),
    '2G, PUD to PUD': moves(PUD, PUD, 2 * PUD),
    '5M, 1M to 1M': moves(HALF, HALF, 5 * HALF),
    '5M, 1M to 1M behind 40M': moves(HALF, HALF, 5 * HALF, 40 * HALF),
    'expand merges': expandMerges(0),
    'expand merges, longer': expandMerges(4),
    'expand merges, offset': expandTail,
    'move within range': [
      map(0, 60),
      store(0, 60, 1, {each: 1}),
      remap(10, 10, 10, FIXED, 40),
      load(40, 10, 11, {each: 1}),
      load(0, 10, 1, {each: 1}),
      load(50, 10, 51, {each: 1}),
      loadDies(10, 10),
    ],
    'shrink and grow': [
      map(0, 10),
      store(0, 10, 5),
      remap(0, 10, 4, 0),
      loadDies(4, 6),
      remap(0, 4, 10, 0),
      load(0, 4, 5),
      load(4, 6, 0),
      state('vmas', 0, 10, 1),
    ],
  },
  on: [holds('6.18'), holds('6.6'), holds('5.4'), holds('4.1'), holds('2.6.32')],
};

/** Three VMAs with holes between them. */
const three: Move = all(
  map(0, 2),
  map(4, 2),
  map(8, 2),
  store(0, 2, 1),
  store(4, 2, 2),
  store(8, 2, 3),
);

export const MREMAP_MULTI: Selftest = {
  name: 'mremap-multi-vma',
  summary: 'one mremap moves several mappings and the holes between them (6.17+)',
  source: 'selftests/mm/mremap_test.c, mremap_move_multiple_vmas (absent 6.13, present 6.18)',
  cases: {
    'three mappings': [
      three,
      remap(0, 10, 10, FIXED, 100),
      load(100, 2, 1),
      load(104, 2, 2),
      load(108, 2, 3),
      loadDies(102, 2),
      loadDies(0, 10),
      state('vmas', 100, 10, 3),
    ],
    'one split by protection': [
      map(0, 6),
      store(0, 6, 1, {each: 1}),
      call('mprotect', [addr(2), 2 * PAGE, 1], 0),
      remap(0, 6, 6, FIXED, 100),
      load(100, 6, 1, {each: 1}),
      state('vmas', 100, 6, 3),
    ],
    'from a hole': [three, remap(2, 4, 4, FIXED, 100, EFAULT), load(4, 2, 2)],
  },
  on: [holds('6.18'), differs('6.12', 'one mapping at a time', 'found EFAULT')],
};

export const MREMAP_DONTUNMAP: Selftest = {
  name: 'mremap-dontunmap',
  summary: 'MREMAP_DONTUNMAP leaves the old mapping, empty (5.7+)',
  source: 'selftests/mm/mremap_dontunmap.c',
  cases: {
    simple: [
      map(0, 5),
      store(0, 5, 7),
      remap(0, 5, 5, DONTUNMAP, 100),
      load(0, 5, 0),
      load(100, 5, 7),
    ],
    'simple shmem': [
      mapShared(0, 5),
      store(0, 5, 7),
      remap(0, 5, 5, DONTUNMAP, 100),
      load(0, 5, 7),
      load(100, 5, 7),
    ],
    'simple fixed': [
      map(0, 5),
      store(0, 5, 7),
      map(100, 5),
      store(100, 5, 8),
      remap(0, 5, 5, DONTUNMAP_FIXED, 100),
      load(0, 5, 0),
      load(100, 5, 7),
    ],
    'partial mapping': [
      map(0, 10),
      store(0, 10, 7),
      remap(5, 5, 5, DONTUNMAP_FIXED, 100),
      load(0, 5, 7),
      load(5, 5, 0),
      load(100, 5, 7),
    ],
    'partial mapping overwrites': [
      map(0, 5),
      store(0, 5, 7),
      map(100, 10),
      store(100, 10, 8),
      remap(0, 5, 5, DONTUNMAP_FIXED, 100),
      load(0, 5, 0),
      load(100, 5, 7),
      load(105, 5, 8),
    ],
    'sizes differ': [map(0, 5), remap(0, 5, 4, DONTUNMAP, 100, EINVAL)],
    'without MAYMOVE': [map(0, 5), remap(0, 5, 5, 4, 100, EINVAL)],
  },
  on: [
    holds('6.18'),
    holds('6.6'),
    differs('5.5', 'does not know it', 'simple 3 mremap: expected .*, found EINVAL'),
  ],
};
