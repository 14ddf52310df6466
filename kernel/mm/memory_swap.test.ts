import assert from 'node:assert/strict';
import {test} from 'node:test';
import fc from 'fast-check';
import type {Code} from '../../machine/process.ts';
import {pteSlot} from '../arch/x86/mm/pgtable.ts';
import {PTE_KIND, PTE_PRESENT, PTE_SWAP} from '../arch/x86/mm/pgtable_bits.ts';
import type {Kernel} from '../kernel.ts';
import type {MmStruct} from '../mm_types.ts';
import type {Task} from '../task.ts';
import {lru_add_drain_all} from './folio_lru.ts';
import {access, duplicate, mapAnon, runProcess, tearDown, unmap} from './mm_testing.ts';
import {MM_ANONPAGES, MM_SWAPENTS} from './rss.ts';
import {swp_offset} from './swap_map.ts';
import {swap_cache_page} from './swap_state.ts';
import {install_memcg, sys_swapoff, sys_swapon} from './swapfile.ts';

const BASE = 0x5_5555_0000;
const SLOTS = 4096;

/** Puts the mm into a new cgroup that may have `pages`. */
function limit(k: Kernel, mm: MmStruct, pages: number): number {
  install_memcg(k.mm);
  const memcg = k.mm.swap.memcgs.create();
  memcg.max = pages;
  k.mm.userOf(mm).memcg = memcg.id;
  return memcg.id;
}

function* touch(k: Kernel, t: Task, first: number, n: number, write: boolean): Code<string[]> {
  const classes: string[] = [];
  for (let i = 0; i < n; i++) classes.push(yield* access(k, t, first + i, write));
  return classes;
}

/** Gives every page of a mapping a content of its own. */
function stamp(k: Kernel, mm: MmStruct, vpn: number, value: number): void {
  const slot = pteSlot(mm.user!.pgd, vpn);
  assert.equal(k.mm.pt.flags[slot] & PTE_KIND, PTE_PRESENT);
  k.mm.pages.content[k.mm.pt.entries[slot]] = value;
}

function contentOf(k: Kernel, mm: MmStruct, vpn: number): number {
  const slot = pteSlot(mm.user!.pgd, vpn);
  const kind = k.mm.pt.flags[slot] & PTE_KIND;
  const value = k.mm.pt.entries[slot];
  if (kind === PTE_PRESENT) return k.mm.pages.content[value];
  if (kind !== PTE_SWAP) return 0;
  const cached = swap_cache_page(k, value);
  if (cached !== 0) return k.mm.pages.content[cached];
  return k.mm.swap.areas.of(value).content[swp_offset(value)];
}

function counters(mm: MmStruct): [anon: number, swap: number] {
  const {counts} = mm.user!.rss;
  return [counts[MM_ANONPAGES], counts[MM_SWAPENTS]];
}

test('a cgroup at its limit swaps out its oldest pages and stays below it', () => {
  runProcess(function* (k, t) {
    const type = yield* sys_swapon(k, t, SLOTS);
    const memcg = limit(k, t.mm!, 256);
    mapAnon(k, t.mm!, BASE, 1024);
    yield* touch(k, t, BASE, 1024, true);
    const [anon, swap] = counters(t.mm!);
    assert.equal(anon + swap, 1024);
    assert.ok(anon <= 256, `${anon} pages in memory`);
    assert.ok(k.mm.swap.memcgs.of(memcg).watermark <= 256);
    assert.equal(k.mm.swap.memcgs.of(memcg).oomEvents, 0);
    const slot = pteSlot(t.mm!.user!.pgd, BASE);
    assert.equal(k.mm.pt.flags[slot] & PTE_KIND, PTE_SWAP);
    yield* tearDown(k, t, t.mm!);
    const area = k.mm.swap.areas.byType[type]!;
    for (let at = area.nextUsed(1); at !== 0; at = area.nextUsed(at + 1)) {
      assert.equal(area.count(at), 0, 'an exited process has swap entries');
    }
  });
});

test('what is swapped out comes back by a major fault, ANON first, without a notification', () => {
  runProcess(function* (k, t, log) {
    yield* sys_swapon(k, t, SLOTS);
    limit(k, t.mm!, 128);
    mapAnon(k, t.mm!, BASE, 512);
    yield* touch(k, t, BASE, 512, true);
    k.mm.swap.memcgs.byId[1].max = Infinity;
    const [anon, swap] = counters(t.mm!);
    log.take();
    assert.equal(yield* access(k, t, BASE, false), 'major');
    assert.deepEqual(log.take(), [`ANON ${anon + 1}`, `SWAP ${swap - 1}`, 'fault major']);
    assert.equal(yield* access(k, t, BASE, true), 'none');
  });
});

/** Free pages of all zones, those on per-CPU lists included. */
function freePages(k: Kernel): number {
  let free = 0;
  for (const zone of k.mm.zones) {
    free += zone.free;
    for (const n of zone.pcp.count) free += n;
  }
  return free;
}

type Step =
  | {readonly op: 'write' | 'read'; readonly page: number}
  | {readonly op: 'unmap'; readonly page: number; readonly n: number}
  | {readonly op: 'fork'};

const PAGES = 160;
const page = fc.nat(PAGES - 1);
const STEP: fc.Arbitrary<Step> = fc.oneof(
  {weight: 12, arbitrary: fc.record({op: fc.constantFrom('write', 'read'), page})},
  {weight: 1, arbitrary: fc.record({op: fc.constant('unmap' as const), page, n: fc.nat(12)})},
  {weight: 1, arbitrary: fc.record({op: fc.constant('fork' as const)})},
);

/** Carries out the steps, in 48 pages of memory, and checks every page's content after each. */
function* churn(k: Kernel, t: Task, steps: readonly Step[]): Code {
  const mm = t.mm!;
  const before = freePages(k);
  const type = yield* sys_swapon(k, t, SLOTS);
  const memcg = limit(k, mm, 48);
  const model = new Map<number, number>();
  const children: {mm: MmStruct; model: Map<number, number>}[] = [];
  mapAnon(k, mm, BASE, PAGES);
  let stamps = 0;
  const write = function* (vpn: number): Code {
    const result = yield* access(k, t, vpn, true);
    if (result === 'sigsegv') return;
    stamp(k, mm, vpn, ++stamps);
    model.set(vpn, stamps);
  };
  for (let i = 0; i < PAGES; i++) yield* write(BASE + i);
  for (const step of steps) {
    if (step.op === 'unmap') {
      const end = Math.min(step.page + step.n, PAGES);
      if (end > step.page) yield* unmap(k, t, mm, BASE + step.page, BASE + end);
      for (let at = step.page; at < end; at++) model.delete(BASE + at);
    } else if (step.op === 'fork') {
      if (children.length === 2) continue;
      const child = yield* duplicate(k, t, mm);
      child.user!.memcg = memcg;
      children.push({mm: child, model: new Map(model)});
    } else if (step.op === 'write') yield* write(BASE + step.page);
    else yield* access(k, t, BASE + step.page, false);
    for (const space of [{mm, model}, ...children]) checkSpace(k, space.mm, space.model);
  }
  for (const child of children) yield* tearDown(k, t, child.mm);
  const usage = k.mm.swap.memcgs.of(memcg);
  usage.max = Infinity;
  const result = yield* sys_swapoff(k, t, type);
  assert.equal(result, 0);
  assert.deepEqual(counters(mm), [model.size, 0]);
  checkSpace(k, mm, model);
  yield* tearDown(k, t, mm);
  lru_add_drain_all(k, t);
  assert.equal(usage.usage, 0, 'pages are charged to nobody');
  assert.equal(freePages(k), before - pageTables(k));
}

/** Frames that page tables (the top ones included) still have. */
function pageTables(k: Kernel): number {
  let frames = 0;
  for (const pfn of k.mm.pt.pfn) if (pfn !== 0) frames++;
  return frames;
}

function checkSpace(k: Kernel, mm: MmStruct, model: ReadonlyMap<number, number>): void {
  const [anon, swap] = counters(mm);
  assert.equal(anon + swap, model.size, 'ANON and SWAP together are the pages written');
  for (const [vpn, value] of model)
    assert.equal(contentOf(k, mm, vpn), value, `page ${vpn - BASE}`);
}

for (const version of ['6.18', '4.19', '3.10']) {
  test(`pages keep their content, slots and charges through swap (${version})`, () => {
    fc.assert(
      fc.property(fc.array(STEP, {minLength: 20, maxLength: 60}), (steps) => {
        runProcess((k, t) => churn(k, t, steps), version);
      }),
      {numRuns: 12, seed: 7, endOnFailure: true},
    );
  });
}
