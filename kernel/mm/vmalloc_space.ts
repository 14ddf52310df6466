// Where vmalloc finds addresses: alloc_vmap_area's search, as two generations did it. Plain data
// structures; the steps they report are what the caller charges under its lock.
//
//   to 5.1: the list of busy areas, walked from where the last search ended (free_vmap_cache with
//   cached_hole_size), from
//           the bottom when less than the largest hole passed is asked for. A walk can pass every
//           area; a hole of exactly the size asked for, passed before, is not found again until
//           something below it is freed.
//   5.2 on: a tree of free blocks, augmented with the largest block below each node: a search
//   descends once
//           to the lowest block that fits (68ad4a330433, "keep track of free blocks"). Kept here as
//           a sorted array; reported as the tree's depth.
//
// Invariants: busy ranges never overlap; a range that was taken is free again only through `free`.

import {assert} from '../../machine/assert.ts';

/** A place found. `steps`: nodes looked at. */
export interface Found {
  readonly start: number;
  readonly steps: number;
}

/** A space of page numbers from which ranges are taken. */
export interface VmapSpace {
  /** First fit for `pages` pages; null when there is no such hole. */
  alloc(pages: number): Found | null;
  /** Takes exactly [start, start + pages), which must be free. */
  take(start: number, pages: number): void;
  /** Gives back a range as it was taken; returns the nodes looked at. */
  free(start: number): number;
  /** Busy ranges. */
  readonly size: number;
}

function depth(nodes: number): number {
  return Math.ceil(Math.log2(nodes + 2));
}

interface Busy {
  readonly start: number;
  readonly end: number;
  previous: Busy | null;
  next: Busy | null;
}

/** The list of busy areas with its cached position (kernels to 5.1). */
export class BusyList implements VmapSpace {
  private readonly byStart = new Map<number, Busy>();
  private head: Busy | null = null;
  private cache: Busy | null = null;
  private cachedHole = 0;

  constructor(
    readonly first: number,
    readonly last: number,
  ) {}

  get size(): number {
    return this.byStart.size;
  }

  alloc(pages: number): Found | null {
    let steps = depth(this.size);
    if (this.cache === null || pages < this.cachedHole) {
      this.cachedHole = 0;
      this.cache = null;
    }
    let before = this.cache;
    let at = before === null ? this.first : before.end;
    let next = before === null ? this.head : before.next;
    while (next !== null && at + pages > next.start) {
      steps++;
      this.cachedHole = Math.max(this.cachedHole, next.start - at);
      at = next.end;
      before = next;
      next = next.next;
    }
    if (at + pages - 1 > this.last) return null;
    this.cache = this.insertAfter(before, at, pages);
    return {start: at, steps};
  }

  take(start: number, pages: number): void {
    let before: Busy | null = null;
    for (let at = this.head; at !== null && at.start < start; at = at.next) before = at;
    assert(before === null || before.end <= start, 'vmap areas overlap');
    const next = before === null ? this.head : before.next;
    assert(next === null || start + pages <= next.start, 'vmap areas overlap');
    this.insertAfter(before, start, pages);
  }

  free(start: number): number {
    const area = this.byStart.get(start);
    assert(area !== undefined, `no vmap area starts at page ${start}`);
    this.byStart.delete(start);
    if (area.previous === null) this.head = area.next;
    else area.previous.next = area.next;
    if (area.next !== null) area.next.previous = area.previous;
    if (this.cache !== null && area.start <= this.cache.start) this.cache = area.previous;
    return depth(this.size);
  }

  private insertAfter(before: Busy | null, start: number, pages: number): Busy {
    const next = before === null ? this.head : before.next;
    const area: Busy = {start, end: start + pages, previous: before, next};
    if (before === null) this.head = area;
    else before.next = area;
    if (next !== null) next.previous = area;
    this.byStart.set(start, area);
    return area;
  }
}

/** The tree of free blocks (5.2 on). */
export class FreeTree implements VmapSpace {
  private readonly starts: number[];
  private readonly ends: number[];
  private readonly busy = new Map<number, number>();

  constructor(first: number, last: number) {
    this.starts = [first];
    this.ends = [last + 1];
  }

  get size(): number {
    return this.busy.size;
  }

  alloc(pages: number): Found | null {
    const {starts, ends} = this;
    let block = 0;
    while (block < starts.length && ends[block] - starts[block] < pages) block++;
    if (block === starts.length) return null;
    const start = starts[block];
    this.busy.set(start, pages);
    const steps = depth(starts.length);
    if (ends[block] - start === pages) this.cut(block);
    else starts[block] = start + pages;
    return {start, steps};
  }

  take(start: number, pages: number): void {
    const block = this.blockAfter(start) - 1;
    assert(block >= 0 && start + pages <= this.ends[block], 'vmap areas overlap');
    const blockStart = this.starts[block];
    const blockEnd = this.ends[block];
    this.cut(block);
    if (start + pages < blockEnd) this.insert(block, start + pages, blockEnd);
    if (blockStart < start) this.insert(block, blockStart, start);
    this.busy.set(start, pages);
  }

  free(start: number): number {
    const pages = this.busy.get(start);
    assert(pages !== undefined, `no vmap area starts at page ${start}`);
    this.busy.delete(start);
    const {starts, ends} = this;
    const steps = depth(starts.length);
    const at = this.blockAfter(start);
    const joinsLeft = at > 0 && ends[at - 1] === start;
    const joinsRight = at < starts.length && starts[at] === start + pages;
    if (joinsLeft && joinsRight) {
      ends[at - 1] = ends[at];
      this.cut(at);
    } else if (joinsLeft) ends[at - 1] = start + pages;
    else if (joinsRight) starts[at] = start;
    else this.insert(at, start, start + pages);
    return steps;
  }

  /** Index of the first free block that starts after page `start`. */
  private blockAfter(start: number): number {
    let low = 0;
    let high = this.starts.length;
    while (low < high) {
      const middle = (low + high) >>> 1;
      if (this.starts[middle] > start) high = middle;
      else low = middle + 1;
    }
    return low;
  }

  private insert(at: number, start: number, end: number): void {
    this.starts.splice(at, 0, start);
    this.ends.splice(at, 0, end);
  }

  private cut(block: number): void {
    this.starts.splice(block, 1);
    this.ends.splice(block, 1);
  }
}
