// tools/testing/selftests/mm/mseal_test.c, the part about mappings.

import {
  advise,
  call,
  EINVAL,
  ENOMEM,
  EPERM,
  load,
  map,
  protect,
  R,
  remap,
  seal,
  state,
  store,
  unmap,
} from './moves.ts';
import {addr, differs, holds, PAGE, type Selftest} from './selftest.ts';

const munmap = (at: number, pages: number, ret: number) =>
  call('munmap', [addr(at), pages * PAGE], ret);
/** MAP_PRIVATE | MAP_FIXED | MAP_ANONYMOUS. */
const mapOver = (at: number, pages: number, ret: number) =>
  call('mmap', [addr(at), pages * PAGE, 3, 0x32, -1, 0], ret);

export const MSEAL: Selftest = {
  name: 'mseal',
  summary: 'sealed mappings cannot be unmapped, moved, replaced or re-protected (6.10+)',
  source: 'selftests/mm/mseal_test.c, outcomes of Documentation/userspace-api/mseal.rst',
  cases: {
    arguments: [
      map(0, 4),
      seal(0, 4, EINVAL, 1),
      call('mseal', [addr(0) + 1, PAGE, 0], EINVAL),
      unmap(2, 1),
      seal(0, 4, ENOMEM),
      protect(0, 2, R),
    ],
    mprotect: [map(0, 4), store(0, 4, 7), seal(0, 4), protect(0, 4, R, EPERM), store(0, 4, 8)],
    'mprotect, part': [map(0, 4), seal(1, 2), state('vmas', 0, 4, 3), protect(0, 4, R, EPERM)],
    munmap: [map(0, 4), store(0, 4, 7), seal(0, 4), munmap(0, 4, EPERM), load(0, 4, 7)],
    'munmap, part': [map(0, 4), store(0, 4, 7), seal(2, 1), munmap(0, 4, EPERM), load(0, 4, 7)],
    'mmap over it': [map(0, 4), store(0, 4, 7), seal(0, 4), mapOver(1, 1, EPERM), load(0, 4, 7)],
    mremap: [
      map(0, 4),
      seal(0, 4),
      remap(0, 4, 2, 0, 0, EPERM),
      remap(0, 4, 8, 1, 0, EPERM),
      remap(0, 4, 4, 3, 100, EPERM),
      map(100, 4),
      remap(100, 4, 4, 3, 0, EPERM),
    ],
    'madvise, writable': [map(0, 4), store(0, 4, 7), seal(0, 4), advise(0, 4, 'dontneed')],
    'madvise, read-only': [
      map(0, 4),
      store(0, 4, 7),
      protect(0, 4, R),
      seal(0, 4),
      advise(0, 4, 'dontneed', EPERM),
      load(0, 4, 7),
    ],
    'seals do not merge with others': [map(0, 2), seal(0, 2), map(2, 2), state('vmas', 0, 4, 2)],
  },
  on: [
    holds('6.18'),
    holds('6.12'),
    differs('6.6', 'does not know it', 'mprotect 3 mseal: expected 0, found ENOSYS'),
  ],
};
