// tools/testing/selftests/mm/process_madv.c.

import {
  advise,
  adviseVector,
  EBADF,
  EINVAL,
  ESRCH,
  fork,
  load,
  map,
  meet,
  reap,
  state,
  store,
} from './moves.ts';
import {differs, holds, PAGE, type Selftest} from './selftest.ts';

const THP = 512;

export const PROCESS_MADVISE: Selftest = {
  name: 'process-madvise',
  summary: 'advice about a vector of ranges, of oneself and of another process',
  source: 'selftests/mm/process_madv.c',
  cases: {
    basic: [
      map(0, 10),
      store(0, 10, 7),
      adviseVector(
        'self',
        [
          [0, 2],
          [4, 2],
          [8, 2],
        ],
        'dontneed',
        6 * PAGE,
      ),
      load(0, 2, 0),
      load(2, 2, 7),
      load(4, 2, 0),
      load(6, 2, 7),
      load(8, 2, 0),
    ],
    'an error in the middle': [
      map(0, 2),
      store(0, 2, 7),
      adviseVector(
        'self',
        [
          [0, 2],
          [50, 2],
        ],
        'dontneed',
        2 * PAGE,
      ),
      load(0, 2, 0),
    ],
    'remote collapse': [
      fork(
        'child',
        map(0, THP),
        advise(0, THP, 'hugepage'),
        advise(0, THP, 'nohugepage'),
        store(0, THP, 7),
        state('huge', 0, THP, 0),
        advise(0, THP, 'hugepage'),
        meet('small'),
        meet('collapsed'),
        state('huge', 0, THP, THP),
        load(0, THP, 7),
      ),
      meet('small'),
      adviseVector('child child', [[0, THP]], 'collapse', THP * PAGE),
      meet('collapsed'),
      reap('child'),
    ],
    'not for others': [
      fork('child', map(0, 4), store(0, 4, 7), meet('there'), meet('told'), load(0, 4, 7)),
      meet('there'),
      adviseVector('child child', [[0, 4]], 'dontneed', EINVAL),
      adviseVector('child child', [[0, 4]], 'cold', 4 * PAGE),
      meet('told'),
      reap('child'),
    ],
    'the process is gone': [map(0, 1), adviseVector('gone', [[0, 1]], 'cold', ESRCH)],
    'no such descriptor': [map(0, 1), adviseVector('bad', [[0, 1]], 'cold', EBADF)],
    'too many elements': [map(0, 1), adviseVector('self', [[0, 1]], 'cold', EINVAL, {vlen: 1025})],
    flags: [map(0, 1), adviseVector('self', [[0, 1]], 'cold', EINVAL, {flags: 1})],
  },
  on: [
    holds('6.18'),
    differs('6.12', 'others only', 'basic 3 process_madvise dontneed: .*found EINVAL'),
    differs('5.5', 'does not exist', 'flags 2 process_madvise cold: .*found ENOSYS'),
  ],
};
