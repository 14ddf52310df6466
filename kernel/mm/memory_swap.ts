// mm/memory.c: do_swap_page, 6.18: a fault on a swap entry.
//
// The folio comes from the swap cache or from the device (a major fault; the task sleeps on the
// folio lock until the data is there). Then, under the page-table lock: the PTE's reference to the
// slot goes, the slot itself if it is not worth keeping (should_try_to_free_swap), ANON +1 and SWAP
// -1, the page is mapped: writable at once where it is exclusive, else a write goes on to
// do_wp_page. An absent page becomes present: no notification, no flush.

import type {Code} from '../../machine/process.ts';
import {pteSlot, setPte} from '../arch/x86/mm/pgtable.ts';
import {
  PTE_KIND,
  PTE_PRESENT,
  PTE_SOFT_DIRTY,
  PTE_SWP_EXCLUSIVE,
  PTE_UFFD_WP,
  PTE_WRITE,
} from '../arch/x86/mm/pgtable_bits.ts';
import type {Kernel} from '../kernel.ts';
import type {Task} from '../task.ts';
import {lru_add_drain} from './folio_lru.ts';
import {VM_FAULT_AGAIN, wait_for_fault} from './memory.ts';
import {NEED_HOOK} from './memory_need.ts';
import {mappedPte, PTE_DIRTIED, pte_lock, pte_unlock} from './memory_pte.ts';
import {do_wp_page} from './memory_wp.ts';
import {folio_test_ksm, folio_test_large} from './page.ts';
import {folio_put} from './page_alloc.ts';
import {PG_locked, PG_lru, PG_mlocked, PG_swapcache, PG_uptodate} from './page_flags.ts';
import {folio_lock, folio_lock_killable, folio_unlock} from './page_io.ts';
import {folio_add_anon_rmap_pte} from './rmap.ts';
import {MM_ANONPAGES, MM_SWAPENTS} from './rss.ts';
import {add_mm_counter} from './rss_stat.ts';
import {swp_offset, swp_type} from './swap_map.ts';
import {folio_free_swap, page_swap_entry} from './swap_state.ts';
import {swap_readahead_hit, swapin_readahead} from './swap_state_readahead.ts';
import {
  FAULT_FLAG_KILLABLE,
  FAULT_FLAG_UNSHARE,
  FAULT_FLAG_WRITE,
  FAULT_MAJOR,
  FAULT_MINOR_ANON,
  VM_FAULT_MAJOR,
  VM_FAULT_OOM,
  VM_FAULT_RETRY,
  type VmFault,
} from './vm_fault.ts';
import type {VmArea} from './vma.ts';
import {VM_LOCKED, VM_SOFTDIRTY, VM_UFFD_WP, VM_WRITE} from './vma_flags.ts';

/**
 * do_swap_page for a page that is in the swap cache and that nobody has locked, as most are that
 * were read ahead: plain. NEED_HOOK, and nothing changed: do_swap_page must do it.
 */
export function try_do_swap_page(k: Kernel, t: Task, f: VmFault): number {
  const {mm} = k;
  const {pages, swap} = mm;
  const entry = f.value;
  const area = swap.areas.byType[swp_type(entry)] ?? null;
  const head = area === null ? 0 : area.cached(swp_offset(entry));
  const bits = pages.flags[head] & (PG_swapcache | PG_uptodate | PG_locked);
  if (head === 0 || bits !== (PG_swapcache | PG_uptodate) || mm.ptl.busy(f.slot >>> 9)) {
    return NEED_HOOK;
  }
  t.cpu.charge(swap.costs.swapFaultTicks, swap.fns.do_swap_page);
  pages.refcount.increment(head);
  swap_readahead_hit(k, head, f.vma, f.vpn);
  f.faultClass = FAULT_MINOR_ANON;
  pages.flags[head] |= PG_locked;
  drainFor(k, t, f, head);
  const {word} = f;
  pte_lock(mm, t, f.slot, swap.fns.do_swap_page);
  const write = mapSwappedIn(k, t, f, head, head + (entry - pages.private[head]), word);
  pte_unlock(mm, t, f.slot);
  folio_unlock(k, head);
  if (!write) return 0;
  f.word = mm.pt.flags[f.slot];
  f.value = mm.pt.entries[f.slot];
  return do_wp_page(k, t, f);
}

/** do_swap_page: f.word and f.value are the entry as the fault saw it. Returns VM_FAULT_ bits. */
export function* do_swap_page(k: Kernel, t: Task, f: VmFault): Code<number> {
  const {mm} = k;
  const {pages, swap} = mm;
  const entry = f.value;
  const {word} = f;
  t.cpu.charge(mm.swap.costs.swapFaultTicks, mm.swap.fns.do_swap_page);
  const area = swap.areas.byType[swp_type(entry)] ?? null;
  let cached = area === null ? 0 : area.cached(swp_offset(entry));
  let major = 0;
  if (cached !== 0) {
    if ((pages.flags[cached] & PG_swapcache) === 0) cached = pages.next[cached];
    pages.refcount.increment(cached);
    swap_readahead_hit(k, cached, f.vma, f.vpn);
    f.faultClass = FAULT_MINOR_ANON;
  } else {
    cached = yield* swapin_readahead(k, t, entry, f.user, f.vma, f.vpn);
    if (cached === 0) return stillSame(k, f, word, entry) ? VM_FAULT_OOM : VM_FAULT_AGAIN;
    major = VM_FAULT_MAJOR;
    f.faultClass = FAULT_MAJOR;
  }
  const head = cached;
  // folio_lock_or_retry: who dies need not have the page.
  if ((f.flags & FAULT_FLAG_KILLABLE) === 0) yield* folio_lock(k, t, head);
  else if (!(yield* folio_lock_killable(k, t, head))) {
    folio_put(k, t, head);
    return major | VM_FAULT_RETRY;
  }
  const pfn = pageOf(k, head, entry);
  drainFor(k, t, f, head);
  if (t.cpu.settle()) yield;
  while (!pte_lock(mm, t, f.slot, mm.swap.fns.do_swap_page))
    yield* mm.ptl.spin(t, f.slot >>> 9, mm.swap.fns.do_swap_page);
  if (pfn === 0 || !stillSame(k, f, word, entry)) {
    pte_unlock(mm, t, f.slot);
    folio_unlock(k, head);
    folio_put(k, t, head);
    // Linux returns and the CPU faults again; here the fault itself looks again.
    return major | VM_FAULT_AGAIN;
  }
  const write = mapSwappedIn(k, t, f, head, pfn, word);
  pte_unlock(mm, t, f.slot);
  folio_unlock(k, head);
  return write ? major | (yield* writeAfter(k, t, f)) : major;
}

/** A write wants the page for itself: the reference of this CPU's batch goes. */
function drainFor(k: Kernel, t: Task, f: VmFault, head: number): void {
  const {pages} = k.mm;
  const drain = (f.flags & FAULT_FLAG_WRITE) !== 0 && (pages.flags[head] & PG_lru) === 0;
  if (drain && !folio_test_ksm(pages, head)) lru_add_drain(k, t);
}

function stillSame(k: Kernel, f: VmFault, word: number, entry: number): boolean {
  const {pt} = k.mm;
  if (pt.flags[f.slot] !== word || pt.entries[f.slot] !== entry) return false;
  // pte_offset_map_lock walks again: the table may have been freed meanwhile (pt_reclaim.ts).
  return pteSlot(f.user.pgd, f.vpn) === f.slot;
}

/** The page of the locked folio that belongs to `entry`; 0 when the folio has left it meanwhile. */
function pageOf(k: Kernel, head: number, entry: number): number {
  const {pages} = k.mm;
  const wanted = PG_swapcache | PG_uptodate;
  if ((pages.flags[head] & wanted) !== wanted) return 0;
  const pfn = head + (entry - page_swap_entry(k, head, head));
  return folio_test_large(pages, head) || pfn === head ? pfn : 0;
}

/** should_try_to_free_swap. */
function mayFreeSwap(k: Kernel, f: VmFault, head: number): boolean {
  const {pages, swap} = k.mm;
  if (swap.isFull || (f.vma.flags & VM_LOCKED) !== 0) return true;
  if ((pages.flags[head] & PG_mlocked) !== 0) return true;
  // The fault's own reference and the cache's.
  const write = (f.flags & FAULT_FLAG_WRITE) !== 0;
  return write && !folio_test_ksm(pages, head) && pages.refcount.get(head) === 2;
}

/** Under both locks. True: the write is not done with and goes on to do_wp_page. */
function mapSwappedIn(
  k: Kernel,
  t: Task,
  f: VmFault,
  head: number,
  pfn: number,
  word: number,
): boolean {
  const {mm} = k;
  const {pages, swap} = mm;
  const {vma} = f;
  const ksm = folio_test_ksm(pages, head);
  const entry = f.value;
  const exclusive = !ksm && mm.cowRule === 'exclusive' && (word & PTE_SWP_EXCLUSIVE) !== 0;
  swap.areas.of(entry).release(swp_offset(entry));
  t.cpu.charge(mm.swap.costs.swapFreeTicks + mm.costs.newAnonTicks, mm.swap.fns.do_swap_page);
  if (mayFreeSwap(k, f, head)) folio_free_swap(k, head);
  add_mm_counter(k, t, f.mm, MM_ANONPAGES, 1);
  add_mm_counter(k, t, f.mm, MM_SWAPENTS, -1);
  let flags = mappedPte(vma) | (word & (PTE_SOFT_DIRTY | PTE_UFFD_WP));
  let write = (f.flags & (FAULT_FLAG_WRITE | FAULT_FLAG_UNSHARE)) === FAULT_FLAG_WRITE;
  const own = !ksm && (exclusive || soleOwner(k, head));
  const protectedByUffd = (word & PTE_UFFD_WP) !== 0 && (vma.flags & VM_UFFD_WP) !== 0;
  if (own && (vma.flags & VM_WRITE) !== 0 && !protectedByUffd) {
    if (write) flags |= PTE_WRITE | PTE_DIRTIED;
    else if (mm.cowRule === 'exclusive' && !pte_needs_soft_dirty_wp(vma, word)) flags |= PTE_WRITE;
    write = false;
  }
  folio_add_anon_rmap_pte(k, pfn, vma, f.vpn, own && mm.cowRule === 'exclusive');
  setPte(mm.pt, f.slot, pfn, flags);
  t.cpu.charge(mm.costs.setPteTicks, mm.swap.fns.do_swap_page);
  return write;
}

/** Its next write must fault, to mark it soft-dirty. */
function pte_needs_soft_dirty_wp(vma: VmArea, word: number): boolean {
  return (vma.flags & VM_SOFTDIRTY) === 0 && (word & PTE_SOFT_DIRTY) === 0;
}

/** Nobody else can have the page: no other reference (5.19+, 5.9+), or no other mapping before. */
function soleOwner(k: Kernel, head: number): boolean {
  const {pages, cowRule} = k.mm;
  if (cowRule !== 'mapcount') return pages.refcount.get(head) === 1;
  const cache = (pages.flags[head] & PG_swapcache) === 0 ? 0 : 1;
  return pages.mapcount.isZero(head) && pages.refcount.get(head) === 1 && cache === 0;
}

/** The page is present and read-only now, the fault was a write. */
function* writeAfter(k: Kernel, t: Task, f: VmFault): Code<number> {
  const {pt} = k.mm;
  const major = f.faultClass === FAULT_MAJOR;
  for (;;) {
    if (t.cpu.settle()) yield;
    if (pteSlot(f.user.pgd, f.vpn) !== f.slot) return VM_FAULT_AGAIN;
    f.word = pt.flags[f.slot];
    f.value = pt.entries[f.slot];
    // Reclaim may have taken the page again.
    if ((f.word & PTE_KIND) !== PTE_PRESENT) return VM_FAULT_AGAIN;
    if ((f.word & PTE_WRITE) !== 0) return 0;
    let result = do_wp_page(k, t, f);
    if (result < 0) result = yield* wait_for_fault(k, t, f, result);
    if (major) f.faultClass = FAULT_MAJOR;
    if ((result & VM_FAULT_AGAIN) === 0) return result;
  }
}
