// mm/shmem.c: shared memory in swap, 6.18. A page that reclaim wants is moved from the page cache
// to the swap cache: its place in the file holds the swap entry, and that is the slot's one user
// (SWAP_MAP_SHMEM), however many processes map the file. Their page tables hold nothing, so
// nobody's SWAPENTS count. A fault brings the page back, with its neighbours on the device, for
// everybody. swapoff walks the files that have entries: each once (5.1+), or for each slot (to
// 5.0).

import type {Code} from '../../machine/process.ts';
import {EINTR, ENOMEM} from '../errno.ts';
import type {Kernel} from '../kernel.ts';
import type {Task} from '../task.ts';
import type {AddressSpace} from './address_space.ts';
import type {Mm} from './mm_state.ts';
import {
  clearMapping,
  folio_test_large,
  MAPPING_FILE,
  mappingId,
  mappingKind,
  page_pgoff,
  setMapping,
} from './page.ts';
import {folio_put} from './page_alloc.ts';
import {PG_dirty, PG_swapbacked, PG_swapcache, PG_uptodate} from './page_flags.ts';
import {folio_lock, folio_unlock, folio_wait_writeback} from './page_io.ts';
import {swp_offset, swp_type} from './swap_map.ts';
import {add_to_swap, delete_from_swap_cache, swap_cache_page} from './swap_state.ts';
import {swapin_readahead} from './swap_state_readahead.ts';

/** Makes shared memory swappable; called by the first swapon. */
export function install_shmem_swap(k: Kernel, mm: Mm): void {
  const {hooks} = mm;
  hooks.shmem_swapin = (t, mapping, index) => shmem_swapin_folio(k, t, mapping, index);
  hooks.shmem_unuse = (t, type, entry) => shmem_unuse(k, t, type, entry);
}

/** A page of shared memory in the page cache, small enough to go to one slot. */
export function isSwappableShmem(k: Kernel, head: number): boolean {
  const {pages, swap} = k.mm;
  if (folio_test_large(pages, head) || mappingKind(pages, head) !== MAPPING_FILE) return false;
  return swap.areas.free > 0 && (pages.flags[head] & PG_swapbacked) !== 0;
}

/**
 * shmem_writeout's first half: a locked, unmapped page that only the page cache and the caller
 * refer to gets a slot and moves to the swap cache, to be written there. False: no slot is free.
 */
export function shmem_writeout(k: Kernel, t: Task, head: number): boolean {
  const {mm} = k;
  const {files, pages, swap} = mm;
  const mapping = files.find(mappingId(pages, head));
  if (mapping === null || !add_to_swap(k, t, head)) return false;
  const entry = pages.private[head];
  swap.areas.of(entry).duplicate(swp_offset(entry));
  files.removePage(mapping, page_pgoff(pages, head), entry);
  clearMapping(pages, head);
  pages.refcount.decrement(head);
  mm.shmemSwaplist.add(mapping);
  return true;
}

/**
 * shmem_swapin_folio: brings the swapped page at `index` back into the page cache. True also when
 * it is there already or gone; false: no memory. May sleep for the device.
 */
export function* shmem_swapin_folio(
  k: Kernel,
  t: Task,
  mapping: AddressSpace,
  index: number,
): Code<boolean> {
  const {mm} = k;
  const {files, pages, swap} = mm;
  for (;;) {
    if (t.cpu.settle()) yield;
    const entry = files.value(mapping, index);
    if (entry < 0) return true;
    let head = swap_cache_page(k, entry);
    if (head !== 0) pages.refcount.increment(head);
    else head = yield* swapin_readahead(k, t, entry, null, null, 0);
    if (head === 0) {
      if (files.value(mapping, index) === entry) return false;
      continue;
    }
    yield* folio_lock(k, t, head);
    yield* folio_wait_writeback(k, t, head);
    const same = (pages.flags[head] & PG_swapcache) !== 0 && pages.private[head] === entry;
    if (same && files.value(mapping, index) === entry) enterPageCache(k, mapping, index, head);
    folio_unlock(k, head);
    folio_put(k, t, head);
    t.cpu.charge(swap.costs.swapFaultTicks, swap.fns.do_swap_page);
  }
}

/** shmem_add_to_page_cache in place of the entry, and the slot is free. */
function enterPageCache(k: Kernel, mapping: AddressSpace, index: number, head: number): void {
  const {mm} = k;
  const {files, pages, swap} = mm;
  const entry = pages.private[head];
  setMapping(pages, head, MAPPING_FILE, mapping.id, index);
  files.addPage(mapping, index, head);
  pages.refcount.increment(head);
  swap.areas.of(entry).release(swp_offset(entry));
  delete_from_swap_cache(k, head);
  pages.flags[head] |= PG_dirty | PG_swapbacked | PG_uptodate;
  if (mapping.nrValues === 0) mm.shmemSwaplist.delete(mapping);
}

/**
 * shmem_unuse: brings in every entry of area `type` that files have, or, with `only` not 0, that
 * one entry. Returns how many, -EINTR or -ENOMEM.
 */
export function* shmem_unuse(k: Kernel, t: Task, type: number, only: number): Code<number> {
  const {mm} = k;
  const {files, swap} = mm;
  let done = 0;
  for (const mapping of [...mm.shmemSwaplist]) {
    const last = mapping.sizePages - 1;
    let index = files.nextIndex(mapping, 0, last);
    while (index >= 0) {
      t.cpu.charge(swap.costs.unusePteTicks, swap.fns.unuse_mm);
      const entry = files.value(mapping, index);
      if (entry >= 0 && (only === 0 ? swp_type(entry) === type : entry === only)) {
        if (t.sigkill) return -EINTR;
        if (!(yield* shmem_swapin_folio(k, t, mapping, index))) return -ENOMEM;
        done++;
        if (only !== 0) return done;
      }
      if (k.sched.needsResched(t)) yield* k.sched.condResched(t);
      index = files.nextIndex(mapping, index + 1, last);
    }
    if (mapping.nrValues === 0) mm.shmemSwaplist.delete(mapping);
  }
  return done;
}
