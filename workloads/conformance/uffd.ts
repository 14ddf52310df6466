// tools/testing/selftests/mm/uffd-unit-tests.c: registration, faults on missing pages, minor
// faults, poison, SIGBUS, and what is refused while a mapping changes; over all kinds of memory
// that each applies to.

import {
  advise,
  all,
  load,
  loadDies,
  lock,
  meet,
  PIN,
  pin,
  pinned,
  SIGBUS,
  sleepMs,
  state,
  store,
  storeDies,
  unpin,
} from './moves.ts';
import {differs, holds, type Move, type Selftest} from './selftest.ts';
import {
  ALIAS,
  casesFor,
  close,
  EAGAIN,
  EBUSY,
  EEXIST,
  ENOENT,
  EVENT,
  FEATURE,
  io,
  MINOR,
  MISSING,
  O_NONBLOCK,
  readEvent,
  readFails,
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
import {EFAULT, EINVAL} from './numbers.ts';

const SOURCE = 'selftests/mm/uffd-unit-tests.c';

/** Without userfaultfd of this kind: 5.4 knows neither the features nor the ioctls. */
const ON: Selftest['on'] = [holds('6.18'), holds('6.12')];

/** Every page of the area, one per unit: what a thread finds. */
const each = (m: UffdMemory) => ({stride: m.unit, each: 1});

/** ioctls of a range, bit n for number n; measured on Linux 6.18 for all modes and kinds. */
function ioctls(m: UffdMemory, mode: number): number {
  const base = m.unit > 1 ? 0x10c : 0x13c;
  return base | ((mode & WP) === 0 ? 0 : 0x40) | ((mode & MINOR) === 0 ? 0 : 0x80);
}

const registers = (m: UffdMemory): readonly Move[] => [
  uffd(),
  io('api', 0, 0, {ret: EINVAL}),
  ...[1, 2, 3, 4, 5, 6, 7].map((mode) => {
    if (m.anon && (mode & MINOR) !== 0) return register(0, m.pages, mode, {ret: EINVAL});
    return all(register(0, m.pages, mode, {out: ioctls(m, mode)}), io('unregister', 0, m.pages));
  }),
  register(0, m.pages, 0, {ret: EINVAL}),
  register(0, m.pages, 8, {ret: EINVAL}),
  register(0, m.unit, MISSING),
  ...(m.unit > 1 ? [register(0, 1, MISSING, {ret: EINVAL})] : []),
  uffd(0, 6),
  register(0, m.pages, MISSING, {fd: 6, ret: EBUSY}),
  close(6),
  state('vmas', 0, m.pages, 2),
  close(),
  // Mappings of hugetlbfs never merge.
  state('vmas', 0, m.pages, m.unit > 1 ? 2 : 1),
];

const zeropage = (m: UffdMemory): readonly Move[] => {
  if (m.unit > 1) {
    return [uffd(), register(0, m.pages, MISSING), io('zeropage', 0, m.unit, {ret: EINVAL})];
  }
  return [
    uffd(),
    register(0, m.pages, MISSING),
    io('zeropage', 0, 1, {out: 1}),
    load(0, 1, 0),
    io('zeropage', 0, 1, {ret: EEXIST}),
    io('zeropage', UNITS, 1, {ret: ENOENT}),
    thread('reader', serve({missing: 2}, 'zeropage'), meet('served')),
    load(1, 1, 0),
    store(2, 1, 9),
    load(2, 1, 9),
    meet('served'),
  ];
};

const missing = (m: UffdMemory): readonly Move[] => [
  source(m),
  uffd(),
  register(0, m.pages, MISSING),
  thread('reader', serve({missing: UNITS}), meet('served')),
  load(0, 2, 100, each(m)),
  store(2 * m.unit, 1, 7),
  load(3 * m.unit, 1, 103),
  load(2 * m.unit, 1, 7),
  meet('served'),
  io('copy', 0, m.unit, {src: SRC, ret: EEXIST}),
  io('copy', 0, m.unit, {src: SRC, mode: 2, ret: EINVAL}),
  close(),
];

/** The kernel's own faults wait for the reader as well: pins, MADV_POPULATE and mlock. */
const kernelFaults = (m: UffdMemory): readonly Move[] => [
  source(m),
  uffd(),
  register(0, m.pages, MISSING),
  thread('reader', serve({missing: UNITS}), meet('served')),
  pin(1, 0, 1, PIN.write),
  advise(m.unit, m.unit, 'populate_read'),
  advise(2 * m.unit, m.unit, 'populate_write'),
  lock(3 * m.unit, m.unit),
  meet('served'),
  pinned(1, 100),
  load(0, UNITS, 100, each(m)),
  store(0, 1, 7),
  pinned(1, 7),
  unpin(1),
];

const many = (m: UffdMemory): readonly Move[] => [
  source(m),
  uffd(),
  register(0, m.pages, MISSING),
  thread('one', load(0, UNITS, 100, each(m)), meet('all', 3)),
  thread('two', load(0, UNITS, 100, each(m)), meet('all', 3)),
  readFault(0, 0),
  io('copy', 0, m.pages, {src: SRC, out: m.pages}),
  meet('all', 3),
  close(),
];

const minor = (m: UffdMemory): readonly Move[] => [
  store(ALIAS, UNITS, 50, each(m)),
  uffd(),
  register(0, m.pages, MINOR),
  thread('reader', serve({minor: UNITS}), meet('served')),
  load(0, UNITS, 50, each(m)),
  store(0, UNITS, 60, each(m)),
  load(ALIAS, UNITS, 60, each(m)),
  meet('served'),
  io('continue', 0, m.unit, {ret: EEXIST}),
  advise(0, m.pages, 'dontneed'),
  io('continue', 0, m.pages, {out: m.pages}),
  load(0, UNITS, 60, each(m)),
];

const minorWp = (m: UffdMemory): readonly Move[] => [
  store(ALIAS, UNITS, 50, each(m)),
  uffd(),
  register(0, m.pages, MINOR | WP),
  thread('reader', serve({minor: UNITS, wp: UNITS}, 'copy', {protects: true}), meet('served')),
  load(0, UNITS, 50, each(m)),
  store(0, UNITS, 60, each(m)),
  load(ALIAS, UNITS, 60, each(m)),
  meet('served'),
];

const sigbus = (m: UffdMemory): readonly Move[] => [
  source(m),
  uffd(FEATURE.sigbus, 5, O_NONBLOCK),
  register(0, m.pages, MISSING),
  loadDies(0, 1, SIGBUS),
  storeDies(m.unit, 1, SIGBUS),
  readFails(EAGAIN),
  io('copy', 0, m.pages, {src: SRC}),
  load(0, UNITS, 100, each(m)),
  store(0, 1, 1),
];

const sigbusWp = (m: UffdMemory): readonly Move[] => [
  source(m),
  uffd(FEATURE.sigbus),
  register(0, m.pages, MISSING | WP),
  io('copy', 0, m.pages, {src: SRC, mode: 2}),
  load(0, UNITS, 100, each(m)),
  storeDies(0, 1, SIGBUS),
  load(0, 1, 100),
  writeProtect(0, m.pages, false),
  store(0, 1, 1),
];

const poison = (m: UffdMemory): readonly Move[] => [
  uffd(),
  register(0, m.pages, MISSING),
  io('poison', 0, m.unit, {out: m.unit}),
  io('poison', 0, m.unit, {ret: EEXIST}),
  loadDies(0, 1, SIGBUS),
  storeDies(0, 1, SIGBUS),
  advise(0, m.unit, 'dontneed'),
  ...(m.unit > 1 ? [] : [io('zeropage', 0, 1), load(0, 1, 0)]),
];

/** madvise waits for its event to be read; until then fills are refused. */
const mmapChanging = (m: UffdMemory): readonly Move[] => [
  source(m),
  uffd(FEATURE.eventRemove),
  register(0, m.pages, MISSING),
  io('copy', 0, m.unit, {src: SRC}),
  thread('changer', advise(0, m.unit, 'dontneed'), meet('gone')),
  sleepMs(1),
  io('copy', m.unit, m.unit, {src: SRC, ret: EAGAIN}),
  readEvent(EVENT.remove, 0, {to: m.unit}),
  meet('gone'),
  // A file still has the page.
  io('copy', 0, m.unit, {src: SRC, ret: m.shared ? EEXIST : 0}),
  io('copy', m.unit, m.unit, {src: SRC}),
  load(0, 1, 100),
];

const shared = (m: UffdMemory): boolean => m.shared;

export const UFFD: Selftest = {
  name: 'uffd',
  summary: 'userfaultfd: registration, missing and minor faults, poison, SIGBUS (6.6+)',
  source: SOURCE,
  cases: {
    ...casesFor('register-ioctls', registers),
    ...casesFor('zeropage', zeropage),
    ...casesFor('missing', missing),
    ...casesFor('many-faulters', many),
    ...casesFor('kernel-faults', kernelFaults),
    ...casesFor('minor', minor, shared),
    ...casesFor('minor-wp', minorWp, shared),
    ...casesFor('sigbus', sigbus),
    ...casesFor('sigbus-wp', sigbusWp),
    ...casesFor('poison', poison),
    ...casesFor('mmap-changing', mmapChanging),
  },
  on: [...ON, differs('5.4', 'knows neither mode', 'UFFDIO_REGISTER.*found EINVAL')],
};

/** A source beyond the mapping, and one that is not there: what a copy says. */
export const UFFD_COPY: Selftest = {
  name: 'uffd-copy',
  summary: 'UFFDIO_COPY: what it refuses and what it faults in',
  source: SOURCE,
  cases: {
    ...casesFor('source', (m) => [
      source(m),
      uffd(),
      register(0, m.pages, MISSING),
      io('copy', 0, m.unit, {src: SRC + 2 * m.pages, ret: EFAULT}),
      io('copy', 0, m.unit, {src: SRC, mode: 1}),
      io('copy', 0, m.pages, {src: SRC, ret: EEXIST}),
      io('copy', m.unit, m.pages, {src: SRC, ret: ENOENT}),
      load(0, 1, 100),
      io('copy', m.unit, m.pages - m.unit, {src: SRC + m.unit, out: m.pages - m.unit}),
      load(0, UNITS, 100, each(m)),
    ]),
  },
  on: [holds('6.18'), holds('6.6'), holds('5.4')],
};
