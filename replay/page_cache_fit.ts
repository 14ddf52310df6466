// Which pages of one file were not to be mapped, given how many of each window were not.
//
// A first guess takes the pages that most short windows share; where windows overlap, it can put
// too many into one of them. So it is bettered step by step: a page is taken out, put in, or
// exchanged for another, as long as the windows' sum of errors becomes less. Few windows are short,
// so this is cheap: windows x pages x pages at most, a few times.

/** One window that gave less than it could have: candidates, and how many of them were missing. */
export interface ShortWindow {
  readonly candidates: readonly number[];
  readonly absent: number;
}

const MAX_ROUNDS = 8;

/**
 * Betters `marked` in place until no single step helps. Pages for which `known` is true stay as
 * they are.
 */
export function fitWindows(
  windows: readonly ShortWindow[],
  marked: Set<number>,
  known: (page: number) => boolean = () => false,
): void {
  const byPage = new Map<number, ShortWindow[]>();
  for (const window of windows) {
    for (const page of window.candidates) {
      if (known(page)) continue;
      const list = byPage.get(page);
      if (list === undefined) byPage.set(page, [window]);
      else list.push(window);
    }
  }
  for (let round = 0; round < MAX_ROUNDS; round++) {
    let better = false;
    for (const window of windows) {
      while (surplus(window, marked) !== 0 && step(window, byPage, marked)) better = true;
    }
    if (!better) return;
  }
}

function surplus({candidates, absent}: ShortWindow, marked: ReadonlySet<number>): number {
  let count = 0;
  for (const page of candidates) if (marked.has(page)) count++;
  return count - absent;
}

/** One change that makes the error of all windows less: false when there is none. */
function step(
  window: ShortWindow,
  byPage: ReadonlyMap<number, readonly ShortWindow[]>,
  marked: Set<number>,
): boolean {
  const tooMany = surplus(window, marked) > 0;
  for (const page of window.candidates) {
    if (marked.has(page) !== tooMany) continue;
    if (!byPage.has(page)) continue;
    if (tryToggle([page], byPage, marked)) return true;
    for (const near of byPage.get(page) ?? []) {
      for (const other of near.candidates) {
        if (
          !byPage.has(other) ||
          marked.has(other) === tooMany ||
          window.candidates.includes(other)
        )
          continue;
        if (tryToggle([page, other], byPage, marked)) return true;
      }
    }
  }
  return false;
}

/** Keeps the change when it helps. */
function tryToggle(
  pages: readonly number[],
  byPage: ReadonlyMap<number, readonly ShortWindow[]>,
  marked: Set<number>,
): boolean {
  const touched = new Set(pages.flatMap((page) => byPage.get(page) ?? []));
  const before = errorOf(touched, marked);
  for (const page of pages) toggle(marked, page);
  if (errorOf(touched, marked) < before) return true;
  for (const page of pages) toggle(marked, page);
  return false;
}

function errorOf(windows: Iterable<ShortWindow>, marked: ReadonlySet<number>): number {
  let sum = 0;
  for (const window of windows) sum += Math.abs(surplus(window, marked));
  return sum;
}

function toggle(marked: Set<number>, page: number): void {
  if (!marked.delete(page)) marked.add(page);
}
