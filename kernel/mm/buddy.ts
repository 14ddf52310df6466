// The buddy allocator: one per node, orders 0 to 10, free lists through the pages' own list words.
// A free block's first page has PG_buddy and the order; nothing is written to its other pages.
// Migrate types are folded into one: fallbacks and pageblock stealing are not modelled.
//
// Memory that was never used is not on the lists but above a frontier, and is taken in 4 MB blocks
// when no list has anything: so memory that a run does not reach costs the host nothing. A real
// kernel at boot has it all on the order-10 list, in ascending order; the order in which blocks are
// handed out is the same.

import {bug} from '../../machine/assert.ts';
import {FLAG_BITS, ORDER_SHIFT, PAGE_FLAGS_CHECK_AT_FREE, PG_buddy} from './page_flags.ts';
import {MAX_ORDER, type NodeSpan, type Pages} from './page.ts';
import type {PageLists} from './page_list.ts';

const BLOCK = 1 << MAX_ORDER;

/** The free memory of one node. */
export class Buddy {
  /** NR_FREE_PAGES of the node, without per-CPU lists. */
  freePages: number;
  private readonly span: NodeSpan;
  private readonly flags: Int32Array;
  /** Number of the free list of order 0; the others follow. */
  private readonly lists0: number;
  /** First page that has never been used, and the end of those that may be. */
  private frontier: number;
  private limit: number;

  constructor(
    pages: Pages,
    readonly lists: PageLists,
    readonly node: number,
  ) {
    this.span = pages.nodes[node];
    this.flags = pages.flags;
    this.frontier = this.span.first;
    this.limit = this.span.end;
    this.freePages = this.span.end - this.span.first;
    this.lists0 = lists.allocate(MAX_ORDER + 1);
  }

  /** Pages of the node, free or not. */
  get managed(): number {
    return this.span.end - this.span.first;
  }

  /** Free blocks of an order (as /proc/buddyinfo shows them). */
  freeBlocks(order: number): number {
    const listed = this.lists.count[this.lists0 + order];
    return order < MAX_ORDER ? listed : listed + (this.limit - this.frontier) / BLOCK;
  }

  /**
   * __rmqueue_smallest: first of 2^order free pages, all flags clear; 0 when there are none so
   * large.
   */
  alloc(order: number): number {
    const {lists, lists0} = this;
    let at = order;
    while (at <= MAX_ORDER && lists.count[lists0 + at] === 0) at++;
    let block: number;
    if (at <= MAX_ORDER) {
      block = lists.popHead(lists0 + at);
    } else {
      if (this.frontier >= this.limit) return 0;
      at = MAX_ORDER;
      block = this.frontier;
      this.frontier += BLOCK;
    }
    while (at > order) {
      at--;
      this.putBlock(block + (1 << at), at);
    }
    if (order === 0) this.flags[block] = 0;
    else this.flags.fill(0, block, block + (1 << order));
    this.freePages -= 1 << order;
    return block;
  }

  /**
   * __free_one_page: gives back 2^order pages, joining buddies. Returns the order of the block that
   * results.
   */
  free(pfn: number, order: number): number {
    const {flags} = this;
    if ((flags[pfn] & (PG_buddy | PAGE_FLAGS_CHECK_AT_FREE)) !== 0) bug(`bad page ${pfn} freed`);
    this.freePages += 1 << order;
    let block = pfn;
    let at = order;
    while (at < MAX_ORDER) {
      const buddy = block ^ (1 << at);
      const word = flags[buddy];
      if ((word & PG_buddy) === 0 || word >>> ORDER_SHIFT !== at) break;
      this.lists.remove(this.lists0 + at, buddy);
      flags[buddy] = 0;
      block &= ~(1 << at);
      at++;
    }
    if (block !== pfn) flags[pfn] &= FLAG_BITS;
    this.putBlock(block, at);
    return at;
  }

  /**
   * Takes this very block out of the free lists, whatever larger block it is part of
   * (alloc_contig_range, memory failure). False when part of it is in use.
   */
  take(pfn: number, order: number): boolean {
    while (this.frontier <= pfn && this.frontier < this.limit) {
      this.putBlock(this.frontier, MAX_ORDER);
      this.frontier += BLOCK;
    }
    for (let at = order; at <= MAX_ORDER; at++) {
      const block = pfn & ~((1 << at) - 1);
      const word = this.flags[block];
      if ((word & PG_buddy) === 0 || word >>> ORDER_SHIFT !== at) continue;
      this.lists.remove(this.lists0 + at, block);
      this.carve(block, at, pfn, order);
      this.flags[pfn] = 0;
      this.freePages -= 1 << order;
      return true;
    }
    return false;
  }

  /**
   * alloc_contig_range for blocks beyond the largest order: `pages` (a power of two) aligned to
   * their size, from the end of what was never used, else out of the free lists. First page, 0 when
   * no such run is free.
   */
  takeContig(pages: number): number {
    const first = this.limit - (this.limit % pages) - pages;
    if (first >= this.frontier) {
      for (let block = first + pages; block < this.limit; block += BLOCK) {
        this.putBlock(block, MAX_ORDER);
      }
      this.limit = first;
      this.freePages -= pages;
      return first;
    }
    const {end} = this.span;
    for (let at = end - (end % pages) - pages; at >= this.span.first; at -= pages) {
      if (!this.isFree(at, pages)) continue;
      for (let block = at; block < at + pages; block += BLOCK) this.take(block, MAX_ORDER);
      return at;
    }
    return 0;
  }

  /** Every block of [first, first + pages) is free as a whole. */
  private isFree(first: number, pages: number): boolean {
    for (let block = first; block < first + pages; block += BLOCK) {
      if (block >= this.frontier && block < this.limit) continue;
      const word = this.flags[block];
      if ((word & PG_buddy) === 0 || word >>> ORDER_SHIFT !== MAX_ORDER) return false;
    }
    return true;
  }

  /** free_contig_range: gives a run of takeContig back. */
  freeContig(first: number, pages: number): void {
    for (let block = first; block < first + pages; block += BLOCK) this.free(block, MAX_ORDER);
  }

  /** Puts the halves of a block that do not hold `pfn` back. */
  private carve(block: number, order: number, pfn: number, wanted: number): void {
    let first = block;
    for (let at = order - 1; at >= wanted; at--) {
      const half = first + (1 << at);
      if (pfn >= half) {
        this.putBlock(first, at);
        first = half;
      } else {
        this.putBlock(half, at);
      }
    }
  }

  private putBlock(block: number, order: number): void {
    this.flags[block] = PG_buddy | (order << ORDER_SHIFT);
    this.lists.addHead(this.lists0 + order, block);
  }
}
