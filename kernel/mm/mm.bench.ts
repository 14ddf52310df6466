// Speed of the mm's data structures, without locks and simulated time. 16 M pages are 64 GiB; the
// random walk visits them in the order of a multiplicative congruence, each exactly once.

import {hardwareWalk, PageTables, ptePopulate, setPte, UserPgd} from '../arch/x86/mm/pgtable.ts';
import {PTE_PRESENT, PTE_WRITE} from '../arch/x86/mm/pgtable_bits.ts';
import {copyPtes} from '../arch/x86/mm/pgtable_huge.ts';
import {
  clearPtes,
  freePgdRange,
  nextRange,
  PgtableCursor,
  startRange,
} from '../arch/x86/mm/pgtable_range.ts';
import {AddressSpaces} from './address_space.ts';
import {AnonVmas} from './anon_vma.ts';
import {Buddy} from './buddy.ts';
import {addPteMapping} from './folio_counts.ts';
import {Lruvecs} from './lru.ts';
import {PG_swapbacked} from './page_flags.ts';
import {MAPPING_ANON, Pages, setMapping} from './page.ts';
import {PageLists} from './page_list.ts';
import {PerCpuPages} from './pcp.ts';
import {anonProps} from './vma.ts';
import {VM_READ, VM_WRITE} from './vma_flags.ts';
import {detachRange, insertVma, unlinkVma} from './vma_ops.ts';
import {VmaSpace} from './vma_space.ts';
import {nodeWatermarks, pcpSizes} from './watermarks.ts';

/** One measurable operation: `fn` handles `perCall` units. */
export interface Bench {
  readonly name: string;
  readonly unit: string;
  readonly perCall: number;
  fn(): void;
}

const PAGES = 2 ** 24;
const BASE = 2 ** 34;
const PRESENT = PTE_PRESENT | PTE_WRITE;
let mapped: UserPgd | undefined;

function populate(pgd: UserPgd, base: number, pages: number): void {
  const {pt} = pgd;
  for (let i = 0; i < pages; i++) setPte(pt, ptePopulate(pgd, base + i), 1024 + i, PRESENT);
}

function unmap(pgd: UserPgd, cursor: PgtableCursor, base: number, pages: number): void {
  startRange(cursor, base, base + pages);
  while (nextRange(pgd, cursor)) clearPtes(pgd.pt, cursor.slot, cursor.count);
  freePgdRange(pgd, base, base + pages, 0, Infinity);
}

function bigMapping(): UserPgd {
  if (mapped === undefined) {
    mapped = new UserPgd(new PageTables(), 4, 1);
    populate(mapped, BASE, PAGES);
  }
  return mapped;
}

function expect(condition: boolean): void {
  if (!condition) throw new Error('benchmark went wrong');
}

function touchSequential(): void {
  const pgd = bigMapping();
  let hits = 0;
  for (let i = 0; i < PAGES; i++) if (hardwareWalk(pgd, BASE + i, false) >= 0) hits++;
  expect(hits === PAGES);
}

function touchRandom(): void {
  const pgd = bigMapping();
  let hits = 0;
  let at = 1;
  for (let i = 0; i < PAGES; i++) {
    at = (Math.imul(at, 1664525) + 1013904223) & (PAGES - 1);
    if (hardwareWalk(pgd, BASE + at, true) >= 0) hits++;
  }
  expect(hits === PAGES);
}

const RANGE = 2 ** 16;
const small = new UserPgd(new PageTables(), 4, 2);
const cursor = new PgtableCursor();

function populateAndClear(): void {
  populate(small, BASE, RANGE);
  unmap(small, cursor, BASE, RANGE);
  expect(small.tables[0] === 0);
}

/** A fork's copy and the child's unmapping. */
function forkCopy(): void {
  const parent = bigMapping();
  const child = new UserPgd(parent.pt, 4, 3);
  let copied = 0;
  startRange(cursor, BASE, BASE + RANGE);
  while (nextRange(parent, cursor)) {
    const to = ptePopulate(child, cursor.vpn);
    copied += copyPtes(parent.pt, cursor.slot, to, cursor.count, false);
  }
  expect(copied === RANGE);
  unmap(child, cursor, BASE, RANGE);
  parent.pt.dropTable(child.top);
}

const pages = new Pages([2 ** 20]);
const lists = new PageLists(pages);
const buddy = new Buddy(pages, lists, 0);
const marks = nodeWatermarks(buddy.managed, buddy.managed, {
  minFreeKbytes: 8192,
  watermarkScaleFactor: 10,
});
const sizes = pcpSizes(buddy.managed, marks.low, 1, 'watermark');
const pcp = new PerCpuPages(buddy, 1, sizes, 'watermark');
const held = new Int32Array(2 ** 14);

function buddyAllocFree(): void {
  for (let i = 0; i < held.length; i++) held[i] = buddy.alloc(0);
  for (let i = 0; i < held.length; i++) buddy.free(held[i], 0);
}

function pcpAllocFree(): void {
  for (let i = 0; i < held.length; i++) {
    let pfn = pcp.take(0, 0);
    if (pfn === 0) {
      pcp.refill(0, 0);
      pfn = pcp.take(0, 0);
    }
    held[i] = pfn;
  }
  for (let i = 0; i < held.length; i++) {
    const drain = pcp.put(0, 0, held[i]);
    if (drain > 0) pcp.drain(0, drain);
  }
}

const lruvec = new Lruvecs(lists, 1).of(0, 0);

/** All the bookkeeping of an anonymous page: owner, counts, LRU; and its end. */
function anonPageLife(): void {
  for (let i = 0; i < held.length; i++) {
    const pfn = buddy.alloc(0);
    held[i] = pfn;
    pages.flags[pfn] = PG_swapbacked;
    pages.refcount.increment(pfn);
    setMapping(pages, pfn, MAPPING_ANON, 5, BASE + i);
    addPteMapping(pages, pfn, pfn);
    lruvec.addFolio(pfn);
  }
  for (let i = 0; i < held.length; i++) {
    const pfn = held[i];
    lruvec.delFolio(pfn);
    pages.mapcount.decrement(pfn);
    pages.refcount.decrement(pfn);
    pages.flags[pfn] = 0;
    buddy.free(pfn, 0);
  }
}

function spaceOf(vmas: number): VmaSpace {
  const space = new VmaSpace(1, {anon: new AnonVmas(), files: new AddressSpaces()});
  for (let i = 0; i < vmas; i++) {
    insertVma(
      space,
      BASE + i * 20,
      BASE + i * 20 + 10,
      BASE + i * 20,
      anonProps(VM_READ | VM_WRITE),
    );
  }
  return space;
}

const FINDS = 10_000;
const space500 = spaceOf(500);

function findVma(): void {
  let hits = 0;
  for (let i = 0; i < FINDS; i++) {
    const vma = space500.tree.find(BASE + (Math.imul(i, 7919) % 10_000));
    if (vma !== null) hits++;
  }
  expect(hits > 9_000);
}

const MAPS = 65_530;
let crowded: VmaSpace | undefined;

/** munmap and mmap of one mapping among as many as a process may have, and the search for room. */
function mapAmongMany(): void {
  crowded ??= spaceOf(MAPS);
  for (let i = 0; i < 100; i++) {
    const start = BASE + ((i * 7919) % MAPS) * 20;
    for (const vma of detachRange(crowded, start, start + 10)) unlinkVma(vma);
    const found = crowded.tree.highestGap(30, 16, BASE + MAPS * 20, 1, 0);
    expect(found === start - 10 || i % 7919 === 0);
    insertVma(crowded, start, start + 10, start, anonProps(VM_READ | VM_WRITE));
  }
}

export const benches: readonly Bench[] = [
  {name: 'page-table touch, sequential', unit: 'pages', perCall: PAGES, fn: touchSequential},
  {name: 'page-table touch, random', unit: 'pages', perCall: PAGES, fn: touchRandom},
  {name: 'populate + clear', unit: 'pages', perCall: RANGE, fn: populateAndClear},
  {name: 'fork copy + unmap, raw', unit: 'PTEs', perCall: RANGE, fn: forkCopy},
  {name: 'buddy alloc + free', unit: 'pages', perCall: held.length, fn: buddyAllocFree},
  {name: 'per-CPU alloc + free', unit: 'pages', perCall: held.length, fn: pcpAllocFree},
  {name: 'anonymous page, life of', unit: 'pages', perCall: held.length, fn: anonPageLife},
  {name: 'find_vma among 500', unit: 'lookups', perCall: FINDS, fn: findVma},
  {name: 'unmap, search, map among 65,530', unit: 'rounds', perCall: 100, fn: mapAmongMany},
];
