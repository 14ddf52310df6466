// The ordered set of an mm's VMAs: the stand-in for the maple tree (rbtree before 6.1). A sorted
// list of chunks of up to 64 VMAs; each chunk knows its largest free gap, so that finding room
// among 65,530 mappings looks at chunks, not at VMAs. Lookup is two binary searches; insertion
// moves at most 64 entries. VMAs also are a linked list by address.

import {assert} from '../../machine/assert.ts';
import {type VmArea, vm_start_gap} from './vma.ts';

const CHUNK = 64;
const UNKNOWN = -1;

class Chunk {
  readonly vmas: VmArea[] = [];
  /** Their ends. */
  readonly ends: number[] = [];
  /** Largest gap below one of its VMAs, UNKNOWN when something changed. */
  gap = UNKNOWN;
}

/** VMAs by address. They do not overlap. */
export class VmaTree {
  private chunks: Chunk[] = [];
  /** End of the last VMA of each chunk. */
  private lasts: number[] = [];
  private at = 0;
  /** map_count. */
  count = 0;
  first: VmArea | null = null;
  last: VmArea | null = null;

  /**
   * find_vma: the first VMA that ends after `vpn`, null when there is none. It need not contain it.
   */
  find(vpn: number): VmArea | null {
    const {lasts} = this;
    let low = 0;
    let high = lasts.length;
    while (low < high) {
      const middle = (low + high) >>> 1;
      if (lasts[middle] > vpn) high = middle;
      else low = middle + 1;
    }
    if (low === lasts.length) return null;
    const chunk = this.chunks[low];
    this.at = low;
    const {ends} = chunk;
    low = 0;
    high = chunk.vmas.length - 1;
    while (low < high) {
      const middle = (low + high) >>> 1;
      if (ends[middle] > vpn) high = middle;
      else low = middle + 1;
    }
    return chunk.vmas[low];
  }

  /** vma_lookup: the VMA that contains `vpn`, null when none does. */
  lookup(vpn: number): VmArea | null {
    const vma = this.find(vpn);
    return vma !== null && vma.start <= vpn ? vma : null;
  }

  /** find_vma_intersection: the first VMA with a page in [start, end). */
  intersection(start: number, end: number): VmArea | null {
    const vma = this.find(start);
    return vma !== null && vma.start < end ? vma : null;
  }

  /** The last VMA that ends at or before `vpn`. */
  before(vpn: number): VmArea | null {
    const vma = this.find(vpn);
    return vma === null ? this.last : vma.prev;
  }

  insert(vma: VmArea): void {
    const {last} = this;
    if (last !== null && vma.start >= last.end) {
      this.append(vma);
      return;
    }
    const next = this.find(vma.start);
    assert(next === null || next.start >= vma.end, 'VMA inserted over another');
    this.link(vma, next);
    this.count++;
    if (this.chunks.length === 0) {
      this.chunks.push(new Chunk());
      this.lasts.push(0);
      this.at = 0;
    } else if (next === null) {
      this.at = this.chunks.length - 1;
    }
    let chunk = this.chunks[this.at];
    let index = next === null ? chunk.vmas.length : chunk.vmas.indexOf(next);
    if (chunk.vmas.length === CHUNK) {
      this.split(this.at, index === CHUNK);
      if (index >= this.chunks[this.at].vmas.length) {
        index -= this.chunks[this.at].vmas.length;
        this.at++;
        chunk = this.chunks[this.at];
      }
    }
    chunk.vmas.splice(index, 0, vma);
    this.renew(this.at, index);
  }

  /** Insertion behind the last one, as fork does it VMA by VMA. */
  private append(vma: VmArea): void {
    this.link(vma, null);
    this.count++;
    let at = this.chunks.length - 1;
    if (this.chunks[at].vmas.length === CHUNK) {
      this.chunks.push(new Chunk());
      this.lasts.push(0);
      at++;
    }
    const chunk = this.chunks[at];
    chunk.ends[chunk.vmas.length] = vma.end;
    chunk.vmas.push(vma);
    chunk.gap = UNKNOWN;
    this.lasts[at] = vma.end;
  }

  /** All VMAs, ascending, in an array of the caller's own. */
  all(): VmArea[] {
    const none: VmArea[] = [];
    return none.concat(...this.chunks.map((chunk) => chunk.vmas));
  }

  /** Takes all VMAs out; they are no longer attached and no longer linked. */
  clear(): void {
    for (const {vmas} of this.chunks) {
      for (const vma of vmas) {
        vma.next = null;
        vma.prev = null;
        vma.attached = false;
      }
    }
    this.first = null;
    this.last = null;
    this.count = 0;
    this.chunks = [];
    this.lasts = [];
  }

  remove(vma: VmArea): void {
    const found = this.find(vma.start);
    assert(found === vma, 'VMA removed that is not in the tree');
    const {at} = this;
    const chunk = this.chunks[at];
    const index = chunk.vmas.indexOf(vma);
    chunk.vmas.splice(index, 1);
    this.unlink(vma);
    this.count--;
    if (chunk.vmas.length === 0) {
      this.chunks.splice(at, 1);
      this.lasts.splice(at, 1);
      if (at < this.chunks.length) this.chunks[at].gap = UNKNOWN;
    } else {
      this.renew(at, index);
    }
  }

  /** Tells the tree that the VMA's start or end is being changed to these. */
  resize(vma: VmArea, start: number, end: number): void {
    const found = this.find(vma.start);
    assert(found === vma, 'VMA resized that is not in the tree');
    vma.start = start;
    vma.end = end;
    this.renew(this.at, this.chunks[this.at].vmas.indexOf(vma));
  }

  /**
   * The highest start of a hole of `length` pages inside [low, high), -1 when there is none. The
   * start is congruent to `offset` modulo `align` (a power of two). Guard gaps below stacks are
   * respected.
   */
  highestGap(length: number, low: number, high: number, align: number, offset: number): number {
    let vma = this.find(high - 1);
    let index = vma === null ? this.chunks.length : this.at;
    for (;;) {
      const ceiling = vma === null ? high : Math.min(high, vm_start_gap(vma));
      const below: VmArea | null = vma === null ? this.last : vma.prev;
      const start = fitBelow(ceiling, length, align, offset);
      if (start >= Math.max(low, below === null ? 0 : below.end)) return start;
      if (below === null || ceiling <= low) return -1;
      if (vma === null || this.chunks[index].vmas[0] === vma) index--;
      const {vmas} = this.chunks[index];
      vma = below;
      if (vma !== vmas[vmas.length - 1]) continue;
      while (this.gapOf(index) < length) if (--index < 0) return -1;
      vma = lastOf(this.chunks[index].vmas);
    }
  }

  /** The lowest such start. */
  lowestGap(length: number, low: number, high: number, align: number, offset: number): number {
    let above = this.find(low);
    let floor = above !== null && above.start < low ? above.end : low;
    if (above !== null && above.start < low) above = above.next;
    for (;;) {
      const start = fitAbove(Math.max(floor, low), align, offset);
      const ceiling = above === null ? high : Math.min(high, vm_start_gap(above));
      if (start + length <= ceiling) return start;
      if (above === null || floor >= high) return -1;
      floor = above.end;
      above = above.next;
    }
  }

  /** Largest gap below a VMA of the chunk. */
  private gapOf(index: number): number {
    const chunk = this.chunks[index];
    if (chunk.gap !== UNKNOWN) return chunk.gap;
    let most = 0;
    for (const vma of chunk.vmas) {
      const gap = vm_start_gap(vma) - (vma.prev === null ? 0 : vma.prev.end);
      if (gap > most) most = gap;
    }
    chunk.gap = most;
    return most;
  }

  /** Rewrites ends from `index` on and forgets the gaps that may have changed. */
  private renew(at: number, index: number): void {
    const chunk = this.chunks[at];
    const {vmas, ends} = chunk;
    for (let i = index; i < vmas.length; i++) ends[i] = vmas[i].end;
    this.lasts[at] = vmas[vmas.length - 1].end;
    chunk.gap = UNKNOWN;
    if (at + 1 < this.chunks.length) this.chunks[at + 1].gap = UNKNOWN;
  }

  /**
   * Makes room in a full chunk. Appending (mappings made in ascending order) leaves it full and
   * opens a new one.
   */
  private split(at: number, append: boolean): void {
    const chunk = this.chunks[at];
    const fresh = new Chunk();
    const moved = append ? chunk.vmas.splice(CHUNK - 1) : chunk.vmas.splice(CHUNK / 2);
    fresh.vmas.push(...moved);
    this.chunks.splice(at + 1, 0, fresh);
    this.lasts.splice(at + 1, 0, 0);
    this.renew(at + 1, 0);
    this.renew(at, 0);
  }

  private link(vma: VmArea, next: VmArea | null): void {
    const prev = next === null ? this.last : next.prev;
    vma.next = next;
    vma.prev = prev;
    if (prev === null) this.first = vma;
    else prev.next = vma;
    if (next === null) this.last = vma;
    else next.prev = vma;
    vma.attached = true;
  }

  private unlink(vma: VmArea): void {
    if (vma.prev === null) this.first = vma.next;
    else vma.prev.next = vma.next;
    if (vma.next === null) this.last = vma.prev;
    else vma.next.prev = vma.prev;
    vma.next = null;
    vma.prev = null;
    vma.attached = false;
  }
}

function lastOf(vmas: readonly VmArea[]): VmArea {
  return vmas[vmas.length - 1];
}

/**
 * Highest aligned start such that [start, start + length) ends at or below `ceiling`; may be
 * negative.
 */
function fitBelow(ceiling: number, length: number, align: number, offset: number): number {
  const start = ceiling - length;
  if (align === 1) return start;
  const excess = (start - offset) % align;
  return start - (excess < 0 ? excess + align : excess);
}

function fitAbove(floor: number, align: number, offset: number): number {
  if (align === 1) return floor;
  const excess = (floor - offset) % align;
  if (excess === 0) return floor;
  return floor + (excess < 0 ? -excess : align - excess);
}
