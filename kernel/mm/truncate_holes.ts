// Parts of files without anything on disk: punched out, or never written since the file grew. They
// are not in the page cache when a run begins (filemap.ts takes all else to be), and reading them
// takes no disk. Disjoint ranges per file, in order; a lookup is a binary search.

/** Ranges [start, end) of pages, by file. */
export class FileHoles {
  private readonly byFile = new Map<number, {starts: number[]; ends: number[]}>();

  get any(): boolean {
    return this.byFile.size > 0;
  }

  /** Pages [start, end) of a file are a hole; `end` may be Infinity. */
  mark({id}: {readonly id: number}, start: number, end: number): void {
    if (start >= end) return;
    let holes = this.byFile.get(id);
    if (holes === undefined) {
      holes = {starts: [], ends: []};
      this.byFile.set(id, holes);
    }
    const {starts, ends} = holes;
    // Holes that touch the new one become part of it.
    const first = firstAbove(ends, start - 1);
    let count = 0;
    let from = start;
    let to = end;
    while (first + count < starts.length && starts[first + count] <= end) {
      from = Math.min(from, starts[first + count]);
      to = Math.max(to, ends[first + count]);
      count++;
    }
    starts.splice(first, count, from);
    ends.splice(first, count, to);
  }

  has({id}: {readonly id: number}, index: number): boolean {
    const holes = this.byFile.get(id);
    if (holes === undefined) return false;
    const at = firstAbove(holes.ends, index);
    return at < holes.starts.length && holes.starts[at] <= index;
  }

  /** True when a page of [start, end) is in a hole. */
  overlaps({id}: {readonly id: number}, start: number, end: number): boolean {
    const holes = this.byFile.get(id);
    if (holes === undefined) return false;
    const at = firstAbove(holes.ends, start);
    return at < holes.starts.length && holes.starts[at] < end;
  }
}

/** Index of the first of the ascending numbers that is greater than `value`. */
function firstAbove(numbers: readonly number[], value: number): number {
  let low = 0;
  let high = numbers.length;
  while (low < high) {
    const middle = (low + high) >>> 1;
    if (numbers[middle] > value) high = middle;
    else low = middle + 1;
  }
  return low;
}
