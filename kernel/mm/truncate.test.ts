import assert from 'node:assert/strict';
import {test} from 'node:test';
import fc from 'fast-check';
import {pteSlot} from '../arch/x86/mm/pgtable.ts';
import {PTE_KIND, PTE_PRESENT} from '../arch/x86/mm/pgtable_bits.ts';
import type {Kernel} from '../kernel.ts';
import type {MmStruct} from '../mm_types.ts';
import {do_madvise} from './madvise.ts';
import {MADV_REMOVE} from './madvise_numbers.ts';
import {lru_add_drain_all} from './folio_lru.ts';
import {ANON_RW, access, duplicate, mapFile, runProcess, tearDown} from './mm_testing.ts';
import {folio_test_anon} from './page.ts';
import {drain_all_pages} from './page_alloc.ts';
import {do_truncate, punch_hole} from './truncate.ts';
import {FileHoles} from './truncate_holes.ts';
import {linear_page_index} from './vma.ts';
import {VM_MAYSHARE, VM_SHARED} from './vma_flags.ts';

const BASE = 0x5_5555_0000;
const SHARED_RW = ANON_RW | VM_SHARED | VM_MAYSHARE;

/** Pages of the range that are mapped: `f` from the file, `a` a private copy, `.` none. */
function mapped(k: Kernel, mm: MmStruct, start: number, pages: number): string {
  let text = '';
  for (let vpn = start; vpn < start + pages; vpn++) {
    const slot = pteSlot(mm.user!.pgd, vpn);
    const present = slot >= 0 && (k.mm.pt.flags[slot] & PTE_KIND) === PTE_PRESENT;
    text += !present ? '.' : folio_test_anon(k.mm.pages, k.mm.pt.entries[slot]) ? 'a' : 'f';
  }
  return text;
}

function pairs(k: Kernel): number {
  return k.mm.notifierCounts.sites.get('zap_page_range_single')?.start[1] ?? 0;
}

test('a file that shrinks: mappings beyond its end go, private copies too; then SIGBUS', () => {
  runProcess(function* (k, t) {
    const file = k.mm.files.create('file', 16);
    const mm = t.mm!;
    mapFile(k, mm, BASE, 16, file, 0, ANON_RW);
    mapFile(k, mm, BASE + 100, 8, file, 8, SHARED_RW);
    mapFile(k, mm, BASE + 200, 4, file, 0, SHARED_RW);
    for (let i = 0; i < 4; i++) yield* access(k, t, BASE + 8 + i, true);
    yield* access(k, t, BASE, false);
    for (let i = 0; i < 8; i++) yield* access(k, t, BASE + 100 + i, true);
    yield* access(k, t, BASE + 200, false);
    assert.equal(mapped(k, mm, BASE, 16), 'ffffffffaaaaffff');
    const before = pairs(k);
    assert.equal(yield* do_truncate(k, t, file, 10), 0);
    assert.equal(mapped(k, mm, BASE, 16), 'ffffffffaa......');
    assert.equal(mapped(k, mm, BASE + 100, 8), 'ff......');
    assert.equal(mapped(k, mm, BASE + 200, 4), 'ffff');
    assert.deepEqual([...mm.user!.rss.counts], [8 + 2 + 4, 2, 0, 0]);
    // Two mappings reach beyond the end, and are unmapped twice.
    assert.equal(pairs(k) - before, 4);
    assert.equal(file.nrpages, 10);
    assert.equal(yield* access(k, t, BASE + 10, false), 'sigbus');
    assert.equal(yield* access(k, t, BASE + 102, true), 'sigbus');
    assert.equal(yield* access(k, t, BASE + 9, true), 'none');
    // It grows again: what comes back is a hole, which no disk is asked for.
    assert.equal(yield* do_truncate(k, t, file, 16), 0);
    const read = k.machine.engine.now;
    assert.equal(yield* access(k, t, BASE + 12, false), 'major');
    assert.ok(k.machine.engine.now - read < 200_000);
  });
});

test('a hole leaves private copies, and what lies beside it', () => {
  for (const host of ['file', 'shmem'] as const) {
    runProcess(function* (k, t) {
      const file = k.mm.files.create(host, 16);
      const mm = t.mm!;
      mapFile(k, mm, BASE, 16, file, 0, ANON_RW);
      mapFile(k, mm, BASE + 100, 16, file, 0, SHARED_RW);
      for (let i = 0; i < 16; i++) yield* access(k, t, BASE + 100 + i, true);
      for (let i = 0; i < 16; i++) yield* access(k, t, BASE + i, i === 5 || i === 12);
      assert.equal(mapped(k, mm, BASE, 16), 'fffffaffffffafff');
      assert.equal(yield* punch_hole(k, t, file, 4, 8), 0);
      assert.equal(mapped(k, mm, BASE, 16), 'ffff.a..ffffafff');
      assert.equal(mapped(k, mm, BASE + 100, 16), 'ffff....ffffffff');
      assert.equal(file.nrpages, 12);
      const again = yield* access(k, t, BASE + 105, true);
      assert.equal(again, host === 'file' ? 'major' : 'minor file');
    });
  }
});

test('MADV_REMOVE punches through every process, and through none of its neighbours', () => {
  runProcess(function* (k, t) {
    const file = k.mm.files.create('shmem', 8);
    mapFile(k, t.mm!, BASE, 8, file, 0, SHARED_RW);
    for (let i = 0; i < 8; i++) yield* access(k, t, BASE + i, true);
    const other = yield* duplicate(k, t, t.mm!);
    const own = t.mm;
    t.mm = other;
    for (let i = 0; i < 8; i++) yield* access(k, t, BASE + i, false);
    t.mm = own;
    assert.equal(yield* do_madvise(k, t, BASE + 2, 3, MADV_REMOVE), 0);
    assert.equal(mapped(k, t.mm!, BASE, 8), 'ff...fff');
    assert.equal(mapped(k, other, BASE, 8), 'ff...fff');
    assert.deepEqual([...other.user!.rss.counts], [0, 0, 0, 5]);
    assert.equal(file.nrpages, 5);
    yield* tearDown(k, t, other);
  });
});

test('i_mmap_rwsem: for write up to 6.0, for read since', () => {
  const writes = (version: string): number => {
    let taken = 0;
    runProcess(function* (k, t) {
      const file = k.mm.files.create('file', 4);
      mapFile(k, t.mm!, BASE, 4, file, 0, SHARED_RW);
      yield* access(k, t, BASE, true);
      const before = k.locks.report().get('i_mmap_rwsem-W')?.acquired ?? 0;
      yield* punch_hole(k, t, file, 0, 4);
      taken = (k.locks.report().get('i_mmap_rwsem-W')?.acquired ?? 0) - before;
    }, version);
    return taken;
  };
  assert.equal(writes('5.5'), 1);
  assert.equal(writes('6.18'), 0);
});

const CUT = fc.record({
  punch: fc.boolean(),
  start: fc.nat(70),
  pages: fc.integer({min: 1, max: 40}),
});
const MAPPING = fc.record({
  pgoff: fc.nat(40),
  pages: fc.integer({min: 1, max: 40}),
  shared: fc.boolean(),
  touched: fc.array(fc.tuple(fc.nat(39), fc.boolean()), {maxLength: 30}),
});

test('law: a cut removes every mapping of its range and no other; all memory comes back', () => {
  fc.assert(
    fc.property(
      fc.constantFrom('file' as const, 'shmem' as const),
      fc.array(MAPPING, {minLength: 1, maxLength: 5}),
      fc.array(CUT, {minLength: 1, maxLength: 4}),
      (host, mappings, cuts) => {
        runProcess(function* (k, t) {
          const mm = t.mm!;
          const free = freePages(k);
          const file = k.mm.files.create(host, 80);
          const vmas = mappings.map(({pgoff, pages, shared}, i) =>
            mapFile(k, mm, BASE + i * 100, pages, file, pgoff, shared ? SHARED_RW : ANON_RW),
          );
          for (const [i, {pages, touched}] of mappings.entries()) {
            for (const [page, write] of touched) {
              if (page < pages) yield* access(k, t, vmas[i].start + page, write);
            }
          }
          let size = 80;
          for (const {punch, start, pages} of cuts) {
            const before = vmas.map((vma) => mapped(k, mm, vma.start, vma.pages));
            const end = punch ? start + pages : Infinity;
            if (punch) yield* punch_hole(k, t, file, start, end);
            else yield* do_truncate(k, t, file, start);
            if (!punch) size = start;
            for (const [i, vma] of vmas.entries()) {
              const after = mapped(k, mm, vma.start, vma.pages);
              for (let page = 0; page < vma.pages; page++) {
                const index = linear_page_index(vma, vma.start + page);
                const inside = index >= start && index < end;
                const keeps = !inside || (punch && before[i][page] === 'a');
                assert.equal(after[page], keeps ? before[i][page] : '.');
              }
            }
          }
          assert.equal(file.sizePages, size);
          yield* tearDown(k, t, mm);
          yield* do_truncate(k, t, file, 0);
          assert.equal(file.nrpages + file.nrValues, 0);
          lru_add_drain_all(k, t);
          assert.equal(freePages(k) - free, 0);
        });
      },
    ),
    {numRuns: 50},
  );
});

/** Free pages, once nothing waits in a CPU's batch any more. */
function freePages(k: Kernel): number {
  drain_all_pages(k);
  return k.mm.zones.reduce((sum, zone) => sum + zone.free, 0);
}

test('law: holes are the union of what was marked', () => {
  const range = fc.tuple(fc.nat(60), fc.integer({min: 0, max: 20}));
  fc.assert(
    fc.property(fc.array(range, {maxLength: 12}), (ranges) => {
      const holes = new FileHoles();
      const model = new Set<number>();
      for (const [start, pages] of ranges) {
        holes.mark({id: 1}, start, start + pages);
        for (let page = start; page < start + pages; page++) model.add(page);
      }
      for (let page = 0; page < 90; page++) {
        assert.equal(holes.has({id: 1}, page), model.has(page));
        const near = [page, page + 1, page + 2].some((at) => model.has(at));
        assert.equal(holes.overlaps({id: 1}, page, page + 3), near);
      }
      assert.equal(holes.has({id: 2}, 1), false);
    }),
  );
});
