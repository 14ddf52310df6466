// mm/swap_state.c: the swap cache, which connects a folio with its swap slots from the time that a
// slot is given to it until the slot is empty or the folio is gone.
//
// A folio enters on its way out (add_to_swap) or in (read_swap_cache_async); the cache holds one
// reference per page. It leaves when reclaim has written it and nobody else refers to it
// (remove_mapping), when no PTE needs the slot any more (folio_free_swap), or with the last PTE.
// Content goes with the slot. Locks: the folio lock for entering and leaving; swap clusters' locks
// are a charge (costs) without contention. Not modelled: zswap, the zero map of 6.11+, THP swap-in.

import {assert} from '../../machine/assert.ts';
import type {Code} from '../../machine/process.ts';
import {scaledCosts} from '../costs.ts';
import type {Kernel} from '../kernel.ts';
import {WaitQueue} from '../sched/wait_queue.ts';
import type {Task} from '../task.ts';
import type {BlkPlug} from './blk_plug.ts';
import {folio_mapped} from './folio_counts.ts';
import {folio_add_lru} from './folio_lru.ts';
import {Memcgs} from './memcontrol.ts';
import {folio_nr_pages} from './page.ts';
import {alloc_folio, alloc_folio_slow, folio_put} from './page_alloc.ts';
import {PG_dirty, PG_locked, PG_swapbacked, PG_swapcache, PG_writeback} from './page_flags.ts';
import {FolioWaits, SwapDevice} from './page_io.ts';
import {SwapAreas, swp_offset, swp_type} from './swap_map.ts';
import type {VmArea} from './vma.ts';
import {COSTS_SWAP, type SwapCosts, type SwapFns, swapFns} from './vmscan_costs.ts';
import {workingset_refault} from './vmscan_workingset.ts';

/** What happened, as in /proc/vmstat; pages. */
export class SwapCounts {
  pswpin = 0;
  pswpout = 0;
  /** Swap-ins that found the page in the cache. */
  cacheHits = 0;
  readahead = 0;
  readaheadHits = 0;
  /** Pages scanned and freed by kswapd, direct reclaim, and reclaim for a memcg's limit. */
  readonly pgscan = {kswapd: 0, direct: 0, memcg: 0};
  readonly pgsteal = {kswapd: 0, direct: 0, memcg: 0};
  activated = 0;
  deactivated = 0;
  refaults = 0;
  refaultsActivated = 0;
  /** PTEs and slots that swapoff has looked at. */
  unusePtes = 0;
  unuseSlots = 0;
  /** Pages that it brought in. */
  unused = 0;
}

/** swap_readahead_info of a VMA: last fault, its window, pages of it that were used since. */
interface ReadaheadWindow {
  vpn: number;
  size: number;
  hits: number;
}

/** Readahead windows by VMA, and the one of the devices (swap_state_readahead.ts). */
export class SwapReadahead {
  private readonly windows = new WeakMap<VmArea, ReadaheadWindow>();
  readonly cluster = {offset: 0, size: 0, hits: 0};

  of(vma: VmArea): ReadaheadWindow {
    let window = this.windows.get(vma);
    if (window === undefined) {
      window = {vpn: 0, size: 0, hits: 4};
      this.windows.set(vma, window);
    }
    return window;
  }
}

/** Called where Linux has the tracepoints of mm_vmscan_*; must not change anything. */
export interface ReclaimProbe {
  /** mm_vmscan_write_folio. */
  writeFolio(head: number): void;
  /** mm_vmscan_lru_shrink_inactive. */
  shrinkInactive(node: number, scanned: number, reclaimed: number): void;
  /** mm_vmscan_memcg_reclaim_begin and _end. */
  memcgReclaim(memcg: number, begin: boolean, reclaimed: number): void;
}

/** Decides when swapoff brings in its next page, as a replay of a recorded one does. */
export interface UnusePace {
  /** Returns when the next page may come in; mmap_lock is held for reading. */
  wait(t: Task): Code;
  /** A PTE has become present. */
  brought(): void;
}

/** Swap and reclaim state of one kernel. */
export class SwapState {
  readonly costs: SwapCosts;
  readonly fns: SwapFns;
  readonly areas: SwapAreas;
  /** By type of the area. */
  readonly devices: (SwapDevice | null)[] = [];
  /** swap_cgroup: memory cgroup that a slot's page was charged to, by type. */
  readonly cgroups: (Uint16Array | null)[] = [];
  /** init_mm.mmlist: ids of mms that may have swap entries, newest last. */
  readonly mmlist: number[] = [];
  readonly waits: FolioWaits;
  readonly memcgs = new Memcgs();
  readonly counts = new SwapCounts();
  readonly readahead = new SwapReadahead();
  /** Pages under writeback, and reclaimers that wait for one of them. */
  writebacks = 0;
  readonly throttled: WaitQueue;
  /** Writes held back, by reclaimer. */
  readonly plugs = new Map<Task, BlkPlug>();
  /** Writers that wait for a request of the device's queue. */
  readonly tags: WaitQueue;
  /** Hears of every folio written; null when nobody listens. */
  probe: ReclaimProbe | null = null;
  /** Null: as fast as it goes. Since 5.1. */
  unusePace: UnusePace | null = null;
  private disk: SwapDevice | null = null;
  /** vm.swappiness, vm.page-cluster. */
  swappiness = 60;
  pageCluster = 3;

  constructor(kernel: Kernel) {
    this.costs = scaledCosts(COSTS_SWAP, kernel.machine.topology.kernelWork);
    this.fns = swapFns(kernel);
    this.areas = new SwapAreas(kernel.machine.topology.cpuCount);
    this.waits = new FolioWaits(kernel);
    this.throttled = new WaitQueue(kernel, 'reclaim_wait');
    this.tags = new WaitQueue(kernel, 'blk_mq_tags');
  }

  /** Slots of all areas, and those in use. */
  get totalPages(): number {
    return this.areas.byType.reduce((sum, area) => sum + (area === null ? 0 : area.slots - 1), 0);
  }

  get usedPages(): number {
    return this.areas.byType.reduce((sum, area) => sum + (area?.inuse ?? 0), 0);
  }

  /** The disk under file systems. */
  fileDevice(kernel: Kernel): SwapDevice {
    this.disk ??= new SwapDevice(kernel);
    return this.disk;
  }

  /** vm_swap_full: more than half of the swap space is used. */
  get isFull(): boolean {
    return this.usedPages * 2 > this.totalPages;
  }
}

/** folio_alloc_swap (add_to_swap): a locked anonymous folio gets its slots. False: none is free. */
export function add_to_swap(k: Kernel, t: Task, head: number): boolean {
  const {pages, swap} = k.mm;
  const n = folio_nr_pages(pages, head);
  t.cpu.charge(swap.costs.swapSlotTicks, swap.fns.folio_alloc_swap);
  const entry = swap.areas.alloc(t.cpu.id, n);
  if (entry === 0) return false;
  const area = swap.areas.of(entry);
  const first = swp_offset(entry);
  const cgroup = swap.cgroups[area.type];
  for (let i = 0; i < n; i++) {
    area.addToCache(first + i, head + i);
    if (cgroup !== null) cgroup[first + i] = pages.hasMemcgs ? pages.memcg[head] : 0;
  }
  pages.private[head] = entry;
  pages.flags[head] |= PG_swapcache | PG_dirty;
  pages.refcount.add(head, n);
  return true;
}

/** The content of a folio in the swap cache goes to its slots: it is being written. */
export function save_swap_content(k: Kernel, head: number): void {
  const {pages, swap} = k.mm;
  if (!pages.hasContent) return;
  const entry = pages.private[head];
  const {content} = swap.areas.of(entry);
  const n = folio_nr_pages(pages, head);
  for (let i = 0; i < n; i++) content[swp_offset(entry) + i] = pages.content[head + i];
}

/** The swap entry of any page of a folio in the swap cache. */
export function page_swap_entry(k: Kernel, head: number, pfn: number): number {
  return k.mm.pages.private[head] + (pfn - head);
}

/** swap_cache_get_folio without its readahead bookkeeping: page for an entry, 0 when not cached. */
export function swap_cache_page(k: Kernel, entry: number): number {
  return k.mm.swap.areas.of(entry).cached(swp_offset(entry));
}

/**
 * __delete_from_swap_cache and put_swap_folio for a locked folio; its slots are free if no PTE has
 * them. `shadow` (-1: none) stays. The cache's references go; the caller has one of his own.
 */
export function delete_from_swap_cache(k: Kernel, head: number, shadow = -1): void {
  const {pages, swap} = k.mm;
  const n = folio_nr_pages(pages, head);
  const entry = pages.private[head];
  const area = swap.areas.of(entry);
  const first = swp_offset(entry);
  assert((pages.flags[head] & PG_swapcache) !== 0, `folio ${head} is not in the swap cache`);
  for (let i = 0; i < n; i++) area.removeFromCache(first + i, shadow);
  pages.flags[head] &= ~PG_swapcache;
  pages.private[head] = 0;
  pages.refcount.add(head, -n);
}

/** folio_swapped: does a PTE (or shmem) still refer to one of the folio's slots? */
export function folio_swapped(k: Kernel, head: number): boolean {
  const {pages, swap} = k.mm;
  const entry = pages.private[head];
  const area = swap.areas.of(entry);
  const first = swp_offset(entry);
  const n = folio_nr_pages(pages, head);
  for (let i = 0; i < n; i++) if (area.count(first + i) > 0) return true;
  return false;
}

/** folio_free_swap: the folio is locked. True: it was in the swap cache and has left it. */
export function folio_free_swap(k: Kernel, head: number): boolean {
  const {flags} = k.mm.pages;
  if ((flags[head] & PG_swapcache) === 0) return false;
  if ((flags[head] & PG_writeback) !== 0 || folio_swapped(k, head)) return false;
  delete_from_swap_cache(k, head);
  flags[head] |= PG_dirty;
  return true;
}

/** free_swap_cache: a mapping of the folio has gone; without others the slot is not needed. */
export function free_swap_cache(k: Kernel, head: number): void {
  const {pages} = k.mm;
  if ((pages.flags[head] & (PG_swapcache | PG_locked)) !== PG_swapcache) return;
  if (!folio_mapped(pages, head)) folio_free_swap(k, head);
}

/**
 * swap_entries_put_map: one PTE less refers to each entry of [entry, entry + n). A folio that is
 * only in the swap cache for them is freed (__try_to_reclaim_swap).
 */
export function free_swap_and_cache(k: Kernel, t: Task, entry: number, n: number): void {
  const {pages, swap} = k.mm;
  const area = swap.areas.of(entry);
  const first = swp_offset(entry);
  for (let offset = first; offset < first + n; offset++) {
    t.cpu.charge(swap.costs.swapFreeTicks, swap.fns.free_swap_and_cache);
    if (area.release(offset) || area.count(offset) > 0) continue;
    const pfn = area.cached(offset);
    if (pfn === 0) continue;
    const head = (pages.flags[pfn] & PG_swapcache) !== 0 ? pfn : pages.next[pfn];
    if ((pages.flags[head] & PG_locked) !== 0) continue;
    if (folio_mapped(pages, head) && !swap.isFull) continue;
    pages.refcount.increment(head);
    folio_free_swap(k, head);
    folio_put(k, t, head);
  }
}

/** What __read_swap_cache_async gives: a folio with a reference of the caller's. */
export interface CachedFolio {
  /** 0: the entry is free, or there is no memory. */
  readonly pfn: number;
  /** It is new, locked, and must be read. */
  readonly fresh: boolean;
}

const NO_FOLIO: CachedFolio = {pfn: 0, fresh: false};

/**
 * __read_swap_cache_async: the folio of a used entry, from the cache or newly in it. Reclaims for
 * memory only when `wait`.
 */
export function* read_swap_cache_async(
  k: Kernel,
  t: Task,
  entry: number,
  wait: boolean,
): Code<CachedFolio> {
  for (;;) {
    if (t.cpu.settle()) yield;
    const found = try_read_swap_cache(k, t, entry);
    if (found === 0) return NO_FOLIO;
    if (found !== NEED_RECLAIM) return {pfn: Math.abs(found), fresh: found > 0};
    if (!wait) return NO_FOLIO;
    const {nodeOf} = k.machine.topology;
    const spare = yield* alloc_folio_slow(k, t, 0, nodeOf[t.cpu.id], memcgOf(k, entry));
    if (spare === 0) return NO_FOLIO;
    if (t.cpu.settle()) yield;
    const now = cachedFolio(k, entry);
    if (now === null) {
      enterCache(k, t, entry, spare);
      return {pfn: spare, fresh: true};
    }
    folio_put(k, t, spare);
    return {pfn: now, fresh: false};
  }
}

/** try_read_swap_cache found no memory without reclaim. */
export const NEED_RECLAIM = -(2 ** 40);

/**
 * read_swap_cache_async without waiting; the task has settled. The pfn of a new folio that is to be
 * read, minus that of a folio found in the cache, 0 when the entry is free, or NEED_RECLAIM.
 */
export function try_read_swap_cache(k: Kernel, t: Task, entry: number): number {
  const cached = cachedFolio(k, entry);
  if (cached !== null) return -cached;
  const pfn = alloc_folio(k, t, 0, k.machine.topology.nodeOf[t.cpu.id], memcgOf(k, entry));
  if (pfn === 0) return 0;
  if (pfn < 0) return NEED_RECLAIM;
  enterCache(k, t, entry, pfn);
  return pfn;
}

/** The folio of an entry with a reference more; 0: the entry is free, null: it must be read. */
function cachedFolio(k: Kernel, entry: number): number | null {
  const {pages, swap} = k.mm;
  const offset = swp_offset(entry);
  const area = swap.areas.byType[swp_type(entry)] ?? null;
  if (area === null) return 0;
  const pfn = area.cached(offset);
  if (pfn === 0) return area.inUse(offset) ? null : 0;
  const head = (pages.flags[pfn] & PG_swapcache) !== 0 ? pfn : pages.next[pfn];
  pages.refcount.increment(head);
  return head;
}

/** The cgroup that the page of an entry was charged to. */
function memcgOf(k: Kernel, entry: number): number {
  return k.mm.swap.cgroups[swp_type(entry)]?.[swp_offset(entry)] ?? 0;
}

/** A new folio takes its place in the cache, locked, before it is read. */
function enterCache(k: Kernel, t: Task, entry: number, pfn: number): void {
  const {pages, swap} = k.mm;
  const area = swap.areas.of(entry);
  const offset = swp_offset(entry);
  const prepared = area.prepareCache(offset);
  assert(prepared, `swap slot ${offset} has a cache without a page`);
  const shadow = area.addToCache(offset, pfn);
  pages.flags[pfn] |= PG_locked | PG_swapbacked | PG_swapcache;
  pages.private[pfn] = entry;
  if (pages.hasContent) pages.content[pfn] = area.content[offset];
  pages.refcount.increment(pfn);
  t.cpu.charge(swap.costs.swapCacheTicks, swap.fns.read_swap_cache_async);
  if (shadow >= 0) workingset_refault(k, pfn, shadow);
  folio_add_lru(k, t, pfn);
}
