// What was in the page cache when a recording began.
//
// A recording does not say which pages of a file fault-around could map: those in memory, up to date, and not marked as the start of
// the next readahead (PG_readahead). It is an input all the same, and the recorded counters tell of it: a read fault
// maps every page of its window that can be mapped, so a window that gave 15 pages instead of 16 holds one that
// could not. Which one is found by putting many windows together: pages of a window that gave all it had were there; a page that
// faulted on its own although its neighbours had been mapped around it was not.
//
// The evidence is collected by a replay in which everything is cached, the marks are derived from it, and the replay is
// repeated with them, until nothing changes. Reports say how many pages were marked.

/** Pages of files, by name, that fault-around passes over until a fault on the page itself. */
export type CacheMarks = ReadonlyMap<string, ReadonlySet<number>>;

/** One recorded read fault beside the simulated one. */
interface Window {
  readonly op: number;
  readonly file: string;
  /** Pages that the simulated fault mapped around the faulting one, and those that it passed over because of a mark. */
  readonly mapped: readonly number[];
  readonly passed: readonly number[];
  /** How many more the simulated fault mapped than the recorded one. */
  readonly surplus: number;
}

/** What one replay showed. */
export class CacheEvidence {
  private readonly windows: Window[] = [];
  /** First operation in which a page faulted on its own, by file and page. */
  private readonly alone = new Map<string, number>();

  /** A read fault of both kernels on a page of `file`. */
  window(window: Window): void {
    this.windows.push(window);
  }

  /** The recorded kernel faulted on a page that is mapped here. */
  faultedAlone(op: number, file: string, page: number): void {
    const key = `${page} ${file}`;
    if (!this.alone.has(key)) this.alone.set(key, op);
  }

  /** Marks for the next replay; equal to `marks` when there is nothing to learn. */
  improve(marks: CacheMarks): CacheMarks {
    const next = new Map([...marks].map(([file, pages]) => [file, new Set(pages)]));
    const present = this.knownPresent();
    for (const window of this.windows) {
      if (window.surplus >= 0) continue;
      // Too few here: marks of this window were wrong.
      for (const page of window.passed.slice(0, -window.surplus))
        next.get(window.file)?.delete(page);
    }
    const short = this.windows.filter((window) => window.surplus > 0);
    const votes = this.votes(short, present);
    for (const window of short) {
      let left = window.surplus;
      const pages = next.get(window.file) ?? new Set<number>();
      next.set(window.file, pages);
      for (const page of window.mapped) if (pages.has(page)) left--;
      const candidates = window.mapped
        .filter((page) => !pages.has(page) && !present.has(`${page} ${window.file}`))
        .sort(
          (a, b) => this.rank(votes, window.file, b) - this.rank(votes, window.file, a) || a - b,
        );
      for (const page of candidates.slice(0, Math.max(0, left))) pages.add(page);
    }
    return next;
  }

  /** Pages that a window which gave all it had shows to have been there from the start. */
  private knownPresent(): ReadonlySet<string> {
    const present = new Set<string>();
    for (const {op, file, mapped, surplus} of this.windows) {
      if (surplus !== 0) continue;
      for (const page of mapped) {
        const key = `${page} ${file}`;
        if (op <= (this.alone.get(key) ?? Number.POSITIVE_INFINITY)) present.add(key);
      }
    }
    return present;
  }

  private votes(short: readonly Window[], present: ReadonlySet<string>): Map<string, number> {
    const votes = new Map<string, number>();
    for (const {file, mapped} of short) {
      for (const page of mapped) {
        const key = `${page} ${file}`;
        if (!present.has(key)) votes.set(key, (votes.get(key) ?? 0) + 1);
      }
    }
    return votes;
  }

  private rank(votes: ReadonlyMap<string, number>, file: string, page: number): number {
    const key = `${page} ${file}`;
    return (this.alone.has(key) ? 1e9 : 0) + (votes.get(key) ?? 0);
  }
}

/** Number of pages marked. */
export function markCount(marks: CacheMarks): number {
  let count = 0;
  for (const pages of marks.values()) count += pages.size;
  return count;
}

/** True when both mark the same pages. */
export function sameMarks(a: CacheMarks, b: CacheMarks): boolean {
  if (markCount(a) !== markCount(b)) return false;
  for (const [file, pages] of a) {
    const other = b.get(file);
    for (const page of pages) if (other?.has(page) !== true) return false;
  }
  return true;
}
