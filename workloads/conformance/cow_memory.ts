// Kinds of anonymous memory that cow.c tests. Each holds content 1 in its `pages` pages from page 0
// on.

import {
  advise,
  all,
  inChild,
  load,
  MAP_HUGETLB,
  map,
  protect,
  R,
  remap,
  RW,
  state,
  store,
  sysfs,
} from './moves.ts';
import type {Move} from './selftest.ts';

export interface CowMemory {
  readonly pages: number;
  readonly setup: readonly Move[];
}

const THP = 512;
const HALF = 256;
const AWAY = 4096;

const swappedOut = (pages: number): Move =>
  all(advise(0, pages, 'pageout'), state('swapped', 0, pages, pages));

const thp = all(
  map(0, THP),
  advise(0, THP, 'hugepage'),
  store(0, THP, 1),
  state('huge', 0, THP, THP),
);
/** The folio stays, its mapping is split. */
const pteMapped = all(thp, protect(0, 1, R), protect(0, 1, RW), state('huge', 0, THP, 0));
const single = all(pteMapped, advise(1, THP - 1, 'dontneed'));
const mremapped = all(thp, remap(HALF, HALF, HALF, 3, AWAY), state('huge', 0, THP, 0));
const partlyShared = all(
  thp,
  advise(HALF, HALF, 'dontfork'),
  inChild('early', load(0, HALF, 1)),
  advise(HALF, HALF, 'dofork'),
);

const small = all(map(0, 1), store(0, 1, 1));

export const SMALL_MEMORY: Readonly<Record<string, CowMemory>> = {
  'base page': {pages: 1, setup: [small]},
  'swapped base page': {pages: 1, setup: [small, swappedOut(1)]},
};

export const COW_MEMORY: Readonly<Record<string, CowMemory>> = {
  THP: {pages: THP, setup: [thp]},
  'swapped THP': {pages: THP, setup: [thp, swappedOut(THP)]},
  'PTE-mapped THP': {pages: THP, setup: [pteMapped]},
  'swapped PTE-mapped THP': {pages: THP, setup: [pteMapped, swappedOut(THP)]},
  'single PTE of THP': {pages: 1, setup: [single]},
  'swapped single PTE of THP': {pages: 1, setup: [single, swappedOut(1)]},
  'partially mremapped THP': {pages: HALF, setup: [mremapped]},
  'partially shared THP': {pages: THP, setup: [partlyShared]},
};

export const HUGETLB_MEMORY: Readonly<Record<string, CowMemory>> = {
  hugetlb: {
    pages: THP,
    setup: [
      sysfs('/proc/sys/vm/nr_hugepages', 8),
      map(0, THP, RW, MAP_HUGETLB),
      store(0, THP, 1),
      state('huge', 0, THP, THP),
    ],
  },
};
