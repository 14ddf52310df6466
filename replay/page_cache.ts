// What was in the page cache while a recording was made.
//
// A recording does not say which pages of a file fault-around could map: those in memory, up to
// date, and not marked as the start of the next readahead (PG_readahead); nor which were read in
// meanwhile by calls that are not in it. That is an input all the same, and the recorded counters
// tell of it: a read fault maps every page of its window that can be mapped, so a window that gave
// 15 pages instead of 16 holds one that could not. Which one is found by putting many windows
// together: pages of a window that gave all it had were there from then on; a page that faulted on
// its own, although its neighbours had been mapped around it, was not there before. A page that was
// there stays there. A window that gave more than 16 pages touched a large folio that reaches out
// of it (6.18 maps folios whole): the smallest naturally aligned one that explains the number is
// taken.
//
// Two processes that fault on the same window at the same time pass over each other's pages:
// filemap_map_pages takes no page whose folio lock another holds. Such a window tells nothing of
// the page cache. So it is with a short window whose pages were all there before: the other process
// is not in the recording. What it passed over (first of all the pages on which the same process
// faulted later) is an input for this one fault.
//
// The evidence is collected by a replay in which everything is cached, marks are derived from it,
// and the replay is repeated with them, until nothing changes. Reports say how many pages were
// marked.

import {fitWindows} from './page_cache_fit.ts';
import type {CacheMarks, FaultWindow, LockedPages} from './page_cache_marks.ts';
import {outside, racedWindows} from './page_cache_windows.ts';

const MAX_FOLIO_ORDER = 9;

/** What one replay showed, and the pages that faulted on their own in those before it. */
export class CacheEvidence {
  private readonly windows: FaultWindow[] = [];
  /** First operation in which a page faulted on its own, by file and page. */
  private readonly alone: Map<string, number>;
  /** Pages that were mapped when something was done with them. */
  private readonly mapped: {readonly op: number; readonly file: string; readonly page: number}[];

  private readonly folios: Map<string, Map<number, number>>;
  /** Last fault on a page, by address space, file and page. */
  private readonly faults = new Map<string, number>();

  constructor(before: CacheEvidence | null = null) {
    this.alone = new Map(before?.alone);
    this.mapped = [...(before?.mapped ?? [])];
    this.folios = new Map(
      [...(before?.folios ?? [])].map(([file, folios]) => [file, new Map(folios)]),
    );
  }

  /** A read fault of both kernels on a page of `file`. */
  window(window: FaultWindow): void {
    if (window.absent >= 0) this.windows.push(window);
    else this.findFolios(window);
  }

  /** The recorded kernel faulted on `page`. */
  faulted(op: number, life: number, file: string, page: number): void {
    this.faults.set(`${life} ${keyOf(file, page)}`, op);
  }

  /**
   * The smallest folios over the ends of the window that hold as many pages outside as the kernel
   * mapped besides.
   */
  private findFolios(window: FaultWindow): void {
    const {file, first, end, absent} = window;
    for (let sum = 1; sum <= 2 * MAX_FOLIO_ORDER; sum++) {
      for (
        let order = Math.max(0, sum - MAX_FOLIO_ORDER);
        order <= Math.min(sum, MAX_FOLIO_ORDER);
        order++
      ) {
        const before = outside(window, first, sum - order);
        const after = outside(window, end, order);
        if (before < 0 || after < 0 || before + after !== -absent) continue;
        if (before > 0) this.folio(file, first, sum - order);
        if (after > 0) this.folio(file, end, order);
        return;
      }
    }
  }

  private folio(file: string, border: number, order: number): void {
    const size = 2 ** order;
    const folios = this.folios.get(file) ?? new Map<number, number>();
    folios.set((Math.ceil(border / size) - 1) * size, order);
    this.folios.set(file, folios);
  }

  /** The recorded kernel faulted on `page`, which another fault could have mapped. */
  faultedAlone(op: number, file: string, page: number): void {
    const key = keyOf(file, page);
    this.alone.set(key, Math.min(op, this.alone.get(key) ?? op));
  }

  /** A fault found `page` mapped: the last window with it before operation `op` has mapped it. */
  wasMapped(op: number, file: string, page: number): void {
    this.mapped.push({op, file, page});
  }

  /** The marks that explain the windows best. */
  marks(): CacheMarks {
    const thereFrom = this.thereFrom();
    const raced = racedWindows(this.windows);
    const short = this.windows.filter((window) => window.absent > 0 && !raced.has(window));
    const votes = new Map<string, number>();
    for (const {file, pages, op} of short) {
      for (const page of pages) {
        const key = keyOf(file, page);
        if (op < (thereFrom.get(key) ?? Number.POSITIVE_INFINITY))
          votes.set(key, (votes.get(key) ?? 0) + 1);
      }
    }
    const chosen = new Map<string, Map<number, number>>();
    for (const window of short) this.choose(window, thereFrom, votes, chosen);
    for (const [file, marks] of chosen) {
      const ofFile = short.filter((window) => window.file === file);
      this.fit(ofFile, thereFrom, marks);
    }
    for (const window of short) {
      if (markedIn(window, chosen.get(window.file)) < window.absent) raced.add(window);
    }
    const locked = new Map<number, LockedPages>();
    for (const window of raced) {
      if (window.absent > 0) locked.set(window.op, this.lockedIn(window, chosen));
    }
    return {pages: chosen, folios: this.folios, locked};
  }

  /**
   * What a raced window passed over: what is marked anyhow, then pages on which its process faulted
   * later, the last ones first.
   */
  private lockedIn(
    window: FaultWindow,
    marks: ReadonlyMap<string, ReadonlyMap<number, number>>,
  ): LockedPages {
    const {op, file, pages, absent} = window;
    const marked = (page: number): boolean => (marks.get(file)?.get(page) ?? 0) > op;
    const later = (page: number): number => Number(this.faultedAfter(window, page));
    const free = pages.filter((page) => !marked(page));
    free.sort((a, b) => later(b) - later(a) || b - a);
    const missing = Math.max(absent - (pages.length - free.length), 0);
    return {file, pages: free.slice(0, missing)};
  }

  /**
   * The first operation that shows a page to be there: a window that gave all it had, or a fault on
   * the page.
   */
  private thereFrom(): Map<string, number> {
    const first = new Map<string, number>();
    const note = (key: string, op: number): void => {
      first.set(key, Math.min(op, first.get(key) ?? Number.POSITIVE_INFINITY));
    };
    for (const window of this.windows) {
      for (const page of this.given(window)) note(keyOf(window.file, page), window.op);
    }
    for (const [key, op] of this.alone) note(key, op);
    for (const {op, file, page} of this.mapped) {
      const window = this.lastWindow(op, file, page);
      if (window !== null) note(keyOf(file, page), window.op);
    }
    return first;
  }

  /**
   * Pages that a window mapped for certain: all, or all but those on which its process faulted
   * later.
   */
  private given(window: FaultWindow): readonly number[] {
    if (window.absent === 0) return window.pages;
    const rest = window.pages.filter((page) => !this.faultedAfter(window, page));
    return window.pages.length - rest.length === window.absent ? rest : [];
  }

  private faultedAfter({op, life, file}: FaultWindow, page: number): boolean {
    return (this.faults.get(`${life} ${keyOf(file, page)}`) ?? 0) > op;
  }

  private lastWindow(op: number, file: string, page: number): FaultWindow | null {
    let last: FaultWindow | null = null;
    for (const window of this.windows) {
      if (window.op >= op) break;
      if (window.file === file && window.pages.includes(page)) last = window;
    }
    return last;
  }

  private fit(
    short: readonly FaultWindow[],
    thereFrom: ReadonlyMap<string, number>,
    marks: Map<number, number>,
  ): void {
    const until = (file: string, page: number): number =>
      thereFrom.get(keyOf(file, page)) ?? Number.POSITIVE_INFINITY;
    const {file: name} = short[0];
    const windows = short.map(({file, op, pages, absent}) => ({
      candidates: pages.filter((page) => until(file, page) > op),
      absent,
    }));
    const marked = new Set(marks.keys());
    fitWindows(windows, marked, (page) => this.alone.has(keyOf(name, page)));
    marks.clear();
    for (const page of marked) marks.set(page, until(name, page));
  }

  /** Marks the likeliest pages of a short window. */
  private choose(
    {op, file, pages, absent}: FaultWindow,
    thereFrom: ReadonlyMap<string, number>,
    votes: ReadonlyMap<string, number>,
    chosen: Map<string, Map<number, number>>,
  ): void {
    let marks = chosen.get(file);
    if (marks === undefined) {
      marks = new Map();
      chosen.set(file, marks);
    }
    const until = (page: number): number =>
      thereFrom.get(keyOf(file, page)) ?? Number.POSITIVE_INFINITY;
    const rank = (page: number): number => {
      const known = marks.has(page) ? 2e9 : 0;
      const alone = this.alone.has(keyOf(file, page)) ? 1e9 : 0;
      return known + alone + (votes.get(keyOf(file, page)) ?? 0);
    };
    const candidates = pages.filter((page) => until(page) > op);
    candidates.sort((a, b) => rank(b) - rank(a) || b - a);
    for (const page of candidates.slice(0, absent)) marks.set(page, until(page));
  }
}

function keyOf(file: string, page: number): string {
  return `${page} ${file}`;
}

function markedIn({op, pages}: FaultWindow, marks?: ReadonlyMap<number, number>): number {
  return pages.filter((page) => (marks?.get(page) ?? 0) > op).length;
}
