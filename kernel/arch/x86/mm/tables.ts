// Page tables below the synchronised level: PUD, PMD and PTE tables of the kernel half, made on
// demand, with population counts, so that remove_pagetable and the splitting of large pages have
// real objects to work on.
//
// A table is named by a number, which is what the entry above holds. Numbers are never used twice:
// a stale entry then always points to a table that is known to be freed, and every use of it is
// found (a real kernel may hand the same page out again and hide the bug; like KASAN's quarantine
// this is on the strict side). PTE tables hold only a count. All functions here are plain: no lock
// of the model is taken, no time passes. Callers charge for the counts returned.

import {assert} from '../../../../machine/assert.ts';
import type {PagingLayout} from './layout.ts';

/** Mark of an entry that maps memory itself (2 MB, 4 MB or 1 GB page) instead of naming a table. */
export const LARGE = 0x8000_0000;
const FREED = -1;

/** One page of page table. */
export class Table {
  /** Entries that are not none. */
  populated = 0;
  /** Entries; null in a PTE table, of which only the count is kept. */
  cells: Uint32Array | null = null;

  constructor(
    readonly number: number,
    /** Index into `lowerShifts`; FREED once the page is given back. */
    public level: number,
    readonly node: number,
  ) {}

  get freed(): boolean {
    return this.level === FREED;
  }
}

/** Work done on lower levels, for the caller to charge. */
export interface TableWork {
  tablesAllocated: number;
  tablesFreed: number;
  entriesWritten: number;
}

/** All lower tables of a machine. */
export class Tables {
  readonly work: TableWork = {tablesAllocated: 0, tablesFreed: 0, entriesWritten: 0};
  /** Tables in use, summed over levels. */
  live = 0;
  private readonly byNumber = new Map<number, Table>();
  private nextNumber = 1;
  private nextLarge = 1;

  constructor(readonly layout: PagingLayout) {}

  /** A new, empty table for `level` (0 is right below the synchronised entries). */
  allocate(level: number, node: number): Table {
    const table = new Table(this.nextNumber++, level, node);
    if (level < this.layout.lowerShifts.length - 1) {
      table.cells = new Uint32Array(this.entriesAt(level));
    }
    this.byNumber.set(table.number, table);
    this.live++;
    this.work.tablesAllocated++;
    return table;
  }

  free(table: Table): void {
    assert(!table.freed, `page table ${table.number} freed twice`);
    table.level = FREED;
    this.byNumber.delete(table.number);
    this.live--;
    this.work.tablesFreed++;
  }

  /**
   * The table that an entry names; null when the entry is none, maps a large page, or the table is
   * freed.
   */
  find(entry: number): Table | null {
    return entry === 0 || entry >= LARGE ? null : (this.byNumber.get(entry) ?? null);
  }

  /**
   * True for an entry that names a table which was freed: whoever walks through it uses freed
   * memory.
   */
  isDangling(entry: number): boolean {
    return entry !== 0 && entry < LARGE && !this.byNumber.has(entry);
  }

  /**
   * An entry that maps memory itself; every call gives another value, as another pfn or protection
   * would.
   */
  largeEntry(): number {
    return LARGE + this.nextLarge++;
  }

  /** Number of entries of a table at `level`. */
  entriesAt(level: number): number {
    const {entryShift, lowerShifts} = this.layout;
    const above = level === 0 ? entryShift : lowerShifts[level - 1];
    return 2 ** (above - lowerShifts[level]);
  }

  /** Clears the counters of `work` and returns what they were. */
  takeWork(): TableWork {
    const taken = {...this.work};
    this.work.tablesAllocated = 0;
    this.work.tablesFreed = 0;
    this.work.entriesWritten = 0;
    return taken;
  }

  /**
   * Maps `pages` pages at `offset` pages into what `table` spans, with leaves of 2^leafShift pages.
   * Entries that are populated already stay as they are.
   */
  populate(table: Table, offset: number, pages: number, leafShift: number): void {
    const shift = this.layout.lowerShifts[table.level];
    if (table.cells === null) {
      const room = this.entriesAt(table.level) - table.populated;
      const added = Math.min(pages, room);
      table.populated += added;
      this.work.entriesWritten += added;
      return;
    }
    const span = 2 ** shift;
    const {cells} = table;
    for (let at = offset; at < offset + pages; ) {
      const index = Math.floor(at / span);
      const end = Math.min((index + 1) * span, offset + pages);
      this.populateEntry(table, cells, index, at - index * span, end - at, shift, leafShift);
      at = end;
    }
  }

  private populateEntry(
    table: Table,
    cells: Uint32Array,
    index: number,
    offset: number,
    pages: number,
    shift: number,
    leafShift: number,
  ): void {
    if (shift <= leafShift) {
      if (cells[index] !== 0) return;
      cells[index] = this.largeEntry();
      table.populated++;
      this.work.entriesWritten++;
      return;
    }
    if (cells[index] === 0) {
      cells[index] = this.allocate(table.level + 1, table.node).number;
      table.populated++;
      this.work.entriesWritten++;
    }
    const below = this.find(cells[index]);
    if (below !== null) this.populate(below, offset, pages, leafShift);
  }

  /**
   * Unmaps pages; with `freeEmpty` gives back every table below `table` that has become empty
   * (remove_pagetable), without it only leaf entries go (vunmap). A large page that is covered in
   * part stays.
   */
  clear(table: Table, offset: number, pages: number, freeEmpty: boolean): void {
    const {cells} = table;
    if (cells === null) {
      const removed = Math.min(pages, table.populated);
      table.populated -= removed;
      this.work.entriesWritten += removed;
      return;
    }
    const span = 2 ** this.layout.lowerShifts[table.level];
    for (let at = offset; at < offset + pages; ) {
      const index = Math.floor(at / span);
      const end = Math.min((index + 1) * span, offset + pages);
      const below = this.find(cells[index]);
      if (below === null) {
        if (cells[index] >= LARGE && end - at === span) this.drop(table, cells, index);
      } else {
        this.clear(below, at - index * span, end - at, freeEmpty);
        if (freeEmpty && below.populated === 0) {
          this.free(below);
          this.drop(table, cells, index);
        }
      }
      at = end;
    }
  }

  private drop(table: Table, cells: Uint32Array, index: number): void {
    cells[index] = 0;
    table.populated--;
    this.work.entriesWritten++;
  }

  /**
   * A table that maps what large entry at `level` - 1 mapped, with the next smaller pages
   * (__split_large_page).
   */
  splitLarge(level: number, node: number): Table {
    const table = this.allocate(level, node);
    table.populated = this.entriesAt(level);
    this.work.entriesWritten += table.populated;
    if (table.cells !== null) {
      for (let i = 0; i < table.cells.length; i++) table.cells[i] = this.largeEntry();
    }
    return table;
  }

  /** The deepest table on the way to `offset` below `table`, with the offset into what it spans. */
  deepest(table: Table, offset: number): {table: Table; offset: number} {
    let at = {table, offset};
    while (at.table.cells !== null) {
      const span = 2 ** this.layout.lowerShifts[at.table.level];
      const index = Math.floor(at.offset / span);
      const below = this.find(at.table.cells[index]);
      if (below === null) break;
      at = {table: below, offset: at.offset - index * span};
    }
    return at;
  }

  /** Gives back everything below `table` and `table` itself. */
  freeTree(table: Table): void {
    for (const entry of table.cells ?? []) {
      const below = this.find(entry);
      if (below !== null) this.freeTree(below);
    }
    this.free(table);
  }
}
