import assert from 'node:assert/strict';
import {test} from 'node:test';
import fc from 'fast-check';
import type {Code} from '../../machine/process.ts';
import {LEAF, walkSlot} from '../arch/x86/mm/pgtable.ts';
import {PTE_HUGE, PTE_KIND, PTE_PRESENT, PTE_SPECIAL} from '../arch/x86/mm/pgtable_bits.ts';
import type {Kernel} from '../kernel.ts';
import type {MmStruct} from '../mm_types.ts';
import type {Task} from '../task.ts';
import {lru_add_drain_all} from './folio_lru.ts';
import {do_pages_move} from './migrate_move.ts';
import {
  ANON_RW,
  access,
  duplicate,
  mapAnon,
  mapFile,
  runProcess,
  tearDown,
  unmap,
} from './mm_testing.ts';
import {change_prot_numa} from './mprotect_walk.ts';
import {drain_all_pages} from './page_alloc.ts';
import {VM_HUGEPAGE, VM_SHARED} from './vma_flags.ts';

const BASE = 0x5_5540_0000;
/** Small anonymous pages, shared memory, and one huge page. */
const SMALL = BASE;
const SHARED = BASE + 1024;
const HUGE = BASE + 2048;
const AREAS = [SMALL, SHARED, HUGE];
const PAGES = 24;

type Step =
  | {
      readonly op: 'write' | 'read';
      readonly who: number;
      readonly area: number;
      readonly at: number;
    }
  | {readonly op: 'fork' | 'exit'; readonly who: number}
  | {readonly op: 'unmap'; readonly who: number; readonly at: number}
  | {
      readonly op: 'move' | 'hint';
      readonly who: number;
      readonly area: number;
      readonly at: number;
      readonly node: number;
      readonly all: boolean;
    };

const who = fc.nat(3);
const at = fc.nat(PAGES - 1);
const area = fc.nat(2);
const step: fc.Arbitrary<Step> = fc.oneof(
  {
    weight: 6,
    arbitrary: fc.record({op: fc.constantFrom('write' as const, 'read' as const), who, area, at}),
  },
  {weight: 1, arbitrary: fc.record({op: fc.constantFrom('fork' as const, 'exit' as const), who})},
  {weight: 1, arbitrary: fc.record({op: fc.constant('unmap' as const), who, at})},
  {
    weight: 5,
    arbitrary: fc.record({
      op: fc.constantFrom('move' as const, 'hint' as const),
      who,
      area,
      at,
      node: fc.nat(1),
      all: fc.boolean(),
    }),
  },
);

/** pfn that `vpn` maps, 0 for none. */
function pfnAt(k: Kernel, mm: MmStruct, vpn: number): number {
  const slot = walkSlot(mm.user!.pgd, vpn);
  const word = k.mm.pt.flags[slot];
  if ((word & PTE_KIND) === 0 || (word & PTE_SPECIAL) !== 0) return 0;
  const pfn = k.mm.pt.entries[slot] & ~LEAF;
  return (word & PTE_HUGE) === 0 ? pfn : pfn + (vpn % 512);
}

/**
 * One step by mm `who`, which `t` takes on for the time. `moves`: migrations are carried out, too.
 */
function* take(k: Kernel, t: Task, mms: MmStruct[], s: Step, n: number, moves: boolean): Code {
  const mm = mms[s.who % mms.length];
  const own = t.mm;
  t.mm = mm;
  if (s.op === 'write' || s.op === 'read') {
    const vpn = AREAS[s.area] + s.at;
    let was = yield* access(k, t, vpn, s.op === 'write');
    while (was === 'numa') was = yield* access(k, t, vpn, s.op === 'write');
    const pfn = pfnAt(k, mm, vpn);
    if (s.op === 'write' && was !== 'sigsegv') k.mm.pages.content[pfn] = n + 1;
  } else if (s.op === 'fork') {
    if (mms.length < 4) mms.push(yield* duplicate(k, t, mm));
  } else if (s.op === 'exit') {
    if (mms.length > 1 && mm !== own) {
      mms.splice(mms.indexOf(mm), 1);
      k.mm.huge!.putHugeZero(mm.user!);
      yield* tearDown(k, t, mm);
    }
  } else if (s.op === 'unmap') {
    yield* unmap(k, t, mm, SMALL + s.at, SMALL + s.at + 3);
  } else if (moves && (s.op === 'move' || s.op === 'hint')) {
    const start = AREAS[s.area];
    if (s.op === 'move') yield* do_pages_move(k, t, mm.user!, start + s.at, 512, s.node, s.all);
    const vma = mm.user!.space.tree.lookup(start);
    if (s.op === 'hint' && vma !== null) yield* change_prot_numa(k, t, vma, vma.start, vma.end);
  }
  t.mm = own;
}

/** What all processes see, and their counters. */
function picture(k: Kernel, mms: readonly MmStruct[]): unknown {
  return mms.map((mm) => ({
    rss: [...mm.user!.rss.counts],
    pages: AREAS.map((start) =>
      Array.from({length: PAGES}, (_, i) => {
        const pfn = pfnAt(k, mm, start + i);
        return pfn === 0 ? -1 : k.mm.pages.content[pfn];
      }),
    ),
  }));
}

function free(k: Kernel, t: Task): number {
  lru_add_drain_all(k, t);
  drain_all_pages(k);
  return k.mm.zones.reduce((sum, zone) => sum + zone.free, 0);
}

/** No entry is left behind, and every page that is mapped can be reached. */
function settled(k: Kernel, mms: readonly MmStruct[]): void {
  for (const mm of mms) {
    for (const start of AREAS) {
      for (let i = 0; i < PAGES; i++) {
        const word = k.mm.pt.flags[walkSlot(mm.user!.pgd, start + i)];
        const kind = word & PTE_KIND;
        assert.ok(kind === 0 || kind === PTE_PRESENT || kind === 2 || kind === 3, `kind ${kind}`);
      }
    }
  }
}

function live(
  steps: readonly Step[],
  moves: boolean,
  version: string,
): {seen: unknown; moved: number} {
  let seen: unknown = null;
  const k = runProcess(function* (k, t) {
    const before = free(k, t);
    const own = t.mm!;
    const file = k.mm.files.create('shmem', 1024);
    mapAnon(k, own, SMALL, PAGES);
    mapFile(k, own, SHARED, PAGES, file, 0, ANON_RW | VM_SHARED);
    mapAnon(k, own, HUGE, 512).flags |= VM_HUGEPAGE;
    const mms = [own];
    for (let n = 0; n < steps.length; n++) yield* take(k, t, mms, steps[n], n, moves);
    settled(k, mms);
    seen = picture(k, mms);
    for (const mm of mms) {
      k.mm.huge!.putHugeZero(mm.user!);
      if (mm === own) yield* unmap(k, t, own, BASE, BASE + 4096);
      else yield* tearDown(k, t, mm);
    }
    k.mm.huge!.shrinkHugeZero(t);
    for (let index = 0; index < 1024; index++) {
      const pfn = k.mm.files.page(file, index);
      if (pfn === 0) continue;
      k.mm.files.removePage(file, index, -1);
      k.mm.pages.mapping[pfn] = 0;
      lru_add_drain_all(k, t);
      k.mm.pages.refcount.decrement(pfn);
      assert.ok(k.mm.pages.refcount.isZero(pfn), `page ${pfn} of the file has references`);
      k.mm.lruvecs.ofFolio(pfn).delFolio(pfn);
      k.mm.zones[k.mm.pages.nodeOf(pfn)].buddy.free(pfn, 0);
    }
    assert.equal(before - free(k, t), 0, 'pages are missing');
  }, version);
  return {seen, moved: k.mm.migration.value('pgmigrate_success')};
}

for (const version of ['6.18', '5.5', '4.13']) {
  test(`law: migrations change nothing that a process can see, and leak nothing (${version})`, () => {
    let moved = 0;
    fc.assert(
      fc.property(fc.array(step, {minLength: 5, maxLength: 60}), (steps) => {
        const withMoves = live(steps, true, version);
        moved += withMoves.moved;
        assert.deepEqual(withMoves.seen, live(steps, false, version).seen);
      }),
      {numRuns: 25, seed: 20261121},
    );
    assert.ok(moved > 200, `only ${moved} pages moved`);
  });
}
