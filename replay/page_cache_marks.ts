// What is inferred of the page cache (page_cache.ts): pages that fault-around passes over, large
// folios, and pages that another fault had locked. And the windows of faults that it follows from.

/** What is inferred of the page cache, by name of the file. */
export interface CacheMarks {
  /**
   * Pages that fault-around passes over, each until the operation of that number, or a fault on the
   * page itself.
   */
  readonly pages: ReadonlyMap<string, ReadonlyMap<number, number>>;
  /** Large folios: first page and order. */
  readonly folios: ReadonlyMap<string, ReadonlyMap<number, number>>;
  /** Pages that another fault had locked, by the operation that passed over them. */
  readonly locked: ReadonlyMap<number, LockedPages>;
}

/** Pages of one file. */
export interface LockedPages {
  readonly file: string;
  readonly pages: readonly number[];
}

/** Nothing is known: every page is cached on its own. */
export const NO_MARKS: CacheMarks = {pages: new Map(), folios: new Map(), locked: new Map()};

/** One recorded read fault beside the simulated one. */
export interface FaultWindow {
  readonly op: number;
  readonly file: string;
  /** Pages of the window, besides the faulting one, that were not mapped before it. */
  readonly pages: readonly number[];
  /** How many of them the recorded kernel did not map; negative when it mapped others besides. */
  readonly absent: number;
  /**
   * Pages of the file that the window spans, and that a large folio in it could reach: [first, end)
   * within [low, high).
   */
  readonly first: number;
  readonly end: number;
  readonly low: number;
  readonly high: number;
  /** The address space, and when its fault began and had its last answer. */
  readonly life: number;
  readonly startNs: number;
  readonly endNs: number;
}

/** Number of pages, or folios, marked. */
export function markCount(marks: CacheMarks['pages']): number {
  let count = 0;
  for (const pages of marks.values()) count += pages.size;
  return count;
}

/** True when both say the same. */
export function sameMarks(a: CacheMarks, b: CacheMarks): boolean {
  if (!sameNumbers(a.pages, b.pages) || !sameNumbers(a.folios, b.folios)) return false;
  if (a.locked.size !== b.locked.size) return false;
  for (const [op, {pages}] of a.locked) {
    if (String(b.locked.get(op)?.pages) !== String(pages)) return false;
  }
  return true;
}

/** Number of pages passed over because they were locked. */
export function lockedCount({locked}: CacheMarks): number {
  let count = 0;
  for (const {pages} of locked.values()) count += pages.length;
  return count;
}

function sameNumbers(a: CacheMarks['pages'], b: CacheMarks['pages']): boolean {
  if (markCount(a) !== markCount(b)) return false;
  for (const [file, pages] of a) {
    const other = b.get(file);
    for (const [page, value] of pages) if (other?.get(page) !== value) return false;
  }
  return true;
}
