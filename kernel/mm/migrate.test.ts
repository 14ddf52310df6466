import assert from 'node:assert/strict';
import {test} from 'node:test';
import type {Code} from '../../machine/process.ts';
import {slotAt} from '../arch/x86/mm/pgtable.ts';
import {
  is_migration_entry,
  PTE_DIRTY,
  PTE_HUGE,
  PTE_KIND,
  PTE_MIGRATION_READ,
  PTE_PRESENT,
  PTE_WRITE,
  PTE_YOUNG,
} from '../arch/x86/mm/pgtable_bits.ts';
import type {Kernel} from '../kernel.ts';
import type {Task} from '../task.ts';
import {pinFolio, unpinFolio} from './folio_counts.ts';
import {ksm_do_scan} from './ksm_scan.ts';
import {do_pages_move, type MoveResult} from './migrate_move.ts';
import {mmu_notifier_register, mmu_notifier_unregister} from './mmu_notifier_register.ts';
import {MmuNotifier, type MmuNotifierOps} from './mmu_notifier_types.ts';
import {access, duplicate, mapAnon, mapFile, runProcess, tearDown, unmap} from './mm_testing.ts';
import {PG_anon_exclusive} from './page_flags.ts';
import {VM_HUGEPAGE, VM_MERGEABLE, VM_SHARED} from './vma_flags.ts';

const BASE = 0x5_5540_0000;

function* move(
  k: Kernel,
  t: Task,
  vpn: number,
  pages: number,
  node: number,
  all = false,
): Code<MoveResult> {
  return yield* do_pages_move(k, t, t.mm!.user!, vpn, pages, node, all);
}

function pfnAt(k: Kernel, t: Task, vpn: number): number {
  return k.mm.pt.entries[slotAt(t.mm!.user!.pgd, vpn, 0)];
}

function wordAt(k: Kernel, t: Task, vpn: number): number {
  return k.mm.pt.flags[slotAt(t.mm!.user!.pgd, vpn, 0)];
}

function nodeAt(k: Kernel, t: Task, vpn: number): number {
  return k.mm.pages.nodeOf(pfnAt(k, t, vpn));
}

test('a page moves: CLEAR pair, flush before the entry, nothing sent on the way back', () => {
  runProcess(function* (k, t, log) {
    mapAnon(k, t.mm!, BASE, 4);
    yield* access(k, t, BASE, true);
    k.mm.pages.content[pfnAt(k, t, BASE)] = 77;
    const from = pfnAt(k, t, BASE);
    log.take();
    const result = yield* move(k, t, BASE, 4, 1);
    assert.deepEqual(result, {moved: 1, there: 0, absent: 3, shared: 0, failed: 0});
    assert.deepEqual(log.take(), [
      'start try_to_migrate_one',
      'flush 1 (3)',
      'end try_to_migrate_one',
    ]);
    const to = pfnAt(k, t, BASE);
    assert.notEqual(to, from);
    assert.equal(k.mm.pages.nodeOf(to), 1);
    assert.equal(k.mm.pages.content[to], 77);
    assert.equal(k.mm.pages.refcount.get(from), 0);
    const kept = PTE_PRESENT | PTE_WRITE | PTE_DIRTY | PTE_YOUNG;
    assert.equal(wordAt(k, t, BASE) & (kept | PTE_KIND), kept);
    assert.notEqual(k.mm.pages.flags[to] & PG_anon_exclusive, 0);
    assert.equal(yield* access(k, t, BASE, true), 'none');
    assert.equal(k.mm.migration.value('pgmigrate_success'), 1);
    assert.deepEqual(yield* move(k, t, BASE, 4, 1), {
      moved: 0,
      there: 1,
      absent: 3,
      shared: 0,
      failed: 0,
    });
  });
});

test('before 6.1 a migrated page is old, and clean in its entry', () => {
  runProcess(function* (k, t) {
    mapAnon(k, t.mm!, BASE, 1);
    yield* access(k, t, BASE, true);
    yield* move(k, t, BASE, 1, 1);
    assert.equal(wordAt(k, t, BASE) & (PTE_YOUNG | PTE_DIRTY | PTE_WRITE), PTE_WRITE);
  }, '5.5');
});

test('a pinned page stays, mapped as before; without the pin it moves', () => {
  runProcess(function* (k, t) {
    mapAnon(k, t.mm!, BASE, 2);
    yield* access(k, t, BASE, true);
    yield* access(k, t, BASE + 1, true);
    const pinned = pfnAt(k, t, BASE);
    const word = wordAt(k, t, BASE);
    pinFolio(k.mm.pages, pinned, 1);
    const result = yield* move(k, t, BASE, 2, 1);
    assert.deepEqual(result, {moved: 1, there: 0, absent: 0, shared: 0, failed: 1});
    assert.equal(pfnAt(k, t, BASE), pinned);
    assert.equal(wordAt(k, t, BASE), word);
    assert.notEqual(k.mm.pages.flags[pinned] & PG_anon_exclusive, 0);
    assert.equal(k.mm.migration.value('pgmigrate_fail'), 1);
    unpinFolio(k.mm.pages, pinned, 1);
    assert.equal((yield* move(k, t, BASE, 1, 1)).moved, 1);
  });
});

test('an extra reference lets the unmapping be undone', () => {
  runProcess(function* (k, t) {
    mapAnon(k, t.mm!, BASE, 1);
    yield* access(k, t, BASE, true);
    const pfn = pfnAt(k, t, BASE);
    const word = wordAt(k, t, BASE);
    k.mm.pages.refcount.increment(pfn);
    assert.equal((yield* move(k, t, BASE, 1, 1)).failed, 1);
    assert.equal(pfnAt(k, t, BASE), pfn);
    assert.equal(wordAt(k, t, BASE), word);
    assert.notEqual(k.mm.pages.flags[pfn] & PG_anon_exclusive, 0);
    k.mm.pages.refcount.decrement(pfn);
    assert.equal(k.mm.pages.refcount.get(pfn), 2);
  });
});

test('rmap: after a fork all mappings follow; the child sees the same pfn', () => {
  runProcess(function* (k, t) {
    mapAnon(k, t.mm!, BASE, 1);
    yield* access(k, t, BASE, true);
    const child = yield* duplicate(k, t, t.mm!);
    assert.equal((yield* move(k, t, BASE, 1, 1)).shared, 1);
    assert.equal((yield* move(k, t, BASE, 1, 1, true)).moved, 1);
    const pfn = pfnAt(k, t, BASE);
    assert.equal(k.mm.pages.nodeOf(pfn), 1);
    assert.equal(k.mm.pt.entries[slotAt(child.user!.pgd, BASE, 0)], pfn);
    assert.equal(k.mm.pages.mapcount.get(pfn), 2);
    assert.equal(wordAt(k, t, BASE) & PTE_WRITE, 0);
    assert.equal(yield* access(k, t, BASE, true), 'cow');
    yield* tearDown(k, t, child);
  });
});

test('a page of a file moves in the page cache and in its mappings', () => {
  runProcess(function* (k, t) {
    const file = k.mm.files.create('shmem', 4);
    mapFile(k, t.mm!, BASE, 4, file, 0, 0x3b | VM_SHARED);
    yield* access(k, t, BASE + 2, true);
    const from = pfnAt(k, t, BASE + 2);
    assert.equal(k.mm.files.page(file, 2), from);
    assert.equal((yield* move(k, t, BASE, 4, 1)).moved, 1);
    const to = pfnAt(k, t, BASE + 2);
    assert.equal(k.mm.files.page(file, 2), to);
    assert.equal(nodeAt(k, t, BASE + 2), 1);
    assert.equal(yield* access(k, t, BASE + 2, true), 'none');
    yield* unmap(k, t, t.mm!, BASE, BASE + 4);
  });
});

/** Slot of the PMD entry at BASE. */
function pmdOf(t: Task): number {
  return slotAt(t.mm!.user!.pgd, BASE, 1);
}

test('a huge page moves whole, with one flush of everything', () => {
  runProcess(function* (k, t, log) {
    mapAnon(k, t.mm!, BASE, 512).flags |= VM_HUGEPAGE;
    yield* access(k, t, BASE, true);
    log.take();
    assert.equal((yield* move(k, t, BASE, 512, 1)).moved, 512);
    assert.deepEqual(log.take(), [
      'start try_to_migrate_one',
      'flush -1 (3)',
      'end try_to_migrate_one',
    ]);
    const word = k.mm.pt.flags[pmdOf(t)];
    assert.equal(word & (PTE_HUGE | PTE_WRITE), PTE_HUGE | PTE_WRITE);
    assert.equal(k.mm.pages.nodeOf(k.mm.pt.entries[pmdOf(t)] & 0x7fff_ffff), 1);
    assert.equal(k.mm.migration.value('thp_migration_success'), 1);
    assert.equal(yield* access(k, t, BASE + 9, true), 'none');
    yield* unmap(k, t, t.mm!, BASE, BASE + 512);
    assert.equal(k.mm.huge!.depositedFrames, 0);
  });
});

test('without a free huge page on the target it is split, and its pages move', () => {
  runProcess(function* (k, t) {
    mapAnon(k, t.mm!, BASE, 512).flags |= VM_HUGEPAGE;
    yield* access(k, t, BASE, true);
    breakUp(k, 1);
    assert.equal((yield* move(k, t, BASE, 512, 1)).moved, 512);
    assert.equal(k.mm.migration.value('thp_migration_split'), 1);
    assert.equal(k.mm.pt.flags[pmdOf(t)] & PTE_HUGE, 0);
    assert.equal(nodeAt(k, t, BASE + 511), 1);
    assert.equal(yield* access(k, t, BASE + 511, true), 'none');
    yield* unmap(k, t, t.mm!, BASE, BASE + 512);
  });
});

/** Leaves a node only single free pages: every other one of 128 blocks. */
function breakUp(k: Kernel, node: number): void {
  const {buddy} = k.mm.zones[node];
  const all: number[] = [];
  for (let pfn = buddy.alloc(10); pfn !== 0; pfn = buddy.alloc(10)) all.push(pfn);
  for (const pfn of all.slice(0, 128)) {
    for (let at = 0; at < 1024; at += 2) buddy.free(pfn + at, 0);
  }
}

test('before 4.14 huge pages are split to be moved', () => {
  runProcess(function* (k, t) {
    mapAnon(k, t.mm!, BASE, 512).flags |= VM_HUGEPAGE;
    yield* access(k, t, BASE, true);
    assert.equal((yield* move(k, t, BASE, 512, 1)).moved, 512);
    assert.equal(k.mm.pt.flags[pmdOf(t)] & PTE_HUGE, 0);
    assert.equal(nodeAt(k, t, BASE + 3), 1);
  }, '4.13');
});

test('fork turns writable migration entries into readable ones on both sides', () => {
  runProcess(function* (k, t) {
    mapAnon(k, t.mm!, BASE, 1);
    yield* access(k, t, BASE, true);
    const slot = slotAt(t.mm!.user!.pgd, BASE, 0);
    const {pages} = k.mm;
    const pfn = pfnAt(k, t, BASE);
    const word = wordAt(k, t, BASE);
    // As try_to_migrate leaves it.
    k.mm.pt.flags[slot] = (word & ~(PTE_KIND | PTE_WRITE)) | 7;
    pages.mapcount.decrement(pfn);
    pages.flags[pfn] &= ~PG_anon_exclusive;
    const child = yield* duplicate(k, t, t.mm!);
    assert.equal(wordAt(k, t, BASE) & PTE_KIND, PTE_MIGRATION_READ);
    const childSlot = slotAt(child.user!.pgd, BASE, 0);
    assert.equal(is_migration_entry(k.mm.pt.flags[childSlot]), true);
    assert.equal(child.user!.rss.counts[1], 1);
    yield* tearDown(k, t, child);
    k.mm.pt.flags[slot] = word;
    pages.mapcount.increment(pfn);
  });
});

test('rmap: a KSM page moves with all its mappings, those of a later fork too', () => {
  runProcess(function* (k, t) {
    const ksm = k.mm.ksm!;
    const vma = mapAnon(k, t.mm!, BASE, 8);
    vma.flags |= VM_MERGEABLE;
    yield* k.mm.hooks.ksm_madvise!(t, vma, vma.start, vma.end, true);
    for (let i = 0; i < 8; i++) {
      yield* access(k, t, BASE + i, true);
      k.mm.pages.content[pfnAt(k, t, BASE + i)] = 42;
    }
    for (const end = ksm.fullScans + 4; ksm.fullScans < end; ) yield* ksm_do_scan(ksm, t, 1000);
    assert.deepEqual([ksm.trees.pagesShared, ksm.trees.pagesSharing], [1, 7]);
    const child = yield* duplicate(k, t, t.mm!);
    const from = pfnAt(k, t, BASE);
    assert.equal((yield* move(k, t, BASE, 8, 1, true)).moved, 1);
    const to = pfnAt(k, t, BASE);
    assert.equal(k.mm.pages.nodeOf(to), 1);
    assert.equal(k.mm.pages.content[to], 42);
    assert.equal(k.mm.pages.refcount.get(from), 0);
    for (const {user} of [t.mm!, child]) {
      for (let i = 0; i < 8; i++) {
        const slot = slotAt(user!.pgd, BASE + i, 0);
        assert.equal(k.mm.pt.entries[slot], to);
        assert.equal(k.mm.pt.flags[slot] & (PTE_KIND | PTE_WRITE), PTE_PRESENT);
      }
    }
    assert.equal(k.mm.pages.mapcount.get(to), 16);
    assert.deepEqual([ksm.trees.pagesShared, ksm.trees.pagesSharing], [1, 7]);
    assert.equal(yield* access(k, t, BASE, true), 'cow');
    yield* tearDown(k, t, child);
  });
});

/** What a consumer hears of the migration of one page, with the CPU's flush. */
function heard(version: string): string[] {
  let lines: string[] = [];
  runProcess(function* (k, t, log) {
    mapAnon(k, t.mm!, BASE, 1);
    yield* access(k, t, BASE, true);
    const say = (what: string): void => void log.lines.push(what);
    const none: readonly undefined[] = [];
    const ops: MmuNotifierOps = {
      name: 'n',
      *invalidate_range_start() {
        yield* none;
        say('S');
        return 0;
      },
      *invalidate_range_end() {
        yield* none;
        say('E');
      },
      *invalidate_page() {
        yield* none;
        say('IP');
      },
    };
    const range = {...ops, invalidate_range: () => say('IR')};
    // Since 6.6 a consumer has the pair or the range, not both.
    const old = ['2.6.32', '3.10', '6.6', '6.18'].includes(version);
    const n = new MmuNotifier(old ? ops : range, {});
    yield* mmu_notifier_register(k, t, t.mm!, n);
    log.take();
    assert.equal((yield* move(k, t, BASE, 1, 1)).moved, 1);
    lines = log.take().map((line) => (line.startsWith('flush') ? 'F' : line));
    yield* mmu_notifier_unregister(k, t, n);
  }, version);
  return lines.filter((line) => /^(F|S|E|IP|IR)$/.test(line));
}

for (const [version, expected] of [
  ['2.6.32', 'F IP'],
  ['3.10', 'F IP'],
  ['4.1', 'F IR IP'],
  ['4.13', 'S F IR IR E'],
  ['5.5', 'S F IR IR E'],
  ['6.6', 'S F E'],
  ['6.18', 'S F E'],
] as const) {
  test(`order of calls in ${version}: ${expected}`, () => {
    assert.equal(heard(version).join(' '), expected);
  });
}
