// LRU lists: five per node and memory cgroup, through the pages' own list words. The classic
// two-list LRU (6.18 with lru_gen disabled); MGLRU is not modelled. Folios wait in per-CPU batches
// before they get here: FolioBatch.

import {bug} from '../../machine/assert.ts';
import {folio_nr_pages, type Pages} from './page.ts';
import {PG_active, PG_lru, PG_swapbacked, PG_unevictable} from './page_flags.ts';
import type {PageLists} from './page_list.ts';

export const LRU_INACTIVE_ANON = 0;
export const LRU_ACTIVE_ANON = 1;
export const LRU_INACTIVE_FILE = 2;
export const LRU_ACTIVE_FILE = 3;
export const LRU_UNEVICTABLE = 4;
export const NR_LRU_LISTS = 5;

/** folio_lru_list: the list a folio belongs to by its flags. */
export function folio_lru_list(pages: Pages, head: number): number {
  const word = pages.flags[head];
  if ((word & PG_unevictable) !== 0) return LRU_UNEVICTABLE;
  const base = (word & PG_swapbacked) === 0 ? LRU_INACTIVE_FILE : LRU_INACTIVE_ANON;
  return (word & PG_active) === 0 ? base : base + 1;
}

/** The lists of one node and cgroup. */
export class Lruvec {
  /** Pages (not folios) per list: NR_INACTIVE_ANON, ... */
  readonly size = new Float64Array(NR_LRU_LISTS);
  /**
   * Costs that balance anon against file reclaim (anon_cost, file_cost), and refault bookkeeping.
   */
  anonCost = 0;
  fileCost = 0;
  nonresidentAge = 0;
  private readonly first: number;

  constructor(
    readonly lists: PageLists,
    readonly node: number,
    readonly memcg: number,
  ) {
    this.first = lists.allocate(NR_LRU_LISTS);
  }

  /** Number of the page list behind an LRU list. */
  list(lru: number): number {
    return this.first + lru;
  }

  /** Folios on a list. */
  folios(lru: number): number {
    return this.lists.count[this.first + lru];
  }

  /** Next folio to reclaim from a list: its tail; 0 when empty. */
  oldest(lru: number): number {
    return this.lists.tail[this.first + lru];
  }

  /** lruvec_add_folio: at the young end; sets PG_lru. */
  addFolio(head: number): void {
    const lru = this.enter(head);
    this.lists.addHead(this.first + lru, head);
  }

  /** lruvec_add_folio_tail: at the old end. */
  addFolioTail(head: number): void {
    const lru = this.enter(head);
    this.lists.addTail(this.first + lru, head);
  }

  /** lruvec_del_folio and clearing PG_lru. Its flags must still be those it was added under. */
  delFolio(head: number): void {
    const {pages} = this.lists;
    if ((pages.flags[head] & PG_lru) === 0) bug(`folio ${head} is not on an LRU list`);
    const lru = folio_lru_list(pages, head);
    this.lists.remove(this.first + lru, head);
    this.size[lru] -= folio_nr_pages(pages, head);
    pages.flags[head] &= ~PG_lru;
  }

  /**
   * A large folio on its list was split: the new folio `head` goes right behind it, at its place in
   * age.
   */
  addSplitTail(behind: number, head: number): void {
    const {pages, head: heads, count} = this.lists;
    const {prev, next} = pages;
    const lru = this.enter(head);
    // The size is unchanged: these pages were counted with the large folio.
    this.size[lru] -= folio_nr_pages(pages, head);
    const before = prev[behind];
    prev[head] = before;
    next[head] = behind;
    prev[behind] = head;
    if (before === 0) heads[this.first + lru] = head;
    else next[before] = head;
    count[this.first + lru]++;
  }

  private enter(head: number): number {
    const {pages} = this.lists;
    if ((pages.flags[head] & PG_lru) !== 0) bug(`folio ${head} is on an LRU list already`);
    const lru = folio_lru_list(pages, head);
    this.size[lru] += folio_nr_pages(pages, head);
    pages.flags[head] |= PG_lru;
    return lru;
  }
}

/** All lruvecs; they are made when first asked for. */
export class Lruvecs {
  private readonly byKey: Lruvec[] = [];

  constructor(
    readonly lists: PageLists,
    readonly nodes: number,
  ) {}

  /** mem_cgroup_lruvec. */
  of(node: number, memcg: number): Lruvec {
    const key = memcg * this.nodes + node;
    let lruvec = this.byKey[key];
    if (lruvec === undefined) {
      lruvec = new Lruvec(this.lists, node, memcg);
      this.byKey[key] = lruvec;
    }
    return lruvec;
  }

  /** folio_lruvec: by the folio's node and cgroup. */
  ofFolio(head: number): Lruvec {
    const {pages} = this.lists;
    return this.of(pages.nodeOf(head), pages.hasMemcgs ? pages.memcg[head] : 0);
  }
}

/**
 * folio_batch: folios that wait on one CPU for the LRU lock. PAGEVEC_SIZE was 14, 15 from 4.13 on,
 * 31 since 6.9.
 */
export class FolioBatch {
  readonly folios: Int32Array;
  count = 0;

  constructor(size: number) {
    this.folios = new Int32Array(size);
  }

  /**
   * folio_batch_add. True when the batch is full, or the folio is large, and it must be drained at
   * once.
   */
  add(pages: Pages, head: number): boolean {
    this.folios[this.count++] = head;
    return this.count === this.folios.length || folio_nr_pages(pages, head) > 1;
  }

  reset(): void {
    this.count = 0;
  }
}
