// tools/testing/selftests/mm/cow.c, what is no anonymous memory: a private mapping of something
// that others see, too. Nobody else sees its writes, and a read-only longterm pin sees them (6.2+:
// pinning breaks COW).

import {
  advise,
  load,
  MAP_PRIVATE,
  map,
  mapFile,
  open,
  PIN,
  pin,
  pinned,
  store,
  unpin,
} from './moves.ts';
import {differs, holds, type Move, type Selftest} from './selftest.ts';

const THP = 512;
const NEW = 9;

/** A private mapping at page 0 and another view of the same at OTHER, both showing `content`. */
interface Private {
  readonly pages: number;
  readonly content: number;
  readonly setup: readonly Move[];
}
const OTHER = 4096;

const file = (name: string, content: number): Private => ({
  pages: 4,
  content,
  setup: [
    open(3, name, 4),
    mapFile(OTHER, 4, 3),
    store(OTHER, 4, content),
    mapFile(0, 4, 3, MAP_PRIVATE),
    load(0, 4, content),
  ],
});

const KINDS: Readonly<Record<string, (name: string) => Private>> = {
  'zero page': () => ({
    pages: 4,
    content: 0,
    setup: [map(0, 4), map(OTHER, 4), load(0, 4, 0), load(OTHER, 4, 0)],
  }),
  'huge zero page': () => ({
    pages: THP,
    content: 0,
    setup: [
      map(0, THP),
      advise(0, THP, 'hugepage'),
      map(OTHER, THP),
      advise(OTHER, THP, 'hugepage'),
      load(0, THP, 0),
      load(OTHER, THP, 0),
    ],
  }),
  memfd: (name) => file(`/memfd:${name}`, 3),
  tmpfile: (name) => file(`/tmp/${name}`, 4),
};

const TESTS: Readonly<Record<string, (kind: Private) => readonly Move[]>> = {
  basic: ({pages, content}) => [
    store(0, pages, NEW),
    load(0, pages, NEW),
    load(OTHER, pages, content),
  ],
  'read pin': ({pages, content}) => [
    pin(1, 0, pages, PIN.read),
    store(0, pages, NEW),
    pinned(1, NEW),
    load(OTHER, pages, content),
    unpin(1),
  ],
  'read pin before any access': ({pages, content}) => [
    advise(0, pages, 'dontneed'),
    pin(1, 0, pages, PIN.read),
    pinned(1, content),
    store(0, pages, NEW),
    pinned(1, NEW),
    unpin(1),
  ],
};

const cases = Object.fromEntries(
  Object.entries(KINDS).flatMap(([kind, make]) =>
    Object.entries(TESTS).map(([name, test], i) => {
      const memory = make(`cow${i}`);
      return [`${kind}: ${name}`, [...memory.setup, ...test(memory)]];
    }),
  ),
);

export const COW_FILES: Selftest = {
  name: 'cow-private-files',
  summary: 'private mappings of zero pages and files: writes are private, and pins see them (6.2+)',
  source: 'selftests/mm/cow.c',
  cases,
  on: [
    holds('6.18'),
    holds('6.6'),
    differs(
      '5.5',
      'pins what is shared',
      'read pin .*read pin 1: expected pinned page 0: content 9',
    ),
  ],
};
