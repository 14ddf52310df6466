// mm/swapfile.c: try_to_unuse, how swapoff brings an area's pages in.
//
// Since 5.1: every mm of mmlist is walked once under mmap_lock; each entry of the area that is
// found comes in with readahead and becomes present. Then folios that are only in the swap cache
// leave it; all again until the area is empty. To 5.0: slot by slot in the order of the area. The
// page is read, then all mms of mmlist are searched, each from its first PTE to the first hit,
// beginning with the mm of the last hit, until nobody refers to the slot. That is slots times PTEs.
// Entries become present and old: SWAP -1 then ANON +1, no notification, no flush. An exclusive
// entry gives an exclusive page, read-only as vm_page_prot says. Entries of shared memory are
// shmem.ts's.

import type {Code} from '../../machine/process.ts';
import {pteSlot, setPte} from '../arch/x86/mm/pgtable.ts';
import {
  PTE_KIND,
  PTE_SOFT_DIRTY,
  PTE_SWAP,
  PTE_SWP_EXCLUSIVE,
  PTE_UFFD_WP,
  PTE_YOUNG,
} from '../arch/x86/mm/pgtable_bits.ts';
import {nextRange, PgtableCursor, startRange} from '../arch/x86/mm/pgtable_range.ts';
import {EINTR, ENOMEM} from '../errno.ts';
import type {Kernel} from '../kernel.ts';
import type {Task} from '../task.ts';
import {mappedPte, pte_lock, pte_unlock} from './memory_pte.ts';
import {folio_put} from './page_alloc.ts';
import {PG_dirty, PG_swapcache, PG_writeback} from './page_flags.ts';
import {folio_lock, folio_unlock, folio_wait_writeback} from './page_io.ts';
import {folio_add_anon_rmap_pte} from './rmap.ts';
import {MM_ANONPAGES, MM_SWAPENTS} from './rss.ts';
import {add_mm_counter} from './rss_stat.ts';
import {type SwapArea, swp_entry, swp_offset, swp_type} from './swap_map.ts';
import {
  delete_from_swap_cache,
  folio_free_swap,
  page_swap_entry,
  swap_cache_page,
} from './swap_state.ts';
import {swapin_readahead} from './swap_state_readahead.ts';
import type {UserMm} from './user_mm.ts';
import type {VmArea} from './vma.ts';

/** try_to_unuse by generation (axis swapoff). 0, -EINTR or -ENOMEM. */
export function try_to_unuse(k: Kernel, t: Task, area: SwapArea): Code<number> {
  return k.design.swapoff === 'by-slot' ? unuseBySlot(k, t, area) : unuseByMm(k, t, area);
}

/** init_mm.mmlist as the loop sees it: newest first, and mms that fork gave entries. */
function mmlist(k: Kernel): UserMm[] {
  const {swap} = k.mm;
  const listed: UserMm[] = [];
  for (let i = swap.mmlist.length - 1; i >= 0; i--) {
    const user = k.mm.byId(swap.mmlist[i]);
    if (user === null) swap.mmlist.splice(i, 1);
    else listed.push(user);
  }
  for (const user of k.mm.users()) {
    if (user.rss.counts[MM_SWAPENTS] > 0 && !listed.includes(user)) listed.push(user);
  }
  return listed;
}

/** 5.1 and later. */
function* unuseByMm(k: Kernel, t: Task, area: SwapArea): Code<number> {
  const {shmem_unuse} = k.mm.hooks;
  while (area.inuse > 0) {
    if (shmem_unuse !== null) {
      const result = yield* shmem_unuse(t, area.type, 0);
      if (result < 0) return result;
    }
    for (const user of mmlist(k)) {
      if (t.cpu.settle()) yield;
      if (area.inuse === 0) return 0;
      if (t.sigkill) return -EINTR;
      if (k.mm.byId(user.mm.id) !== user) continue;
      const result = yield* unuse_mm(k, t, user, area, 0);
      if (result < 0) return result;
      if (k.sched.needsResched(t)) yield* k.sched.condResched(t);
    }
    for (let at = area.nextUsed(1); at !== 0; at = area.nextUsed(at + 1)) {
      if (t.sigkill) return -EINTR;
      k.mm.swap.counts.unuseSlots++;
      t.cpu.charge(k.mm.swap.costs.unuseSlotTicks, k.mm.swap.fns.try_to_unuse);
      yield* dropCached(k, t, swp_entry(area.type, at));
    }
    if (t.sigkill) return -EINTR;
  }
  return 0;
}

/** The swap cache's page of an entry leaves it when no PTE needs it. */
function* dropCached(k: Kernel, t: Task, entry: number): Code {
  const {pages} = k.mm;
  const pfn = swap_cache_page(k, entry);
  if (pfn === 0) {
    if (t.cpu.settle()) yield;
    return;
  }
  const head = (pages.flags[pfn] & PG_swapcache) !== 0 ? pfn : pages.next[pfn];
  pages.refcount.increment(head);
  yield* folio_lock(k, t, head);
  yield* folio_wait_writeback(k, t, head);
  folio_free_swap(k, head);
  folio_unlock(k, head);
  folio_put(k, t, head);
}

/** 5.0 and earlier: find_next_to_unuse, and for each slot all mms. */
function* unuseBySlot(k: Kernel, t: Task, area: SwapArea): Code<number> {
  const {pages, swap} = k.mm;
  let start: UserMm | null = null;
  let at = 0;
  for (;;) {
    if (t.cpu.settle()) yield;
    if (t.sigkill) return -EINTR;
    at = area.nextUsed(at + 1) || area.nextUsed(1);
    if (at === 0) return 0;
    const entry = swp_entry(area.type, at);
    swap.counts.unuseSlots++;
    t.cpu.charge(swap.costs.unuseSlotTicks, swap.fns.try_to_unuse);
    if (k.mm.shmemSwaplist.size > 0) {
      const found = yield* k.mm.hooks.shmem_unuse!(t, area.type, entry);
      if (found < 0) return found;
      if (found > 0) continue;
    }
    const head = yield* swapin_readahead(k, t, entry, null, null, 0);
    if (head === 0) {
      if (area.inUse(at)) return -ENOMEM;
      continue;
    }
    yield* folio_lock(k, t, head);
    yield* folio_wait_writeback(k, t, head);
    start = yield* unuseSlot(k, t, area, at, start);
    const mine =
      (pages.flags[head] & PG_swapcache) !== 0 && page_swap_entry(k, head, head) === entry;
    if (mine && (pages.flags[head] & PG_writeback) === 0) {
      delete_from_swap_cache(k, head);
      pages.flags[head] |= PG_dirty;
    }
    folio_unlock(k, head);
    folio_put(k, t, head);
    if (k.sched.needsResched(t)) yield* k.sched.condResched(t);
  }
}

/** Searches the mms for one slot, from `start` round. Returns the mm of the last hit. */
function* unuseSlot(
  k: Kernel,
  t: Task,
  area: SwapArea,
  offset: number,
  start: UserMm | null,
): Code<UserMm | null> {
  const all = mmlist(k);
  const from = Math.max(start === null ? 0 : all.indexOf(start), 0);
  let last = start;
  for (let i = 0; i < all.length && area.count(offset) > 0; i++) {
    const user = all[(from + i) % all.length];
    if (k.mm.byId(user.mm.id) !== user) continue;
    const hit = yield* unuse_mm(k, t, user, area, swp_entry(area.type, offset));
    if (hit > 0) last = user;
  }
  return last;
}

/**
 * unuse_mm under mmap_lock for read: every entry of the area (`only` 0), or the first PTE that
 * holds entry `only`. Returns the PTEs made present, or -ENOMEM.
 */
function* unuse_mm(k: Kernel, t: Task, user: UserMm, area: SwapArea, only: number): Code<number> {
  const {swap} = k.mm;
  const lock = user.mmapLock;
  if (!lock.readAcquire(t, swap.fns.unuse_mm)) yield* lock.readAcquireSlow(t, swap.fns.unuse_mm);
  let done = 0;
  for (let vma = user.space.tree.first; vma !== null && done >= 0; vma = vma.next) {
    if (vma.anonVma === null) continue;
    const result = yield* unuse_vma(k, t, user, vma, area, only);
    done = result < 0 ? result : done + result;
    if (only !== 0 && done > 0) break;
    if (k.sched.needsResched(t)) yield* k.sched.condResched(t);
  }
  if (!lock.readRelease(t)) yield* lock.readReleaseSlow(t);
  return done;
}

/** unuse_vma down to unuse_pte_range. */
function* unuse_vma(
  k: Kernel,
  t: Task,
  user: UserMm,
  vma: VmArea,
  area: SwapArea,
  only: number,
): Code<number> {
  const {pt, swap} = k.mm;
  const cursor = new PgtableCursor();
  let done = 0;
  startRange(cursor, vma.start, vma.end);
  while (nextRange(user.pgd, cursor)) {
    if (cursor.level > 0) continue;
    const {slot, count, vpn} = cursor;
    let looked = 0;
    for (let i = 0; i < count; i++) {
      looked++;
      if ((pt.flags[slot + i] & PTE_KIND) !== PTE_SWAP) continue;
      const entry = pt.entries[slot + i];
      if (only === 0 ? swp_type(entry) !== area.type : entry !== only) continue;
      swap.counts.unusePtes += looked;
      t.cpu.charge(looked * swap.costs.unusePteTicks, swap.fns.unuse_mm);
      looked = 0;
      const result =
        only === 0
          ? yield* bringIn(k, t, user, vma, vpn + i, slot + i)
          : unuse_pte(k, t, user, vma, vpn + i, slot + i, entry);
      if (result < 0) return result;
      done += result;
      if (only !== 0 && done > 0) return done;
    }
    swap.counts.unusePtes += looked;
    t.cpu.charge(looked * swap.costs.unusePteTicks, swap.fns.unuse_mm);
    if (t.cpu.settle()) yield;
  }
  return done;
}

/** One entry of 5.1's walk: its folio is read and locked, the PTE becomes present. */
function* bringIn(
  k: Kernel,
  t: Task,
  user: UserMm,
  vma: VmArea,
  vpn: number,
  slot: number,
): Code<number> {
  const {pages, pt, swap} = k.mm;
  if (swap.unusePace !== null) {
    yield* swap.unusePace.wait(t);
    if (pteSlot(user.pgd, vpn) !== slot) return 0;
    if ((pt.flags[slot] & PTE_KIND) !== PTE_SWAP) return 0;
  }
  const entry = pt.entries[slot];
  const pfn = swap_cache_page(k, entry);
  let head = 0;
  if (pfn !== 0) {
    head = (pages.flags[pfn] & PG_swapcache) !== 0 ? pfn : pages.next[pfn];
    pages.refcount.increment(head);
  } else {
    head = yield* swapin_readahead(k, t, entry, user, vma, vpn);
    if (head === 0) {
      const area = swap.areas.of(entry);
      return area.count(swp_offset(entry)) === 0 ? 0 : -ENOMEM;
    }
  }
  yield* folio_lock(k, t, head);
  yield* folio_wait_writeback(k, t, head);
  const done = unuse_pte(k, t, user, vma, vpn, slot, entry);
  if (done > 0) swap.unusePace?.brought();
  folio_free_swap(k, head);
  folio_unlock(k, head);
  folio_put(k, t, head);
  return done;
}

/** unuse_pte: the folio of `entry` is locked and in the swap cache. 1 if the PTE still had it. */
function unuse_pte(
  k: Kernel,
  t: Task,
  user: UserMm,
  vma: VmArea,
  vpn: number,
  slot: number,
  entry: number,
): number {
  const {mm} = k;
  const {pages, pt, swap} = mm;
  const word = pt.flags[slot];
  if ((word & PTE_KIND) !== PTE_SWAP || pt.entries[slot] !== entry) return 0;
  if (pteSlot(user.pgd, vpn) !== slot) return 0;
  const pfn = swap_cache_page(k, entry);
  if (pfn === 0 || !pte_lock(mm, t, slot, swap.fns.unuse_mm)) return 0;
  const head = (pages.flags[pfn] & PG_swapcache) !== 0 ? pfn : pages.next[pfn];
  add_mm_counter(k, t, user.mm, MM_SWAPENTS, -1);
  add_mm_counter(k, t, user.mm, MM_ANONPAGES, 1);
  pages.refcount.increment(head);
  const exclusive = mm.cowRule === 'exclusive' && (word & PTE_SWP_EXCLUSIVE) !== 0;
  folio_add_anon_rmap_pte(k, pfn, vma, vpn, exclusive);
  const kept = word & (PTE_SOFT_DIRTY | PTE_UFFD_WP);
  setPte(pt, slot, pfn, (mappedPte(vma) & ~PTE_YOUNG) | kept);
  swap.areas.of(entry).release(swp_offset(entry));
  swap.counts.unused++;
  t.cpu.charge(mm.costs.setPteTicks + swap.costs.swapFreeTicks, swap.fns.unuse_mm);
  pte_unlock(mm, t, slot);
  return 1;
}
