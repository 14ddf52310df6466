// tools/testing/selftests/mm/soft-dirty.c, and the soft-dirty part of madv_populate.c: what
// pagemap's bit 55 says after clear_refs.

import {
  advise,
  clearSoftDirty,
  load,
  map,
  mapFile,
  open,
  protect,
  R,
  RW,
  state,
  store,
  unmap,
} from './moves.ts';
import {differs, holds, type Move, type Selftest} from './selftest.ts';

const THP = 512;

const isDirty = (pages: number): Move => state('soft-dirty', 0, pages, pages);
const isClean = (pages: number): Move => state('soft-dirty', 0, pages, 0);
const round = (value: number): readonly Move[] => [
  clearSoftDirty,
  isClean(1),
  store(0, 1, value),
  isDirty(1),
];

/** Protection comes and goes; only a write makes the page soft-dirty. */
const protection: readonly Move[] = [
  store(0, 1, 1),
  isDirty(1),
  clearSoftDirty,
  isClean(1),
  protect(0, 1, R),
  isClean(1),
  protect(0, 1, RW),
  isClean(1),
  store(0, 1, 2),
  isDirty(1),
  load(0, 1, 2),
];

export const SOFT_DIRTY: Selftest = {
  name: 'soft-dirty',
  summary: 'after clear_refs exactly the pages that are written are soft-dirty again (3.11+)',
  source: 'selftests/mm/soft-dirty.c, mm/madv_populate.c',
  cases: {
    simple: [map(0, 1), store(0, 1, 1), ...round(2), ...round(3), ...round(4), ...round(5)],
    'a new mapping in an old place': [
      map(0, 1),
      clearSoftDirty,
      unmap(0, 1),
      map(0, 1),
      isDirty(1),
      load(0, 1, 0),
      isDirty(1),
    ],
    THP: [
      map(0, THP),
      advise(0, THP, 'hugepage'),
      store(0, THP, 1),
      state('huge', 0, THP, THP),
      clearSoftDirty,
      isClean(THP),
      store(0, THP, 2),
      isDirty(THP),
      clearSoftDirty,
      isClean(THP),
    ],
    'mprotect, anonymous': [map(0, 1), ...protection],
    'mprotect, file': [open(3, '/tmp/soft-dirty', 1), mapFile(0, 1, 3), ...protection],
    swapped: [
      map(0, 1),
      store(0, 1, 1),
      clearSoftDirty,
      advise(0, 1, 'pageout'),
      state('swapped', 0, 1, 1),
      isClean(1),
      load(0, 1, 1),
      isClean(1),
      store(0, 1, 2),
      isDirty(1),
      advise(0, 1, 'pageout'),
      isDirty(1),
      clearSoftDirty,
      isClean(1),
    ],
  },
  swapPages: 4096,
  on: [
    holds('6.18'),
    holds('6.6'),
    holds('5.5'),
    differs('3.10', 'does not know it', 'soft-dirty 0'),
  ],
};

/** Populating for writing is a write, for reading not. */
export const SOFT_DIRTY_POPULATE: Selftest = {
  name: 'soft-dirty-populate',
  summary: 'MADV_POPULATE_WRITE makes pages soft-dirty, MADV_POPULATE_READ does not (5.14+)',
  source: 'selftests/mm/madv_populate.c',
  cases: {
    populate: [
      map(0, THP),
      advise(0, THP, 'nohugepage'),
      clearSoftDirty,
      isClean(THP),
      advise(0, THP, 'populate_read'),
      isClean(THP),
      advise(0, THP, 'populate_write'),
      isDirty(THP),
    ],
  },
  on: [holds('6.18'), holds('6.6'), differs('5.5', 'does not know it', 'found EINVAL')],
};
