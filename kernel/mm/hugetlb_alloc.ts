// mm/hugetlb.c, 6.18: a huge page for a mapping (alloc_hugetlb_folio), and its way back when it was
// not needed after all. A page that consumes a reservation takes it out of the pool's promises and
// remembers that (restoreReserve) until it is mapped; one without takes what is free beyond the
// promises, or is a surplus page.

import type {Kernel} from '../kernel.ts';
import type {Task} from '../task.ts';
import {hugetlbWork} from './costs_hugetlb.ts';
import {
  alloc_surplus_hugetlb_folio,
  dequeue_hugetlb_folio,
  type HState,
  hugetlb_acct_memory,
} from './hugetlb_pool.ts';
import {
  vma_add_reservation,
  vma_commit_reservation,
  vma_del_reservation,
  vma_needs_reservation,
} from './hugetlb_resv.ts';
import {pageWorkTicks} from './memory_pte.ts';
import {folio_put} from './page_alloc.ts';
import {PG_uptodate} from './page_flags.ts';
import type {VmArea} from './vma.ts';

/**
 * alloc_hugetlb_folio for the fault at `vpn`: head with one reference, content undefined, 0 when
 * the pool has none for it. `cowFromOwner`: a copy that the owner of a private mapping needs
 * because its child has the page; the reservation there has been consumed already.
 */
export function alloc_hugetlb_folio(
  k: Kernel,
  t: Task,
  h: HState,
  vma: VmArea,
  vpn: number,
  cowFromOwner: boolean,
): number {
  const {mm} = k;
  const {lock, restoreReserve} = mm.hugetlb;
  const {costs, fns} = hugetlbWork(k);
  const missing = cowFromOwner ? 1 : vma_needs_reservation(h, vma, vpn);
  t.cpu.charge(costs.regionTicks, fns.alloc_hugetlb_folio);
  lock.lock(t.cpu, 0, 0, fns.alloc_hugetlb_folio);
  const node = mm.nodeFor(vma, vpn, t);
  let head = dequeue_hugetlb_folio(k, t, h, node, missing > 0);
  if (head === 0) head = alloc_surplus_hugetlb_folio(k, t, h, node);
  if (head !== 0 && missing === 0) {
    restoreReserve.add(head);
    h.resvHugePages--;
  }
  lock.unlock(t.cpu, 0);
  if (head === 0 || cowFromOwner) return head;
  const committed = vma_commit_reservation(h, vma, vpn);
  // Somebody has reserved this very page meanwhile: that reservation no longer applies.
  if (missing > committed) hugetlb_acct_memory(k, t, h, -1);
  return head;
}

/** restore_reserve_on_error: the page was not mapped, and the map shall say again what it said. */
export function restore_reserve_on_error(
  k: Kernel,
  h: HState,
  vma: VmArea,
  vpn: number,
  head: number,
): void {
  const missing = vma_needs_reservation(h, vma, vpn);
  if (k.mm.hugetlb.restoreReserve.has(head)) {
    if (missing > 0) vma_add_reservation(h, vma, vpn);
  } else if (missing === 0) {
    vma_del_reservation(h, vma, vpn);
  }
}

/** A page that is not needed after all. */
export function put_unused_folio(
  k: Kernel,
  t: Task,
  h: HState,
  vma: VmArea,
  vpn: number,
  head: number,
): void {
  restore_reserve_on_error(k, h, vma, vpn, head);
  folio_put(k, t, head);
}

/** folio_zero_user: also gives the CPU away in between, as its caller must after it. */
export function clear_huge_page(k: Kernel, t: Task, h: HState, head: number): void {
  const {mm} = k;
  const node = mm.pages.nodeOf(head);
  t.cpu.charge(pageWorkTicks(k, t, mm.costs.clearPageTicks, node, h.pages), mm.fns.clear_page_erms);
  if (mm.pages.hasContent) mm.pages.content.fill(0, head, head + h.pages);
  mm.pages.flags[head] |= PG_uptodate;
}

/** copy_user_large_folio. */
export function copy_huge_page(k: Kernel, t: Task, h: HState, to: number, from: number): void {
  const {mm} = k;
  const node = mm.pages.nodeOf(to);
  t.cpu.charge(
    pageWorkTicks(k, t, mm.costs.copyPageTicks, node, h.pages),
    mm.fns.copy_mc_to_kernel,
  );
  if (mm.pages.hasContent) mm.pages.content.copyWithin(to, from, from + h.pages);
  mm.pages.flags[to] |= PG_uptodate;
}
