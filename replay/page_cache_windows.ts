// Windows of read faults compared: which were mapped at the same time, and what a large folio over
// the end of one would add to it.

import type {FaultWindow} from './page_cache_marks.ts';

/** Recorded times are whole microseconds. */
const CLOCK_NS = 1000;

/** Windows of different address spaces that overlap, in the file and in time. */
export function racedWindows(windows: readonly FaultWindow[]): Set<FaultWindow> {
  const raced = new Set<FaultWindow>();
  const sorted = [...windows].sort((a, b) => a.startNs - b.startNs);
  const open: FaultWindow[] = [];
  for (const window of sorted) {
    let kept = 0;
    for (const other of open) {
      if (other.endNs + CLOCK_NS < window.startNs) continue;
      open[kept++] = other;
      if (other.file !== window.file || other.life === window.life) continue;
      if (other.first >= window.end || window.first >= other.end) continue;
      raced.add(other);
      raced.add(window);
    }
    open.length = kept;
    open.push(window);
  }
  return raced;
}

/**
 * Pages outside the window that a folio of this order over its border (its first page, or the one
 * past its last) holds; 0 for order 0, -1 when there cannot be such a folio.
 */
export function outside(
  {first, end, low, high}: FaultWindow,
  border: number,
  order: number,
): number {
  if (order === 0) return 0;
  const size = 2 ** order;
  const start = (Math.ceil(border / size) - 1) * size;
  const stop = start + size;
  if (start >= border || stop <= border || start < low || stop > high) return -1;
  if (border === first && stop > end) return -1;
  if (border === end && start < first) return -1;
  return border === end ? stop - border : border - start;
}
