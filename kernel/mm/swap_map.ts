// Swap areas: which slots are in use, by how many PTEs, and which page or shadow the swap cache has
// for a slot.
//
// A swap entry is one 31-bit number, type * 2^26 + offset: up to 32 areas of up to 256 GiB. Per
// slot: a byte of swap_map (count, SWAP_HAS_CACHE), four bytes of swap cache (pfn, or a shadow as a
// value entry), and on machines with KSM four bytes of content. Slot 0 is the header and never
// used. The arrays cost host memory only where slots were used.
//
// Allocation as in Linux (SSD): slots are taken from clusters of 512; every CPU has a current
// cluster, then come free clusters, then partly used ones, lowest first. 6.18's per-order lists are
// folded: entries for a large folio are taken from a free cluster or not at all, and the caller
// splits the folio.

import {assert} from '../../machine/assert.ts';
import {zeroed} from '../../machine/zeroed.ts';
import {xa_is_value, xa_mk_value, xa_to_value} from './xarray.ts';

const OFFSET_BITS = 26;
const OFFSET_MASK = (1 << OFFSET_BITS) - 1;
export const MAX_SWAPFILES = 32;
/** SWAPFILE_CLUSTER. */
export const SWAP_CLUSTER = 512;
const CLUSTER_SHIFT = 9;

/** swap_map bits. */
const SWAP_HAS_CACHE = 0x40;
const COUNT_MASK = 0x3f;
const COUNT_MAX = 0x3e;

/** swp_entry. */
export function swp_entry(type: number, offset: number): number {
  return (type << OFFSET_BITS) | offset;
}

export function swp_type(entry: number): number {
  return entry >>> OFFSET_BITS;
}

export function swp_offset(entry: number): number {
  return entry & OFFSET_MASK;
}

/** One swap area (swap_info_struct). */
export class SwapArea {
  /** SWP_WRITEOK: slots may be allocated; swapoff clears it. */
  writeOk = true;
  /** Slots in use (inuse_pages). */
  inuse = 0;
  /** Times that a slot's count passed COUNT_MAX (add_swap_count_continuation). */
  private readonly continuations = new Map<number, number>();
  private readonly map: Uint8Array;
  private readonly cache: Int32Array;
  private contents: Int32Array | null = null;
  /** Used slots per cluster. */
  private readonly usedIn: Uint16Array;
  /** Clusters never used begin here. */
  private freshCluster = 0;
  /** Clusters that became empty, last in first out, and which are on that list. */
  private readonly freeClusters: number[] = [];
  private readonly listed: Uint8Array;
  /** Where the search of partly used clusters goes on. */
  private scanCluster = 0;
  /** Per CPU: the slot of its cluster to try next, 0 for none. */
  private readonly next: Int32Array;

  constructor(
    readonly type: number,
    /** Slots, the header included. */
    readonly slots: number,
    /** Higher is used first. */
    readonly priority: number,
    cpus: number,
  ) {
    assert(slots <= OFFSET_MASK, 'swap area of 256 GiB or more');
    this.map = zeroed(Uint8Array, slots);
    this.cache = zeroed(Int32Array, slots);
    this.usedIn = new Uint16Array(Math.ceil(slots / SWAP_CLUSTER));
    this.usedIn[0] = 1;
    this.listed = new Uint8Array(this.usedIn.length);
    this.next = new Int32Array(cpus);
  }

  /** Slots free for use. */
  get free(): number {
    return this.slots - 1 - this.inuse;
  }

  /** What the slots hold, by content class (KSM). */
  get content(): Int32Array {
    this.contents ??= zeroed(Int32Array, this.slots);
    return this.contents;
  }

  /**
   * Takes `pages` (1, or a power of two up to 512: aligned and in one cluster) slots for pages
   * entering the swap cache: they have SWAP_HAS_CACHE and no users. Returns the first offset, 0
   * when there is no room.
   */
  alloc(cpu: number, pages: number): number {
    if (!this.writeOk) return 0;
    if (pages === 1 && this.next[cpu] !== 0) {
      const offset = this.takeFrom(cpu, this.next[cpu], 1);
      if (offset !== 0) return offset;
    }
    for (let fresh = this.takeFreeCluster(); fresh >= 0; fresh = this.takeFreeCluster()) {
      const offset = this.takeFrom(cpu, fresh << CLUSTER_SHIFT, pages);
      if (offset !== 0) return offset;
      // Only the header's cluster has no room for a huge page.
      if (fresh > 0) break;
    }
    return pages === 1 ? this.scan(cpu) : 0;
  }

  /** Users of a slot (swap_count): PTEs and shmem entries, without the swap cache. */
  count(offset: number): number {
    const low = this.map[offset] & COUNT_MASK;
    return low + (this.continuations.get(offset) ?? 0) * COUNT_MAX;
  }

  /** Is the slot in the swap cache? */
  hasCache(offset: number): boolean {
    return (this.map[offset] & SWAP_HAS_CACHE) !== 0;
  }

  /** True for a slot with users or a cached page. */
  inUse(offset: number): boolean {
    return this.map[offset] !== 0;
  }

  /** swap_duplicate: one more user. */
  duplicate(offset: number): void {
    assert(this.map[offset] !== 0, `swap slot ${offset} used while free`);
    if ((this.map[offset] & COUNT_MASK) === COUNT_MAX) {
      this.continuations.set(offset, (this.continuations.get(offset) ?? 0) + 1);
      this.map[offset] -= COUNT_MAX;
    }
    this.map[offset]++;
  }

  /** swap_free: one user less. True when the slot became free. */
  release(offset: number): boolean {
    assert(this.count(offset) > 0, `swap slot ${offset} has no user`);
    this.map[offset]--;
    if ((this.map[offset] & COUNT_MASK) === 0) this.borrow(offset);
    return this.map[offset] === 0 && this.freed(offset);
  }

  /**
   * swapcache_prepare: a page for a used slot is about to be read. False when the cache has one
   * already.
   */
  prepareCache(offset: number): boolean {
    assert(this.map[offset] !== 0, `swap slot ${offset} read while free`);
    if (this.hasCache(offset)) return false;
    this.map[offset] |= SWAP_HAS_CACHE;
    return true;
  }

  /**
   * add_to_swap_cache: the page for a slot that has SWAP_HAS_CACHE. Returns the shadow it replaces,
   * -1 for none.
   */
  addToCache(offset: number, pfn: number): number {
    assert(this.hasCache(offset), `swap slot ${offset} is not prepared for the cache`);
    const old = this.cache[offset];
    this.cache[offset] = pfn;
    return xa_is_value(old) ? xa_to_value(old) : -1;
  }

  /** Page of a slot in the swap cache, 0 for none. */
  cached(offset: number): number {
    return Math.max(this.cache[offset], 0);
  }

  /** Shadow that a reclaimed page left (workingset), -1 for none. */
  shadow(offset: number): number {
    const entry = this.cache[offset];
    return xa_is_value(entry) ? xa_to_value(entry) : -1;
  }

  /**
   * __delete_from_swap_cache and put_swap_folio: `shadow` (-1 for none) stays. True when the slot
   * became free.
   */
  removeFromCache(offset: number, shadow: number): boolean {
    assert(this.hasCache(offset), `swap slot ${offset} is not in the cache`);
    this.cache[offset] = shadow < 0 ? 0 : xa_mk_value(shadow);
    this.map[offset] &= ~SWAP_HAS_CACHE;
    return this.map[offset] === 0 && this.freed(offset);
  }

  /** find_next_to_unuse: the first used slot at or after `offset`, 0 when there is none. */
  nextUsed(offset: number): number {
    for (let at = Math.max(offset, 1); at < this.slots; at++) {
      if ((at & (SWAP_CLUSTER - 1)) === 0 && this.usedIn[at >>> CLUSTER_SHIFT] === 0) {
        at += SWAP_CLUSTER - 1;
      } else if (this.map[at] !== 0) {
        return at;
      }
    }
    return 0;
  }

  /** Takes a continuation back into the byte when its count ran out. */
  private borrow(offset: number): void {
    const more = this.continuations.get(offset);
    if (more === undefined) return;
    this.map[offset] += COUNT_MAX;
    if (more === 1) this.continuations.delete(offset);
    else this.continuations.set(offset, more - 1);
  }

  /** swap_entry_free: always true. */
  private freed(offset: number): boolean {
    this.cache[offset] = 0;
    if (this.contents !== null) this.contents[offset] = 0;
    this.inuse--;
    const cluster = offset >>> CLUSTER_SHIFT;
    if (--this.usedIn[cluster] === 0 && this.listed[cluster] === 0) {
      this.listed[cluster] = 1;
      this.freeClusters.push(cluster);
    }
    return true;
  }

  private takeFreeCluster(): number {
    for (let cluster = this.freeClusters.pop(); cluster !== undefined; ) {
      this.listed[cluster] = 0;
      if (this.usedIn[cluster] === 0) return cluster;
      cluster = this.freeClusters.pop();
    }
    return this.freshCluster < this.usedIn.length ? this.freshCluster++ : -1;
  }

  /**
   * Takes the first run of free slots from `from` to the end of its cluster, 0 when there is none.
   */
  private takeFrom(cpu: number, from: number, pages: number): number {
    const end = Math.min((from | (SWAP_CLUSTER - 1)) + 1, this.slots);
    for (let at = from === 0 ? pages : from; at + pages <= end; at += pages) {
      if (!this.isFreeRun(at, pages)) continue;
      this.map.fill(SWAP_HAS_CACHE, at, at + pages);
      this.inuse += pages;
      this.usedIn[at >>> CLUSTER_SHIFT] += pages;
      if (pages === 1) this.next[cpu] = (at + 1) & (SWAP_CLUSTER - 1) ? at + 1 : 0;
      return at;
    }
    if (pages === 1) this.next[cpu] = 0;
    return 0;
  }

  private isFreeRun(at: number, pages: number): boolean {
    for (let i = 0; i < pages; i++) if (this.map[at + i] !== 0) return false;
    return true;
  }

  /** Partly used clusters, from where the last search ended. */
  private scan(cpu: number): number {
    const clusters = this.usedIn.length;
    for (let i = 0; i < clusters; i++) {
      const cluster = (this.scanCluster + i) % clusters;
      if (this.usedIn[cluster] === SWAP_CLUSTER) continue;
      const offset = this.takeFrom(cpu, cluster << CLUSTER_SHIFT, 1);
      if (offset === 0) continue;
      this.scanCluster = cluster;
      return offset;
    }
    return 0;
  }
}

/** All swap areas (swap_info, swap_avail_head). */
export class SwapAreas {
  readonly byType: (SwapArea | null)[] = [];
  /** Areas in order of priority, highest first. */
  private readonly available: SwapArea[] = [];

  constructor(readonly cpus: number) {}

  /** swapon. `slots` includes the header page. */
  add(slots: number, priority: number): SwapArea {
    let type = this.byType.indexOf(null);
    if (type < 0) type = this.byType.length;
    assert(type < MAX_SWAPFILES, 'more than 32 swap areas');
    const area = new SwapArea(type, slots, priority, this.cpus);
    this.byType[type] = area;
    const at = this.available.findIndex((other) => other.priority < priority);
    this.available.splice(at < 0 ? this.available.length : at, 0, area);
    return area;
  }

  /** Start of swapoff: no new slots. */
  disable(area: SwapArea): void {
    area.writeOk = false;
    this.available.splice(this.available.indexOf(area), 1);
  }

  /** A swapoff that failed: the area is in use again. */
  enable(area: SwapArea): void {
    area.writeOk = true;
    const at = this.available.findIndex((other) => other.priority < area.priority);
    this.available.splice(at < 0 ? this.available.length : at, 0, area);
  }

  /** End of swapoff: the area is empty and goes. */
  remove(area: SwapArea): void {
    assert(area.inuse === 0, 'swap area removed while in use');
    this.byType[area.type] = null;
  }

  /** The area of a swap entry. */
  of(entry: number): SwapArea {
    const area = this.byType[entry >>> OFFSET_BITS];
    assert(area !== null && area !== undefined, `swap entry ${entry} of no swap area`);
    return area;
  }

  /** get_swap_pages: a swap entry (the first of `pages`), 0 when no area has room. */
  alloc(cpu: number, pages: number): number {
    for (let i = 0; i < this.available.length; i++) {
      const area = this.available[i];
      const offset = area.alloc(cpu, pages);
      if (offset === 0) continue;
      this.rotate(i);
      return swp_entry(area.type, offset);
    }
    return 0;
  }

  /** nr_swap_pages: free slots in all areas. */
  get free(): number {
    let free = 0;
    for (const area of this.available) free += area.free;
    return free;
  }

  /** plist_requeue: areas of equal priority take turns. */
  private rotate(index: number): void {
    const {available} = this;
    const area = available[index];
    let at = index;
    while (at + 1 < available.length && available[at + 1].priority === area.priority) {
      available[at] = available[at + 1];
      at++;
    }
    available[at] = area;
  }
}
