// Doubly linked lists of pages through the `prev` and `next` words of struct page. A page is on one
// list at a time. A list is a number; its ends and length are here. 0 ends a list.

import type {Pages} from './page.ts';

/** A growing set of lists. */
export class PageLists {
  head = new Int32Array(64);
  tail = new Int32Array(64);
  /** Pages on the list, counting a folio as one. */
  count = new Int32Array(64);
  private used = 0;

  constructor(readonly pages: Pages) {}

  /** `lists` new, empty lists with consecutive numbers; returns the first. */
  allocate(lists: number): number {
    const first = this.used;
    this.used += lists;
    if (this.used > this.head.length) this.grow();
    return first;
  }

  /** list_add: at the front. */
  addHead(list: number, pfn: number): void {
    const {prev, next} = this.pages;
    const old = this.head[list];
    prev[pfn] = 0;
    next[pfn] = old;
    if (old === 0) this.tail[list] = pfn;
    else prev[old] = pfn;
    this.head[list] = pfn;
    this.count[list]++;
  }

  /** list_add_tail: at the end. */
  addTail(list: number, pfn: number): void {
    const {prev, next} = this.pages;
    const old = this.tail[list];
    next[pfn] = 0;
    prev[pfn] = old;
    if (old === 0) this.head[list] = pfn;
    else next[old] = pfn;
    this.tail[list] = pfn;
    this.count[list]++;
  }

  /** list_del. The page must be on this very list. */
  remove(list: number, pfn: number): void {
    const {prev, next} = this.pages;
    const before = prev[pfn];
    const after = next[pfn];
    if (before === 0) this.head[list] = after;
    else next[before] = after;
    if (after === 0) this.tail[list] = before;
    else prev[after] = before;
    prev[pfn] = 0;
    next[pfn] = 0;
    this.count[list]--;
  }

  /** Takes the first page off, 0 when the list is empty. */
  popHead(list: number): number {
    const pfn = this.head[list];
    if (pfn !== 0) this.remove(list, pfn);
    return pfn;
  }

  /** Takes the last page off, 0 when the list is empty. */
  popTail(list: number): number {
    const pfn = this.tail[list];
    if (pfn !== 0) this.remove(list, pfn);
    return pfn;
  }

  private grow(): void {
    const length = Math.max(this.used, this.head.length * 2);
    for (const name of ['head', 'tail', 'count'] as const) {
      const larger = new Int32Array(length);
      larger.set(this[name]);
      this[name] = larger;
    }
  }
}
