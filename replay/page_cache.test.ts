import assert from 'node:assert/strict';
import {test} from 'node:test';
import {CacheEvidence, markCount, sameMarks, type CacheMarks} from './page_cache.ts';

const EVER = Number.POSITIVE_INFINITY;

function marksOf(evidence: CacheEvidence): [number, number][] {
  return [...(evidence.marks().get('lib') ?? [])].sort((a, b) => a[0] - b[0]);
}

test('a page is found where two short windows overlap', () => {
  const evidence = new CacheEvidence();
  evidence.window({op: 1, file: 'lib', pages: [1, 2, 3, 4], absent: 1});
  evidence.window({op: 2, file: 'lib', pages: [4, 5, 6], absent: 1});
  assert.deepEqual(marksOf(evidence), [[4, EVER]]);
});

test('pages of a full window are there from then on, and may be missing before', () => {
  const evidence = new CacheEvidence();
  evidence.window({op: 1, file: 'lib', pages: [1, 2], absent: 0});
  evidence.window({op: 2, file: 'lib', pages: [1, 2, 3], absent: 1});
  evidence.window({op: 7, file: 'lib', pages: [3, 4], absent: 0});
  assert.deepEqual(marksOf(evidence), [[3, 7]]);
});

test('a page that faulted alone was the missing one', () => {
  const evidence = new CacheEvidence();
  evidence.window({op: 1, file: 'lib', pages: [1, 2, 3, 4], absent: 1});
  evidence.faultedAlone(5, 'lib', 2);
  assert.deepEqual(marksOf(evidence), [[2, 5]]);
});

test('full windows need no marks', () => {
  const evidence = new CacheEvidence();
  evidence.window({op: 1, file: 'lib', pages: [1, 2, 3, 4], absent: 0});
  assert.equal(markCount(evidence.marks()), 0);
});

test('marks are compared by page and end', () => {
  const a: CacheMarks = new Map([['lib', new Map([[3, 9]])]]);
  assert.equal(sameMarks(a, new Map([['lib', new Map([[3, 9]])]])), true);
  assert.equal(sameMarks(a, new Map([['lib', new Map([[3, 8]])]])), false);
  assert.equal(sameMarks(a, new Map([['lib', new Map([[4, 9]])]])), false);
});
