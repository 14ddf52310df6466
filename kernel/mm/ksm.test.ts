import assert from 'node:assert/strict';
import {test} from 'node:test';
import fc from 'fast-check';
import type {Code} from '../../machine/process.ts';
import {nsToTicks} from '../../machine/time.ts';
import {pteSlot} from '../arch/x86/mm/pgtable.ts';
import {startProcess} from '../init_task.ts';
import type {Kernel} from '../kernel.ts';
import type {Task} from '../task.ts';
import type {Ksm} from './ksm.ts';
import {ksm_do_scan} from './ksm_scan.ts';
import {ksm_store} from './ksm_sysfs.ts';
import {
  access,
  duplicate,
  mapAnon,
  type ProbeLog,
  runProcess,
  tearDown,
  unmap,
} from './mm_testing.ts';
import {mmap_write_lock, mmap_write_unlock} from './mmap_lock.ts';
import {MM_ANONPAGES} from './rss.ts';
import type {VmArea} from './vma.ts';
import {VM_HUGEPAGE, VM_MERGEABLE} from './vma_flags.ts';

const BASE = 0x5_5540_0000;
const HELD_TICKS = nsToTicks(300);

type Program = (ksm: Ksm, t: Task, log: ProbeLog, vma: VmArea) => Code<unknown>;

/** A process with `contents.length` written pages of these contents in mergeable memory. */
function run(contents: readonly number[], program: Program, version = '6.18'): Kernel {
  return runProcess(function* (k, t, log) {
    const ksm = k.mm.ksm!;
    const vma = mapAnon(k, t.mm!, BASE, Math.max(contents.length, 1));
    vma.flags |= VM_MERGEABLE;
    yield* k.mm.hooks.ksm_madvise!(t, vma, vma.start, vma.end, true);
    for (const [i, content] of contents.entries()) {
      yield* access(k, t, BASE + i, true);
      k.mm.pages.content[pfnAt(k, t, BASE + i)] = content;
    }
    log.take();
    yield* program(ksm, t, log, vma);
  }, version);
}

function pfnAt(k: Kernel, t: Task, vpn: number): number {
  return k.mm.pt.entries[pteSlot(t.mm!.user!.pgd, vpn)];
}

/** `n` full scans. */
function* scans(ksm: Ksm, t: Task, n: number): Code {
  for (const end = ksm.fullScans + n; ksm.fullScans < end; ) yield* ksm_do_scan(ksm, t, 1000);
}

/** How many pages ksmd shares and saves when `pages` are equal and `limit` may share one. */
function formula(pages: number, limit: number): [shared: number, sharing: number] {
  const nodes = Math.floor(pages / limit);
  const rest = pages % limit;
  if (rest <= 1) return [nodes, nodes * (limit - 1)];
  return [nodes + 1, pages - nodes - 1];
}

test('two equal pages become one: two CLEAR pairs for each, a flush for each, no counter', () => {
  run([7, 7], function* (ksm, t, log) {
    yield* scans(ksm, t, 1);
    assert.deepEqual(log.take(), []);
    yield* scans(ksm, t, 1);
    const first = ['start write_protect_page', 'flush 1 (3)', 'end write_protect_page'];
    const second = ['start replace_page', 'flush 1 (3)', 'end replace_page'];
    assert.deepEqual(log.take(), [...first, ...first, ...second]);
    assert.equal(pfnAt(ksm.k, t, BASE), pfnAt(ksm.k, t, BASE + 1));
    assert.deepEqual([ksm.trees.pagesShared, ksm.trees.pagesSharing], [1, 1]);
    assert.equal(t.mm!.user!.rss.counts[MM_ANONPAGES], 2);
  });
});

test('a write gives a page of its own again, and the next scan notices', () => {
  run([7, 7], function* (ksm, t, log) {
    yield* scans(ksm, t, 2);
    log.take();
    assert.equal(yield* access(ksm.k, t, BASE, true), 'cow');
    ksm.k.mm.pages.content[pfnAt(ksm.k, t, BASE)] = 8;
    assert.equal(yield* access(ksm.k, t, BASE + 1, true), 'cow');
    ksm.k.mm.pages.content[pfnAt(ksm.k, t, BASE + 1)] = 9;
    yield* scans(ksm, t, 2);
    assert.deepEqual([ksm.trees.pagesShared, ksm.trees.pagesSharing], [0, 0]);
    assert.equal(ksm.trees.nodes.size, 0);
  });
});

test('a pinned page is left alone', () => {
  run([7, 7], function* (ksm, t) {
    const pfn = pfnAt(ksm.k, t, BASE);
    ksm.k.mm.pages.refcount.increment(pfn);
    yield* scans(ksm, t, 4);
    assert.deepEqual([ksm.trees.pagesShared, ksm.trees.pagesSharing], [0, 0]);
    assert.equal(yield* access(ksm.k, t, BASE, true), 'none');
    ksm.k.mm.pages.refcount.decrement(pfn);
    yield* scans(ksm, t, 8);
    assert.deepEqual([ksm.trees.pagesShared, ksm.trees.pagesSharing], [1, 1]);
  });
});

test('counts obey the formula for every number of pages and every sharing limit', () => {
  const sizes = fc.tuple(fc.integer({min: 0, max: 70}), fc.integer({min: 2, max: 20}));
  fc.assert(
    fc.property(sizes, ([pages, limit]) => {
      run(new Array<number>(pages).fill(5), function* (ksm, t) {
        ksm.settings.maxPageSharing = limit;
        ksm.settings.smartScan = false;
        yield* scans(ksm, t, 4);
        const counts = [ksm.trees.pagesShared, ksm.trees.pagesSharing];
        assert.deepEqual(counts, formula(pages, limit));
        const frames = new Set<number>();
        for (let i = 0; i < pages; i++) frames.add(pfnAt(ksm.k, t, BASE + i));
        assert.equal(frames.size, pages - ksm.trees.pagesSharing);
      });
    }),
    {numRuns: 25},
  );
});

test('MADV_UNMERGEABLE gives every page its own; scans and unmapping leave nothing behind', () => {
  run(new Array<number>(60).fill(5), function* (ksm, t, _log, vma) {
    const {k} = ksm;
    yield* scans(ksm, t, 3);
    assert.equal(ksm.trees.pagesSharing, 59);
    vma.flags &= ~VM_MERGEABLE;
    assert.equal(yield* k.mm.hooks.ksm_madvise!(t, vma, vma.start, vma.end, false), 0);
    const frames = new Set<number>();
    for (let i = 0; i < 60; i++) frames.add(pfnAt(k, t, BASE + i));
    assert.equal(frames.size, 60);
    yield* scans(ksm, t, 1);
    assert.deepEqual([ksm.trees.pagesShared, ksm.trees.pagesSharing, ksm.rmapItems], [0, 0, 0]);
    assert.equal(ksm.slots.length, 0);
    yield* unmap(k, t, t.mm!, BASE, BASE + 60);
    assert.equal(t.mm!.user!.rss.counts[MM_ANONPAGES], 0);
  });
});

test('with use_zero_pages zero pages leave rss, and come back when they are written', () => {
  run([0, 0, 0, 4], function* (ksm, t, log, vma) {
    const {k} = ksm;
    ksm.settings.useZeroPages = true;
    yield* scans(ksm, t, 2);
    assert.equal(ksm.zeroPages, 3);
    assert.deepEqual([ksm.trees.pagesShared, ksm.trees.pagesSharing], [0, 0]);
    assert.equal(t.mm!.user!.rss.counts[MM_ANONPAGES], 1);
    log.take();
    assert.equal(yield* access(k, t, BASE, true), 'cow');
    assert.equal(ksm.zeroPages, 2);
    yield* k.mm.hooks.ksm_madvise!(t, vma, BASE + 1, BASE + 2, false);
    assert.equal(ksm.zeroPages, 1);
    yield* unmap(k, t, t.mm!, BASE, BASE + 4);
    assert.equal(ksm.zeroPages, 0);
    assert.equal(t.mm!.user!.rss.counts[MM_ANONPAGES], 0);
  });
});

test('a forked child shares over the limit, and its exit gives everything back', () => {
  run([5, 5, 5], function* (ksm, t) {
    const {k} = ksm;
    ksm.settings.maxPageSharing = 3;
    yield* scans(ksm, t, 2);
    const child = yield* duplicate(k, t, t.mm!);
    k.mm.hooks.ksm_fork!(t, child, t.mm!);
    assert.equal(child.user!.ksmMergingPages, 0);
    yield* scans(ksm, t, 1);
    assert.equal(ksm.trees.pagesSharing, 5);
    assert.equal(child.user!.ksmMergingPages, 3);
    yield* k.mm.hooks.ksm_exit!(t, child);
    yield* tearDown(k, t, child);
    assert.deepEqual([ksm.trees.pagesShared, ksm.trees.pagesSharing], [1, 2]);
  });
});

test('the scan waits for mmap_lock at any page of an mm whose pages are merged', () => {
  run(new Array<number>(64).fill(5), function* (ksm, t) {
    const {k} = ksm;
    const {user} = t.mm!;
    yield* scans(ksm, t, 3);
    let writing = true;
    startProcess(k, {
      tid: 200,
      comm: 'writer',
      pinnedCpu: 1,
      program: function* (writer: Task): Code {
        for (let i = 0; i < 500; i++) {
          yield* mmap_write_lock(writer, user!, ksm.fn);
          writer.cpu.charge(HELD_TICKS + i, ksm.fn);
          yield* mmap_write_unlock(writer, user!);
          writer.cpu.charge(HELD_TICKS, ksm.fn);
        }
        writing = false;
      },
    });
    const before = ksm.fullScans;
    while (writing) yield* scans(ksm, t, 1);
    assert.ok(ksm.fullScans > before + 1);
    assert.ok((k.locks.report().get('mmap_lock-R')?.contended ?? 0) > 64);
    assert.deepEqual([ksm.trees.pagesShared, ksm.trees.pagesSharing], [1, 63]);
  });
});

test('before 6.11 the stable tree comes before the checksum: one scan is enough to join', () => {
  const joined = (version: string): number => {
    let sharing = -1;
    run(
      [5, 5, 5],
      function* (ksm, t) {
        const {k} = ksm;
        const late = mapAnon(k, t.mm!, BASE + 1024, 1);
        late.flags |= VM_MERGEABLE;
        yield* scans(ksm, t, 2);
        yield* access(k, t, BASE + 1024, true);
        k.mm.pages.content[pfnAt(k, t, BASE + 1024)] = 5;
        yield* scans(ksm, t, 1);
        sharing = ksm.trees.pagesSharing;
      },
      version,
    );
    return sharing;
  };
  assert.equal(joined('6.6'), 3);
  assert.equal(joined('6.18'), 2);
});

test('a huge page is split for merging', () => {
  runProcess(function* (k, t) {
    const huge = k.mm.huge!;
    const ksm = k.mm.ksm!;
    const vma = mapAnon(k, t.mm!, BASE, 512);
    vma.flags |= VM_MERGEABLE | VM_HUGEPAGE;
    yield* k.mm.hooks.ksm_madvise!(t, vma, vma.start, vma.end, true);
    assert.equal(yield* access(k, t, BASE, true), 'huge');
    yield* scans(ksm, t, 4);
    assert.equal(huge.counts.splitPage, 1);
    assert.deepEqual([ksm.trees.pagesShared, ksm.trees.pagesSharing], [2, 510]);
    assert.equal(yield* access(k, t, BASE + 3, true), 'cow');
    yield* k.mm.hooks.ksm_exit!(t, t.mm!);
    yield* unmap(k, t, t.mm!, BASE, BASE + 512);
    assert.equal(huge.depositedFrames, 0);
    assert.equal(t.mm!.user!.rss.counts[MM_ANONPAGES], 0);
  });
});

test('before 6.6 a page of zeros that replaced one is an ordinary one', () => {
  const zeros = (version: string): readonly number[] => {
    const found: number[] = [];
    run(
      [0, 0, 0, 4],
      function* (ksm, t, _log, vma) {
        const {k} = ksm;
        assert.equal(yield* ksm_store(ksm, t, 'use_zero_pages', 1), 0);
        yield* scans(ksm, t, 3);
        found.push(ksm.zeroPages, t.mm!.user!.rss.counts[MM_ANONPAGES]);
        yield* k.mm.hooks.ksm_madvise!(t, vma, BASE, BASE + 4, false);
        found.push(t.mm!.user!.rss.counts[MM_ANONPAGES]);
      },
      version,
    );
    return found;
  };
  assert.deepEqual(zeros('6.18'), [3, 1, 4]);
  assert.deepEqual(zeros('5.4'), [0, 1, 1]);
});

test('files of /sys/kernel/mm/ksm are there from their kernel on, and refuse what Linux refuses', () => {
  const ENOENT = -2;
  const EINVAL = -22;
  const EBUSY = -16;
  run(
    [7, 7],
    function* (ksm, t) {
      assert.equal(yield* ksm_store(ksm, t, 'smart_scan', 1), ENOENT);
      assert.equal(yield* ksm_store(ksm, t, 'no_such_file', 1), ENOENT);
      assert.equal(yield* ksm_store(ksm, t, 'run', 3), EINVAL);
      assert.equal(yield* ksm_store(ksm, t, 'max_page_sharing', 1), EINVAL);
      assert.equal(yield* ksm_store(ksm, t, 'merge_across_nodes', 2), EINVAL);
      yield* scans(ksm, t, 3);
      assert.equal(yield* ksm_store(ksm, t, 'max_page_sharing', 9), EBUSY);
      assert.equal(yield* ksm_store(ksm, t, 'run', 2), 0);
      assert.deepEqual([ksm.trees.pagesShared, ksm.rmapItems], [0, 0]);
      assert.equal(yield* ksm_store(ksm, t, 'max_page_sharing', 9), 0);
      assert.equal(ksm.settings.maxPageSharing, 9);
    },
    '5.4',
  );
});

test('with merge_across_nodes 0 pages of different nodes stay apart (ksm_tests, NUMA)', () => {
  const sharing = (across: number): number => {
    let found = -1;
    run([7, 8], function* (ksm, t) {
      const {pages} = ksm.k.mm;
      const pfns = [pfnAt(ksm.k, t, BASE), pfnAt(ksm.k, t, BASE + 1)];
      for (const pfn of pfns) pages.content[pfn] = 7;
      const nodeOf = pages.nodeOf.bind(pages);
      pages.nodeOf = (pfn) => (pfn === pfns[1] ? 1 : nodeOf(pfn));
      assert.equal(yield* ksm_store(ksm, t, 'merge_across_nodes', across), 0);
      yield* scans(ksm, t, 4);
      pages.nodeOf = nodeOf;
      found = ksm.trees.pagesSharing;
    });
    return found;
  };
  assert.deepEqual([sharing(1), sharing(0)], [1, 0]);
});
