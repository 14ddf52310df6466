// A small scatter plot in text: x by rank (thread counts double), y linear from zero.

import {padEnd, padStart} from './number.ts';

const HEIGHT = 10;
const COLUMN = 6;

type Point = readonly [number, number];

/**
 * Lines of a plot of several sets over the union of their x; `both` marks a cell that more than one
 * set hits.
 */
export function drawPlot(
  sets: readonly (readonly Point[])[],
  marks: readonly string[],
  both: string,
): string[] {
  const xs = [...new Set(sets.flat().map((point) => point[0]))].sort((a, b) => a - b);
  const top = Math.max(...sets.flat().map((point) => point[1]));
  if (xs.length === 0 || !(top > 0)) return [];
  const grid = Array.from({length: HEIGHT + 1}, () => new Array<string>(xs.length).fill(''));
  sets.forEach((set, i) => {
    for (const [x, y] of set) {
      const row = HEIGHT - Math.round((y / top) * HEIGHT);
      const column = xs.indexOf(x);
      grid[row][column] = grid[row][column] === '' ? marks[i] : both;
    }
  });
  const lines = grid.map((row, i) => {
    const label = i % 5 === 0 ? ((top * (HEIGHT - i)) / HEIGHT).toFixed(2) : '';
    return `${padStart(label, 8)} |${row.map((mark) => padStart(mark, COLUMN)).join('')}`.trimEnd();
  });
  const axis = `${padEnd('', 9)}+${'-'.repeat(COLUMN * xs.length)}`;
  const names = `${padEnd('', 10)}${xs.map((x) => padStart(String(x), COLUMN)).join('')}`;
  return [...lines, axis, names];
}
