// mm/hugetlb.c, 6.18: the pools of huge pages (struct hstate), one for 2 MB and one for 1 GB.
//
// A pool has pages on a free list per node; a page in use is off the list and still counted in
// nr_huge_pages. Reservations (resv_huge_pages) are promises out of the free pages: free is never
// below resv. Surplus pages come from the buddy allocator when the pool is too small, as many as
// nr_overcommit_hugepages allows, and go back as soon as nobody needs them. All of it under
// hugetlb_lock, none of it waits: growing takes what is free, without reclaim or compaction.

import {assert} from '../../machine/assert.ts';
import type {Kernel} from '../kernel.ts';
import type {Task} from '../task.ts';
import {hugetlbWork} from './costs_hugetlb.ts';
import {
  clearMapping,
  dissolve_compound,
  folio_order,
  MAX_ORDER,
  prep_compound_page,
} from './page.ts';
import {free_pages, rmqueue} from './page_alloc.ts';
import {FLAG_BITS, PG_head, PG_hugetlb} from './page_flags.ts';

/** struct hstate. Counts in huge pages. */
export class HState {
  nrHugePages = 0;
  freeHugePages = 0;
  resvHugePages = 0;
  surplusHugePages = 0;
  /** Most pages in use at a time. */
  peakUsed = 0;
  /** nr_overcommit_huge_pages. */
  nrOvercommit = 0;
  /** By node: pages, free, surplus, and the free list, last in first out. */
  readonly nr: number[];
  readonly free: number[];
  readonly surplus: number[];
  readonly freelists: number[][];
  nextNodeToAlloc = 0;
  nextNodeToFree = 0;
  /** Small pages of one huge page. */
  readonly pages: number;

  constructor(
    readonly order: number,
    nodes: number,
  ) {
    this.pages = 2 ** order;
    const zeros = (): number[] => new Array<number>(nodes).fill(0);
    this.nr = zeros();
    this.free = zeros();
    this.surplus = zeros();
    this.freelists = this.nr.map(() => []);
  }

  /** Level of the entries that map these pages: 1 PMD, 2 PUD. */
  get level(): number {
    return this.order === 9 ? 1 : 2;
  }

  get isGigantic(): boolean {
    return this.order > MAX_ORDER;
  }

  /** persistent_huge_pages. */
  get persistent(): number {
    return this.nrHugePages - this.surplusHugePages;
  }

  /** available_huge_pages. */
  get available(): number {
    return this.freeHugePages - this.resvHugePages;
  }
}

/** The pool that a folio belongs to (folio_hstate). */
export function hstateOf(k: Kernel, head: number): HState {
  const h = k.mm.hugetlb.byOrder(folio_order(k.mm.pages, head));
  assert(h !== null, `folio ${head} of no hugetlb size`);
  return h;
}

/**
 * alloc_fresh_hugetlb_folio on exactly this node, count 0 (frozen): head, 0 when there is no
 * memory.
 */
function alloc_fresh(k: Kernel, t: Task, h: HState, node: number): number {
  const {mm} = k;
  const zone = mm.zones[node];
  if (zone.buddy.freePages - h.pages < zone.watermarks.min) return 0;
  const head = h.isGigantic ? zone.buddy.takeContig(h.pages) : rmqueue(k, t, zone, h.order);
  if (head === 0) return 0;
  const {costs, fns} = hugetlbWork(k);
  t.cpu.charge(Math.round(costs.prepPageTicks * h.pages), fns.set_max_huge_pages);
  mm.pages.flags[head] = 0;
  prep_compound_page(mm.pages, head, h.order);
  mm.pages.flags[head] |= PG_hugetlb;
  mm.pages.refcount.set(head, 0);
  return head;
}

/** update_and_free_hugetlb_folio: back to the buddy allocator. */
function free_to_buddy(k: Kernel, t: Task, h: HState, head: number): void {
  const {mm} = k;
  const {pages} = mm;
  const zone = mm.zones[pages.nodeOf(head)];
  const {costs, fns} = hugetlbWork(k);
  t.cpu.charge(costs.dissolveTicks, fns.set_max_huge_pages);
  pages.flags[head] &= ~PG_hugetlb;
  dissolve_compound(pages, head);
  clearMapping(pages, head);
  if (h.isGigantic) {
    pages.flags[head] = 0;
    zone.buddy.freeContig(head, h.pages);
  } else {
    free_pages(k, t, zone, head, h.order);
  }
}

function account(h: HState, node: number, n: number, surplus: boolean): void {
  h.nrHugePages += n;
  h.nr[node] += n;
  if (!surplus) return;
  h.surplusHugePages += n;
  h.surplus[node] += n;
}

/** enqueue_hugetlb_folio. */
function enqueue(k: Kernel, h: HState, head: number): void {
  const node = k.mm.pages.nodeOf(head);
  h.freelists[node].push(head);
  h.freeHugePages++;
  h.free[node]++;
}

/** Takes the first free page of a node off its list; 0 when there is none. */
function dequeue(h: HState, node: number): number {
  const head = h.freelists[node].pop() ?? 0;
  if (head === 0) return 0;
  h.freeHugePages--;
  h.free[node]--;
  return head;
}

/**
 * dequeue_hugetlb_folio_vma: from the node wanted, else by distance. `unreserved`: reserved pages
 * are not for this one.
 */
export function dequeue_hugetlb_folio(
  k: Kernel,
  t: Task,
  h: HState,
  node: number,
  unreserved: boolean,
): number {
  const {costs, fns} = hugetlbWork(k);
  t.cpu.charge(costs.hugetlbPageTicks, fns.alloc_hugetlb_folio);
  if (unreserved && h.available <= 0) return 0;
  for (const at of k.mm.zones[node].fallback) {
    const head = dequeue(h, at);
    if (head === 0) continue;
    k.mm.pages.refcount.set(head, 1);
    h.peakUsed = Math.max(h.peakUsed, h.nrHugePages - h.freeHugePages);
    return head;
  }
  return 0;
}

/**
 * alloc_surplus_hugetlb_folio: one page more than the pool has, in use at once. 0: not allowed, or
 * no memory.
 */
export function alloc_surplus_hugetlb_folio(k: Kernel, t: Task, h: HState, node: number): number {
  if (h.isGigantic || h.surplusHugePages >= h.nrOvercommit) return 0;
  for (const at of k.mm.zones[node].fallback) {
    const head = alloc_fresh(k, t, h, at);
    if (head === 0) continue;
    account(h, at, 1, true);
    h.peakUsed = Math.max(h.peakUsed, h.nrHugePages - h.freeHugePages);
    k.mm.pages.refcount.set(head, 1);
    return head;
  }
  return 0;
}

/**
 * alloc_hugetlb_folio_nodemask for a migration to `node` and no other: a free page that nobody has
 * reserved, else a temporary one, which is no surplus page and is freed with its last reference.
 */
export function alloc_hugetlb_folio_nodemask(k: Kernel, t: Task, h: HState, node: number): number {
  const {mm} = k;
  const {lock, temporary} = mm.hugetlb;
  const {fns} = hugetlbWork(k);
  lock.lock(t.cpu, 0, 0, fns.alloc_hugetlb_folio);
  let head = h.available > 0 ? dequeue(h, node) : 0;
  if (head === 0 && !h.isGigantic) {
    head = alloc_fresh(k, t, h, node);
    if (head !== 0) {
      account(h, node, 1, false);
      temporary.add(head);
    }
  }
  if (head !== 0) mm.pages.refcount.set(head, 1);
  lock.unlock(t.cpu, 0);
  return head;
}

/**
 * move_hugetlb_state: after a migration it is the old page that is temporary, and surplus moves
 * along.
 */
export function move_hugetlb_state(k: Kernel, h: HState, dst: number, src: number): void {
  const {temporary} = k.mm.hugetlb;
  if (!temporary.delete(dst)) return;
  temporary.add(src);
  const from = k.mm.pages.nodeOf(src);
  const to = k.mm.pages.nodeOf(dst);
  if (from === to || h.surplus[from] === 0) return;
  h.surplus[from]--;
  h.surplus[to]++;
}

/** remove_pool_hugetlb_folio: frees one free page of the next node in turn that has one. */
function remove_pool_folio(k: Kernel, t: Task, h: HState, surplus: boolean): boolean {
  const nodes = h.nr.length;
  for (let n = 0; n < nodes; n++) {
    const node = h.nextNodeToFree;
    h.nextNodeToFree = (node + 1) % nodes;
    if (h.free[node] === 0 || (surplus && h.surplus[node] === 0)) continue;
    const head = dequeue(h, node);
    account(h, node, -1, surplus);
    free_to_buddy(k, t, h, head);
    return true;
  }
  return false;
}

/** gather_surplus_pages: free pages for `delta` reservations more. False: there are not enough. */
function gather_surplus_pages(k: Kernel, t: Task, h: HState, delta: number): boolean {
  const needed = h.resvHugePages + delta - h.freeHugePages;
  const node = k.machine.topology.nodeOf[t.cpu.id];
  const fresh: number[] = [];
  while (fresh.length < needed) {
    const head = alloc_surplus_hugetlb_folio(k, t, h, node);
    if (head === 0) break;
    fresh.push(head);
  }
  const enough = fresh.length >= needed;
  if (enough) h.resvHugePages += delta;
  for (const head of fresh) {
    k.mm.pages.refcount.set(head, 0);
    if (enough) {
      enqueue(k, h, head);
    } else {
      account(h, k.mm.pages.nodeOf(head), -1, true);
      free_to_buddy(k, t, h, head);
    }
  }
  return enough;
}

/**
 * return_unused_surplus_pages: `unused` reservations end, and surplus pages that were for them go.
 */
function return_unused_surplus_pages(k: Kernel, t: Task, h: HState, unused: number): void {
  h.resvHugePages -= unused;
  assert(h.resvHugePages >= 0, 'more reservations of huge pages ended than there were');
  if (h.isGigantic) return;
  const most = Math.min(unused, h.surplusHugePages);
  for (let n = 0; n < most; n++) if (!remove_pool_folio(k, t, h, true)) return;
}

/** hugetlb_acct_memory: `delta` reservations more (or, negative, less). False: not enough pages. */
export function hugetlb_acct_memory(k: Kernel, t: Task, h: HState, delta: number): boolean {
  if (delta === 0) return true;
  const {costs, fns} = hugetlbWork(k);
  const {lock} = k.mm.hugetlb;
  lock.lock(t.cpu, 0, 0, fns.hugetlb_reserve_pages);
  t.cpu.charge(costs.regionTicks, fns.hugetlb_reserve_pages);
  let result = true;
  if (delta > 0) result = gather_surplus_pages(k, t, h, delta);
  else return_unused_surplus_pages(k, t, h, -delta);
  lock.unlock(t.cpu, 0);
  return result;
}

/**
 * free_huge_folio: the last reference is gone. A surplus page leaves the pool; with
 * `restoreReserve` the reservation that it had consumed is there again.
 */
export function free_huge_folio(k: Kernel, t: Task, head: number): void {
  const {mm} = k;
  const h = hstateOf(k, head);
  const {costs, fns} = hugetlbWork(k);
  const {lock, restoreReserve, temporary} = mm.hugetlb;
  const node = mm.pages.nodeOf(head);
  clearMapping(mm.pages, head);
  mm.pages.flags[head] &= KEPT;
  lock.lock(t.cpu, 0, 0, fns.free_huge_folio);
  t.cpu.charge(costs.hugetlbPageTicks, fns.free_huge_folio);
  if (restoreReserve.delete(head)) h.resvHugePages++;
  if (temporary.delete(head)) {
    account(h, node, -1, false);
    free_to_buddy(k, t, h, head);
  } else if (h.surplus[node] > 0) {
    account(h, node, -1, true);
    free_to_buddy(k, t, h, head);
  } else {
    enqueue(k, h, head);
  }
  lock.unlock(t.cpu, 0);
}
/** What stays in the flags word of a free page: PG_head, PG_hugetlb and the order. */
const KEPT = ~FLAG_BITS | PG_head | PG_hugetlb;

/**
 * adjust_pool_surplus: one page of the next node in turn becomes surplus (1) or no longer is (-1).
 */
function adjust_pool_surplus(h: HState, delta: 1 | -1): boolean {
  const nodes = h.nr.length;
  for (let n = 0; n < nodes; n++) {
    const node = delta < 0 ? h.nextNodeToAlloc : h.nextNodeToFree;
    if (delta < 0) h.nextNodeToAlloc = (node + 1) % nodes;
    else h.nextNodeToFree = (node + 1) % nodes;
    const possible = delta < 0 ? h.surplus[node] > 0 : h.surplus[node] < h.nr[node];
    if (!possible) continue;
    h.surplusHugePages += delta;
    h.surplus[node] += delta;
    return true;
  }
  return false;
}

/** alloc_pool_huge_folio: one page from the next node in turn that has memory. */
function grow(k: Kernel, t: Task, h: HState): boolean {
  const nodes = h.nr.length;
  for (let n = 0; n < nodes; n++) {
    const node = h.nextNodeToAlloc;
    h.nextNodeToAlloc = (node + 1) % nodes;
    const head = alloc_fresh(k, t, h, node);
    if (head === 0) continue;
    account(h, node, 1, false);
    enqueue(k, h, head);
    return true;
  }
  return false;
}

/**
 * set_max_huge_pages, as writing nr_hugepages does: the pool grows as far as memory goes, or
 * shrinks by its free, unreserved pages; those in use become surplus. Returns the pages it then
 * keeps.
 */
export function set_max_huge_pages(k: Kernel, t: Task, h: HState, count: number): number {
  const {fns} = hugetlbWork(k);
  const {lock} = k.mm.hugetlb;
  lock.lock(t.cpu, 0, 0, fns.set_max_huge_pages);
  while (h.surplusHugePages > 0 && count > h.persistent) if (!adjust_pool_surplus(h, -1)) break;
  while (count > h.persistent) if (!grow(k, t, h)) break;
  const floor = Math.max(count, h.resvHugePages + h.nrHugePages - h.freeHugePages);
  while (floor < h.persistent) if (!remove_pool_folio(k, t, h, false)) break;
  while (count < h.persistent) if (!adjust_pool_surplus(h, 1)) break;
  lock.unlock(t.cpu, 0);
  return h.persistent;
}
