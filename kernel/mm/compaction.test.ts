import assert from 'node:assert/strict';
import {test} from 'node:test';
import type {Code} from '../../machine/process.ts';
import {nsToTicks} from '../../machine/time.ts';
import {slotAt} from '../arch/x86/mm/pgtable.ts';
import type {Kernel} from '../kernel.ts';
import type {Task} from '../task.ts';
import {type Defrag, fragmentation_index, hasFreeBlock} from './compaction.ts';
import {lru_add_drain_all} from './folio_lru.ts';
import {zap_page_range_single} from './memory_zap.ts';
import {access, mapAnon, runProcess} from './mm_testing.ts';
import {drain_all_pages} from './page_alloc.ts';
import {VM_HUGEPAGE} from './vma_flags.ts';

const FULL = 0x5_5540_0000;
const HUGE = 0x5_6640_0000;
const BLOCKS = 140;
const PAGES = BLOCKS * 1024;

/** A node of which only 140 blocks of 4 MB can be had; the others are out of reach. */
function shrinkNode(k: Kernel): void {
  const {buddy} = k.mm.zones[0];
  const all: number[] = [];
  for (let pfn = buddy.alloc(10); pfn !== 0; pfn = buddy.alloc(10)) all.push(pfn);
  for (const pfn of all.slice(0, BLOCKS)) buddy.free(pfn, 10);
}

/** Fills the node down to its low watermark with single pages; every `keep`-th stays. */
function* fragment(k: Kernel, t: Task, keep: number): Code<number> {
  shrinkNode(k);
  const vma = mapAnon(k, t.mm!, FULL, PAGES);
  const {zone, low} = {zone: k.mm.zones[0], low: k.mm.zones[0].watermarks.low};
  // Page tables first: they cannot be moved, and would be all over the place.
  for (let i = 0; i < PAGES; i += 512) yield* access(k, t, FULL + i, true);
  let n = 0;
  while (zone.free > low + 64) yield* access(k, t, FULL + n++, true);
  lru_add_drain_all(k, t);
  for (let i = 0; i < n; i++) {
    if (i % keep !== 0) yield* zap_page_range_single(k, t, vma, FULL + i, FULL + i + 1, null);
    else k.mm.pages.content[pfnAt(k, t, FULL + i)] = i + 1;
  }
  // Nothing of what was never touched is left whole.
  drain_all_pages(k);
  const {buddy} = zone;
  while (hasFreeBlock(zone, 9)) {
    const pfn = buddy.alloc(10) || buddy.alloc(9);
    k.mm.pages.flags[pfn] = 0;
  }
  return n;
}

function pfnAt(k: Kernel, t: Task, vpn: number): number {
  return k.mm.pt.entries[slotAt(t.mm!.user!.pgd, vpn, 0)];
}

function faultAfter(keep: number, defrag: Defrag, advice: number): {was: string; k: Kernel} {
  let was = '';
  const k = runProcess(
    function* (k, t) {
      const n = yield* fragment(k, t, keep);
      k.mm.compaction.defrag = defrag;
      k.mm.huge!.settings = {...k.mm.huge!.settings, enabled: 'always'};
      mapAnon(k, t.mm!, HUGE, 512).flags |= advice;
      const {counts} = t.mm!.user!.rss;
      const before = counts[1];
      was = yield* access(k, t, HUGE, true);
      for (let i = 0; i < n; i += keep) {
        assert.equal(k.mm.pages.content[pfnAt(k, t, FULL + i)], i + 1);
      }
      assert.equal(counts[1] - before, was === 'huge' ? 512 : 1);
    },
    '6.18',
    '1s2c1t',
  );
  return {was, k};
}

test('where the buddy lists have a block, nothing is compacted', () => {
  const k = runProcess(function* (k, t) {
    mapAnon(k, t.mm!, HUGE, 512).flags |= VM_HUGEPAGE;
    assert.equal(fragmentation_index(k.mm.zones[0], 9), -1000);
    assert.equal(yield* access(k, t, HUGE, true), 'huge');
  });
  assert.equal(k.mm.migration.value('compact_migrate_scanned'), 0);
  assert.equal(k.mm.migration.value('compact_stall'), 0);
});

test('a fault on advised memory compacts its node; pages keep their content', () => {
  const {was, k} = faultAfter(4, 'madvise', VM_HUGEPAGE);
  assert.equal(was, 'huge');
  const {migration} = k.mm;
  assert.equal(migration.value('compact_stall'), 1);
  assert.equal(migration.value('compact_success'), 1);
  // A quarter of two or three pageblocks.
  const moved = migration.value('pgmigrate_success');
  assert.ok(moved >= 100 && moved < 1000, `${moved} pages moved`);
});

test('without the advice, or with defrag=never, the fault takes a small page', () => {
  for (const [defrag, advice] of [
    ['madvise', 0],
    ['never', VM_HUGEPAGE],
  ] as const) {
    const {was, k} = faultAfter(4, defrag, advice);
    assert.equal(was, 'minor anon');
    assert.equal(k.mm.migration.value('compact_stall'), 0);
    assert.equal(k.mm.huge!.counts.faultFallback, 1);
  }
});

test('defrag=defer: the fault takes a small page and wakes kcompactd; the next one gets 2 MB', () => {
  const k = runProcess(
    function* (k, t) {
      yield* fragment(k, t, 4);
      k.mm.compaction.defrag = 'defer';
      k.mm.huge!.settings = {...k.mm.huge!.settings, enabled: 'always'};
      mapAnon(k, t.mm!, HUGE, 1024);
      assert.equal(yield* access(k, t, HUGE, true), 'minor anon');
      yield* k.sched.sleep(t, nsToTicks(1e9));
      assert.equal(yield* access(k, t, HUGE + 512, true), 'huge');
    },
    '6.18',
    '1s2c1t',
  );
  const {migration} = k.mm;
  assert.equal(migration.value('compact_daemon_wake'), 1);
  assert.equal(migration.value('compact_stall'), 0);
  assert.ok(migration.value('pgmigrate_success') > 0);
});
