// VMAs against a Map of pages: whatever is mapped, changed and unmapped, the VMAs are the maximal
// runs of equal pages.

import assert from 'node:assert/strict';
import {test} from 'node:test';
import fc from 'fast-check';
import {AddressSpaces} from './address_space.ts';
import {AnonVmas} from './anon_vma.ts';
import {anonProps, STACK_GUARD_GAP, vma_address, type VmArea, type VmaProps} from './vma.ts';
import {VM_EXEC, VM_GROWSDOWN, VM_MAYWRITE, VM_READ, VM_SHARED, VM_WRITE} from './vma_flags.ts';
import {mapRange, vma_modify} from './vma_merge.ts';
import {detachRange, expandDownwards, insertVma, split_vma, unlinkVma} from './vma_ops.ts';
import {get_unmapped_area, isFree, isFullyMapped, MMAP_MIN_PAGE, VmaSpace} from './vma_space.ts';

interface Page {
  flags: number;
  file: number;
  pgoff: number;
}

function newSpace(): VmaSpace {
  return new VmaSpace(1, {anon: new AnonVmas(), files: new AddressSpaces()});
}

function vmas(space: VmaSpace): VmArea[] {
  const all: VmArea[] = [];
  for (let vma = space.tree.first; vma !== null; vma = vma.next) all.push(vma);
  return all;
}

function unmap(space: VmaSpace, start: number, end: number): void {
  for (const vma of detachRange(space, start, end)) unlinkVma(vma);
}

function mprotect(space: VmaSpace, start: number, end: number, flags: number): void {
  for (let at = start; at < end; ) {
    const vma = space.tree.intersection(at, end);
    if (vma === null) return;
    const from = Math.max(vma.start, at);
    at = Math.min(vma.end, end);
    if (vma.flags !== flags) vma_modify(vma, from, at, {flags});
  }
}

/** Maximal runs of pages that could be one VMA. */
function runs(model: Map<number, Page>): [number, number, number, number, number][] {
  const found: [number, number, number, number, number][] = [];
  for (const vpn of [...model.keys()].sort((a, b) => a - b)) {
    const page = model.get(vpn);
    const last = found.at(-1);
    if (page === undefined) continue;
    const joins =
      last !== undefined &&
      last[1] === vpn &&
      last[2] === page.flags &&
      last[3] === page.file &&
      last[4] + (vpn - last[0]) === page.pgoff;
    if (joins) last[1]++;
    else found.push([vpn, vpn + 1, page.flags, page.file, page.pgoff]);
  }
  return found;
}

const operation = fc.record({
  kind: fc.constantFrom('anon', 'anon', 'file', 'unmap', 'protect'),
  start: fc.integer({min: 100, max: 220}),
  length: fc.integer({min: 1, max: 40}),
  flags: fc.constantFrom(VM_READ, VM_READ | VM_WRITE),
  shift: fc.constantFrom(0, 0, 0, 7),
});

test('VMAs are the maximal runs of equal pages', () => {
  fc.assert(
    fc.property(fc.array(operation, {maxLength: 60}), (operations) => {
      const space = newSpace();
      const file = space.trees.files.create('file', 1000);
      const model = new Map<number, Page>();
      for (const {kind, start, length, flags, shift} of operations) {
        const end = start + length;
        if (kind === 'protect') {
          mprotect(space, start, end, flags);
          for (const [vpn, page] of model) if (vpn >= start && vpn < end) page.flags = flags;
          continue;
        }
        unmap(space, start, end);
        for (let vpn = start; vpn < end; vpn++) model.delete(vpn);
        if (kind === 'unmap') continue;
        const isFile = kind === 'file';
        const props: VmaProps = isFile
          ? {...anonProps(flags), file: 3, mapping: file, ops: 'file'}
          : anonProps(flags);
        const pgoff = isFile ? start - 50 + shift : start;
        mapRange(space, start, end, pgoff, props);
        for (let i = 0; i < length; i++) {
          model.set(start + i, {flags, file: isFile ? 3 : 0, pgoff: pgoff + i});
        }
      }
      const expected = runs(model);
      assert.deepEqual(
        vmas(space).map((vma) => [vma.start, vma.end, vma.flags, vma.file, vma.pgoff]),
        expected,
      );
      assert.equal(space.mapCount, expected.length);
      assert.equal(space.totalVm, model.size);
      assert.equal(file.nrMaps, expected.filter((run) => run[3] === 3).length);
      for (let vpn = 90; vpn < 270; vpn++) {
        assert.equal(space.tree.lookup(vpn) !== null, model.has(vpn));
        const wanted = expected.find((run) => run[1] > vpn);
        assert.equal(space.tree.find(vpn)?.start, wanted?.[0]);
      }
      unmap(space, 0, 1000);
      assert.equal(space.trees.files.forest.used, 0);
      assert.equal(space.totalVm, 0);
    }),
    {numRuns: 300},
  );
});

/** Lowest and highest fitting start, by trying every one. */
function fitting(
  used: Set<number>,
  wish: {length: number; low: number; high: number; align: number},
): number[] {
  const fits = (start: number): boolean => {
    for (let i = 0; i < wish.length; i++) if (used.has(start + i)) return false;
    return start + wish.length <= wish.high && start % wish.align === 3 % wish.align;
  };
  const starts: number[] = [];
  for (let start = wish.low; start < wish.high; start++) if (fits(start)) starts.push(start);
  return [starts[0] ?? -1, starts.at(-1) ?? -1];
}

test('holes are the highest or lowest that fit, among hundreds of mappings', () => {
  const hole = fc.record({gap: fc.integer({min: 0, max: 2}), length: fc.integer({min: 1, max: 3})});
  const wish = fc.record({
    length: fc.integer({min: 1, max: 9}),
    low: fc.integer({min: 0, max: 400}),
    span: fc.integer({min: 0, max: 1500}),
    align: fc.constantFrom(1, 1, 1, 4, 16),
    victim: fc.nat(),
    remove: fc.boolean(),
  });
  fc.assert(
    fc.property(
      fc.array(hole, {minLength: 150, maxLength: 300}),
      fc.array(wish, {minLength: 5, maxLength: 30}),
      (holes, wishes) => {
        const space = newSpace();
        const used = new Set<number>();
        let at = 20;
        holes.forEach(({gap, length}, i) => {
          at += gap;
          insertVma(space, at, at + length, at + i * 1000, anonProps(VM_READ));
          for (let j = 0; j < length; j++) used.add(at + j);
          at += length;
        });
        for (const {length, low, span, align, victim, remove} of wishes) {
          const high = low + span;
          const expected = fitting(used, {length, low, high, align});
          assert.equal(space.tree.lowestGap(length, low, high, align, 3), expected[0]);
          assert.equal(space.tree.highestGap(length, low, high, align, 3), expected[1]);
          const found = expected[1];
          if (remove) {
            const all = vmas(space);
            const vma = all[victim % all.length];
            for (let vpn = vma.start; vpn < vma.end; vpn++) used.delete(vpn);
            unmap(space, vma.start, vma.end);
          } else if (found >= 0) {
            insertVma(space, found, found + length, found * 1000, anonProps(VM_READ));
            for (let i = 0; i < length; i++) used.add(found + i);
          }
        }
      },
    ),
    {numRuns: 100},
  );
});

test('every hole is seen, wherever it opens', () => {
  const space = newSpace();
  const start = (i: number): number => 1_000 + 10 * i;
  for (let i = 0; i < 300; i++) {
    insertVma(space, start(i), start(i) + 10, i * 1_000, anonProps(VM_READ));
  }
  for (let i = 0; i < 300; i++) {
    assert.equal(space.tree.highestGap(10, 1_000, 4_000, 1, 0), -1);
    unmap(space, start(i), start(i) + 10);
    assert.equal(space.tree.highestGap(10, 1_000, 4_000, 1, 0), start(i));
    insertVma(space, start(i), start(i) + 10, i * 1_000, anonProps(VM_READ));
  }
});

test('splitting keeps file offsets, and the file knows both parts', () => {
  const space = newSpace();
  const mapping = space.trees.files.create('file', 100);
  const props: VmaProps = {
    ...anonProps(VM_READ | VM_SHARED | VM_MAYWRITE),
    file: 1,
    mapping,
    ops: 'file',
  };
  const vma = insertVma(space, 1000, 1010, 20, props);
  const upper = split_vma(vma, 1004, false);
  assert.deepEqual([vma.end, upper.start, upper.pgoff], [1004, 1004, 24]);
  assert.equal(vma_address(upper, 27), 1007);
  assert.equal(vma_address(vma, 27), -1);
  assert.equal(mapping.mmapWritable, 2);
  const {forest} = space.trees.files;
  assert.equal(forest.item[forest.iterFirst(mapping, 23, 23)], vma);
  assert.equal(forest.item[forest.iterFirst(mapping, 24, 24)], upper);
  assert.equal(space.totalVm, 10);
});

test('mmap goes top-down, takes a free hint, and stays away from the stack', () => {
  const space = newSpace();
  space.mmapBase = 10_000;
  space.taskSize = 20_000;
  const first = get_unmapped_area(space, {length: 10});
  assert.equal(first, 9_990);
  mapRange(space, first, first + 10, first, anonProps(VM_READ));
  assert.equal(get_unmapped_area(space, {length: 5}), 9_985);
  assert.equal(get_unmapped_area(space, {length: 5, hint: 9_988}), 9_985);
  assert.equal(get_unmapped_area(space, {length: 5, hint: 5_000}), 5_000);
  assert.equal(get_unmapped_area(space, {length: 512, align: 512}), 9_216);
  assert.equal(get_unmapped_area(space, {length: 30_000}), -1);
  assert.equal(get_unmapped_area(space, {length: 9_995}), 10_000);
  insertVma(space, 15_000, 15_010, 15_000, anonProps(VM_READ | VM_WRITE | VM_GROWSDOWN));
  assert.equal(isFree(space, 15_000 - STACK_GUARD_GAP, 1), false);
  assert.equal(isFree(space, 15_000 - STACK_GUARD_GAP - 1, 1), true);
  assert.ok(MMAP_MIN_PAGE > 0);
});

test('a stack grows until a mapping is within the guard gap', () => {
  const space = newSpace();
  mapRange(space, 1_000, 1_001, 1_000, anonProps(VM_READ));
  const stack = insertVma(space, 2_000, 2_010, 2_000, anonProps(VM_READ | VM_WRITE | VM_GROWSDOWN));
  assert.ok(expandDownwards(stack, 1_300));
  assert.deepEqual([stack.start, stack.pgoff], [1_300, 1_300]);
  assert.equal(expandDownwards(stack, 1_200), false);
  assert.equal(stack.start, 1_300);
  assert.equal(space.stackVm, 710);
});

test('a range is fully mapped when no hole is in it', () => {
  const space = newSpace();
  mapRange(space, 100, 110, 100, anonProps(VM_READ));
  mapRange(space, 110, 120, 110, anonProps(VM_READ | VM_EXEC));
  assert.ok(isFullyMapped(space, 100, 120));
  assert.equal(isFullyMapped(space, 99, 110), false);
  assert.equal(isFullyMapped(space, 115, 121), false);
});
