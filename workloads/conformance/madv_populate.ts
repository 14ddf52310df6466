// tools/testing/selftests/mm/madv_populate.c. Soft-dirty is in soft_dirty.ts, where the bits can be
// cleared.

import {advise, EINVAL, ENOMEM, load, map, mapShared, R, state, unmap, W} from './moves.ts';
import {differs, holds, type Move, type Selftest} from './selftest.ts';

const PAGES = 512;

/** Both advices over a range with a hole. */
const both = (at: number, pages: number): readonly Move[] => [
  advise(at, pages, 'populate_read', ENOMEM),
  advise(at, pages, 'populate_write', ENOMEM),
];

const populates = (advice: 'populate_read' | 'populate_write'): readonly Move[] => [
  map(0, PAGES),
  state('present', 0, PAGES, 0),
  advise(0, PAGES, advice),
  state('present', 0, PAGES, PAGES),
  state('anon', 0, PAGES, advice === 'populate_write' ? PAGES : 0),
  load(0, PAGES, 0),
];

export const MADV_POPULATE: Selftest = {
  name: 'madv-populate',
  summary: 'MADV_POPULATE_READ and _WRITE fault in, and say what an access could not do (5.14+)',
  source: 'selftests/mm/madv_populate.c',
  cases: {
    'read-only': [
      map(0, PAGES, R),
      advise(0, PAGES, 'populate_read'),
      advise(0, PAGES, 'populate_write', EINVAL),
    ],
    'write-only': [
      map(0, PAGES, W),
      advise(0, PAGES, 'populate_read', EINVAL),
      advise(0, PAGES, 'populate_write'),
    ],
    'hole in the middle': [map(0, PAGES), unmap(100, 1), ...both(0, PAGES)],
    'hole at the end': [map(0, PAGES), unmap(PAGES - 1, 1), ...both(0, PAGES)],
    'hole at the start': [map(0, PAGES), unmap(0, 1), ...both(0, PAGES)],
    'populate read': populates('populate_read'),
    'populate write': populates('populate_write'),
    shared: [
      mapShared(0, PAGES),
      advise(0, PAGES, 'populate_write'),
      state('present', 0, PAGES, PAGES),
    ],
  },
  on: [
    holds('6.18'),
    holds('6.6'),
    differs('5.5', 'does not know it', 'populate read 3 madvise .*: expected 0, found EINVAL'),
  ],
};
