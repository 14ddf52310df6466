// tools/testing/selftests/mm/merge.c: when neighbours become one VMA. What a mapping holds decides:
// two sides with pages merge only when these hang on the same anon_vma, and one side's pages must
// not have come by fork.

import {
  inChild,
  load,
  MAP_NORESERVE,
  MAP_PRIVATE,
  map,
  mapFile,
  open,
  uprobe,
  protect,
  R,
  remap,
  RW,
  state,
  store,
} from './moves.ts';
import {differs, holds, type Move, type Selftest} from './selftest.ts';

/** The pages from `at` on are one VMA of so many pages. */
const one = (at: number, pages: number): Move => state('vma-pages', at, 1, pages);

/** Without VM_ACCOUNT, which mappings that nobody wrote to lose when they become read-only. */
const mapped = (pages: number): Move => map(0, pages, RW, MAP_NORESERVE);

/** PROT_READ | PROT_EXEC. */
const RX = 5;

/** A page far from all others, where a mapping can wait. */
const AWAY = 1000;

export const MERGE: Selftest = {
  name: 'vma-merge',
  summary: 'mappings that become equal or adjacent merge, unless their pages forbid it',
  source: 'selftests/mm/merge.c',
  cases: {
    'mprotect unfaulted left': [
      mapped(10),
      protect(0, 5, R),
      store(5, 1, 1),
      protect(5, 5, R),
      one(0, 10),
      load(5, 1, 1),
    ],
    'mprotect unfaulted right': [
      mapped(10),
      protect(5, 5, R),
      store(0, 1, 1),
      protect(0, 5, R),
      one(0, 10),
    ],
    'mprotect unfaulted both': [
      mapped(9),
      protect(0, 3, R),
      protect(6, 3, R),
      store(3, 1, 1),
      protect(3, 3, R),
      one(0, 9),
    ],
    'mprotect faulted left, unfaulted right': [
      mapped(9),
      protect(6, 3, R),
      store(0, 1, 1),
      protect(0, 3, R),
      state('vmas', 0, 9, 3),
      protect(3, 3, R),
      one(0, 9),
    ],
    'mprotect unfaulted left, faulted right': [
      mapped(9),
      protect(0, 3, R),
      store(6, 1, 1),
      protect(6, 3, R),
      state('vmas', 0, 9, 3),
      protect(3, 3, R),
      one(0, 9),
    ],
    'mprotect, accounted': [
      map(0, 10),
      protect(0, 5, R),
      store(5, 1, 1),
      protect(5, 5, R),
      state('vmas', 0, 10, 2),
    ],
    'forked target': [
      map(0, 5),
      store(0, 1, 1),
      inChild('child', map(5, 5, R), protect(5, 5, RW), state('vmas', 0, 10, 2), load(0, 1, 1)),
    ],
    'forked source': [
      map(0, 5),
      store(0, 1, 1),
      inChild('child', map(5, 5, R), protect(0, 5, R), state('vmas', 0, 10, 2), load(0, 1, 1)),
    ],
    'mremap unfaulted behind faulted': [
      map(0, 5),
      map(AWAY, 5),
      store(0, 1, 1),
      remap(AWAY, 5, 5, 3, 5),
      one(0, 10),
    ],
    'mremap unfaulted ahead of faulted': [
      map(5, 5),
      map(AWAY, 5),
      store(5, 1, 1),
      remap(AWAY, 5, 5, 3, 0),
      one(0, 10),
    ],
    'mremap between two faulted': [
      map(0, 5),
      map(10, 5),
      map(AWAY, 5),
      store(0, 1, 1),
      store(10, 1, 1),
      remap(AWAY, 5, 5, 3, 5),
      one(0, 10),
      one(10, 5),
    ],
    'mremap between faulted and unfaulted': [
      map(0, 5),
      map(10, 5),
      map(AWAY, 5),
      store(0, 1, 1),
      remap(AWAY, 5, 5, 3, 5),
      one(0, 15),
    ],
    'mremap between unfaulted and faulted': [
      map(0, 5),
      map(10, 5),
      map(AWAY, 5),
      store(10, 1, 1),
      remap(AWAY, 5, 5, 3, 5),
      one(0, 15),
    ],
    'mremap correctly placed': [
      map(0, 15),
      store(0, 15, 1, {each: 1}),
      remap(5, 5, 5, 3, AWAY),
      state('vmas', 0, 15, 2),
      remap(AWAY, 5, 5, 3, 5),
      one(0, 15),
      load(0, 15, 1, {each: 1}),
    ],
    'mremap faulted elsewhere': [
      map(0, 5),
      map(AWAY, 5),
      store(AWAY, 1, 1),
      remap(AWAY, 5, 5, 3, 5),
      state('vmas', 0, 10, 2),
    ],
    'uprobe on a merged mapping': [
      open(3, '/tmp/probed', 4),
      mapFile(0, 1, 3, MAP_PRIVATE, RX, 0),
      load(0, 1, 0),
      uprobe(0),
      state('anon', 0, 1, 1),
      mapFile(1, 2, 3, MAP_PRIVATE, RX, 1),
      one(0, 3),
      load(0, 3, 0),
      state('anon', 0, 3, 1),
      // Another mapping of the probed page gets the breakpoint when it comes to be.
      mapFile(AWAY, 4, 3, MAP_PRIVATE, RX, 0),
      state('anon', AWAY, 4, 1),
      remap(AWAY + 3, 1, 1, 3, 3),
      load(3, 1, 0),
    ],
  },
  on: [
    holds('6.18'),
    differs(
      '6.12',
      'looks at one side only',
      'mprotect unfaulted left 5 vma-pages: expected vma-pages 10, found vma-pages 5',
    ),
  ],
};
