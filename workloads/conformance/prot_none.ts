// What happens to memory that nobody may touch: it moves, is swapped, forked, written by a
// debugger, and must come back untouchable. The kernel's selftests meet it in
// ksm_functional_tests.c (prot_none) and in mkdirty.c's forced writes; the rest is their rule
// carried on: protection belongs to the mapping, whatever brings a page in.

import {
  advise,
  fork,
  inChild,
  load,
  loadDies,
  map,
  meet,
  movePages,
  NONE,
  poke,
  protect,
  R,
  reap,
  RW,
  state,
  store,
  swapoff,
} from './moves.ts';
import {holds, type Move, type Selftest} from './selftest.ts';

const THP = 512;

/** Nobody may touch the pages; allowed again, they hold `content`. */
const untouchable = (pages: number, content: number): readonly Move[] => [
  loadDies(0, pages),
  protect(0, pages, RW),
  load(0, pages, content),
];
const small: readonly Move[] = [map(0, 4), store(0, 4, 7), protect(0, 4, NONE)];
const thp: readonly Move[] = [
  map(0, THP),
  advise(0, THP, 'hugepage'),
  store(0, THP, 7),
  state('huge', 0, THP, THP),
  protect(0, THP, NONE),
];
const toAndFro = (pages: number): readonly Move[] => [
  movePages(0, pages, 1),
  state('node', 0, 1, 1),
  movePages(0, pages, 0),
  state('node', 0, 1, 0),
];

export const PROT_NONE: Selftest = {
  name: 'prot-none',
  summary: 'PROT_NONE memory stays untouchable when it is moved, swapped, forked or poked',
  source: 'selftests/mm/ksm_functional_tests.c (prot_none), mm/mkdirty.c',
  swapPages: 8192,
  cases: {
    moved: [...small, ...toAndFro(4), ...untouchable(4, 7)],
    'THP moved': [...thp, ...toAndFro(THP), ...untouchable(THP, 7)],
    'paged out': [
      ...small,
      advise(0, 4, 'pageout'),
      state('swapped', 0, 4, 4),
      ...untouchable(4, 7),
    ],
    'protected while swapped': [
      map(0, 4),
      store(0, 4, 7),
      advise(0, 4, 'pageout'),
      protect(0, 4, NONE),
      state('swapped', 0, 4, 4),
      ...untouchable(4, 7),
    ],
    forked: [...small, inChild('child', ...untouchable(4, 7)), ...untouchable(4, 7)],
    'written by a debugger': [map(0, 1, NONE), poke(0, 1, 9), ...untouchable(1, 9)],
    'written over by a debugger': [...small, poke(0, 4, 9), ...untouchable(4, 9)],
    'written by a debugger, shared': [
      ...small,
      fork('child', meet('written'), protect(0, 4, R), load(0, 4, 7)),
      poke(0, 4, 9),
      meet('written'),
      reap('child'),
      ...untouchable(4, 9),
    ],
    'THP written by a debugger': [...thp, poke(0, THP, 9), ...untouchable(THP, 9)],
    // Last: the area is gone then.
    swapoff: [
      map(0, 4),
      store(0, 4, 7),
      advise(0, 4, 'pageout'),
      protect(0, 4, NONE),
      state('swapped', 0, 4, 4),
      swapoff,
      state('swapped', 0, 4, 0),
      ...untouchable(4, 7),
    ],
  },
  on: [holds('6.18'), holds('6.6'), holds('5.4')],
};
