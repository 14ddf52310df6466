// tools/testing/selftests/mm/uffd-unit-tests.c: events. Whoever forks, remaps, unmaps or takes
// pages away goes on when the reader has read of it; the reader can follow the memory to where it
// is then.

import {advise, fork, load, map, meet, reap, remap, sleepMs, state, store, unmap} from './moves.ts';
import {differs, holds, type Move, type Selftest} from './selftest.ts';
import {
  casesFor,
  close,
  EAGAIN,
  EVENT,
  FEATURE,
  io,
  MISSING,
  readEvent,
  readFault,
  register,
  serve,
  source,
  SRC,
  thread,
  uffd,
  type UffdMemory,
  UNITS,
  WP,
  writeProtect,
} from './uffd_moves.ts';

const ALL = FEATURE.eventFork | FEATURE.eventRemap | FEATURE.eventRemove | FEATURE.eventUnmap;
const CHILD_FD = 9;
const AWAY = 0xc0_000;
const each = (m: UffdMemory) => ({stride: m.unit, each: 1});

/** A child's faults come to the descriptor that the fork's message gave. */
const events =
  (wp: boolean) =>
  (m: UffdMemory): readonly Move[] => [
    source(m),
    uffd(ALL),
    register(0, m.pages, wp ? MISSING | WP : MISSING),
    io('copy', 0, 2 * m.unit, {src: SRC, mode: wp ? 2 : 0}),
    thread(
      'reader',
      readEvent(EVENT.fork, 0, {childFd: CHILD_FD}),
      // The child's: what is missing there, and what is protected.
      serve({missing: m.shared ? 1 : 2, wp: wp ? 1 : 0}, 'copy', {fd: CHILD_FD}),
      meet('child served'),
      readEvent(EVENT.remove, 0, {to: m.unit}),
      readEvent(EVENT.remap, 2 * m.unit, {to: AWAY, pages: m.unit}),
      readEvent(EVENT.unmap, 2 * m.unit, {to: 3 * m.unit}),
      readEvent(EVENT.unmap, 3 * m.unit, {to: 4 * m.unit}),
      meet('read'),
    ),
    fork(
      'child',
      load(0, 2, 100, each(m)),
      load(2 * m.unit, 1, 102),
      ...(wp ? [store(0, 1, 7)] : []),
      ...(m.shared ? [] : [load(3 * m.unit, 1, 103)]),
    ),
    reap('child'),
    meet('child served'),
    advise(0, m.unit, 'dontneed'),
    remap(2 * m.unit, m.unit, m.unit, 3, AWAY),
    unmap(3 * m.unit, m.unit),
    meet('read'),
    state('vmas', 3 * m.unit, m.unit, 0),
    close(CHILD_FD),
    close(),
  ];

const SIMPLE: Selftest['cases'] = {
  'fork without event': [
    map(0, UNITS),
    uffd(),
    register(0, UNITS, MISSING),
    // The child has left userfaultfd: it finds zeros at once.
    fork('child', load(0, UNITS, 0)),
    reap('child'),
  ],
  'remapped memory faults at its new place': [
    map(0, UNITS),
    map(SRC, UNITS),
    store(SRC, UNITS, 100, {each: 1}),
    uffd(FEATURE.eventRemap),
    register(0, UNITS, MISSING),
    thread(
      'reader',
      readEvent(EVENT.remap, 0, {to: AWAY, pages: UNITS}),
      readFault(AWAY + 1, 0),
      io('copy', AWAY, UNITS, {src: SRC}),
      meet('done'),
    ),
    remap(0, UNITS, UNITS, 3, AWAY),
    load(AWAY + 1, 1, 101),
    meet('done'),
  ],
  'remapped without event leaves': [
    map(0, UNITS),
    store(0, UNITS, 5),
    uffd(),
    register(0, UNITS, MISSING | WP),
    writeProtect(0, UNITS, true),
    remap(0, UNITS, UNITS, 3, AWAY),
    store(AWAY, UNITS, 6),
    advise(AWAY, UNITS, 'dontneed'),
    load(AWAY, UNITS, 0),
  ],
  'remapped with event stays protected': [
    map(0, UNITS),
    store(0, UNITS, 5),
    uffd(FEATURE.eventRemap),
    register(0, UNITS, WP),
    writeProtect(0, UNITS, true),
    thread(
      'reader',
      readEvent(EVENT.remap, 0, {to: AWAY, pages: UNITS}),
      serve({wp: UNITS}),
      meet('done'),
    ),
    remap(0, UNITS, UNITS, 3, AWAY),
    state('uffd-wp', AWAY, UNITS, UNITS),
    store(AWAY, UNITS, 6),
    meet('done'),
  ],
  'fills are refused while the forker waits': [
    map(0, UNITS),
    uffd(FEATURE.eventFork),
    register(0, UNITS, MISSING),
    thread(
      'reader',
      sleepMs(1),
      io('zeropage', 0, UNITS, {ret: EAGAIN}),
      readEvent(EVENT.fork, 0, {childFd: CHILD_FD}),
      // Until the forker runs again.
      sleepMs(1),
      io('zeropage', 0, UNITS),
      io('zeropage', 0, UNITS, {fd: CHILD_FD}),
      meet('done'),
    ),
    fork('child', load(0, UNITS, 0)),
    reap('child'),
    meet('done'),
    load(0, UNITS, 0),
  ],
  'the last reader exits': [
    map(0, UNITS),
    uffd(),
    register(0, UNITS, MISSING),
    fork('reader', meet('forked'), readFault(0, 0)),
    meet('forked'),
    // The child has inherited the descriptor: the context lives on until it exits.
    close(),
    load(0, UNITS, 0),
    reap('reader'),
  ],
};

export const UFFD_EVENTS: Selftest = {
  name: 'uffd-events',
  summary: 'userfaultfd: fork, mremap, munmap and madvise wait for their reader (4.11+, wp 5.19+)',
  source: 'selftests/mm/uffd-unit-tests.c',
  cases: {...casesFor('events', events(false)), ...casesFor('events-wp', events(true)), ...SIMPLE},
  on: [
    holds('6.18'),
    holds('6.12'),
    differs(
      '5.4',
      'takes no pages of hugetlbfs',
      'events hugetlb .*madvise dontneed: .*found EINVAL',
    ),
  ],
};
