import assert from 'node:assert/strict';
import {test} from 'node:test';
import fc from 'fast-check';
import type {Code} from '../../machine/process.ts';
import {pteSlot} from '../arch/x86/mm/pgtable.ts';
import {PTE_KIND, PTE_PRESENT} from '../arch/x86/mm/pgtable_bits.ts';
import type {Kernel} from '../kernel.ts';
import type {MmStruct} from '../mm_types.ts';
import type {Task} from '../task.ts';
import type {AddressSpace} from './address_space.ts';
import {folio_mapcount, folio_ref_count, pinFolio, unpinFolio} from './folio_counts.ts';
import {lru_add_drain_all} from './folio_lru.ts';
import {splitPieces} from './huge_memory_split_file.ts';
import {ANON_RW, access, FILE_RX, mapFile, runProcess, tearDown} from './mm_testing.ts';
import {compound_head, folio_nr_pages, folio_test_large} from './page.ts';
import {__folio_put, drain_all_pages, folio_put} from './page_alloc.ts';
import {PG_dirty, PG_lru} from './page_flags.ts';
import {do_truncate, punch_hole} from './truncate.ts';
import {VM_LOCKED, VM_MAYSHARE, VM_SHARED} from './vma_flags.ts';

const BASE = 0x5_5555_0000;
const SHARED_RW = ANON_RW | VM_SHARED | VM_MAYSHARE;

/**
 * Orders of the folios that hold pages [0, end) of a file, as `4-` for page 0 of a folio of order
 * 4; `.` for no page.
 */
function folios(k: Kernel, file: AddressSpace, end: number): string {
  const {pages, files} = k.mm;
  let text = '';
  for (let index = 0; index < end; index++) {
    const pfn = files.page(file, index);
    const head = pfn === 0 ? 0 : compound_head(pages, pfn);
    text += pfn === 0 ? '.' : pfn === head ? Math.log2(folio_nr_pages(pages, head)) : '-';
  }
  return text;
}

function present(k: Kernel, mm: MmStruct, start: number, pages: number): string {
  let text = '';
  for (let vpn = start; vpn < start + pages; vpn++) {
    const slot = pteSlot(mm.user!.pgd, vpn);
    text += slot >= 0 && (k.mm.pt.flags[slot] & PTE_KIND) === PTE_PRESENT ? 'f' : '.';
  }
  return text;
}

/** Free pages, once nothing waits in a CPU's batch any more. */
function freePages(k: Kernel): number {
  lru_add_drain_all(k, k.taskList.find(100)!);
  drain_all_pages(k);
  return k.mm.zones.reduce((sum, zone) => sum + zone.free, 0);
}

function unmapPairs(k: Kernel): number {
  return k.mm.notifierCounts.sites.get('try_to_unmap_one')?.start[1] ?? 0;
}

/** A file of 32 pages whose first 16 are one folio, mapped twice: a part of it, and all of it. */
function* mappedTwice(k: Kernel, t: Task, flags = SHARED_RW): Code<AddressSpace> {
  const file = k.mm.files.create('file', 32);
  k.mm.largeFolios.mark(file, 0, 4);
  mapFile(k, t.mm!, BASE, 4, file, 0, flags);
  mapFile(k, t.mm!, BASE + 100, 32, file, 0, flags);
  yield* access(k, t, BASE, flags !== FILE_RX);
  for (let n = 0; n < 16; n++) yield* access(k, t, BASE + 100 + n, flags !== FILE_RX);
  assert.equal(folios(k, file, 17), '4---------------.');
  return file;
}

for (const [version, left] of [
  ['6.6', '00000'],
  ['6.18', '2---0'],
] as const) {
  test(`${version}: a large folio that a truncation cuts is split, and the rest is free`, () => {
    runProcess(function* (k, t) {
      const mm = t.mm!;
      const file = yield* mappedTwice(k, t);
      const head = k.mm.files.page(file, 0);
      const free = freePages(k);
      const pairs = unmapPairs(k);
      const rss = mm.user!.rss.counts[0];
      assert.ok(rss >= 17);
      assert.equal(yield* do_truncate(k, t, file, 5), 0);
      assert.equal(folios(k, file, 32), `${left}${'.'.repeat(27)}`);
      assert.equal(freePages(k) - free, 11, 'eleven pages are free');
      // What the split unmapped is not mapped again: one pair for each of the two mappings.
      assert.equal(unmapPairs(k) - pairs, 2);
      assert.equal(present(k, mm, BASE, 4) + present(k, mm, BASE + 100, 32), '.'.repeat(36));
      assert.equal(mm.user!.rss.counts[0], 0);
      assert.equal(folio_mapcount(k.mm.pages, head), 0);
      assert.equal(folio_ref_count(k.mm.pages, head), version === '6.6' ? 1 : 4);
      // They are in memory still, dirty as before, and on the list of pages.
      assert.ok((k.mm.pages.flags[head] & PG_dirty) !== 0);
      assert.ok((k.mm.pages.flags[head] & PG_lru) !== 0);
      assert.equal(yield* access(k, t, BASE + 103, false), 'minor file');
      assert.equal(yield* access(k, t, BASE + 105, false), 'sigbus');
      assert.equal(k.mm.files.page(file, 0), head);
    }, version);
  });
}

test('a hole in the middle: both of its ends are cut', () => {
  const after = (version: string): string => {
    let text = '';
    runProcess(function* (k, t) {
      const file = yield* mappedTwice(k, t);
      const free = freePages(k);
      assert.equal(yield* punch_hole(k, t, file, 5, 10), 0);
      assert.equal(freePages(k) - free, 5);
      assert.equal(file.nrpages, 11);
      text = folios(k, file, 16);
    }, version);
    return text;
  };
  assert.equal(after('6.6'), '00000.....000000');
  // 6.15+: halved towards page 5, and then, above it, towards page 10.
  assert.equal(after('6.18'), '2---0.....002---');
});

test('locked mappings do not keep a folio from being split', () => {
  runProcess(function* (k, t) {
    const file = yield* mappedTwice(k, t, SHARED_RW | VM_LOCKED);
    yield* do_truncate(k, t, file, 8);
    assert.equal(folios(k, file, 16), '3-------........');
  });
});

test('a dirty folio with a pin stays whole, with zeros in the hole; a clean one leaves', () => {
  const pinned = (flags: number): string => {
    let text = '';
    runProcess(function* (k, t) {
      const {pages} = k.mm;
      const free = freePages(k);
      const file = yield* mappedTwice(k, t, flags);
      const head = k.mm.files.page(file, 0);
      for (let n = 0; n < 16; n++) pages.content[head + n] = 7;
      pinFolio(pages, head, 1);
      assert.equal(yield* punch_hole(k, t, file, 4, 8), 0);
      assert.ok(folio_test_large(pages, head));
      const held = [...pages.content.subarray(head, head + 16)].join('');
      text = `${folios(k, file, 16)} ${held} ${present(k, t.mm!, BASE + 100, 16)}`;
      assert.equal(unpinFolio(pages, head, 1), file.nrpages === 0);
      if (file.nrpages === 0) {
        // What the disk has is read again, and the hole is not.
        assert.equal(yield* access(k, t, BASE + 102, false), 'major');
        // The pin was the last reference.
        __folio_put(k, t, head);
      } else {
        assert.equal(yield* access(k, t, BASE + 105, false), 'minor file');
      }
      yield* tearDown(k, t, t.mm!);
      yield* do_truncate(k, t, file, 0);
      assert.equal(freePages(k), free);
    });
    return text;
  };
  const zeros = '7777000077777777';
  assert.equal(pinned(SHARED_RW), `4--------------- ${zeros} ffff....ffffffff`);
  assert.equal(pinned(FILE_RX), `................ ${zeros} ................`);
});

const PIECES = fc.tuple(fc.integer({min: 1, max: 9}), fc.nat(511));

test('law: the pieces of a split lie side by side, aligned, and the page is one of them', () => {
  fc.assert(
    fc.property(PIECES, fc.constantFrom('6.6', '6.18'), ([order, at], version) => {
      const n = 2 ** order;
      const page = at % n;
      const pieces = splitPieces(version, n, page);
      let next = 0;
      for (const {start, pages} of pieces) {
        assert.equal(start, next);
        assert.equal(start % pages, 0);
        next += pages;
      }
      assert.equal(next, n);
      assert.ok(pieces.some(({start, pages}) => start === page && pages === 1));
      assert.equal(pieces.length, version === '6.6' ? n : order + 1);
    }),
  );
});

const STEP = fc.record({
  what: fc.constantFrom('truncate', 'punch', 'grow', 'write', 'read', 'pin', 'unpin'),
  start: fc.nat(79),
  pages: fc.integer({min: 1, max: 30}),
});

test('law: large folios are cut, pinned and mapped at random: counts are true, nothing is lost', () => {
  let cut = 0;
  fc.assert(
    fc.property(
      fc.constantFrom('6.6', '6.18'),
      fc.array(fc.tuple(fc.nat(4), fc.integer({min: 1, max: 4})), {maxLength: 6}),
      fc.array(STEP, {minLength: 1, maxLength: 14}),
      (version, large, steps) => {
        runProcess(function* (k, t) {
          const {pages, files} = k.mm;
          const free = freePages(k);
          const file = files.create('file', 80);
          for (const [at, order] of large) k.mm.largeFolios.mark(file, at * 16, order);
          mapFile(k, t.mm!, BASE, 80, file, 0, SHARED_RW);
          mapFile(k, t.mm!, BASE + 200, 40, file, 20, SHARED_RW);
          for (let n = 0; n < 80; n += 2) yield* access(k, t, BASE + n, n % 3 === 0);
          const pins: number[] = [];
          for (const {what, start, pages: n} of steps) {
            const before = folios(k, file, 80);
            if (what === 'truncate') yield* do_truncate(k, t, file, start);
            else if (what === 'grow') yield* do_truncate(k, t, file, 80);
            else if (what === 'punch') yield* punch_hole(k, t, file, start, start + n);
            else if (what === 'write') yield* access(k, t, BASE + start, true);
            else if (what === 'read') yield* access(k, t, BASE + 200 + (start % 40), false);
            else if (what === 'pin' && files.page(file, start) > 0) {
              const head = compound_head(pages, files.page(file, start));
              pages.refcount.increment(head);
              pins.push(head);
            } else if (what === 'unpin' && pins.length > 0) {
              folio_put(k, t, pins.pop()!);
            }
            if (what === 'truncate' || what === 'punch') {
              if (before !== folios(k, file, 80)) cut++;
              const end = what === 'punch' ? start + n : 80;
              const from = what === 'punch' ? start : Math.max(start, file.sizePages);
              for (let index = from; index < Math.min(end, 80); index++) {
                const pfn = files.page(file, index);
                if (pfn > 0) assert.ok(pins.includes(compound_head(pages, pfn)), 'stays if pinned');
              }
            }
            checkCounts(k, file, t.mm!, pins);
          }
          for (const head of pins) folio_put(k, t, head);
          yield* tearDown(k, t, t.mm!);
          yield* do_truncate(k, t, file, 0);
          assert.equal(file.nrpages + file.nrValues, 0);
          assert.equal(freePages(k), free);
        }, version);
      },
    ),
    {numRuns: 120, seed: 8},
  );
  assert.ok(cut > 100, `${cut} cuts`);
});

/**
 * References and map counts of every folio of the file are those of the page tables, the cache and
 * pins.
 */
function checkCounts(k: Kernel, file: AddressSpace, mm: MmStruct, pins: readonly number[]): void {
  const {pages, files, pt} = k.mm;
  const maps = new Map<number, number>();
  let mapped = 0;
  for (const [start, n] of [
    [BASE, 80],
    [BASE + 200, 40],
  ]) {
    for (let vpn = start; vpn < start + n; vpn++) {
      const slot = pteSlot(mm.user!.pgd, vpn);
      if (slot < 0 || (pt.flags[slot] & PTE_KIND) !== PTE_PRESENT) continue;
      const head = compound_head(pages, pt.entries[slot]);
      maps.set(head, (maps.get(head) ?? 0) + 1);
      mapped++;
    }
  }
  assert.equal(mm.user!.rss.counts[0], mapped);
  for (let index = 0; index < 80; index++) {
    const pfn = files.page(file, index);
    if (pfn === 0) continue;
    const head = compound_head(pages, pfn);
    const count = maps.get(head) ?? 0;
    assert.equal(folio_mapcount(pages, head), count);
    const pinned = pins.filter((pin) => pin === head).length;
    const batch = (pages.flags[head] & PG_lru) === 0 ? 1 : 0;
    assert.equal(
      folio_ref_count(pages, head),
      count + folio_nr_pages(pages, head) + pinned + batch,
    );
  }
}
