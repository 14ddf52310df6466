// anon_vma: rmap walks find exactly the VMAs that may map a page, merging follows the rules of
// Linux's merge tests, and forks do not make anything grow for ever.

import assert from 'node:assert/strict';
import {test} from 'node:test';
import fc from 'fast-check';
import {AddressSpaces} from './address_space.ts';
import {type AnonVma, AnonVmas} from './anon_vma.ts';
import {anonProps, type VmArea, vma_address} from './vma.ts';
import {VM_READ, VM_WRITE} from './vma_flags.ts';
import {copy_vma, type MergeRule, mapRange, vma_modify} from './vma_merge.ts';
import {detachRange, dupVma, unlinkVma} from './vma_ops.ts';
import {type RmapTrees, VmaSpace} from './vma_space.ts';

const RW = VM_READ | VM_WRITE;

function newTrees(reuse = true): RmapTrees {
  return {anon: new AnonVmas(reuse), files: new AddressSpaces()};
}

function unmap(space: VmaSpace, start: number, end: number): void {
  for (const vma of detachRange(space, start, end)) unlinkVma(vma);
}

function fork(parent: VmaSpace, mmId: number): VmaSpace {
  const child = new VmaSpace(mmId, parent.trees);
  for (let vma = parent.tree.first; vma !== null; vma = vma.next) dupVma(vma, child, false);
  return child;
}

/** Every place a page of `anon` at `pgoff` may be mapped: "mm:vpn". */
function places(trees: RmapTrees, anon: AnonVma, pgoff: number): Set<string> {
  const {forest} = trees.anon;
  const found = new Set<string>();
  for (let node = forest.iterFirst(anon, pgoff, pgoff); node !== 0; ) {
    const vma = forest.item[node] as VmArea;
    assert.notEqual(vma_address(vma, pgoff), -1);
    found.add(`${vma.space.mmId}:${vma_address(vma, pgoff)}`);
    node = forest.iterNext(node, pgoff, pgoff);
  }
  return found;
}

interface Page {
  anon: AnonVma;
  pgoff: number;
}

type Mm = {space: VmaSpace; pages: Map<number, Page>};

const step = fc.record({
  kind: fc.constantFrom('fault', 'fault', 'fork', 'exit', 'unmap', 'protect', 'map', 'move'),
  mm: fc.nat(),
  vpn: fc.integer({min: 100, max: 130}),
  length: fc.integer({min: 1, max: 10}),
  flags: fc.constantFrom(RW, VM_READ),
});

function runStep(
  mms: Mm[],
  at: number,
  op: {kind: string; vpn: number; length: number; flags: number},
): void {
  const mm = mms[at];
  const {space, pages} = mm;
  const {trees} = space;
  const end = op.vpn + op.length;
  const vma = space.tree.lookup(op.vpn);
  if (op.kind === 'fault' && vma !== null) {
    trees.anon.prepare(vma);
    const {anonVma} = vma;
    assert.ok(anonVma !== null);
    pages.set(op.vpn, {anon: anonVma, pgoff: vma.pgoff + op.vpn - vma.start});
  } else if (op.kind === 'fork' && mms.length < 6) {
    const child = fork(space, Math.max(...mms.map((other) => other.space.mmId)) + 1);
    mms.push({space: child, pages: new Map(pages)});
  } else if (op.kind === 'exit' && mms.length > 1) {
    unmap(space, 0, 1e9);
    mms.splice(at, 1);
  } else if (op.kind === 'unmap') {
    unmap(space, op.vpn, end);
    for (const vpn of [...pages.keys()]) if (vpn >= op.vpn && vpn < end) pages.delete(vpn);
  } else if (op.kind === 'protect' && vma !== null) {
    vma_modify(vma, op.vpn, Math.min(vma.end, end), {flags: op.flags});
  } else if (op.kind === 'map' && space.tree.intersection(op.vpn, end) === null) {
    mapRange(space, op.vpn, end, op.vpn, anonProps(op.flags));
  } else if (op.kind === 'move' && vma !== null && space.tree.intersection(300, 340) === null) {
    move(mm, vma, op.vpn, Math.min(vma.end, end));
  }
}

/** mremap to 300: the pages keep their index. */
function move({space, pages}: Mm, vma: VmArea, start: number, end: number): void {
  const copy = copy_vma(vma, 300, end - start, vma.pgoff + (start - vma.start));
  for (const [vpn, page] of [...pages]) {
    if (vpn < start || vpn >= end) continue;
    assert.equal(vma_address(copy, page.pgoff), 300 + vpn - start);
    pages.set(300 + vpn - start, page);
    pages.delete(vpn);
  }
  unmap(space, start, end);
}

test('a walk finds every mm that has the page, whatever was forked, split, merged and moved', () => {
  for (const reuse of [true, false]) {
    fc.assert(
      fc.property(fc.array(step, {maxLength: 60}), (steps) => {
        const trees = newTrees(reuse);
        const first = new VmaSpace(1, trees);
        mapRange(first, 100, 130, 100, anonProps(RW));
        const mms: Mm[] = [{space: first, pages: new Map()}];
        for (const op of steps) runStep(mms, op.mm % mms.length, op);
        for (const {space, pages} of mms) {
          for (const [vpn, {anon, pgoff}] of pages) {
            assert.ok(trees.anon.find(anon.id) === anon);
            assert.ok(places(trees, anon, pgoff).has(`${space.mmId}:${vpn}`), `page ${vpn}`);
          }
          for (let vma = space.tree.first; vma !== null; vma = vma.next) checkChain(trees, vma);
        }
        for (const {space} of mms) unmap(space, 0, 1e9);
        assert.equal(trees.anon.used, 0);
        assert.equal(trees.anon.forest.used, 0);
      }),
      {numRuns: 250},
    );
  }
});

/** The VMA's own anon_vma is one of its chain; all of the chain share a root. */
function checkChain(trees: RmapTrees, vma: VmArea): void {
  const chain = trees.anon.chainOf(vma);
  assert.equal(vma.anonVma === null, chain.length === 0);
  if (vma.anonVma === null) return;
  assert.ok(chain.includes(vma.anonVma));
  for (const anon of chain) assert.ok(anon?.rootVma === vma.anonVma.rootVma);
}

test('1,500 children of 4 parents leave nothing behind', () => {
  const trees = newTrees();
  const parents = [1, 2, 3, 4].map((id) => {
    const space = new VmaSpace(id, trees);
    for (let i = 0; i < 10; i++) {
      trees.anon.prepare(mapRange(space, 1000 * i, 1000 * i + 100, 1000 * i, anonProps(RW)));
    }
    return space;
  });
  for (let round = 0; round < 3; round++) {
    const children = Array.from({length: 1500}, (_, i) => fork(parents[i % 4], 10 + i));
    assert.equal(trees.anon.used, 40 + 15_000);
    for (const child of children) unmap(child, 0, 1e9);
    assert.equal(trees.anon.used, 40);
    assert.equal(trees.anon.forest.used, 40);
  }
});

test('a chain of forks whose parents exit has a bounded number of anon_vmas', () => {
  const lengths = [true, false].map((reuse) => {
    const trees = newTrees(reuse);
    let space = new VmaSpace(1, trees);
    trees.anon.prepare(mapRange(space, 100, 110, 100, anonProps(RW)));
    for (let i = 2; i < 100; i++) {
      const child = fork(space, i);
      unmap(space, 0, 1e9);
      space = child;
    }
    return space.tree.first?.anonChainLength ?? 0;
  });
  assert.ok(lengths[0] <= 3, `chain of ${lengths[0]}`);
  assert.equal(lengths[1], 99);
});

/**
 * Three areas of 5 pages: the middle one read-only, so that mprotect can make it equal to the
 * others.
 */
function threeAreas(trees: RmapTrees): VmArea[] {
  const space = new VmaSpace(1, trees);
  return [
    mapRange(space, 100, 105, 100, anonProps(RW)),
    mapRange(space, 105, 110, 105, anonProps(VM_READ)),
    mapRange(space, 110, 115, 110, anonProps(RW)),
  ];
}

test('mprotect merges when at most one side was faulted (merge.c)', () => {
  const cases = [[0], [1], [2]];
  for (const faulted of cases) {
    const trees = newTrees();
    const areas = threeAreas(trees);
    for (const i of faulted) trees.anon.prepare(areas[i]);
    const merged = vma_modify(areas[1], 105, 110, {flags: RW});
    assert.deepEqual([merged.start, merged.end], [100, 115]);
    assert.ok(merged.anonVma !== null);
    checkChain(trees, merged);
    assert.equal(merged.anonVma.numActiveVmas, 1);
  }
});

test('until 6.15 an unfaulted neighbour does not take in a faulted one', () => {
  const old: MergeRule = {unfaultedTakesFaulted: false};
  const trees = newTrees();
  const areas = threeAreas(trees);
  // The prot bits of neighbours may differ for sharing an anon_vma: fault the middle one last of
  // all.
  trees.anon.prepare(areas[1]);
  const merged = vma_modify(areas[1], 105, 110, {flags: RW}, old);
  assert.deepEqual([merged.start, merged.end], [105, 110]);
});

test('forked VMAs do not merge (merge.c: forked_target_vma, forked_source_vma)', () => {
  const trees = newTrees();
  const areas = threeAreas(trees);
  trees.anon.prepare(areas[0]);
  // The middle one would reuse its neighbour's anon_vma, so only the first is faulted. The child
  // inherits it.
  const child = fork(areas[0].space, 2);
  const middle = child.tree.lookup(105);
  assert.ok(middle !== null);
  const changed = vma_modify(middle, 105, 110, {flags: RW});
  // Not with the forked VMA on the left, but with the unfaulted one on the right.
  assert.deepEqual([changed.start, changed.end], [105, 115]);

  const source = newTrees();
  const parents = threeAreas(source);
  source.anon.prepare(parents[1]);
  const second = fork(parents[0].space, 2);
  const forked = second.tree.lookup(105);
  assert.ok(forked !== null);
  const alone = vma_modify(forked, 105, 110, {flags: RW});
  assert.deepEqual([alone.start, alone.end], [105, 110]);
});

test('mremap between two faulted VMAs of different anon_vmas merges with the left only', () => {
  const trees = newTrees();
  const space = new VmaSpace(1, trees);
  const left = mapRange(space, 100, 105, 100, anonProps(RW));
  const right = mapRange(space, 110, 115, 110, anonProps(RW));
  trees.anon.prepare(left);
  trees.anon.prepare(right);
  assert.ok(left.anonVma !== right.anonVma);
  const moved = mapRange(space, 200, 205, 200, anonProps(RW));
  const copy = copy_vma(moved, 105, 5, 200);
  assert.deepEqual([copy.start, copy.end], [100, 110]);
});

test('neighbours that only differ in protection share an anon_vma', () => {
  const trees = newTrees();
  const [first, second] = threeAreas(trees);
  assert.equal(trees.anon.prepare(first), true);
  assert.equal(trees.anon.prepare(second), false);
  assert.ok(first.anonVma === second.anonVma);
  assert.equal(first.anonVma?.numActiveVmas, 2);
});

test('an anon_vma is reused only when its last child asks', () => {
  const trees = newTrees();
  const parent = new VmaSpace(1, trees);
  const vma = mapRange(parent, 100, 110, 100, anonProps(RW));
  trees.anon.prepare(vma);
  const root = vma.anonVma;
  const child = fork(parent, 2);
  const middle = child.tree.first?.anonVma;
  const [left, right] = [fork(child, 3), fork(child, 4)];
  unmap(child, 0, 1e9);
  // Two children: both stay on their own, and so do theirs. The root is never reused.
  assert.equal(middle?.numChildren, 2);
  for (const space of [fork(left, 5), fork(parent, 6)]) {
    const anon = space.tree.first?.anonVma;
    assert.ok(anon !== middle && anon !== root);
    unmap(space, 0, 1e9);
  }
  unmap(right, 0, 1e9);
  assert.equal(middle?.numChildren, 1);
  assert.ok(fork(left, 7).tree.first?.anonVma === middle);
});

test('a forked VMA does not lend its anon_vma to a neighbour', () => {
  const trees = newTrees();
  const areas = threeAreas(trees);
  trees.anon.prepare(areas[0]);
  const child = fork(areas[0].space, 2);
  const next = child.tree.lookup(105);
  assert.ok(next !== null);
  assert.equal(trees.anon.prepare(next), true);
  assert.ok(next.anonVma !== child.tree.first?.anonVma);
});
