// Per-CPU page lists in front of a node's buddy allocator: orders 0 to 3 and 9 since 5.14, order 0
// only before. Allocation and freeing of such pages need no zone lock but once per batch, which is
// what the layer above charges for: `take` and `put` only touch the CPU's lists, `refill` and
// `drain` move pages to and from the buddy lists under zone->lock.
//
// How many pages move follows the generation (watermarks.ts): up to 5.13 one batch; 5.14 to 6.6
// freeing doubles with every drain not interrupted by an allocation (free_factor); since 6.7
// allocation doubles likewise (alloc_factor), freeing follows the number of pages freed in a row,
// and `high` floats between its bounds as long as the node is above its high watermark.

import type {Buddy} from './buddy.ts';
import {HPAGE_PMD_ORDER} from './page.ts';
import type {PageLists} from './page_list.ts';
import type {PcpGeneration, PcpSizes} from './watermarks.ts';

/** PAGE_ALLOC_COSTLY_ORDER. */
const COSTLY_ORDER = 3;
const LISTS = COSTLY_ORDER + 2;
/** CONFIG_PCP_BATCH_SCALE_MAX. */
const BATCH_SCALE_MAX = 5;

/** The lists of all CPUs for one node. */
export class PerCpuPages {
  /** Pages at which a CPU's lists are drained. */
  readonly high: Int32Array;
  /** Pages on a CPU's lists. */
  readonly count: Int32Array;
  /**
   * ZONE_BELOW_HIGH: the node has been found below its high watermark; the layer above sets and
   * clears it.
   */
  belowHigh = false;
  private readonly allocFactor: Uint8Array;
  private readonly freeFactor: Uint8Array;
  private readonly freeCount: Int32Array;
  private readonly lists: PageLists;
  private readonly first: number;

  constructor(
    readonly buddy: Buddy,
    cpus: number,
    readonly sizes: PcpSizes,
    readonly generation: PcpGeneration,
  ) {
    this.high = new Int32Array(cpus).fill(sizes.high);
    this.count = new Int32Array(cpus);
    this.allocFactor = new Uint8Array(cpus);
    this.freeFactor = new Uint8Array(cpus);
    this.freeCount = new Int32Array(cpus);
    this.lists = buddy.lists;
    this.first = buddy.lists.allocate(cpus * LISTS);
  }

  /** Pages of one batch, before any scaling. */
  get batch(): number {
    return this.sizes.batch;
  }

  /** pcp_allowed_order. */
  allowsOrder(order: number): boolean {
    if (order === 0) return true;
    if (this.generation === 'fixed') return false;
    return order <= COSTLY_ORDER || order === HPAGE_PMD_ORDER;
  }

  /**
   * Takes a page (block) off the CPU's list, 0 when the list is empty: refill it then, under
   * zone->lock.
   */
  take(cpu: number, order: number): number {
    this.freeFactor[cpu] >>= 1;
    this.freeCount[cpu] >>= 1;
    const pfn = this.lists.popHead(this.list(cpu, order));
    if (pfn !== 0) this.count[cpu] -= 1 << order;
    return pfn;
  }

  /**
   * rmqueue_bulk: moves blocks (nr_pcp_alloc) from the buddy lists. Returns how many blocks came, 0
   * when memory is out.
   */
  refill(cpu: number, order: number): number {
    const blocks = this.blocksToAllocate(cpu, order);
    const list = this.list(cpu, order);
    let got = 0;
    while (got < blocks) {
      const pfn = this.buddy.alloc(order);
      if (pfn === 0) break;
      this.lists.addTail(list, pfn);
      got++;
    }
    this.count[cpu] += got << order;
    return got;
  }

  /**
   * free_unref_page_commit: puts a freed page (block) on the CPU's list. Returns 0, or the number
   * of pages that must now be drained, under zone->lock (nr_pcp_free).
   */
  put(cpu: number, order: number, pfn: number): number {
    const {batch} = this.sizes;
    this.allocFactor[cpu] >>= 1;
    this.lists.addHead(this.list(cpu, order), pfn);
    this.count[cpu] += 1 << order;
    if (this.freeCount[cpu] < batch << BATCH_SCALE_MAX) this.freeCount[cpu] += 1 << order;
    const high = this.generation === 'auto' ? this.floatHigh(cpu) : this.high[cpu];
    return this.count[cpu] >= high ? this.pagesToFree(cpu, high) : 0;
  }

  /**
   * free_pcppages_bulk: gives at least `pages` pages (or all) back to the buddy lists. Returns how
   * many blocks went.
   */
  drain(cpu: number, pages: number): number {
    let left = Math.min(pages, this.count[cpu]);
    let freed = 0;
    // Round robin over the lists, a block at a time from the cold end, as the kernel does.
    while (left > 0) {
      for (let i = 0; i < LISTS && left > 0; i++) {
        const pfn = this.lists.popTail(this.first + cpu * LISTS + i);
        if (pfn === 0) continue;
        const order = i <= COSTLY_ORDER ? i : HPAGE_PMD_ORDER;
        this.buddy.free(pfn, order);
        this.count[cpu] -= 1 << order;
        left -= 1 << order;
        freed++;
      }
    }
    return freed;
  }

  /** nr_pcp_alloc. */
  private blocksToAllocate(cpu: number, order: number): number {
    let {batch} = this.sizes;
    if (this.generation === 'auto') {
      const scaled = order === 0 ? batch << this.allocFactor[cpu] : batch;
      if (!this.belowHigh) {
        this.high[cpu] = Math.min(this.high[cpu] + scaled, this.sizes.highMax);
      }
      if (order === 0) {
        const most = Math.max(this.high[cpu] - this.count[cpu] - batch, batch);
        if (scaled <= most && this.allocFactor[cpu] < BATCH_SCALE_MAX) this.allocFactor[cpu]++;
        batch = Math.min(scaled, most);
      }
    }
    return batch > 1 && order > 0 ? Math.max(batch >> order, 2) : batch;
  }

  /** nr_pcp_high, as far as it follows memory pressure and the size of what is freed. */
  private floatHigh(cpu: number): number {
    const {batch, high: least, highMax} = this.sizes;
    const high = this.high[cpu];
    if (least === highMax) return high;
    if (this.belowHigh) {
      this.high[cpu] = Math.max(high - this.freeCount[cpu], least);
      return Math.max(this.count[cpu], least);
    }
    if (this.count[cpu] >= high) {
      const need = this.freeCount[cpu] + batch;
      this.high[cpu] = Math.min(Math.max(need, least), highMax);
    }
    return high;
  }

  /** nr_pcp_free. */
  private pagesToFree(cpu: number, high: number): number {
    const {batch} = this.sizes;
    if (this.generation === 'fixed') return batch;
    const most = Math.max(high - batch, batch);
    if (this.generation === 'auto') return Math.min(Math.max(this.freeCount[cpu], batch), most);
    const scaled = batch << this.freeFactor[cpu];
    if (scaled < most) this.freeFactor[cpu]++;
    return Math.min(Math.max(scaled, batch), most);
  }

  private list(cpu: number, order: number): number {
    return this.first + cpu * LISTS + (order <= COSTLY_ORDER ? order : COSTLY_ORDER + 1);
  }
}
