import assert from 'node:assert/strict';
import {test} from 'node:test';
import {CacheEvidence} from './page_cache.ts';
import {markCount, sameMarks, type CacheMarks, type FaultWindow} from './page_cache_marks.ts';

const EVER = Number.POSITIVE_INFINITY;

/** The window of pages 0 to 15 of a long mapping. */
function window(op: number, pages: number[], absent: number, first = 0): FaultWindow {
  const span = {first, end: first + 16, low: 0, high: 0x1000};
  const startNs = op * 10_000;
  return {op, file: 'lib', pages, absent, ...span, life: 0, startNs, endNs: startNs + 3000};
}

function marksOf(evidence: CacheEvidence): [number, number][] {
  return [...(evidence.marks().pages.get('lib') ?? [])].sort((a, b) => a[0] - b[0]);
}

test('a page is found where two short windows overlap', () => {
  const evidence = new CacheEvidence();
  evidence.window(window(1, [1, 2, 3, 4], 1));
  evidence.window(window(2, [4, 5, 6], 1));
  assert.deepEqual(marksOf(evidence), [[4, EVER]]);
});

test('pages of a full window are there from then on, and may be missing before', () => {
  const evidence = new CacheEvidence();
  evidence.window(window(1, [1, 2], 0));
  evidence.window(window(2, [1, 2, 3], 1));
  evidence.window(window(7, [3, 4], 0));
  assert.deepEqual(marksOf(evidence), [[3, 7]]);
});

test('a page that faulted alone was the missing one', () => {
  const evidence = new CacheEvidence();
  evidence.window(window(1, [1, 2, 3, 4], 1));
  evidence.faultedAlone(5, 'lib', 2);
  assert.deepEqual(marksOf(evidence), [[2, 5]]);
});

test('full windows need no marks', () => {
  const evidence = new CacheEvidence();
  evidence.window(window(1, [1, 2, 3, 4], 0));
  assert.equal(markCount(evidence.marks().pages), 0);
});

test('marks are compared by page and end', () => {
  const mark = (page: number, until: number): CacheMarks => ({
    pages: new Map([['lib', new Map([[page, until]])]]),
    folios: new Map(),
    locked: new Map(),
  });
  assert.equal(sameMarks(mark(3, 9), mark(3, 9)), true);
  assert.equal(sameMarks(mark(3, 9), mark(3, 8)), false);
  assert.equal(sameMarks(mark(3, 9), mark(4, 9)), false);
});

test('more than a window full is explained by the smallest folio over its end', () => {
  const evidence = new CacheEvidence();
  // The mapping begins with the window: what was mapped besides lies behind it.
  evidence.window({...window(1, [], -2, 0x566), low: 0x566});
  assert.deepEqual([...(evidence.marks().folios.get('lib') ?? [])], [[0x574, 2]]);
  const start = new CacheEvidence();
  start.window(window(1, [], -3, 0x563));
  assert.deepEqual([...(start.marks().folios.get('lib') ?? [])], [[0x560, 2]]);
});

test('a page that was written without a read first was not mapped around', () => {
  const evidence = new CacheEvidence();
  evidence.window(window(1, [1, 2, 3], 1));
  evidence.wasMapped(4, 'lib', 3);
  evidence.faultedAlone(5, 'lib', 1);
  assert.deepEqual(marksOf(evidence), [[1, 5]]);
});

test('faults at the same time on the same pages pass over what the other has locked', () => {
  const evidence = new CacheEvidence();
  const other = {life: 1, startNs: 12_000, endNs: 14_000};
  evidence.window(window(1, [1, 2, 3, 4], 1));
  evidence.window({...window(2, [1, 2, 3, 4], 2), ...other});
  evidence.faulted(9, 1, 'lib', 3);
  const {pages, locked} = evidence.marks();
  assert.equal(markCount(pages), 0);
  assert.deepEqual(
    [...locked],
    [
      [1, {file: 'lib', pages: [4]}],
      [2, {file: 'lib', pages: [3, 4]}],
    ],
  );
  assert.equal(sameMarks(evidence.marks(), evidence.marks()), true);
});

test('faults of one address space, or of different times, are not raced', () => {
  const evidence = new CacheEvidence();
  evidence.window(window(1, [1, 2], 1));
  evidence.window({...window(1, [1, 2], 1), op: 2});
  evidence.window({...window(7, [1, 2], 1), life: 1});
  assert.equal(evidence.marks().locked.size, 0);
});

test('where the pages that are missing faulted later, the others were there', () => {
  const evidence = new CacheEvidence();
  evidence.window({...window(1, [1, 2, 3], 3), life: 1});
  evidence.window(window(4, [1, 2, 3], 1));
  evidence.faulted(6, 0, 'lib', 2);
  evidence.window({...window(8, [1, 2, 3], 0), life: 2});
  assert.deepEqual(marksOf(evidence), [
    [1, 4],
    [2, 8],
    [3, 4],
  ]);
});

test('a short window of pages that were all there before met a process that was not recorded', () => {
  const evidence = new CacheEvidence();
  evidence.window(window(1, [1, 2, 3], 0));
  evidence.window({...window(5, [1, 2, 3], 2), life: 1});
  const {pages, locked} = evidence.marks();
  assert.equal(markCount(pages), 0);
  assert.deepEqual([...locked], [[5, {file: 'lib', pages: [3, 2]}]]);
});
