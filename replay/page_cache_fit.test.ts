import assert from 'node:assert/strict';
import {test} from 'node:test';
import fc from 'fast-check';
import {fitWindows, type ShortWindow} from './page_cache_fit.ts';

function range(first: number, end: number): number[] {
  return Array.from({length: end - first}, (_, n) => first + n);
}

function counts(windows: readonly ShortWindow[], marked: ReadonlySet<number>): number[] {
  return windows.map(({candidates}) => candidates.filter((page) => marked.has(page)).length);
}

test('overlapping windows get as many pages each as they lack', () => {
  const windows = [
    {candidates: range(605, 621), absent: 2},
    {candidates: range(600, 616), absent: 1},
    {candidates: range(616, 632), absent: 2},
    {candidates: range(611, 627), absent: 2},
  ];
  const marked = new Set([620, 619, 615]);
  fitWindows(windows, marked);
  assert.deepEqual(counts(windows, marked), [2, 1, 2, 2]);
});

test('a fit is never worse than the guess', () => {
  const window = fc.record({
    first: fc.integer({min: 0, max: 40}),
    absent: fc.integer({min: 1, max: 16}),
  });
  fc.assert(
    fc.property(fc.array(window, {maxLength: 8}), fc.array(fc.nat(56)), (shapes, guess) => {
      const windows = shapes.map(({first, absent}) => ({
        candidates: range(first, first + 16),
        absent,
      }));
      const error = (marked: ReadonlySet<number>): number =>
        counts(windows, marked).reduce((sum, n, i) => sum + Math.abs(n - windows[i].absent), 0);
      const marked = new Set(guess);
      const before = error(marked);
      fitWindows(windows, marked);
      assert.ok(error(marked) <= before);
    }),
  );
});

test('pages that are known to have been missing stay', () => {
  const marked = new Set([3]);
  fitWindows([{candidates: [1, 2, 3], absent: 0}], marked, (page) => page === 3);
  assert.deepEqual([...marked], [3]);
});
