// mm/swap_state.c: which pages come in with the one that is wanted. On a device that does not turn
// (4.14+) the neighbours in the VMA, by how well the last window did there; else the neighbours on
// the device, an aligned block around the slot. A window is at most 1 << page_cluster pages; a
// fault that follows no other gets its page alone.

import type {Code} from '../../machine/process.ts';
import {pteSlot} from '../arch/x86/mm/pgtable.ts';
import {PTE_KIND, PTE_SWAP} from '../arch/x86/mm/pgtable_bits.ts';
import type {Kernel} from '../kernel.ts';
import type {Task} from '../task.ts';
import {isBefore} from '../version.ts';
import {folio_put} from './page_alloc.ts';
import {PG_readahead} from './page_flags.ts';
import {swp_entry, swp_offset, swp_type} from './swap_map.ts';
import {NEED_RECLAIM, read_swap_cache_async, try_read_swap_cache} from './swap_state.ts';
import type {UserMm} from './user_mm.ts';
import type {VmArea} from './vma.ts';

/** SWAP_RA_HITS_MAX with pages of 4 KB. */
const MAX_HITS = 63;

function byVma(k: Kernel): boolean {
  return !isBefore(k.facts.version, '4.14');
}

/** swap_cache_get_folio's bookkeeping: a page that was read ahead is wanted now. */
export function swap_readahead_hit(k: Kernel, head: number, vma: VmArea, vpn: number): void {
  const {pages, swap} = k.mm;
  swap.counts.cacheHits++;
  const readahead = (pages.flags[head] & PG_readahead) !== 0;
  if (readahead) {
    pages.flags[head] &= ~PG_readahead;
    swap.counts.readaheadHits++;
  }
  if (!byVma(k)) {
    if (readahead) swap.readahead.cluster.hits++;
    return;
  }
  // The next window goes on from here.
  const window = swap.readahead.of(vma);
  window.vpn = vpn;
  if (readahead) window.hits = Math.min(window.hits + 1, MAX_HITS);
}

/** __swapin_nr_pages: size of the next window. */
export function swapin_nr_pages(
  next: boolean,
  hits: number,
  maxPages: number,
  lastPages: number,
): number {
  let pages = hits + 2;
  if (pages === 2) {
    if (!next) pages = 1;
  } else {
    let rounded = 4;
    while (rounded < pages) rounded <<= 1;
    pages = rounded;
  }
  return Math.max(Math.min(pages, maxPages), lastPages >> 1);
}

/**
 * swapin_readahead: the folio of `entry`, with a reference; reading may still be under way (then it
 * is locked). 0: no memory, or the entry is free. `vma` null: by slots only.
 */
export function* swapin_readahead(
  k: Kernel,
  t: Task,
  entry: number,
  user: UserMm | null,
  vma: VmArea | null,
  vpn: number,
): Code<number> {
  const entries =
    vma !== null && user !== null && byVma(k)
      ? vmaWindow(k, user, vma, vpn, entry)
      : clusterWindow(k, entry);
  for (const other of entries) {
    if (other === entry) continue;
    if (t.cpu.settle()) yield;
    const neighbour = try_read_swap_cache(k, t, other);
    if (neighbour === 0 || neighbour === NEED_RECLAIM) continue;
    if (neighbour > 0) startReading(k, t, other, neighbour, false);
    folio_put(k, t, Math.abs(neighbour));
  }
  return yield* readOne(k, t, entry);
}

/** The page that the fault is about. */
function* readOne(k: Kernel, t: Task, entry: number): Code<number> {
  const {pfn, fresh} = yield* read_swap_cache_async(k, t, entry, true);
  if (fresh) startReading(k, t, entry, pfn, true);
  return pfn;
}

function startReading(k: Kernel, t: Task, entry: number, pfn: number, target: boolean): void {
  const {pages, swap} = k.mm;
  const device = swap.devices[swp_type(entry)]!;
  t.cpu.charge(swap.costs.swapIoTicks, swap.fns.swap_read_folio);
  swap.counts.pswpin++;
  if (!target) {
    pages.flags[pfn] |= PG_readahead;
    swap.counts.readahead++;
  }
  device.read(t.cpu, pfn, 1);
}

/** swap_vma_readahead: entries in the window around `vpn`, within the VMA and the page table. */
function vmaWindow(k: Kernel, user: UserMm, vma: VmArea, vpn: number, entry: number): number[] {
  const window = k.mm.swap.readahead.of(vma);
  const most = 1 << k.mm.swap.pageCluster;
  const previous = window.vpn;
  const next = vpn === previous + 1 || vpn === previous - 1;
  const size = most === 1 ? 1 : swapin_nr_pages(next, window.hits, most, window.size);
  window.vpn = vpn;
  window.size = size;
  window.hits = 0;
  if (size === 1) return [entry];
  let from = vpn - ((size - 1) >> 1);
  if (vpn === previous + 1) from = vpn;
  else if (vpn === previous - 1) from = vpn - size + 1;
  const table = vpn - (vpn % 512);
  const first = Math.max(from, vma.start, table);
  const end = Math.min(from + size, vma.end, table + 512);
  const slot = pteSlot(user.pgd, first);
  if (slot < 0) return [entry];
  const {pt} = k.mm;
  const found: number[] = [];
  for (let i = 0; i < end - first; i++) {
    if ((pt.flags[slot + i] & PTE_KIND) === PTE_SWAP) found.push(pt.entries[slot + i]);
  }
  return found;
}

/** swap_cluster_readahead: the used slots of an aligned block. */
function clusterWindow(k: Kernel, entry: number): number[] {
  const {cluster} = k.mm.swap.readahead;
  const {swap} = k.mm;
  const offset = swp_offset(entry);
  const most = 1 << swap.pageCluster;
  const next = offset === cluster.offset + 1 || offset === cluster.offset - 1;
  const size = most === 1 ? 1 : swapin_nr_pages(next, cluster.hits, most, cluster.size);
  cluster.offset = offset;
  cluster.size = size;
  cluster.hits = 0;
  if (size === 1) return [entry];
  const area = swap.areas.of(entry);
  const first = Math.max(offset - (offset % size), 1);
  const end = Math.min(offset - (offset % size) + size, area.slots);
  const found: number[] = [];
  for (let at = first; at < end; at++) if (area.inUse(at)) found.push(swp_entry(area.type, at));
  return found;
}
