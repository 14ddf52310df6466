// mm/hugetlb.c: reserve maps (struct resv_map): which huge pages of a file, or of one private
// mapping, are accounted for. Regions are half-open ranges of huge-page offsets, ascending, apart.
//
// The map of a shared file has a region where a page is reserved or there. That of a private
// mapping, which the process that made it owns, means the opposite: everything is reserved but
// where there is a region, whose reservation has been consumed. A child's copy of a private mapping
// has no map: it has no reservation. Counting what a change needs and making it are separate
// steps; the fault mutex keeps both together here as there.

import type {RwSemaphore} from '../locking/rwsem.ts';
import type {HState} from './hugetlb_pool.ts';
import {linear_page_index, type VmArea} from './vma.ts';
import {VM_MAYSHARE} from './vma_flags.ts';
import type {VmaSpace} from './vma_space.ts';

/** struct resv_map. */
export class ResvMap {
  /** from, to, from, to, ... in huge pages. */
  private readonly regions: number[] = [];
  /** rw_sema: stands for the vma lock of the private mapping that owns the map. */
  rwSema: RwSemaphore | null = null;

  /**
   * `owner`: the address space whose private mapping it is of (HPAGE_RESV_OWNER), null for a
   * file's.
   */
  constructor(readonly owner: VmaSpace | null) {}

  /** region_count: how much of [from, to) is in regions. */
  count(from: number, to: number): number {
    let sum = 0;
    for (let i = 0; i < this.regions.length; i += 2) {
      const overlap = Math.min(this.regions[i + 1], to) - Math.max(this.regions[i], from);
      if (overlap > 0) sum += overlap;
    }
    return sum;
  }

  /** region_chg: how many huge pages of [from, to) are in no region. */
  missing(from: number, to: number): number {
    return to - from - this.count(from, to);
  }

  /** region_add: puts [from, to) into a region. Returns how many were not in one. */
  add(from: number, to: number): number {
    const added = this.missing(from, to);
    const {regions} = this;
    let first = 0;
    while (first < regions.length && regions[first + 1] < from) first += 2;
    let last = first;
    let start = from;
    let end = to;
    for (; last < regions.length && regions[last] <= to; last += 2) {
      start = Math.min(start, regions[last]);
      end = Math.max(end, regions[last + 1]);
    }
    regions.splice(first, last - first, start, end);
    return added;
  }

  /** region_del: takes [from, to) out of all regions. Returns how many were in one. */
  remove(from: number, to: number): number {
    const removed = this.count(from, to);
    const rest: number[] = [];
    for (let i = 0; i < this.regions.length; i += 2) {
      const [start, end] = [this.regions[i], this.regions[i + 1]];
      if (start < Math.min(end, from)) rest.push(start, Math.min(end, from));
      if (Math.max(start, to) < end) rest.push(Math.max(start, to), end);
    }
    this.regions.splice(0, this.regions.length, ...rest);
    return removed;
  }

  /** The regions, for tests: [from, to] pairs. */
  list(): readonly (readonly [number, number])[] {
    const pairs: [number, number][] = [];
    for (let i = 0; i < this.regions.length; i += 2) {
      pairs.push([this.regions[i], this.regions[i + 1]]);
    }
    return pairs;
  }
}

/** vma_hugecache_offset: which huge page of the file `vpn` is. */
export function vma_hugecache_offset(h: HState, vma: VmArea, vpn: number): number {
  return Math.floor(linear_page_index(vma, vpn) / h.pages);
}

/** vma_resv_map: the file's map for a shared mapping, the owner's for a private one, else null. */
export function vma_resv_map(vma: VmArea): ResvMap | null {
  if ((vma.flags & VM_MAYSHARE) !== 0) return vma.mapping?.hugetlb?.resvMap ?? null;
  const map = vma.privateData;
  return map instanceof ResvMap && map.owner === vma.space ? map : null;
}

/** HPAGE_RESV_OWNER is set: a private mapping with reservations of its own. */
export function is_resv_owner(vma: VmArea): boolean {
  return (vma.flags & VM_MAYSHARE) === 0 && vma_resv_map(vma) !== null;
}

/**
 * Is a reservation there for a fault at `vpn`? vma_needs_reservation, vma_end_reservation. 0 or 1
 * needed.
 */
export function vma_needs_reservation(h: HState, vma: VmArea, vpn: number): number {
  const map = vma_resv_map(vma);
  if (map === null) return 1;
  const index = vma_hugecache_offset(h, vma, vpn);
  const missing = map.missing(index, index + 1);
  return (vma.flags & VM_MAYSHARE) !== 0 ? missing : 1 - missing;
}

/** vma_commit_reservation: the page is there. Returns as vma_needs_reservation did before. */
export function vma_commit_reservation(h: HState, vma: VmArea, vpn: number): number {
  const map = vma_resv_map(vma);
  if (map === null) return 1;
  const index = vma_hugecache_offset(h, vma, vpn);
  const added = map.add(index, index + 1);
  return (vma.flags & VM_MAYSHARE) !== 0 ? added : 1 - added;
}

/** vma_add_reservation: the page went, its reservation is back. */
export function vma_add_reservation(h: HState, vma: VmArea, vpn: number): void {
  const map = vma_resv_map(vma);
  if (map === null) return;
  const index = vma_hugecache_offset(h, vma, vpn);
  if ((vma.flags & VM_MAYSHARE) !== 0) map.add(index, index + 1);
  else map.remove(index, index + 1);
}

/** vma_del_reservation: there is none for this page any more. */
export function vma_del_reservation(h: HState, vma: VmArea, vpn: number): void {
  const map = vma_resv_map(vma);
  if (map === null) return;
  const index = vma_hugecache_offset(h, vma, vpn);
  if ((vma.flags & VM_MAYSHARE) !== 0) map.remove(index, index + 1);
  else map.add(index, index + 1);
}
