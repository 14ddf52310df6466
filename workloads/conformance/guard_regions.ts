// tools/testing/selftests/mm/guard-regions.c: a guard is a marker in the page table, not a mapping. It outlives whatever
// happens to the mapping's pages and protection, moves with them, and goes with the mapping alone.

import {
  advise,
  adviseVector,
  all,
  EFAULT,
  EINVAL,
  ENOMEM,
  fork,
  inChild,
  load,
  loadDies,
  lock,
  MAP_PRIVATE,
  map,
  mapFile,
  open,
  protect,
  R,
  reap,
  remap,
  RW,
  state,
  store,
  storeDies,
  unlock,
  unmap,
} from './moves.ts';
import {differs, holds, type Move, PAGE, type Selftest} from './selftest.ts';

const install = (at: number, pages: number, ret = 0): Move =>
  advise(at, pages, 'guard_install', ret);
const remove = (at: number, pages: number, ret = 0): Move => advise(at, pages, 'guard_remove', ret);

/** [at, at + pages) is guarded: neither load nor store, and pagemap says so. */
const guarded = (at: number, pages: number): Move =>
  all(state('guard', at, pages, pages), loadDies(at, pages), storeDies(at, pages));

/** Ten pages, of which 2 to 4 are guarded and the others hold 7. */
const prepared: Move = all(map(0, 10), store(0, 10, 7), install(2, 3));
/** As prepared left it, at `at`. */
const intact = (at = 0): Move => all(load(at, 2, 7), guarded(at + 2, 3), load(at + 5, 5, 7));

const ANONYMOUS: Selftest['cases'] = {
  basic: [
    map(0, 10),
    install(0, 1),
    guarded(0, 1),
    store(1, 9, 7),
    install(0, 10),
    state('rss-anon', 0, 1, 0),
    guarded(0, 10),
    remove(0, 10),
    remove(0, 10),
    store(0, 10, 1),
  ],
  'several mappings': [
    map(0, 10),
    unmap(2, 2),
    unmap(6, 1),
    protect(7, 1, R),
    install(0, 10, ENOMEM),
    guarded(0, 2),
    guarded(4, 2),
    guarded(7, 3),
    remove(0, 10, ENOMEM),
    store(0, 2, 1),
    load(7, 1, 0),
  ],
  process_madvise: [
    map(0, 10),
    map(20, 10),
    adviseVector(
      'self',
      [
        [0, 1],
        [5, 2],
        [20, 10],
      ],
      'guard_install',
      13 * PAGE,
    ),
    guarded(0, 1),
    guarded(5, 2),
    guarded(20, 10),
    adviseVector(
      'self',
      [
        [0, 10],
        [20, 10],
      ],
      'guard_remove',
      20 * PAGE,
    ),
    store(0, 10, 1),
    store(20, 10, 1),
  ],
  munmap: [prepared, unmap(0, 10), map(0, 10), state('guard', 0, 10, 0), store(0, 10, 1)],
  mprotect: [
    prepared,
    protect(0, 10, R),
    guarded(2, 3),
    protect(0, 10, RW),
    intact(),
    protect(0, 10, R),
    remove(0, 10),
    load(2, 3, 0),
  ],
  'split and merge': [
    prepared,
    protect(3, 1, R),
    state('vmas', 0, 10, 3),
    intact(),
    protect(3, 1, RW),
    state('vmas', 0, 10, 1),
    intact(),
    unmap(3, 1),
    guarded(2, 1),
    guarded(4, 1),
  ],
  dontneed: [prepared, advise(0, 10, 'dontneed'), guarded(2, 3), load(0, 2, 0), load(5, 5, 0)],
  free: [prepared, advise(0, 10, 'free'), intact()],
  cold: [prepared, advise(0, 10, 'cold'), intact()],
  pageout: [prepared, advise(0, 10, 'pageout'), intact()],
  mlock: [
    map(0, 10),
    store(0, 10, 7),
    lock(0, 10),
    install(0, 10, EINVAL),
    unlock(0, 10),
    install(0, 10),
    guarded(0, 10),
    lock(0, 10, ENOMEM),
    remove(0, 10),
    store(0, 10, 1),
  ],
  'mremap move': [prepared, remap(0, 10, 10, 3, 100), intact(100)],
  'mremap expand': [
    map(0, 10),
    store(0, 10, 7),
    unmap(5, 5),
    install(0, 1),
    install(4, 1),
    remap(0, 5, 10, 1),
    guarded(0, 1),
    guarded(4, 1),
    store(5, 5, 1),
    load(1, 3, 7),
  ],
  'mremap shrink': [
    prepared,
    remap(0, 10, 4, 0),
    load(0, 2, 7),
    guarded(2, 2),
    remap(0, 4, 10, 0),
    guarded(2, 2),
    store(4, 6, 1),
  ],
  fork: [prepared, inChild('child', intact(), remove(0, 10), store(0, 10, 1)), intact()],
  'fork and write': [
    prepared,
    fork('child', store(5, 5, 8), guarded(2, 3), remove(2, 3), store(2, 3, 8)),
    reap('child'),
    intact(),
  ],
  'wipe on fork': [
    prepared,
    advise(0, 10, 'wipeonfork'),
    inChild('child', state('guard', 0, 10, 0), load(0, 10, 0)),
    intact(),
  ],
  populate: [
    prepared,
    advise(0, 10, 'populate_read', EFAULT),
    advise(0, 10, 'populate_write', EFAULT),
    intact(),
  ],
};

const FILES: Selftest['cases'] = {
  'shared file': [
    open(3, '/tmp/guarded', 10),
    mapFile(0, 10, 3),
    store(0, 10, 7),
    install(2, 3),
    intact(),
    remove(0, 10),
    load(0, 10, 7),
  ],
  'shared memory': [
    open(3, '/dev/shm/guarded', 10),
    mapFile(0, 10, 3),
    store(0, 10, 7),
    install(2, 3),
    intact(),
    remove(0, 10),
    load(0, 10, 7),
  ],
  'private beside shared': [
    open(3, '/tmp/guarded-both', 10),
    mapFile(0, 10, 3),
    mapFile(100, 10, 3, MAP_PRIVATE),
    store(0, 10, 7),
    install(2, 3),
    intact(),
    load(100, 10, 7),
    install(100, 2),
    guarded(100, 2),
    load(0, 2, 7),
    store(102, 3, 9),
    remove(0, 10),
    load(0, 10, 7),
    guarded(100, 2),
    load(102, 3, 9),
    remove(100, 2),
    load(100, 2, 7),
  ],
  'read-only file': [
    open(3, '/tmp/guarded-ro', 10),
    mapFile(0, 10, 3, MAP_PRIVATE, R),
    install(2, 3),
    load(0, 2, 0),
    guarded(2, 3),
    remove(2, 3),
    load(2, 3, 0),
  ],
};

export const GUARD_REGIONS: Selftest = {
  name: 'guard-regions',
  summary: 'guards kill whoever touches them and outlive what happens to the pages (6.13+)',
  source: 'mm/guard-regions.c; kernel.md G.2',
  swapPages: 4096,
  cases: {...ANONYMOUS, ...FILES},
  on: [
    holds('6.18'),
    differs('6.12', 'does not know them', 'basic 2 madvise .*: expected 0, found EINVAL'),
  ],
};
