// tools/testing/selftests/mm/mkdirty.c: an entry becomes dirty while the mapping is read-only. It
// must not become writable by that: a plain store still gets SIGSEGV, and the memory stays as it
// is.

import {
  advise,
  load,
  map,
  movePages,
  poke,
  protect,
  R,
  state,
  store,
  storeDies,
  unmap,
} from './moves.ts';
import {holds, type Move, type Selftest} from './selftest.ts';
import {close, io, MISSING, register, SRC, uffd} from './uffd_moves.ts';

const THP = 512;

/** Nothing of [0, pages) can be written, all of it holds `content`. */
const sealed = (pages: number, content: number): readonly Move[] => [
  state('writable', 0, pages, 0),
  storeDies(0, pages),
  load(0, pages, content),
];

const thp: readonly Move[] = [
  map(0, THP),
  advise(0, THP, 'hugepage'),
  store(0, THP, 1),
  state('huge', 0, THP, THP),
];

export const MKDIRTY: Selftest = {
  name: 'mkdirty',
  summary: 'an entry that becomes dirty in a read-only mapping does not become writable',
  source: 'selftests/mm/mkdirty.c',
  cases: {
    'ptrace write': [map(0, 1, R), poke(0, 1, 7), ...sealed(1, 7)],
    'ptrace write, page there': [
      map(0, 1),
      store(0, 1, 1),
      protect(0, 1, R),
      poke(0, 1, 7),
      ...sealed(1, 7),
    ],
    'ptrace write to THP': [...thp, protect(0, THP, R), poke(0, THP, 7), ...sealed(THP, 7)],
    'page migration': [
      map(0, 1),
      store(0, 1, 1),
      protect(0, 1, R),
      movePages(0, 1, 1),
      state('node', 0, 1, 1),
      movePages(0, 1, 0),
      state('node', 0, 1, 0),
      ...sealed(1, 1),
    ],
    'migration of THP': [
      ...thp,
      protect(0, THP, R),
      movePages(0, THP, 1),
      state('node', 0, 1, 1),
      movePages(0, THP, 0),
      state('node', 0, 1, 0),
      ...sealed(THP, 1),
    ],
    UFFDIO_COPY: [
      map(0, 1, R),
      map(SRC, 1),
      store(SRC, 1, 7),
      uffd(),
      register(0, 1, MISSING),
      io('copy', 0, 1, {src: SRC}),
      close(),
      state('dirty', 0, 1, 1),
      ...sealed(1, 7),
    ],
    'PTE-mapping a THP': [
      ...thp,
      protect(0, THP, R),
      unmap(THP - 1, 1),
      state('huge', 0, THP, 0),
      state('dirty', 0, THP - 1, THP - 1),
      ...sealed(THP - 1, 1),
    ],
  },
  on: [holds('6.18'), holds('6.6'), holds('5.4')],
};
