// Page cache index, interval tree, swap areas and rss counters against naive models.

import assert from 'node:assert/strict';
import {test} from 'node:test';
import fc from 'fast-check';
import {AddressSpaces} from './address_space.ts';
import {IntervalForest} from './interval_tree.ts';
import {MM_ANONPAGES, MM_FILEPAGES, RssCounters} from './rss.ts';
import {SWAP_CLUSTER, SwapAreas, swp_offset, swp_type} from './swap_map.ts';
import {XArrays} from './xarray.ts';

const INDEXES = fc.oneof(
  fc.integer({min: 0, max: 200}),
  fc.integer({min: 4000, max: 4200}),
  fc.integer({min: 2 ** 30 - 3, max: 2 ** 30 + 3}),
  fc.integer({min: 2 ** 32 - 3, max: 2 ** 32 + 3}),
  fc.integer({min: 2 ** 36 - 3, max: 2 ** 36 - 1}),
);

test('the page index is a sparse array', () => {
  const step = fc.record({
    kind: fc.constantFrom('store', 'store', 'erase'),
    index: INDEXES,
    entry: fc.integer({min: -(2 ** 31), max: 2 ** 31 - 1}),
  });
  fc.assert(
    fc.property(fc.array(step, {maxLength: 80}), fc.array(INDEXES), (steps, probes) => {
      const arrays = new XArrays();
      const root = {node: 0, height: 0};
      const model = new Map<number, number>();
      for (const {kind, index, entry} of steps) {
        const old = model.get(index) ?? 0;
        const value = kind === 'erase' ? 0 : entry;
        assert.equal(arrays.store(root, index, value), old);
        if (value === 0) model.delete(index);
        else model.set(index, value);
      }
      const sorted = [...model.keys()].sort((a, b) => a - b);
      for (const probe of probes) {
        assert.equal(arrays.load(root, probe), model.get(probe) ?? 0);
        const next = sorted.find((index) => index >= probe) ?? -1;
        assert.equal(arrays.find(root, probe, 2 ** 36), next);
        if (next > probe) assert.equal(arrays.find(root, probe, next - 1), -1);
      }
      for (const index of sorted) arrays.erase(root, index);
      assert.equal(arrays.used, 0);
      assert.deepEqual(root, {node: 0, height: 0});
    }),
    {numRuns: 300},
  );
});

test('pages, swap entries and shadows replace each other and are counted', () => {
  const spaces = new AddressSpaces();
  const file = spaces.create('shmem', 100);
  assert.equal(spaces.addPage(file, 5, 1234), -1);
  assert.throws(() => spaces.addPage(file, 5, 1234), /already/);
  assert.equal(spaces.removePage(file, 5, 77), 1234);
  assert.deepEqual([spaces.page(file, 5), spaces.value(file, 5)], [0, 77]);
  assert.deepEqual([file.nrpages, file.nrValues], [0, 1]);
  assert.equal(spaces.addPage(file, 5, 1300), 77);
  assert.equal(spaces.replacePage(file, 5, 1301), 1300);
  assert.throws(() => spaces.destroy(file), /with pages/);
  spaces.removePage(file, 5, 0);
  assert.equal(spaces.value(file, 5), 0);
  assert.equal(spaces.removeValue(file, 5), 0);
  assert.equal(spaces.nextIndex(file, 0, 1000), -1);
  spaces.destroy(file);
  assert.equal(spaces.find(file.id), null);
});

function depth(forest: IntervalForest<number>, node: number): number {
  const {link} = forest as unknown as {link: Int32Array};
  const below = (at: number): number =>
    at === 0 ? 0 : 1 + Math.max(below(link[at * 8]), below(link[at * 8 + 1]));
  return below(node);
}

test('interval trees find what overlaps, in order of start, end, insertion', () => {
  const range = fc.record({
    start: fc.integer({min: 0, max: 20}),
    length: fc.integer({min: 1, max: 4}),
  });
  fc.assert(
    fc.property(
      fc.array(range, {maxLength: 60}),
      fc.array(fc.nat()),
      fc.array(range),
      (ranges, removals, queries) => {
        const forest = new IntervalForest<number>();
        const tree = {root: 0};
        let model: {node: number; item: number; start: number; last: number}[] = [];
        ranges.forEach(({start, length}, item) => {
          const node = forest.allocate(item, 0);
          const last = start + length - 1;
          const entry = {node, item, start, last};
          const before = (other: {start: number; last: number}) =>
            other.start < start || (other.start === start && other.last <= last);
          const first = model.findIndex((other) => other.start === start);
          // Every third one is put right behind an equal one, as fork does.
          forest.setExtent(node, start, last);
          if (item % 3 === 0 && first >= 0) {
            forest.insertAfter(tree, node, model[first].node);
            const at = model[first].last === last ? first : model.findLastIndex(before);
            model.splice(at + 1, 0, entry);
          } else {
            forest.insert(tree, node);
            model.splice(model.findLastIndex(before) + 1, 0, entry);
          }
        });
        for (const pick of removals) {
          if (model.length === 0) break;
          const [gone] = model.splice(pick % model.length, 1);
          forest.remove(tree, gone.node);
          forest.release(gone.node);
        }
        model = [...model];
        for (const {start, length} of queries) {
          const last = start + length - 1;
          const found: (number | null)[] = [];
          let node = forest.iterFirst(tree, start, last);
          for (; node !== 0; node = forest.iterNext(node, start, last))
            found.push(forest.item[node]);
          const wanted = model.filter((other) => other.start <= last && other.last >= start);
          assert.deepEqual(
            found,
            wanted.map((other) => other.item),
          );
        }
        assert.equal(forest.used, model.length);
      },
    ),
    {numRuns: 300},
  );
});

test('swap slots: users and the cache keep a slot, nothing is given out twice', () => {
  const step = fc.record({
    kind: fc.constantFrom('alloc', 'alloc', 'run', 'map', 'unmap', 'uncache', 'cache'),
    pick: fc.nat(),
    cpu: fc.constantFrom(0, 1),
  });
  fc.assert(
    fc.property(fc.array(step, {maxLength: 300}), (steps) => {
      const areas = new SwapAreas(2);
      const area = areas.add(3 * SWAP_CLUSTER, 0);
      const model = new Map<number, {users: number; cached: boolean}>();
      for (const {kind, pick, cpu} of steps) {
        if (kind === 'alloc' || kind === 'run') {
          const pages = kind === 'run' ? 64 : 1;
          const entry = areas.alloc(cpu, pages);
          if (entry === 0) continue;
          for (let i = 0; i < pages; i++) {
            assert.ok(!model.has(entry + i));
            model.set(entry + i, {users: 0, cached: true});
            assert.equal(area.addToCache(entry + i, 5000 + i), -1);
          }
          assert.equal(entry % pages, 0);
          continue;
        }
        const offset = [...model.keys()][pick % model.size];
        const slot = model.get(offset);
        if (slot === undefined) continue;
        let freed = false;
        if (kind === 'map') {
          area.duplicate(offset);
          slot.users++;
        } else if (kind === 'unmap' && slot.users > 0) {
          freed = area.release(offset);
          slot.users--;
        } else if (kind === 'uncache' && slot.cached) {
          freed = area.removeFromCache(offset, 99);
          slot.cached = false;
        } else if (kind === 'cache') {
          assert.equal(area.prepareCache(offset), !slot.cached);
          if (!slot.cached) assert.equal(area.addToCache(offset, 4000), 99);
          slot.cached = true;
        }
        assert.equal(area.count(offset), slot.users);
        assert.equal(area.hasCache(offset), slot.cached);
        assert.equal(freed, slot.users === 0 && !slot.cached);
        if (freed) model.delete(offset);
      }
      assert.equal(area.inuse, model.size);
      const used: number[] = [];
      for (let at = area.nextUsed(0); at !== 0; at = area.nextUsed(at + 1)) used.push(at);
      assert.deepEqual(
        used,
        [...model.keys()].sort((a, b) => a - b),
      );
    }),
    {numRuns: 100},
  );
});

test('a swap area can be filled to the last slot, and refilled', () => {
  const areas = new SwapAreas(4);
  const area = areas.add(2 * SWAP_CLUSTER + 100, 0);
  const entries: number[] = [];
  const fill = (): void => {
    for (let i = 0; ; i++) {
      const entry = areas.alloc(i % 4, 1);
      if (entry === 0) return;
      area.duplicate(swp_offset(entry));
      area.removeFromCache(swp_offset(entry), -1);
      entries.push(entry);
    }
  };
  fill();
  assert.equal(new Set(entries).size, 2 * SWAP_CLUSTER + 99);
  assert.equal(areas.free, 0);
  for (const entry of entries.splice(0, 700)) assert.ok(area.release(swp_offset(entry)));
  fill();
  assert.equal(entries.length, 2 * SWAP_CLUSTER + 99);
});

test('counts of a slot go beyond one byte', () => {
  const areas = new SwapAreas(1);
  areas.add(1000, 0);
  const entry = areas.alloc(0, 1);
  const area = areas.of(entry);
  const offset = swp_offset(entry);
  for (let i = 0; i < 1000; i++) area.duplicate(offset);
  assert.equal(area.count(offset), 1000);
  area.removeFromCache(offset, -1);
  for (let i = 999; i >= 0; i--) {
    assert.equal(area.release(offset), i === 0);
    assert.equal(area.count(offset), i);
  }
  assert.equal(area.inUse(offset), false);
});

test('areas are used by priority, equal ones in turn; swapoff takes no new slots', () => {
  const areas = new SwapAreas(1);
  const low = areas.add(1000, -2);
  const first = areas.add(1000, 5);
  const second = areas.add(1000, 5);
  const types = [1, 2, 3, 4].map(() => swp_type(areas.alloc(0, 1)));
  assert.deepEqual(types, [first.type, second.type, first.type, second.type]);
  areas.disable(first);
  areas.disable(second);
  assert.equal(swp_type(areas.alloc(0, 1)), low.type);
  assert.throws(() => areas.remove(first), /in use/);
  areas.enable(second);
  assert.equal(swp_type(areas.alloc(0, 1)), second.type);
});

test('every change of a counter is reported with its new value in bytes', () => {
  const events: number[][] = [];
  const rss = new RssCounters(3, (mm, member, size) => events.push([mm, member, size]));
  rss.add(MM_ANONPAGES, 512);
  rss.add(MM_FILEPAGES, 2);
  rss.updateHiwater();
  rss.add(MM_ANONPAGES, -511);
  assert.deepEqual(events, [
    [3, MM_ANONPAGES, 512 * 4096],
    [3, MM_FILEPAGES, 8192],
    [3, MM_ANONPAGES, 4096],
  ]);
  assert.deepEqual([rss.rss, rss.hiwater], [3, 514]);
});

test('walks of interval trees take time by what they find, not by what is there', () => {
  const forest = new IntervalForest<number>();
  const tree = {root: 0};
  const insert = (into: {root: number}, i: number, start: number, last: number): void => {
    const node = forest.allocate(i, 0);
    forest.setExtent(node, start, last);
    forest.insert(into, node);
  };
  for (let i = 0; i < 100_000; i++) insert(tree, i, i * 10, i * 10 + 12);
  // Equal starts, as one anon_vma of a fork storm has them.
  const storm = {root: 0};
  for (let i = 0; i < 20_000; i++) insert(storm, i, 5, 9);
  assert.ok(depth(forest, tree.root) < 60);
  assert.ok(depth(forest, storm.root) < 60);
  assert.equal(forest.item[forest.iterFirst(tree, 500_001, 500_001)], 49_999);
});
