// tools/testing/selftests/mm/uffd-unit-tests.c: write protection, and what fork, pins, swap,
// mprotect and empty entries make of it.

import {
  advise,
  all,
  fork,
  inChild,
  load,
  MAP_HUGETLB,
  map,
  meet,
  PIN,
  pin,
  protect,
  R,
  reap,
  RW,
  state,
  store,
  sysfs,
  unpin,
} from './moves.ts';
import {differs, holds, type Move, type Selftest} from './selftest.ts';
import {
  casesFor,
  close,
  ENOENT,
  EVENT,
  FD,
  FEATURE,
  io,
  readEvent,
  register,
  serve,
  thread,
  uffd,
  type UffdMemory,
  UNITS,
  WP,
  writeProtect,
} from './uffd_moves.ts';
import {EINVAL} from './numbers.ts';

const CHILD_FD = 9;
const each = (m: UffdMemory) => ({stride: m.unit, each: 1});
/** A huge entry counts for all of its pages. */
const protectedPages = (m: UffdMemory, units: number): Move =>
  state('uffd-wp', 0, m.pages, units * m.unit);
const filled = (m: UffdMemory): Move =>
  all(m.anon ? advise(0, m.pages, 'nohugepage') : () => {}, store(0, UNITS, 20, each(m)));

const basic = (m: UffdMemory): readonly Move[] => [
  filled(m),
  uffd(),
  register(0, m.pages, WP),
  writeProtect(0, m.pages, true),
  protectedPages(m, UNITS),
  thread('reader', serve({wp: 2}), meet('served')),
  load(0, UNITS, 20, each(m)),
  store(0, 1, 30),
  store(2 * m.unit, 1, 32),
  meet('served'),
  protectedPages(m, UNITS - 2),
  protect(0, m.pages, R),
  protect(0, m.pages, RW),
  protectedPages(m, UNITS - 2),
  io('writeprotect', 0, m.unit, {mode: 3, ret: EINVAL}),
  io('writeprotect', 0, m.unit, {mode: 4, ret: EINVAL}),
  close(),
  protectedPages(m, 0),
  store(0, UNITS, 40, each(m)),
];

const forked = (m: UffdMemory): readonly Move[] => [
  filled(m),
  uffd(),
  register(0, m.pages, WP),
  writeProtect(0, m.pages, true),
  inChild(
    'child',
    state('uffd-wp', 0, m.pages, 0),
    load(0, UNITS, 20, each(m)),
    store(0, 1, m.shared ? 20 : 77),
  ),
  protectedPages(m, UNITS),
  load(0, UNITS, 20, each(m)),
  advise(0, m.pages, m.anon ? 'pageout' : 'dontneed'),
  inChild('second', state('uffd-wp', 0, m.pages, 0)),
  writeProtect(0, m.pages, false),
  protectedPages(m, 0),
];

/** The reader gets a descriptor for the child, which keeps its protection. */
const forkedWithEvent =
  (pins: boolean) =>
  (m: UffdMemory): readonly Move[] => [
    filled(m),
    uffd(FEATURE.eventFork),
    register(0, m.pages, WP),
    writeProtect(0, m.pages, true),
    ...(pins ? [pin(1, 0, 1, PIN.read)] : []),
    thread(
      'reader',
      readEvent(EVENT.fork, 0, {childFd: CHILD_FD}),
      serve({wp: 1}, 'copy', {fd: CHILD_FD}),
      meet('served'),
    ),
    fork(
      'child',
      state('uffd-wp', 0, m.pages, m.pages),
      load(0, UNITS, 20, each(m)),
      store(0, 1, 21),
      state('uffd-wp', 0, m.pages, m.pages - m.unit),
    ),
    reap('child'),
    meet('served'),
    protectedPages(m, UNITS),
    ...(pins ? [unpin(1)] : []),
    writeProtect(0, m.pages, false),
    protectedPages(m, 0),
    load(0, 1, m.shared ? 21 : 20),
  ];

/** A page that fork copies at once because it is pinned is no exception. */
const forkedPinned = (m: UffdMemory): readonly Move[] => [
  filled(m),
  uffd(),
  register(0, m.pages, WP),
  writeProtect(0, m.pages, true),
  pin(1, 0, 1, PIN.read),
  inChild('child', state('uffd-wp', 0, m.pages, 0), load(0, UNITS, 20, each(m))),
  protectedPages(m, UNITS),
  unpin(1),
];

/** Protection stays over DONTNEED where the memory is a file's. */
const zapped = (m: UffdMemory): readonly Move[] => [
  filled(m),
  uffd(),
  register(0, m.pages, WP),
  writeProtect(0, m.pages, true),
  advise(0, m.pages, 'dontneed'),
  protectedPages(m, UNITS),
  thread('reader', serve({wp: UNITS}), meet('served')),
  store(0, UNITS, 70, each(m)),
  meet('served'),
  protectedPages(m, 0),
];

const unpopulated: Selftest['cases'] = {
  'wp-unpopulated': [
    map(0, UNITS),
    uffd(FEATURE.wpUnpopulated),
    register(0, UNITS, WP),
    // Nothing there: the markers are what pagemap shows.
    writeProtect(0, UNITS, true),
    state('uffd-wp', 0, UNITS, UNITS),
    writeProtect(0, UNITS, false),
    state('uffd-wp', 0, UNITS, 0),
    writeProtect(0, UNITS, true),
    // Reading the page of zeros keeps the protection.
    load(0, 1, 0),
    state('uffd-wp', 0, UNITS, UNITS),
    thread('reader', serve({wp: 2}), meet('served')),
    store(0, 2, 5),
    meet('served'),
    state('uffd-wp', 0, UNITS, UNITS - 2),
    advise(0, UNITS, 'dontneed'),
    state('uffd-wp', 0, UNITS, 0),
  ],
  'wp-unpopulated without the feature': [
    map(0, UNITS),
    uffd(),
    register(0, UNITS, WP),
    writeProtect(0, UNITS, true),
    state('uffd-wp', 0, UNITS, 0),
    store(0, UNITS, 5),
  ],
  'swapped out': [
    map(0, UNITS),
    store(0, UNITS, 5),
    uffd(),
    register(0, UNITS, WP),
    writeProtect(0, UNITS, true),
    advise(0, UNITS, 'pageout'),
    state('swapped', 0, UNITS, UNITS),
    state('uffd-wp', 0, UNITS, UNITS),
    thread('reader', serve({wp: UNITS}), meet('served')),
    load(0, UNITS, 5),
    store(0, UNITS, 6),
    meet('served'),
  ],
  'huge page': [
    map(0, 512),
    advise(0, 512, 'hugepage'),
    store(0, 512, 5),
    state('huge', 0, 512, 512),
    uffd(),
    register(0, 512, WP),
    writeProtect(0, 512, true),
    state('huge', 0, 512, 512),
    state('uffd-wp', 0, 512, 512),
    thread('reader', serve({wp: 1}), meet('served')),
    store(7, 1, 6),
    meet('served'),
    state('huge', 0, 512, 0),
    state('uffd-wp', 0, 512, 511),
    load(8, 504, 5),
  ],
  'wp-async': [
    map(0, UNITS),
    store(0, UNITS, 5),
    uffd(FEATURE.wpAsync),
    register(0, UNITS, WP),
    writeProtect(0, UNITS, true),
    store(0, 2, 6),
    state('uffd-wp', 0, UNITS, UNITS - 2),
  ],
  'not registered for it': [
    map(0, UNITS),
    uffd(),
    register(0, UNITS, 1),
    writeProtect(0, UNITS, true, {ret: ENOENT}),
    writeProtect(UNITS, UNITS, true, {ret: ENOENT}),
  ],
  'a part of a huge page of hugetlbfs': [
    sysfs('/proc/sys/vm/nr_hugepages', 256),
    map(0, 512, RW, MAP_HUGETLB),
    uffd(),
    register(0, 512, WP),
    writeProtect(0, 1, true, {ret: EINVAL, fd: FD}),
  ],
};

export const UFFD_WP: Selftest = {
  name: 'uffd-wp',
  summary:
    'userfaultfd: no write to a protected page goes unseen; forks, pins, swap, markers (6.7+)',
  source: 'selftests/mm/uffd-unit-tests.c',
  swapPages: 65_536,
  cases: {
    ...casesFor('wp', basic),
    ...casesFor('wp-fork', forked),
    ...casesFor('wp-fork-with-event', forkedWithEvent(false)),
    ...casesFor('wp-fork-pin', forkedPinned),
    ...casesFor('wp-fork-pin-with-event', forkedWithEvent(true)),
    ...casesFor('wp-zap', zapped, (m) => !m.anon),
    ...unpopulated,
  },
  on: [
    holds('6.18'),
    holds('6.12'),
    differs('6.6', 'cannot protect asynchronously', 'wp-async 3 userfaultfd: .*found EINVAL'),
  ],
};
