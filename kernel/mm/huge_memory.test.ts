import assert from 'node:assert/strict';
import {test} from 'node:test';
import type {Code} from '../../machine/process.ts';
import {slotAt} from '../arch/x86/mm/pgtable.ts';
import {PTE_HUGE, PTE_WRITE} from '../arch/x86/mm/pgtable_bits.ts';
import type {Kernel} from '../kernel.ts';
import type {Task} from '../task.ts';
import {folio_mapcount} from './folio_counts.ts';
import type {HugeMemory} from './huge_memory.ts';
import {deferred_split_scan} from './huge_memory_split.ts';
import {hpage_collapse_scan_pmd, madvise_collapse, SCAN_PMD_MAPPED} from './khugepaged_collapse.ts';
import {zap_page_range_single} from './memory_zap.ts';
import {
  access,
  duplicate,
  mapAnon,
  type ProbeLog,
  runProcess,
  tearDown,
  unmap,
} from './mm_testing.ts';
import {drain_all_pages} from './page_alloc.ts';
import {MM_ANONPAGES} from './rss.ts';
import type {VmArea} from './vma.ts';
import {VM_HUGEPAGE} from './vma_flags.ts';

const BASE = 0x5_5540_0000;

type Program = (huge: HugeMemory, t: Task, log: ProbeLog, vma: VmArea) => Code<unknown>;

/** A process with `areas` aligned 2 MB of MADV_HUGEPAGE memory at BASE. */
function run(areas: number, program: Program, version = '6.18'): Kernel {
  return runProcess(function* (k, t, log) {
    const huge = k.mm.huge!;
    const vma = mapAnon(k, t.mm!, BASE, areas * 512);
    vma.flags |= VM_HUGEPAGE;
    log.take();
    yield* program(huge, t, log, vma);
  }, version);
}

function pmdWord(k: Kernel, t: Task, vpn: number): number {
  const slot = slotAt(t.mm!.user!.pgd, vpn, 1);
  return slot < 0 ? 0 : k.mm.pt.flags[slot];
}

test('a write fault counts 512 pages at once; memory without the advice gets small pages', () => {
  run(1, function* ({k}, t, log) {
    assert.equal(yield* access(k, t, BASE + 7, true), 'huge');
    assert.deepEqual(log.take(), ['ANON 512', 'fault huge']);
    assert.equal(yield* access(k, t, BASE + 511, true), 'none');
    mapAnon(k, t.mm!, BASE + 2048, 512);
    assert.equal(yield* access(k, t, BASE + 2048, true), 'minor anon');
    assert.deepEqual(log.take(), ['ANON 513', 'fault minor anon']);
  });
});

test('a range that no aligned 2 MB fits into gets small pages', () => {
  run(1, function* ({k}, t, log) {
    const vma = mapAnon(k, t.mm!, BASE + 1024 + 1, 512);
    vma.flags |= VM_HUGEPAGE;
    assert.equal(yield* access(k, t, BASE + 1024 + 3, true), 'minor anon');
    assert.deepEqual(log.take(), ['ANON 1', 'fault minor anon']);
  });
});

test('a read maps the huge zero folio; the write after it gets a folio in a CLEAR pair', () => {
  run(1, function* (huge, t, log) {
    const {k} = huge;
    assert.equal(yield* access(k, t, BASE, false), 'zero page');
    assert.deepEqual(log.take(), ['fault zero page']);
    assert.equal(huge.hugeZeroUsers, 1);
    assert.equal(yield* access(k, t, BASE + 1, true), 'huge');
    assert.deepEqual(log.take(), [
      'start do_huge_zero_wp_pmd',
      'ANON 512',
      'flush -1 (3)',
      'end do_huge_zero_wp_pmd',
      'fault huge',
    ]);
  });
});

test('before 6.14 a write to the huge zero folio splits it', () => {
  run(
    1,
    function* ({k, counts}, t, log) {
      yield* access(k, t, BASE, false);
      log.take();
      assert.equal(yield* access(k, t, BASE + 1, true), 'cow');
      assert.equal(counts.splitPmd, 1);
      assert.equal(t.mm!.user!.rss.counts[MM_ANONPAGES], 1);
      assert.equal(yield* access(k, t, BASE + 2, false), 'none');
    },
    '6.12',
  );
});

test('fork shares a huge page; the first write splits, flushes everything, and copies 4 KB', () => {
  run(1, function* (huge, t, log) {
    const {k} = huge;
    yield* access(k, t, BASE, true);
    log.take();
    const child = yield* duplicate(k, t, t.mm!);
    assert.deepEqual(log.take(), [
      'start copy_page_range',
      'ANON 512 not mine',
      'end copy_page_range',
      'flush -1 (3)',
    ]);
    assert.equal(pmdWord(k, t, BASE) & PTE_WRITE, 0);
    assert.equal(yield* access(k, t, BASE + 9, true), 'cow');
    assert.deepEqual(log.take(), [
      'start __split_huge_pmd',
      'flush -1 (3)',
      'end __split_huge_pmd',
      'start wp_page_copy',
      'end wp_page_copy',
      'flush 1 (3)',
      'fault cow',
    ]);
    yield* tearDown(k, t, child);
    assert.equal(huge.depositedFrames, 0);
    assert.equal(yield* access(k, t, BASE + 10, true), 'reuse');
    assert.equal(yield* access(k, t, BASE + 9, true), 'none');
  });
});

test('without other references a read-only huge page is reused', () => {
  run(1, function* ({k, counts}, t, log) {
    yield* access(k, t, BASE, true);
    const child = yield* duplicate(k, t, t.mm!);
    yield* tearDown(k, t, child);
    log.take();
    assert.equal(yield* access(k, t, BASE, true), 'reuse');
    assert.deepEqual(log.take(), ['fault reuse']);
    assert.equal(counts.splitPmd, 0);
  });
});

test('a pinned huge page is not shared: fork splits it and copies small pages', () => {
  run(1, function* ({k, counts}, t, log) {
    yield* access(k, t, BASE, true);
    const head = k.mm.pt.entries[slotAt(t.mm!.user!.pgd, BASE, 1)] & 0x7fff_ffff;
    k.mm.pages.refcount.add(head, 1);
    k.mm.pages.prev[head + 2] += 1;
    log.take();
    const child = yield* duplicate(k, t, t.mm!);
    assert.equal(counts.splitPmd, 1);
    assert.equal(child.user!.rss.counts[MM_ANONPAGES], 512);
    assert.equal(yield* access(k, t, BASE, true), 'none');
    k.mm.pages.refcount.add(head, -1);
    k.mm.pages.prev[head + 2] -= 1;
    yield* tearDown(k, t, child);
  });
});

test('unmapping: whole with one flush of one entry, in part with a split first', () => {
  run(2, function* (huge, t, log, vma) {
    const {k} = huge;
    yield* access(k, t, BASE, true);
    yield* access(k, t, BASE + 512, true);
    log.take();
    yield* zap_page_range_single(k, t, vma, BASE, BASE + 512, null);
    assert.deepEqual(log.take(), [
      'start zap_page_range_single',
      'ANON 512',
      'end zap_page_range_single',
      'flush 1 (3)',
    ]);
    yield* zap_page_range_single(k, t, vma, BASE + 513, BASE + 529, null);
    assert.deepEqual(log.take(), [
      'start zap_page_range_single',
      'start __split_huge_pmd',
      'flush -1 (3)',
      'end __split_huge_pmd',
      'ANON 496',
      'end zap_page_range_single',
      'flush 16 (3)',
    ]);
    assert.equal(huge.deferredSplit.size, 1);
    const free = k.mm.zones[0].buddy.freePages;
    assert.equal(yield* deferred_split_scan(huge, t, 10), 1);
    drain_all_pages(k);
    assert.equal(k.mm.zones[0].buddy.freePages >= free + 16, true);
    assert.equal(yield* access(k, t, BASE + 600, true), 'none');
    yield* unmap(k, t, t.mm!, BASE, BASE + 1024);
    assert.equal(huge.deferredSplit.size, 0);
    assert.equal(t.mm!.user!.rss.counts[MM_ANONPAGES], 0);
  });
});

test('a collapse counts one page for each hole, and leaves one exclusive huge page', () => {
  run(1, function* (huge, t, log, vma) {
    const {k} = huge;
    yield* access(k, t, BASE, true);
    yield* zap_page_range_single(k, t, vma, BASE + 1, BASE + 3, null);
    log.take();
    const {mmapLock} = t.mm!.user!;
    if (!mmapLock.readAcquire(t, 0)) yield* mmapLock.readAcquireSlow(t, 0);
    assert.equal(yield* madvise_collapse(huge, t, vma, BASE, BASE + 512), 0);
    assert.deepEqual(log.take(), [
      'start collapse_huge_page',
      'flush -1 (3)',
      'end collapse_huge_page',
      'ANON 511',
      'ANON 512',
    ]);
    assert.notEqual(pmdWord(k, t, BASE) & PTE_HUGE, 0);
    const head = k.mm.pt.entries[slotAt(t.mm!.user!.pgd, BASE, 1)] & 0x7fff_ffff;
    assert.equal(folio_mapcount(k.mm.pages, head), 1);
    const again = yield* hpage_collapse_scan_pmd(huge, t, vma, BASE, false);
    assert.equal(again, SCAN_PMD_MAPPED);
    if (!mmapLock.readRelease(t)) yield* mmapLock.readReleaseSlow(t);
    assert.equal(yield* access(k, t, BASE + 2, true), 'none');
    yield* unmap(k, t, t.mm!, BASE, BASE + 512);
    assert.equal(huge.depositedFrames, 0);
  });
});
