// Laws: whatever sequence of calls a process makes, every page holds what a naive model of its
// pages says, allows what the model says, and is counted once.

import assert from 'node:assert/strict';
import {test} from 'node:test';
import fc from 'fast-check';
import type {Code} from '../../machine/process.ts';
import {PTE_KIND, PTE_PRESENT, PTE_PROTNONE, PTE_SPECIAL} from '../arch/x86/mm/pgtable_bits.ts';
import {nextRange, PgtableCursor, startRange} from '../arch/x86/mm/pgtable_range.ts';
import type {Kernel} from '../kernel.ts';
import type {MmStruct} from '../mm_types.ts';
import type {Task} from '../task.ts';
import {do_madvise} from './madvise.ts';
import {MADV_DONTNEED, MADV_GUARD_INSTALL, MADV_GUARD_REMOVE} from './madvise_numbers.ts';
import {duplicate, runProcess, tearDown} from './mm_testing.ts';
import {do_mprotect} from './mprotect.ts';
import {do_mremap, MREMAP_DONTUNMAP, MREMAP_FIXED, MREMAP_MAYMOVE} from './mremap.ts';
import {load, map, store} from './mremap_testing.ts';
import {sys_munmap} from './mmap_unmap.ts';
import {MM_ANONPAGES} from './rss.ts';

const BASE = 2 ** 31;
/**
 * Pages that the steps play with: two PMD tables and a bit, so that tables move as a whole, too.
 */
const AREA = 3000;

/** A page of the model. */
interface ModelPage {
  prot: number;
  content: number;
  guard: boolean;
}
type Model = Map<number, ModelPage>;

const STEP = fc.record({
  what: fc.constantFrom(
    ...['store', 'store', 'store', 'load', 'mprotect', 'mprotect', 'move', 'move', 'table'],
    ...['resize', 'dontunmap', 'dontneed', 'guard', 'unguard', 'unmap', 'map', 'fork', 'fork'],
  ),
  at: fc.oneof(fc.nat(60), fc.nat(60), fc.nat(AREA - 1)),
  count: fc.integer({min: 1, max: 700}),
  to: fc.nat(AREA - 1),
  prot: fc.constantFrom(0, 1, 3, 3),
});
type Step = typeof STEP extends fc.Arbitrary<infer T> ? T : never;

function pagesOf(model: Model, from: number, count: number): (ModelPage | undefined)[] {
  return Array.from({length: count}, (_, i) => model.get(from + i));
}

/** True when [from, from + count) lies in one VMA. */
function inOneVma(t: Task, from: number, count: number): boolean {
  const vma = t.mm!.user!.space.tree.lookup(BASE + from);
  return vma !== null && vma.end >= BASE + from + count;
}

/** Moves `count` pages in the model. */
function moveModel(model: Model, from: number, to: number, count: number): void {
  const moved = pagesOf(model, from, count);
  for (let i = 0; i < count; i++) model.delete(from + i);
  for (let i = 0; i < count; i++) {
    const page = moved[i];
    if (page === undefined) model.delete(to + i);
    else model.set(to + i, page);
  }
}

function* move(k: Kernel, t: Task, model: Model, step: Step): Code {
  const tables = step.what === 'table';
  // BASE is aligned to 2 MB: the same offset on both sides moves tables.
  const at = tables ? step.at - (step.at % 512) : step.at;
  const to = tables ? step.to - (step.to % 512) : step.to;
  const count = tables ? 512 : step.count;
  const overlaps = at + count > to && to + count > at;
  const whole = pagesOf(model, at, count).every((page) => page !== undefined);
  // Before 6.17 a move stays within one VMA.
  if (k.facts.version !== '6.18' && !inOneVma(t, at, count)) return;
  const flags = MREMAP_MAYMOVE | MREMAP_FIXED;
  const result = yield* do_mremap(k, t, BASE + at, count, count, flags, BASE + to);
  if (overlaps) assert.equal(result, -22);
  else if (model.get(at) === undefined) assert.equal(result, -14);
  else {
    assert.equal(result, BASE + to);
    // Holes of the source leave what was at their place in the destination.
    if (whole) moveModel(model, at, to, count);
    else moveRuns(model, at, to, count);
  }
}

/** A move of several VMAs: runs of mapped pages replace, holes between them change nothing. */
function moveRuns(model: Model, at: number, to: number, count: number): void {
  for (let i = 0; i < count; i++) {
    const page = model.get(at + i);
    if (page === undefined) continue;
    model.set(to + i, page);
    model.delete(at + i);
  }
}

function* dontunmap(k: Kernel, t: Task, model: Model, step: Step): Code {
  const {at, to} = step;
  const count = Math.min(step.count, 100);
  if (!inOneVma(t, at, count) || (at + count > to && to + count > at)) return;
  const flags = MREMAP_MAYMOVE | MREMAP_FIXED | MREMAP_DONTUNMAP;
  assert.equal(yield* do_mremap(k, t, BASE + at, count, count, flags, BASE + to), BASE + to);
  const {prot} = model.get(at)!;
  moveModel(model, at, to, count);
  for (let i = 0; i < count; i++) model.set(at + i, {prot, content: 0, guard: false});
}

function* resize(k: Kernel, t: Task, model: Model, {at, count, to}: Step): Code {
  const old = Math.min(count, 64);
  const size = 1 + (to % 128);
  if (!inOneVma(t, at, old)) return;
  const result = yield* do_mremap(k, t, BASE + at, old, size, 0, 0);
  for (let i = size; i < old; i++) model.delete(at + i);
  if (size <= old) {
    assert.equal(result, BASE + at);
    return;
  }
  const ends = t.mm!.user!.space.tree.lookup(BASE + at)!.end;
  const free = pagesOf(model, at + old, size - old).every((page) => page === undefined);
  if (result === BASE + at) {
    assert.ok(free && ends >= BASE + at + size);
    const {prot} = model.get(at)!;
    for (let i = old; i < size; i++) model.set(at + i, {prot, content: 0, guard: false});
  } else {
    assert.equal(result, -12);
    assert.ok(!free || ends > BASE + at + old);
  }
}

function* advise(k: Kernel, t: Task, model: Model, step: Step): Code {
  const advice = {dontneed: MADV_DONTNEED, guard: MADV_GUARD_INSTALL, unguard: MADV_GUARD_REMOVE}[
    step.what as 'dontneed' | 'guard' | 'unguard'
  ];
  const pages = pagesOf(model, step.at, step.count);
  const holes = pages.some((page) => page === undefined);
  const result = yield* do_madvise(k, t, BASE + step.at, step.count, advice);
  assert.equal(result, holes ? -12 : 0);
  for (const page of pages) {
    if (page === undefined) continue;
    if (advice !== MADV_GUARD_REMOVE && !page.guard) page.content = 0;
    if (advice !== MADV_DONTNEED) page.guard = advice === MADV_GUARD_INSTALL;
  }
}

function* protect(k: Kernel, t: Task, model: Model, {at, count, prot}: Step): Code {
  const result = yield* do_mprotect(k, t, BASE + at, count, prot);
  for (const page of pagesOf(model, at, count)) {
    if (page === undefined) {
      assert.equal(result, -12);
      return;
    }
    page.prot = prot;
  }
  assert.equal(result, 0);
}

function* touch(k: Kernel, t: Task, model: Model, step: Step, version: number): Code {
  for (let i = 0; i < Math.min(step.count, 40); i++) {
    const page = model.get(step.at + i);
    const vpn = BASE + step.at + i;
    const needed = step.what === 'store' ? 2 : 1;
    const may = page !== undefined && !page.guard && (page.prot & needed) !== 0;
    if (step.what === 'load') {
      assert.equal(yield* load(k, t, vpn), may ? page.content : -1);
    } else {
      assert.equal(yield* store(k, t, vpn, version), may);
      if (may) page.content = version;
    }
  }
}

function* perform(k: Kernel, t: Task, model: Model, step: Step, version: number): Code {
  const {what, at, count, prot} = step;
  if (what === 'store' || what === 'load') yield* touch(k, t, model, step, version);
  else if (what === 'mprotect') yield* protect(k, t, model, step);
  else if (what === 'move' || what === 'table') yield* move(k, t, model, step);
  else if (what === 'dontunmap') yield* dontunmap(k, t, model, step);
  else if (what === 'resize') yield* resize(k, t, model, step);
  else if (what === 'unmap') {
    assert.equal(yield* sys_munmap(k, t, BASE + at, BASE + at + count), 0);
    for (let i = 0; i < count; i++) model.delete(at + i);
  } else if (what === 'map') {
    yield* map(k, t, BASE + at, count, prot);
    for (let i = 0; i < count; i++) model.set(at + i, {prot, content: 0, guard: false});
  } else yield* advise(k, t, model, step);
}

/** Every page of the model, as a load sees it where loads are allowed. */
function* checkContents(k: Kernel, t: Task, model: Model): Code {
  for (let i = 0; i < AREA + 1000; i++) {
    const page = model.get(i);
    const may = page !== undefined && !page.guard && (page.prot & 1) !== 0;
    assert.equal(yield* load(k, t, BASE + i), may ? page.content : -1, `page ${i}`);
  }
}

/** Counters and page tables agree. */
function checkCounts(k: Kernel, mm: MmStruct): void {
  const {pt} = k.mm;
  const cursor = new PgtableCursor();
  let present = 0;
  startRange(cursor, 0, 2 ** 35);
  while (nextRange(mm.user!.pgd, cursor)) {
    let population = 0;
    for (let at = cursor.slot & ~511; at < (cursor.slot & ~511) + 512; at++)
      if (pt.flags[at] !== 0) population++;
    assert.equal(pt.population[cursor.slot >>> 9], population);
    for (let at = cursor.slot; at < cursor.slot + cursor.count; at++) {
      const kind = pt.flags[at] & PTE_KIND;
      const mapped = kind === PTE_PRESENT || kind === PTE_PROTNONE;
      if (mapped && (pt.flags[at] & PTE_SPECIAL) === 0) present++;
    }
  }
  assert.equal(mm.user!.rss.counts[MM_ANONPAGES], present);
}

for (const [version, runs] of [
  ['6.18', 60],
  ['6.6', 15],
  ['4.1', 15],
] as const) {
  test(`a process's pages follow the naive model (${version})`, () => {
    const steps = fc.array(STEP, {minLength: 10, maxLength: 50});
    fc.assert(
      fc.property(steps, (list) => {
        runProcess(function* (k, t, log) {
          const model: Model = new Map();
          const own = t.mm!;
          let child: MmStruct | null = null;
          let frozen: Model = new Map();
          yield* map(k, t, BASE, 2000);
          for (let i = 0; i < 2000; i++) model.set(i, {prot: 3, content: 0, guard: false});
          let version = 1;
          for (const step of list) {
            log.take();
            version++;
            if (step.what !== 'fork') yield* perform(k, t, model, supported(k, step), version);
            else if (child === null) {
              child = yield* duplicate(k, t, own);
              frozen = new Map([...model].map(([at, page]) => [at, {...page}]));
            }
          }
          yield* checkContents(k, t, model);
          checkCounts(k, own);
          if (child !== null) {
            t.mm = child;
            yield* checkContents(k, t, frozen);
            checkCounts(k, child);
            t.mm = own;
            yield* tearDown(k, t, child);
          }
          yield* tearDown(k, t, own);
          assert.deepEqual([...own.user!.rss.counts], [0, 0, 0, 0]);
          assert.equal(k.mm.anon.used, 0);
        }, version);
      }),
      {numRuns: runs},
    );
  });
}

const SINCE_6_13 = ['guard', 'unguard'];

/** What the kernel has not got becomes something it has. */
function supported(k: Kernel, step: Step): Step {
  if (k.facts.version === '6.18') return step;
  if (SINCE_6_13.includes(step.what)) return {...step, what: 'load'};
  if (step.what === 'dontunmap' && k.facts.version === '4.1') return {...step, what: 'load'};
  return step;
}
