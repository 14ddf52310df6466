// tools/testing/selftests/mm/cow.c, anonymous memory: after fork nobody sees what the other writes,
// in every kind of memory; and what somebody has pinned stays what the page table shows.
//
// A pin stands for a page in a pipe (vmsplice: a plain reference) or in a buffer of io_uring or of
// the gup test (FOLL_PIN | FOLL_LONGTERM).

import {COW_MEMORY, type CowMemory, HUGETLB_MEMORY, SMALL_MEMORY} from './cow_memory.ts';
import {
  advise,
  all,
  fork,
  inChild,
  load,
  map,
  meet,
  PIN,
  pin,
  pinned,
  protect,
  R,
  reap,
  RW,
  state,
  store,
  unmap,
  unpin,
} from './moves.ts';
import {differs, holds, type Move, type Selftest} from './selftest.ts';

/** The region of a memory kind holds OLD when a test begins. */
const OLD = 1;
const NEW = 2;

type CowTest = (memory: CowMemory) => readonly Move[];

/** Read-only and back: a shortcut for pages that become writable again must not skip COW. */
const toggled = (m: CowMemory): Move => all(protect(0, m.pages, R), protect(0, m.pages, RW));
const write = (m: CowMemory): Move => store(0, m.pages, NEW);

/** The parent writes; the child still reads what was. */
const parentWrites =
  (toggle: boolean): CowTest =>
  (m) => [
    fork('child', load(0, m.pages, OLD), meet('read'), meet('written'), load(0, m.pages, OLD)),
    meet('read'),
    ...(toggle ? [toggled(m)] : []),
    write(m),
    load(0, m.pages, NEW),
    meet('written'),
    reap('child'),
  ];

/**
 * The child holds the pages in a pipe and unmaps them: the parent's later write must not show
 * there.
 */
const childSplices =
  (toggle: boolean): CowTest =>
  (m) => [
    fork(
      'child',
      pin(1, 0, m.pages, PIN.vmsplice),
      unmap(0, m.pages),
      meet('unmapped'),
      meet('written'),
      pinned(1, OLD),
      unpin(1),
    ),
    meet('unmapped'),
    ...(toggle ? [toggled(m)] : []),
    write(m),
    load(0, m.pages, NEW),
    meet('written'),
    reap('child'),
  ];

/** The parent holds the pages in a pipe and unmaps them: the child's write must not show there. */
const parentSplices =
  (beforeFork: boolean): CowTest =>
  (m) => [
    ...(beforeFork ? [pin(1, 0, m.pages, PIN.vmsplice)] : []),
    fork('child', meet('unmapped'), write(m), load(0, m.pages, NEW), meet('written')),
    ...(beforeFork ? [] : [pin(1, 0, m.pages, PIN.vmsplice)]),
    unmap(0, m.pages),
    meet('unmapped'),
    meet('written'),
    pinned(1, OLD),
    unpin(1),
    reap('child'),
  ];

/** A buffer that a device may write: page table and pin stay one, whatever comes between. */
const pinnedForWriting =
  (forks: boolean): CowTest =>
  (m) => [
    pin(1, 0, m.pages, PIN.write),
    ...(forks
      ? [fork('child', meet('forked'), meet('written'), load(0, m.pages, OLD)), meet('forked')]
      : [toggled(m)]),
    write(m),
    pinned(1, NEW),
    ...(forks ? [meet('written'), reap('child')] : []),
    unpin(1),
  ];

type Sharing = 'shared' | 'previously shared' | 'exclusive';

/** A read-only longterm pin: later writes through the page table are seen through it. */
const pinnedForReading =
  (sharing: Sharing): CowTest =>
  (m) => [
    ...(sharing === 'shared'
      ? [fork('child', meet('forked'), meet('written')), meet('forked')]
      : []),
    ...(sharing === 'previously shared' ? [inChild('gone', load(0, m.pages, OLD))] : []),
    pin(1, 0, m.pages, PIN.read),
    write(m),
    pinned(1, NEW),
    unpin(1),
    ...(sharing === 'shared' ? [meet('written'), reap('child')] : []),
  ];

const TESTS: Readonly<Record<string, CowTest>> = {
  basic: parentWrites(false),
  'basic, mprotect': parentWrites(true),
  'vmsplice and unmap in child': childSplices(false),
  'vmsplice and unmap in child, mprotect': childSplices(true),
  'vmsplice before fork, unmap in parent': parentSplices(true),
  'vmsplice and unmap in parent after fork': parentSplices(false),
  'pinned for writing': pinnedForWriting(false),
  'pinned for writing, fork': pinnedForWriting(true),
  'read pin on shared': pinnedForReading('shared'),
  'read pin on previously shared': pinnedForReading('previously shared'),
  'read pin on exclusive': pinnedForReading('exclusive'),
};

/** Every test (but those with a pipe, when `splice` is false) in every kind of memory. */
function casesOf(kinds: Readonly<Record<string, CowMemory>>, splice = true): Selftest['cases'] {
  const tests = Object.entries(TESTS).filter(([name]) => splice || !name.includes('vmsplice'));
  return Object.fromEntries(
    Object.entries(kinds).flatMap(([kind, memory]) =>
      tests.map(([name, test]) => [`${kind}: ${name}`, [...memory.setup, ...test(memory)]]),
    ),
  );
}

const source = 'selftests/mm/cow.c';

export const COW: Selftest = {
  name: 'cow',
  summary: 'after fork no write of the other is seen, pins included (5.19+)',
  source,
  swapPages: 65_536,
  cases: casesOf(SMALL_MEMORY),
  on: [
    holds('6.18'),
    holds('6.6'),
    differs(
      '5.4',
      'reuses by mapcount',
      'vmsplice and unmap in child.*found pinned page 0: content 2',
    ),
  ],
};

export const COW_THP: Selftest = {
  name: 'cow-thp',
  summary: 'copy on write with transparent huge pages, whole and in parts',
  source,
  swapPages: 65_536,
  cases: casesOf(COW_MEMORY),
  on: [
    holds('6.18'),
    holds('6.6'),
    differs(
      '5.4',
      'reuses by mapcount',
      'vmsplice and unmap in child.*found pinned page 0: content 2',
    ),
  ],
};

/** A page of hugetlbfs in a pipe leaks, which the selftest expects to fail: left out. */
export const COW_HUGETLB: Selftest = {
  name: 'cow-hugetlb',
  summary: 'copy on write of hugetlb pages, and their pins (5.19+)',
  source,
  cases: casesOf(HUGETLB_MEMORY, false),
  on: [
    holds('6.18'),
    holds('6.6'),
    differs('5.4', 'reuses by mapcount', 'read pin on shared .*read pin 1: expected'),
  ],
};

/** Small pages that become a huge one before or after fork are private still. */
const THP = 512;
const HALF = 256;
const collapsible = all(
  map(0, THP),
  advise(0, THP, 'nohugepage'),
  store(0, THP, OLD),
  advise(0, THP, 'hugepage'),
  state('huge', 0, THP, 0),
);
const whole: CowMemory = {pages: THP, setup: []};

/** Only [from, from + pages) is in the child. */
function collapseAfterFork(from: number, pages: number): readonly Move[] {
  const hidden = from === 0 ? pages : 0;
  const kept = pages === THP;
  return [
    collapsible,
    ...(kept ? [] : [advise(hidden, HALF, 'dontfork')]),
    fork('child', load(from, pages, OLD), meet('read'), meet('written'), load(from, pages, OLD)),
    meet('read'),
    // Before 6.18 a range without a writable page is not collapsed.
    ...(kept ? [store(0, 1, NEW)] : [advise(hidden, HALF, 'dofork')]),
    advise(0, THP, 'collapse'),
    state('huge', 0, THP, THP),
    write(whole),
    load(0, THP, NEW),
    meet('written'),
    reap('child'),
  ];
}

export const COW_COLLAPSE: Selftest = {
  name: 'cow-collapse',
  summary: 'MADV_COLLAPSE before and after fork leaves pages private (6.1+)',
  source,
  cases: {
    'before fork': [
      collapsible,
      advise(0, THP, 'collapse'),
      state('huge', 0, THP, THP),
      ...parentWrites(false)(whole),
    ],
    'fully shared': collapseAfterFork(0, THP),
    'lower half shared': collapseAfterFork(0, HALF),
    'upper half shared': collapseAfterFork(HALF, HALF),
  },
  on: [
    holds('6.18'),
    holds('6.6'),
    differs('5.5', 'does not know it', 'before fork 6 madvise collapse: .*found EINVAL'),
  ],
};
