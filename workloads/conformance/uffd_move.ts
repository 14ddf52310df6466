// tools/testing/selftests/mm/uffd-unit-tests.c: UFFDIO_MOVE, of pages and of huge pages, whole and
// split; and what may not move.

import {
  advise,
  all,
  fork,
  load,
  map,
  meet,
  PIN,
  pin,
  protect,
  R,
  reap,
  state,
  store,
  swapoff,
  unpin,
} from './moves.ts';
import {EINVAL} from './numbers.ts';
import {differs, holds, type Move, type Selftest} from './selftest.ts';
import {
  EAGAIN,
  EBUSY,
  EEXIST,
  ENOENT,
  io,
  MISSING,
  register,
  serve,
  SRC,
  thread,
  uffd,
} from './uffd_moves.ts';

const PAGES = 4;
const HUGE = 512;
const HOLES = 2;

const ready = (pages: number): Move =>
  all(map(0, pages), map(SRC, pages), uffd(), register(0, pages, MISSING));
const filled = (pages: number): Move =>
  all(advise(SRC, pages, 'nohugepage'), store(SRC, pages, 10, {each: 1}));
const huge = (pages: number): Move =>
  all(
    advise(SRC, pages, 'hugepage'),
    store(SRC, pages, 10, {each: 1}),
    state('huge', SRC, pages, pages),
  );

/** What a shift of the destination by a page makes of huge pages. */
const split = (by: number): readonly Move[] => [
  map(0, 3 * HUGE),
  map(SRC, 2 * HUGE),
  uffd(),
  register(0, 3 * HUGE, MISSING),
  huge(2 * HUGE),
  io('move', by, 2 * HUGE, {src: SRC, out: 2 * HUGE}),
  state('huge', 0, 3 * HUGE, 0),
  load(by, 2 * HUGE, 10, {each: 1}),
  state('present', SRC, 2 * HUGE, 0),
];

export const UFFD_MOVE: Selftest = {
  name: 'uffd-move',
  summary: 'UFFDIO_MOVE of pages, huge pages and swap entries; shared and pinned ones stay (6.8+)',
  source: 'selftests/mm/uffd-unit-tests.c',
  swapPages: 4096,
  cases: {
    move: [
      ready(PAGES),
      filled(PAGES),
      thread('reader', serve({missing: PAGES}, 'move'), meet('served')),
      load(0, PAGES, 10, {each: 1}),
      meet('served'),
      state('present', SRC, PAGES, 0),
      load(SRC, PAGES, 0),
      state('exclusive', 0, PAGES, PAGES),
      store(0, PAGES, 5),
    ],
    'move at once': [
      ready(PAGES),
      filled(PAGES),
      io('move', 0, PAGES, {src: SRC, out: PAGES}),
      load(0, PAGES, 10, {each: 1}),
      state('soft-dirty', 0, PAGES, PAGES),
      state('rss-anon', 0, 1, PAGES),
    ],
    'move-pmd': [
      ready(2 * HUGE),
      huge(2 * HUGE),
      io('move', 0, 2 * HUGE, {src: SRC, out: 2 * HUGE}),
      state('huge', 0, 2 * HUGE, 2 * HUGE),
      load(0, 2 * HUGE, 10, {each: 1}),
      state('present', SRC, 2 * HUGE, 0),
      store(0, 2 * HUGE, 5),
    ],
    'move-pmd-split': split(1),
    'move-pmd, a part': [
      ready(2 * HUGE),
      huge(2 * HUGE),
      io('move', 0, HUGE + 8, {src: SRC, out: HUGE + 8}),
      state('huge', 0, 2 * HUGE, HUGE),
      load(0, HUGE + 8, 10, {each: 1}),
      load(SRC + HUGE + 8, HUGE - 8, 10 + HUGE + 8, {each: 1}),
    ],
    'huge page of zeros': [
      ready(HUGE),
      advise(SRC, HUGE, 'hugepage'),
      load(SRC, 1, 0),
      io('move', 0, HUGE, {src: SRC, out: HUGE}),
      state('zero', 0, HUGE, HUGE),
      load(0, HUGE, 0),
    ],
    'page of zeros': [
      ready(1),
      advise(SRC, 1, 'nohugepage'),
      load(SRC, 1, 0),
      io('move', 0, 1, {src: SRC}),
      state('zero', 0, 1, 1),
    ],
    'swap entries': [
      ready(PAGES),
      filled(PAGES),
      advise(SRC, PAGES, 'pageout'),
      state('swapped', SRC, PAGES, PAGES),
      io('move', 0, PAGES, {src: SRC, out: PAGES}),
      state('swapped', 0, PAGES, PAGES),
      load(0, PAGES, 10, {each: 1}),
      swapoff,
    ],
    holes: [
      ready(PAGES),
      advise(SRC, PAGES, 'nohugepage'),
      store(SRC, 1, 10),
      store(SRC + 2, 1, 12),
      io('move', 0, PAGES, {src: SRC, ret: EAGAIN, out: 1}),
      io('move', 1, PAGES - 1, {src: SRC + 1, ret: ENOENT}),
      io('move', 1, PAGES - 1, {src: SRC + 1, mode: HOLES, out: PAGES - 1}),
      state('present', 0, PAGES, 2),
      load(2, 1, 12),
    ],
    'onto a page': [
      ready(PAGES),
      filled(PAGES),
      io('zeropage', 0, 1),
      io('move', 0, 1, {src: SRC, ret: EEXIST}),
      load(SRC, 1, 10),
    ],
    shared: [
      ready(PAGES),
      filled(PAGES),
      fork('child', meet('forked'), meet('tried'), load(SRC, PAGES, 10, {each: 1})),
      meet('forked'),
      io('move', 0, PAGES, {src: SRC, ret: EBUSY}),
      load(SRC, PAGES, 10, {each: 1}),
      meet('tried'),
      reap('child'),
    ],
    pinned: [
      ready(PAGES),
      filled(PAGES),
      pin(1, SRC + 1, 1, PIN.read),
      io('move', 0, PAGES, {src: SRC, ret: EAGAIN, out: 1}),
      io('move', 1, 1, {src: SRC + 1, ret: EBUSY}),
      unpin(1),
      io('move', 1, PAGES - 1, {src: SRC + 1}),
      load(0, PAGES, 10, {each: 1}),
    ],
    areas: [
      ready(PAGES),
      filled(PAGES),
      io('move', SRC, 1, {src: SRC + 1, ret: EINVAL}),
      protect(SRC, PAGES, R),
      io('move', 0, 1, {src: SRC, ret: EINVAL}),
      io('move', 0, 1, {src: SRC, mode: 4, ret: EINVAL}),
    ],
  },
  on: [
    holds('6.18'),
    holds('6.12'),
    differs('6.6', 'does not know it', 'serve: expected 0, found EINVAL'),
  ],
};
