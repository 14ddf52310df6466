import assert from 'node:assert/strict';
import {test} from 'node:test';
import {CacheEvidence, markCount, sameMarks, type CacheMarks} from './page_cache.ts';

const NOTHING: CacheMarks = new Map();

function window(op: number, mapped: number[], surplus: number, passed: number[] = []) {
  return {op, file: 'lib', mapped, passed, surplus};
}

test('a page is found where two short windows overlap', () => {
  const evidence = new CacheEvidence();
  evidence.window(window(1, [1, 2, 3, 4], 1));
  evidence.window(window(2, [4, 5, 6], 1));
  assert.deepEqual([...(evidence.improve(NOTHING).get('lib') ?? [])], [4]);
});

test('pages of a full window were there; a page that faulted alone later was not', () => {
  const evidence = new CacheEvidence();
  evidence.window(window(1, [1, 2, 3, 4], 1));
  evidence.window(window(2, [1, 2], 0));
  evidence.faultedAlone(5, 'lib', 3);
  evidence.window(window(6, [3, 4], 0));
  assert.deepEqual([...(evidence.improve(NOTHING).get('lib') ?? [])], [3]);
});

test('a mark that makes a window too small goes', () => {
  const evidence = new CacheEvidence();
  evidence.window(window(1, [1, 2], -1, [3]));
  const marks: CacheMarks = new Map([['lib', new Set([3, 9])]]);
  assert.deepEqual([...(evidence.improve(marks).get('lib') ?? [])], [9]);
});

test('marks are compared by page', () => {
  const a: CacheMarks = new Map([['lib', new Set([3])]]);
  assert.equal(sameMarks(a, new Map([['lib', new Set([3])]])), true);
  assert.equal(sameMarks(a, new Map([['lib', new Set([4])]])), false);
  assert.equal(markCount(a), 1);
});
