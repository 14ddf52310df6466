// mmap and munmap: where mappings go, what they replace, when they merge, and that the totals stay
// true.

import assert from 'node:assert/strict';
import {test} from 'node:test';
import fc from 'fast-check';
import type {Code} from '../../machine/process.ts';
import type {Kernel} from '../kernel.ts';
import type {Task} from '../task.ts';
import {access, runProcess} from './mm_testing.ts';
import {shmem_zero_setup, sys_mmap} from './mmap.ts';
import {
  MAP_LOCKED,
  MAP_PRIVATE,
  MAP_SHARED,
  PROT_READ,
  PROT_WRITE,
  propsFor,
  vmFlags,
} from './mmap_prot.ts';
import {sys_munmap} from './mmap_unmap.ts';
import {layout, map, pfnAt, RW} from './mremap_testing.ts';
import {MM_ANONPAGES, MM_SHMEMPAGES} from './rss.ts';
import {is_mergeable_vma} from './vma_merge.ts';
import {DEFAULT_MAX_MAP_COUNT, TASK_SIZE_PAGES} from './vma_space.ts';

const BASE = 2 ** 31;

/** mmap of private anonymous memory at a hint, 0 for none. */
function* mapAt(k: Kernel, t: Task, start: number, pages: number, flags = 0): Code<number> {
  const props = propsFor(vmFlags(k, RW, MAP_PRIVATE | flags), null);
  return yield* sys_mmap(k, t, {start, fixed: false, pages, pgoff: 0, props, populate: false});
}

test('a hint is taken when it is free; else the highest hole that is large enough', () => {
  runProcess(function* (k, t) {
    assert.equal(yield* mapAt(k, t, BASE, 4), BASE);
    const top = yield* mapAt(k, t, BASE + 2, 4);
    assert.equal(top + 4, t.mm!.user!.space.mmapBase);
    assert.equal(yield* mapAt(k, t, 0, 4), top - 4);
    yield* sys_munmap(k, t, top - 2, top);
    assert.equal(yield* mapAt(k, t, 0, 3), top - 7);
    assert.equal(yield* mapAt(k, t, 0, 2), top - 2);
    assert.equal(yield* mapAt(k, t, 0, TASK_SIZE_PAGES + 1), -12);
  });
});

test('equal neighbours become one mapping, others do not', () => {
  runProcess(function* (k, t) {
    yield* map(k, t, BASE, 2);
    yield* map(k, t, BASE + 4, 2);
    assert.deepEqual(layout(t.mm!, BASE), ['0-2', '4-6']);
    yield* map(k, t, BASE + 2, 2);
    assert.deepEqual(layout(t.mm!, BASE), ['0-6']);
    yield* map(k, t, BASE + 6, 2, PROT_READ);
    assert.deepEqual(layout(t.mm!, BASE), ['0-6', '6-8']);
    const file = k.mm.files.create('file', 8);
    yield* map(k, t, BASE + 8, 2, PROT_READ, file);
    yield* map(k, t, BASE + 10, 2, PROT_READ, file);
    // Both begin at page 0 of the file.
    assert.deepEqual(layout(t.mm!, BASE), ['0-6', '6-8', '8-10', '10-12']);
  });
});

test('MAP_FIXED takes away what is there, pages and all', () => {
  runProcess(function* (k, t) {
    yield* map(k, t, BASE, 8);
    for (let i = 0; i < 8; i++) yield* access(k, t, BASE + i, true);
    const {rss} = t.mm!.user!;
    assert.equal(rss.counts[MM_ANONPAGES], 8);
    yield* map(k, t, BASE + 2, 3, PROT_READ);
    assert.equal(rss.counts[MM_ANONPAGES], 5);
    assert.deepEqual(layout(t.mm!, BASE), ['0-2', '2-5', '5-8']);
    assert.equal(yield* access(k, t, BASE + 3, true), 'sigsegv');
  });
});

test('munmap splits, and frees every page once', () => {
  runProcess(function* (k, t) {
    const free = (): number => k.mm.zones.reduce((sum, zone) => sum + zone.free, 0);
    yield* map(k, t, BASE, 600);
    const before = free();
    for (let i = 0; i < 600; i++) yield* access(k, t, BASE + i, true);
    assert.ok(before - free() >= 600 - 64);
    yield* sys_munmap(k, t, BASE + 10, BASE + 590);
    assert.deepEqual(layout(t.mm!, BASE), ['0-10', '590-600']);
    assert.equal(t.mm!.user!.rss.counts[MM_ANONPAGES], 20);
    assert.equal(yield* access(k, t, BASE + 300, false), 'sigsegv');
    assert.equal(yield* sys_munmap(k, t, BASE, BASE + 600), 0);
    assert.equal(yield* sys_munmap(k, t, BASE, BASE + 600), 0);
    assert.equal(t.mm!.user!.pgd.tables[0], 0);
  });
});

test('MAP_POPULATE and MAP_LOCKED fault in; a locked mapping counts', () => {
  runProcess(function* (k, t) {
    const props = propsFor(vmFlags(k, RW, MAP_PRIVATE), null);
    const args = {start: BASE, fixed: true, pages: 4, pgoff: 0, props, populate: true};
    yield* sys_mmap(k, t, args);
    const {rss, space} = t.mm!.user!;
    assert.equal(rss.counts[MM_ANONPAGES], 4);
    assert.equal(space.lockedVm, 0);
    yield* mapAt(k, t, BASE + 100, 4, MAP_LOCKED);
    assert.equal(rss.counts[MM_ANONPAGES], 8);
    assert.equal(space.lockedVm, 4);
    yield* sys_munmap(k, t, BASE + 100, BASE + 104);
    assert.equal(space.lockedVm, 0);
  });
});

test('shared anonymous memory is a file of its own, gone with its last mapping', () => {
  runProcess(function* (k, t) {
    const flags = vmFlags(k, RW, MAP_SHARED);
    const props = shmem_zero_setup(k, propsFor(flags, null), 4);
    const {mapping} = props;
    yield* sys_mmap(k, t, {start: BASE, fixed: true, pages: 4, pgoff: 0, props, populate: false});
    for (let i = 0; i < 4; i++) yield* access(k, t, BASE + i, true);
    assert.equal(t.mm!.user!.rss.counts[MM_SHMEMPAGES], 4);
    assert.equal(mapping!.nrpages, 4);
    assert.notEqual(pfnAt(k, t.mm!, BASE), 0);
    yield* sys_munmap(k, t, BASE, BASE + 4);
    assert.equal(mapping!.nrpages, 0);
    assert.equal(k.mm.files.find(mapping!.id), null);
  });
});

test('vm.max_map_count', () => {
  runProcess(function* (k, t) {
    const {space} = k.mm.userOf(t.mm!);
    const count = DEFAULT_MAX_MAP_COUNT;
    for (let i = 0; i <= count; i++) yield* map(k, t, BASE + 2 * i, 1);
    assert.equal(space.mapCount, count + 1);
    assert.equal(yield* mapAt(k, t, BASE - 10, 1), -12);
  });
});

const STEP = fc.record({
  what: fc.constantFrom('map', 'map', 'read-only', 'unmap', 'touch'),
  at: fc.nat(80),
  pages: fc.integer({min: 1, max: 30}),
});

test('law: after any calls totals are true, mappings apart, and equal neighbours one', () => {
  fc.assert(
    fc.property(fc.array(STEP, {maxLength: 40}), (steps) => {
      runProcess(function* (k, t) {
        const mapped = new Map<number, number>();
        for (const {what, at, pages} of steps) {
          const prot = what === 'map' ? PROT_READ | PROT_WRITE : PROT_READ;
          if (what === 'touch') yield* access(k, t, BASE + at, false);
          else if (what === 'unmap') yield* sys_munmap(k, t, BASE + at, BASE + at + pages);
          else yield* map(k, t, BASE + at, pages, prot);
          for (let i = at; i < at + pages && what !== 'touch'; i++) {
            if (what === 'unmap') mapped.delete(i);
            else mapped.set(i, prot);
          }
        }
        const {space} = k.mm.userOf(t.mm!);
        assert.equal(space.totalVm, mapped.size);
        let count = 0;
        for (let vma = space.tree.first; vma !== null; vma = vma.next) {
          count++;
          for (let vpn = vma.start; vpn < vma.end; vpn++) {
            assert.equal(vma.flags & RW, mapped.get(vpn - BASE));
            mapped.delete(vpn - BASE);
          }
          const {next} = vma;
          if (next === null) continue;
          assert.ok(vma.end <= next.start);
          const touches = vma.end === next.start && is_mergeable_vma(vma, next);
          assert.ok(!touches, 'two that should be one');
        }
        assert.equal(mapped.size, 0);
        assert.equal(space.mapCount, count);
      });
    }),
    {numRuns: 60},
  );
});
