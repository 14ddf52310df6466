// The buddy allocator, per-CPU lists and watermarks.

import assert from 'node:assert/strict';
import {test} from 'node:test';
import fc from 'fast-check';
import {Buddy} from './buddy.ts';
import {PG_buddy} from './page_flags.ts';
import {FIRST_PFN, MAX_ORDER, Pages} from './page.ts';
import {PageLists} from './page_list.ts';
import {PerCpuPages} from './pcp.ts';
import {minFreeKbytes, nodeWatermarks, type PcpGeneration, pcpSizes} from './watermarks.ts';

function newBuddy(blocks: number): Buddy {
  const pages = new Pages([blocks * FIRST_PFN]);
  return new Buddy(pages, new PageLists(pages), 0);
}

const step = fc.record({
  free: fc.boolean(),
  order: fc.integer({min: 0, max: MAX_ORDER}),
  pick: fc.nat(),
});

test('no page is given out twice, blocks are aligned, and all come back as 4 MB blocks', () => {
  fc.assert(
    fc.property(fc.array(step, {maxLength: 200}), (steps) => {
      const buddy = newBuddy(4);
      const owner = new Map<number, number>();
      const blocks: [number, number][] = [];
      let used = 0;
      for (const {free, order, pick} of steps) {
        if (free && blocks.length > 0) {
          const [[pfn, size]] = blocks.splice(pick % blocks.length, 1);
          for (let i = 0; i < 1 << size; i++) owner.delete(pfn + i);
          buddy.free(pfn, size);
          used -= 1 << size;
        } else if (!free) {
          const pfn = buddy.alloc(order);
          if (pfn === 0) {
            assert.ok(buddy.freeBlocks(MAX_ORDER) === 0);
            continue;
          }
          assert.equal(pfn % (1 << order), 0);
          for (let i = 0; i < 1 << order; i++) {
            assert.ok(!owner.has(pfn + i), `page ${pfn + i} given out twice`);
            owner.set(pfn + i, order);
          }
          blocks.push([pfn, order]);
          used += 1 << order;
        }
        assert.equal(buddy.freePages, 4 * FIRST_PFN - used);
        let listed = 0;
        for (let o = 0; o <= MAX_ORDER; o++) listed += buddy.freeBlocks(o) << o;
        assert.equal(listed, buddy.freePages);
      }
      for (const [pfn, order] of blocks) buddy.free(pfn, order);
      assert.equal(buddy.freeBlocks(MAX_ORDER), 4);
    }),
    {numRuns: 200},
  );
});

test('an order is only refused when no block is large enough', () => {
  const buddy = newBuddy(1);
  const pages = Array.from({length: FIRST_PFN}, () => buddy.alloc(0));
  assert.equal(buddy.alloc(0), 0);
  for (const pfn of pages) if (pfn % 2 === 0) buddy.free(pfn, 0);
  assert.equal(buddy.freePages, 512);
  assert.equal(buddy.alloc(1), 0);
  assert.equal(buddy.free(pages[1], 0), 1);
  assert.notEqual(buddy.alloc(1), 0);
});

test('taking a given block out of free memory leaves the rest free', () => {
  const buddy = newBuddy(3);
  const wanted = 2 * FIRST_PFN + 512 + 16;
  assert.ok(buddy.take(wanted, 3));
  assert.equal(buddy.take(wanted, 3), false);
  assert.equal(buddy.freePages, 3 * FIRST_PFN - 8);
  let pages = 0;
  for (let pfn = buddy.alloc(0); pfn !== 0; pfn = buddy.alloc(0)) {
    assert.ok(pfn < wanted || pfn >= wanted + 8);
    pages++;
  }
  assert.equal(pages, 3 * FIRST_PFN - 8);
});

test('a page freed twice is caught', () => {
  const buddy = newBuddy(1);
  const pfn = buddy.alloc(0);
  buddy.free(pfn, 0);
  assert.throws(() => buddy.free(pfn, 0), /bad page/);
});

for (const generation of ['fixed', 'watermark', 'auto'] as const) {
  test(`per-CPU lists (${generation}) keep their counts and give everything back`, () => {
    fc.assert(
      fc.property(fc.array(step, {maxLength: 300}), (steps) => {
        const buddy = newBuddy(8);
        const sizes = pcpSizes(buddy.managed, 100, 2, generation);
        const pcp = new PerCpuPages(buddy, 2, sizes, generation);
        const held: [number, number][] = [];
        const seen = new Set<number>();
        for (const {free, order: wish, pick} of steps) {
          const order = pcp.allowsOrder(wish) ? wish : 0;
          const cpu = pick & 1;
          if (free && held.length > 0) {
            const [[pfn, size]] = held.splice(pick % held.length, 1);
            seen.delete(pfn);
            const drain = pcp.put(cpu, size, pfn);
            if (drain > 0) pcp.drain(cpu, drain);
          } else {
            let pfn = pcp.take(cpu, order);
            if (pfn === 0 && pcp.refill(cpu, order) > 0) pfn = pcp.take(cpu, order);
            if (pfn === 0) continue;
            assert.ok(!seen.has(pfn));
            seen.add(pfn);
            held.push([pfn, order]);
          }
          let inUse = pcp.count[0] + pcp.count[1];
          for (const [, size] of held) inUse += 1 << size;
          assert.equal(buddy.freePages, buddy.managed - inUse);
        }
        for (const [pfn, size] of held) pcp.put(0, size, pfn);
        for (const cpu of [0, 1]) pcp.drain(cpu, Infinity);
        assert.equal(buddy.freeBlocks(MAX_ORDER), 8);
      }),
      {numRuns: 60},
    );
  });
}

test('sizes of per-CPU lists are those of a 64 GB node', () => {
  const managed = 16 * 2 ** 20;
  const generations: PcpGeneration[] = ['fixed', 'watermark', 'auto'];
  const sizes = generations.map((generation) => pcpSizes(managed, 32_000, 16, generation));
  assert.deepEqual(sizes[0], {batch: 63, high: 378, highMax: 378});
  assert.deepEqual(sizes[1], {batch: 63, high: 2000, highMax: 2000});
  assert.deepEqual(sizes[2], {batch: 63, high: 2000, highMax: 131_072});
  assert.equal(pcpSizes(65_536, 100, 4, 'watermark').batch, 15);
  assert.equal(pcpSizes(65_536, 100, 4, 'auto').batch, 15);
});

test('watermarks follow min_free_kbytes and the scale factor', () => {
  assert.equal(minFreeKbytes(2 ** 20), 8192);
  assert.equal(minFreeKbytes(64), 128);
  assert.equal(minFreeKbytes(2 ** 40), 262_144);
  const tuning = {minFreeKbytes: 8192, watermarkScaleFactor: 10};
  assert.deepEqual(nodeWatermarks(2 ** 20, 2 ** 20, tuning), {
    min: 2048,
    low: 3096,
    high: 4144,
    step: 1048,
  });
  const before = nodeWatermarks(2 ** 20, 2 ** 21, {...tuning, watermarkScaleFactor: null});
  assert.deepEqual(before, {min: 1024, low: 1280, high: 1536, step: 256});
});

test('memory that was never used has no trace in the page arena', () => {
  const pages = new Pages([64 * FIRST_PFN]);
  const buddy = new Buddy(pages, new PageLists(pages), 0);
  for (let i = 0; i < 3000; i++) buddy.alloc(0);
  const touched = pages.flags.findLastIndex((word) => word !== 0);
  assert.ok(touched < 4 * FIRST_PFN);
  assert.ok((pages.flags[touched] & PG_buddy) !== 0);
});
