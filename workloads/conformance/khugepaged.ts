// tools/testing/selftests/mm/khugepaged.c, anonymous memory: which 2 MB ranges become one huge
// page, by the daemon and by MADV_COLLAPSE. The daemon keeps its limits (max_ptes_none,
// max_ptes_swap, max_ptes_shared), the call knows none.

import {
  advise,
  all,
  EINVAL,
  fork,
  inChild,
  load,
  map,
  meet,
  protect,
  R,
  reap,
  RW,
  sleepMs,
  state,
  store,
  sysfs,
} from './moves.ts';
import {differs, holds, type Move, type Selftest} from './selftest.ts';

const THP = 512;
const MAX_NONE = THP / 2;
const MAX_SWAP = THP / 8;
const MAX_SHARED = THP / 2;

const khugepaged = (file: string, value: number): Move =>
  sysfs(`/sys/kernel/mm/transparent_hugepage/khugepaged/${file}`, value);

/** The limits, and a daemon that looks at everything every few milliseconds. */
const settings = (maxShared: number): Move =>
  all(
    khugepaged('max_ptes_none', MAX_NONE),
    khugepaged('max_ptes_swap', MAX_SWAP),
    khugepaged('max_ptes_shared', maxShared),
    khugepaged('pages_to_scan', THP * 8),
    khugepaged('scan_sleep_millisecs', 5),
  );

/**
 * Who collapses: makes [at, at + pages) huge, or (`limit`) leaves it as it is where a limit is
 * kept.
 */
interface Collapser {
  readonly keepsLimits: boolean;
  collapse(at: number, pages: number): Move;
  refuse(at: number, pages: number): Move;
}

const DAEMON: Collapser = {
  keepsLimits: true,
  collapse: (at, pages) =>
    all(advise(at, pages, 'hugepage'), sleepMs(60), state('huge', at, pages, pages)),
  refuse: (at, pages) =>
    all(
      advise(at, pages, 'hugepage'),
      sleepMs(60),
      state('huge', at, pages, 0),
      advise(at, pages, 'nohugepage'),
    ),
};

const CALL: Collapser = {
  keepsLimits: false,
  collapse: (at, pages) =>
    all(
      advise(at, pages, 'hugepage'),
      advise(at, pages, 'collapse'),
      state('huge', at, pages, pages),
    ),
  refuse: (at, pages) =>
    all(
      advise(at, pages, 'hugepage'),
      advise(at, pages, 'collapse', EINVAL),
      state('huge', at, pages, 0),
      advise(at, pages, 'nohugepage'),
    ),
};

/** Memory that faults bring in page by page. */
const small = (pages: number): Move => all(map(0, pages), advise(0, pages, 'nohugepage'));
/** A huge page that PTEs map. */
const pteMapped = all(
  map(0, THP),
  advise(0, THP, 'hugepage'),
  store(0, THP, 1),
  state('huge', 0, THP, THP),
  advise(0, THP, 'nohugepage'),
  protect(0, 1, R),
  protect(0, 1, RW),
  state('huge', 0, THP, 0),
);

/** Collapses where the limits forbid it: only the call, which does not keep them, gets its way. */
function limited(who: Collapser, pages: number): Move {
  return who.keepsLimits ? who.refuse(0, pages) : who.collapse(0, pages);
}

const begin = settings(MAX_SHARED);

/** How many pages may be empty. */
function emptyCases(who: Collapser): Selftest['cases'] {
  return {
    full: [
      begin,
      small(4 * THP),
      store(0, 4 * THP, 1),
      who.collapse(0, 4 * THP),
      load(0, 4 * THP, 1),
    ],
    empty: [begin, small(THP), who.refuse(0, THP)],
    'single page': [
      begin,
      khugepaged('max_ptes_none', THP - 1),
      small(THP),
      store(0, 1, 1),
      who.collapse(0, THP),
      load(0, 1, 1),
      load(1, THP - 1, 0),
    ],
    'max_ptes_none and one more empty': [
      begin,
      small(THP),
      store(0, THP - MAX_NONE - 1, 1),
      limited(who, THP),
      load(0, THP - MAX_NONE - 1, 1),
    ],
    'max_ptes_none empty': [
      begin,
      small(THP),
      store(0, THP - MAX_NONE, 1),
      who.collapse(0, THP),
      load(0, THP - MAX_NONE, 1),
    ],
  };
}

/** How many may be in swap. */
function swapCases(who: Collapser): Selftest['cases'] {
  return {
    'one page swapped out': [
      begin,
      small(THP),
      store(0, THP, 1),
      advise(1, 1, 'pageout'),
      state('swapped', 0, THP, 1),
      who.collapse(0, THP),
      load(0, THP, 1),
    ],
    'max_ptes_swap and one more swapped out': [
      begin,
      small(THP),
      store(0, THP, 1),
      advise(0, MAX_SWAP + 1, 'pageout'),
      state('swapped', 0, THP, MAX_SWAP + 1),
      limited(who, THP),
      load(0, THP, 1),
    ],
    'max_ptes_swap swapped out': [
      begin,
      small(THP),
      store(0, THP, 1),
      advise(0, MAX_SWAP, 'pageout'),
      state('swapped', 0, THP, MAX_SWAP),
      who.collapse(0, THP),
      load(0, THP, 1),
    ],
  };
}

/** Pages of a huge page that is mapped page by page. */
function compoundCases(who: Collapser): Selftest['cases'] {
  return {
    'one page of a huge page': [
      begin,
      khugepaged('max_ptes_none', THP - 1),
      pteMapped,
      advise(1, THP - 1, 'dontneed'),
      who.collapse(0, THP),
      load(0, 1, 1),
    ],
    'all of a huge page': [begin, pteMapped, who.collapse(0, THP), load(0, THP, 1)],
  };
}

/** Pages that another process maps too. */
function forkCases(who: Collapser): Selftest['cases'] {
  return {
    fork: [
      begin,
      khugepaged('max_ptes_none', THP - 1),
      small(THP),
      store(0, 1, 1),
      inChild(
        'child',
        load(0, 1, 1),
        store(1, 1, 2),
        who.collapse(0, THP),
        load(0, 1, 1),
        load(1, 1, 2),
      ),
      state('huge', 0, THP, 0),
      load(0, 1, 1),
      load(1, 1, 0),
    ],
    'fork, huge page': [
      settings(THP - 1),
      map(0, THP),
      advise(0, THP, 'hugepage'),
      store(0, THP, 1),
      inChild(
        'child',
        advise(0, THP, 'nohugepage'),
        protect(0, 1, R),
        protect(0, 1, RW),
        state('huge', 0, THP, 0),
        store(0, 1, 2),
        who.collapse(0, THP),
        load(0, 1, 2),
        load(1, THP - 1, 1),
      ),
      state('huge', 0, THP, THP),
      load(0, THP, 1),
    ],
    max_ptes_shared: [
      begin,
      map(0, THP),
      advise(0, THP, 'hugepage'),
      store(0, THP, 1),
      fork(
        'child',
        advise(0, THP, 'nohugepage'),
        store(0, THP - MAX_SHARED - 1, 2),
        state('huge', 0, THP, 0),
        limited(who, THP),
        advise(0, THP, 'nohugepage'),
        store(0, THP - MAX_SHARED, 2),
        who.collapse(0, THP),
        load(0, THP - MAX_SHARED, 2),
        load(THP - MAX_SHARED, MAX_SHARED, 1),
        meet('done'),
      ),
      meet('done'),
      reap('child'),
      state('huge', 0, THP, THP),
      load(0, THP, 1),
    ],
  };
}

function casesFor(who: Collapser): Selftest['cases'] {
  return {...emptyCases(who), ...swapCases(who), ...compoundCases(who), ...forkCases(who)};
}

const source = 'selftests/mm/khugepaged.c';
const swapPages = 65_536;

export const KHUGEPAGED: Selftest = {
  name: 'khugepaged',
  summary: 'khugepaged collapses what its limits allow, and nothing else',
  source,
  swapPages,
  cases: casesFor(DAEMON),
  on: [
    holds('6.18'),
    holds('6.6'),
    differs('5.5', 'passes over compound pages', 'all of a huge page .*found huge 0'),
  ],
};

export const MADV_COLLAPSE: Selftest = {
  name: 'madv-collapse',
  summary: 'MADV_COLLAPSE collapses at once and knows no limits (6.1+)',
  source,
  swapPages,
  cases: casesFor(CALL),
  on: [holds('6.18'), holds('6.6'), differs('5.5', 'does not know it', 'expected 0, found EINVAL')],
};
