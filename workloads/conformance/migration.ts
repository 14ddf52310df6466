// tools/testing/selftests/mm/migration.c and rmap.c: pages move between nodes while others use
// them, and every mapping follows.

import {
  advise,
  all,
  call,
  fork,
  load,
  MAP_ANONYMOUS,
  MAP_FIXED,
  MAP_HUGETLB,
  MAP_SHARED,
  map,
  mapFile,
  mapShared,
  meet,
  movePages,
  movePagesInUse,
  open,
  reap,
  RW,
  state,
  store,
  sysfs,
} from './moves.ts';
import {addr, holds, type Move, PAGE, type Selftest} from './selftest.ts';

const THP = 512;

/** The pages are on `node`, and their content is there. */
const on = (node: number, pages: number, content: number): Move =>
  all(state('node', 0, 1, node), state('node', pages - 1, 1, node), load(0, pages, content));

/** To and fro, while `others` look on: they have seen every place. */
const toAndFro = (pages: number, rounds: number, content: number): readonly Move[] =>
  Array.from({length: rounds}, (_, round) =>
    all(movePagesInUse(0, pages, (round + 1) % 2), on((round + 1) % 2, pages, content)),
  );

/** A child that reads the pages again and again. */
const reads = (pages: number, content: number): readonly Move[] =>
  Array.from({length: 40}, () => load(0, pages, content));

/** Processes that share the pages (fork) read them while their parent moves them. */
const moved = (setup: readonly Move[], pages: number): readonly Move[] => [
  ...setup,
  store(0, pages, 5),
  fork('a', ...reads(pages, 5)),
  fork('b', ...reads(pages, 5)),
  ...toAndFro(pages, 8, 5),
  reap('a'),
  reap('b'),
];

/** Pages for both nodes. */
const hugePool = sysfs('/proc/sys/vm/nr_hugepages', 8);
const sharedHugetlb = call(
  'mmap',
  [addr(0), THP * PAGE, RW, MAP_SHARED | MAP_FIXED | MAP_ANONYMOUS | MAP_HUGETLB, -1, 0],
  addr(0),
);
const thpSetup = [map(0, THP), advise(0, THP, 'hugepage')];

export const MIGRATION: Selftest = {
  name: 'migration',
  summary:
    'pages move between two nodes while others read them: every move succeeds, no access fails',
  source: 'selftests/mm/migration.c',
  cases: {
    'private anonymous': moved([map(0, 16)], 16),
    'shared anonymous': moved([mapShared(0, 16)], 16),
    'private anonymous THP': moved(thpSetup, THP),
    'private anonymous hugetlb': moved([hugePool, map(0, THP, RW, MAP_HUGETLB)], THP),
    'shared anonymous hugetlb': moved([hugePool, sharedHugetlb], THP),
    alone: [map(0, 64), store(0, 64, 3), ...toAndFro(64, 6, 3)],
  },
  on: [holds('6.18'), holds('6.6'), holds('5.4')],
};

/** One moves the region; then every process has the same frame. */
function family(setup: readonly Move[], pages: number, mine: number): readonly Move[] {
  const same = (round: number): Move =>
    all(
      ...Array.from({length: pages}, (_, page) =>
        state('same-frame', page, 1, mine + round * 100 + page),
      ),
    );
  // Four processes wait for each other.
  const parties = 4;
  const process = (moves: boolean): readonly Move[] => [
    load(0, pages, 6),
    meet('ready', parties),
    ...(moves ? [movePages(0, pages, 1), state('node', 0, 1, 1)] : []),
    meet('moved', parties),
    load(0, pages, 6),
    same(1),
    meet('looked', parties),
    ...(moves ? [movePages(0, pages, 0), state('node', 0, 1, 0)] : []),
    meet('back', parties),
    load(0, pages, 6),
    same(2),
  ];
  return [
    ...setup,
    store(0, pages, 6),
    fork('left', fork('leaf', ...process(true)), ...process(false), reap('leaf')),
    fork('right', ...process(false)),
    ...process(false),
    reap('left'),
    reap('right'),
  ];
}

export const RMAP: Selftest = {
  name: 'rmap',
  summary: 'after a move every process of a tree maps the new frame',
  source: 'selftests/mm/rmap.c',
  cases: {
    anonymous: family([map(0, 4)], 4, 1000),
    shm: family([mapShared(0, 4)], 4, 2000),
    file: family([open(3, '/tmp/rmap', 4), mapFile(0, 4, 3)], 4, 3000),
  },
  on: [holds('6.18'), holds('6.6'), holds('5.4')],
};
