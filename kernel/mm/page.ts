// struct page for all memory of the machine: parallel typed arrays indexed by pfn, 24 bytes a page.
//
//   flags 4 (PG_ bits, order of a folio or free block in the top five), _refcount 2, _mapcount 2
//   (carries: count_array.ts), mapping 4 (who maps it: an anon_vma, a file or a KSM node), index 4
//   (its page offset there), prev 4, next 4 (the one list it is on: LRU, free list, per-CPU list,
//   or an isolated list).
//
// The arrays span all nodes from the start but cost host memory only where they have been written
// (fresh typed arrays are untouched zero pages), and the buddy allocator hands out never-used
// memory last. pfn 0 is "no page": memory begins at FIRST_PFN. Words that only some machines need
// (content for KSM, private for swap entries, memcg) are made on demand.
//
// Folios as in Linux: the head has PG_head and the order, tails have PG_tail and their head in
// `next`. The first tail's words hold entire_mapcount, nr_pages_mapped and large_mapcount; the
// second tail's the pin count and the deferred-split links.

import {assert} from '../../machine/assert.ts';
import {zeroed, zeroedBuffer} from '../../machine/zeroed.ts';
import {CountArray} from './count_array.ts';
import {FLAG_BITS, ORDER_SHIFT, PG_head, PG_hugetlb, PG_tail} from './page_flags.ts';

/** First page frame of memory; everything is aligned to the largest buddy block, 4 MB. */
export const FIRST_PFN = 1024;
export const MAX_ORDER = 10;
export const HPAGE_PMD_ORDER = 9;
export const HPAGE_PMD_NR = 512;
export const HPAGE_PUD_ORDER = 18;

/** Bytes of a struct page in the arrays that always exist. */
export const STRUCT_PAGE_BYTES = 24;

/** Kinds of owner in `mapping`. */
export const MAPPING_FILE = 0;
export const MAPPING_ANON = 1;
export const MAPPING_KSM = 2;
export const MAPPING_MOVABLE = 3;
const KIND_SHIFT = 30;
const INDEX_HIGH_SHIFT = 26;
const ID_MASK = (1 << INDEX_HIGH_SHIFT) - 1;
const INDEX_HIGH_MASK = 0xf << INDEX_HIGH_SHIFT;
const PER_WORD = 2 ** -32;
/**
 * An index is kept modulo this: anonymous mappings of all of a 48-bit address space, files of 256
 * TB.
 */
export const INDEX_LIMIT = 2 ** 36;

/** Page frames [first, end) of a node. */
export interface NodeSpan {
  readonly first: number;
  readonly end: number;
}

/** Lays out nodes of the given sizes in pages one after the other, each rounded up to 4 MB. */
export function layoutNodes(pagesByNode: readonly number[]): NodeSpan[] {
  const spans: NodeSpan[] = [];
  let first = FIRST_PFN;
  for (const pages of pagesByNode) {
    const end = first + Math.ceil(pages / FIRST_PFN) * FIRST_PFN;
    spans.push({first, end});
    first = end;
  }
  return spans;
}

/** Bytes of an ArrayBuffer that every host can make. */
const LARGEST_BUFFER = 2 ** 32;

/** All struct pages. */
export class Pages {
  readonly nodes: readonly NodeSpan[];
  /** One more than the last pfn. */
  readonly endPfn: number;
  readonly flags: Int32Array;
  readonly refcount: CountArray;
  /** _mapcount + 1: how many PTEs map this page. */
  readonly mapcount: CountArray;
  readonly mapping: Int32Array;
  readonly index: Int32Array;
  readonly prev: Int32Array;
  readonly next: Int32Array;
  private contents: Int32Array | null = null;
  private privates: Int32Array | null = null;
  private memcgs: Uint16Array | null = null;
  private cpupids: Int32Array | null = null;

  /**
   * `devicePages`: further struct pages without memory behind them (device-private memory), after
   * the last node.
   */
  constructor(pagesByNode: readonly number[], devicePages = 0) {
    this.nodes = layoutNodes(pagesByNode);
    const memoryEnd = this.nodes.length === 0 ? FIRST_PFN : this.nodes[this.nodes.length - 1].end;
    this.endPfn = memoryEnd + devicePages;
    assert(this.endPfn < 2 ** 31, 'more than 2^31 page frames');
    // One allocation where it fits.
    const words = this.endPfn;
    const bytes = words * 4;
    const one = bytes * 6 <= LARGEST_BUFFER;
    const buffer = zeroedBuffer(one ? bytes * 6 : 0);
    const column = (i: number): Int32Array =>
      one ? new Int32Array(buffer, i * bytes, words) : zeroed(Int32Array, words);
    const counts = (at: number): CountArray =>
      one ? new CountArray(words, buffer, at) : new CountArray(words);
    this.flags = column(0);
    this.mapping = column(1);
    this.index = column(2);
    this.prev = column(3);
    this.next = column(4);
    this.refcount = counts(5 * bytes);
    this.mapcount = counts(5 * bytes + words * 2);
  }

  /** What a page holds, as a class of equal contents (KSM); 0 is unknown or zero. */
  get content(): Int32Array {
    this.contents ??= zeroed(Int32Array, this.endPfn);
    return this.contents;
  }

  /** False while nobody has asked for contents. */
  get hasContent(): boolean {
    return this.contents !== null;
  }

  /** page->private: the swap entry of a page in the swap cache. */
  get private(): Int32Array {
    this.privates ??= zeroed(Int32Array, this.endPfn);
    return this.privates;
  }

  /** Memory cgroup of a folio (head), 0 for the root. */
  get memcg(): Uint16Array {
    this.memcgs ??= zeroed(Uint16Array, this.endPfn);
    return this.memcgs;
  }

  /** False while all pages are in the root cgroup. */
  get hasMemcgs(): boolean {
    return this.memcgs !== null;
  }

  /**
   * _last_cpupid of a folio (head), plus 1: 0 is "nobody since the page was allocated". NUMA
   * balancing's.
   */
  get cpupid(): Int32Array {
    this.cpupids ??= zeroed(Int32Array, this.endPfn);
    return this.cpupids;
  }

  /** False while no page has seen a NUMA hinting fault. */
  get hasCpupids(): boolean {
    return this.cpupids !== null;
  }

  /** page_to_nid. */
  nodeOf(pfn: number): number {
    const {nodes} = this;
    for (let node = 0; node < nodes.length; node++) if (pfn < nodes[node].end) return node;
    return nodes.length - 1;
  }
}

/** compound_head: the first page of the folio that `pfn` belongs to. */
export function compound_head(pages: Pages, pfn: number): number {
  return (pages.flags[pfn] & PG_tail) === 0 ? pfn : pages.next[pfn];
}

/** folio_order: 0 for a page that is no head. */
export function folio_order(pages: Pages, head: number): number {
  const word = pages.flags[head];
  return (word & PG_head) === 0 ? 0 : word >>> ORDER_SHIFT;
}

/** folio_nr_pages. */
export function folio_nr_pages(pages: Pages, head: number): number {
  return 1 << folio_order(pages, head);
}

/** prep_compound_page: makes 2^order pages a folio. Order 1 and up. */
export function prep_compound_page(pages: Pages, head: number, order: number): void {
  const end = head + (1 << order);
  pages.flags[head] = (pages.flags[head] & FLAG_BITS) | PG_head | (order << ORDER_SHIFT);
  pages.flags.fill(PG_tail, head + 1, end);
  pages.next.fill(head, head + 1, end);
  clearTailWords(pages, head, order);
}

/**
 * Makes single pages of a folio (the end of __split_huge_page and of __free_pages_prepare): tails
 * lose PG_tail and their words, the head PG_head and the order. What tails inherit from the head is
 * the caller's business.
 */
export function dissolve_compound(pages: Pages, head: number): void {
  const order = folio_order(pages, head);
  const end = head + (1 << order);
  clearTailWords(pages, head, order);
  pages.flags[head] &= FLAG_BITS & ~PG_head;
  for (let pfn = head + 1; pfn < end; pfn++) {
    pages.flags[pfn] &= ~PG_tail;
    pages.next[pfn] = 0;
  }
}

function clearTailWords(pages: Pages, head: number, order: number): void {
  pages.mapping[head + 1] = 0;
  pages.index[head + 1] = 0;
  pages.prev[head + 1] = 0;
  if (order < 2) return;
  pages.mapping[head + 2] = 0;
  pages.index[head + 2] = 0;
  pages.prev[head + 2] = 0;
}

/** Sets owner and page offset (page->mapping, page->index). `index` is taken modulo INDEX_LIMIT. */
export function setMapping(
  pages: Pages,
  pfn: number,
  kind: number,
  id: number,
  index: number,
): void {
  const high = (index * PER_WORD) & 0xf;
  pages.mapping[pfn] = (kind << KIND_SHIFT) | (high << INDEX_HIGH_SHIFT) | id;
  pages.index[pfn] = index | 0;
}

/**
 * Changes the owner alone, as turning an anonymous page into a KSM page or reusing it for the local
 * anon_vma does.
 */
export function setMappingOwner(pages: Pages, pfn: number, kind: number, id: number): void {
  pages.mapping[pfn] = (pages.mapping[pfn] & INDEX_HIGH_MASK) | (kind << KIND_SHIFT) | id;
}

/** page->mapping = NULL. */
export function clearMapping(pages: Pages, pfn: number): void {
  pages.mapping[pfn] = 0;
  pages.index[pfn] = 0;
}

/**
 * MAPPING_FILE, MAPPING_ANON, MAPPING_KSM or MAPPING_MOVABLE; MAPPING_FILE with id 0 is no mapping.
 */
export function mappingKind(pages: Pages, pfn: number): number {
  return pages.mapping[pfn] >>> KIND_SHIFT;
}

/** Id of the anon_vma, address_space or KSM node; 0 for none. */
export function mappingId(pages: Pages, pfn: number): number {
  return pages.mapping[pfn] & ID_MASK;
}

/** PageAnon: true for KSM pages, too. */
export function folio_test_anon(pages: Pages, head: number): boolean {
  const kind = pages.mapping[head] >>> KIND_SHIFT;
  return kind === MAPPING_ANON || kind === MAPPING_KSM;
}

export function folio_test_ksm(pages: Pages, head: number): boolean {
  return pages.mapping[head] >>> KIND_SHIFT === MAPPING_KSM;
}

/**
 * page_pgoff: offset of any page of a folio in its mapping, modulo INDEX_LIMIT. hugetlb counts
 * small pages here.
 */
export function page_pgoff(pages: Pages, pfn: number): number {
  const head = compound_head(pages, pfn);
  const high = (pages.mapping[head] & INDEX_HIGH_MASK) >>> INDEX_HIGH_SHIFT;
  return high * 2 ** 32 + (pages.index[head] >>> 0) + (pfn - head);
}

/** True for a folio that counts its mappings per folio as well: order 1 and up. */
export function folio_test_large(pages: Pages, head: number): boolean {
  return (pages.flags[head] & PG_head) !== 0;
}

export function folio_test_hugetlb(pages: Pages, head: number): boolean {
  return (pages.flags[head] & PG_hugetlb) !== 0;
}
