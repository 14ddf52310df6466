// 1 GB and 2 MB leaves of DAX mappings, and what each choice of the axis `pud` does to them
// (the series that 6.12 took).

import assert from 'node:assert/strict';
import {test} from 'node:test';
import type {Code} from '../../machine/process.ts';
import {nsToTicks} from '../../machine/time.ts';
import {walkSlot} from '../arch/x86/mm/pgtable.ts';
import {
  PTE_DIRTY,
  PTE_KIND,
  PTE_PRESENT,
  PTE_PROTNONE,
  PTE_SAVED_DIRTY,
  PTE_SPECIAL,
  PTE_WRITE,
} from '../arch/x86/mm/pgtable_bits.ts';
import {PTHREAD_FLAGS} from '../clone_flags.ts';
import {sys_clone} from '../fork.ts';
import type {Kernel} from '../kernel.ts';
import type {Task} from '../task.ts';
import {dax_writeback_mapping_range} from './dax_writeback.ts';
import {GB, mapDax, runDesign, SHARED_RW} from './dax_testing.ts';
import {do_madvise} from './madvise.ts';
import {MADV_DONTNEED} from './madvise_numbers.ts';
import {access, duplicate, tearDown, unmap} from './mm_testing.ts';
import {do_mprotect} from './mprotect.ts';
import {do_mremap, MREMAP_FIXED, MREMAP_MAYMOVE} from './mremap.ts';
import {MM_ANONPAGES, MM_FILEPAGES} from './rss.ts';
import {VM_MAYEXEC, VM_MAYREAD, VM_MAYWRITE, VM_READ, VM_WRITE} from './vma_flags.ts';

const BASE = 2 ** 31;
const DEVICE = {kind: 'device', pages: GB, alignPages: 262144} as const;
const PRIVATE_RW = VM_READ | VM_WRITE | VM_MAYREAD | VM_MAYWRITE;

/** Level and flags of the entry that maps `vpn`. */
function entry(k: Kernel, t: Task, vpn: number): {level: number; word: number} {
  const {pt} = k.mm;
  const slot = walkSlot(t.mm!.user!.pgd, vpn);
  return {level: pt.level[slot >>> 9], word: pt.flags[slot]};
}

function rss(t: Task, member: number): number {
  return t.mm!.user!.rss.counts[member];
}

test('a device with 1 GB units maps 1 GB; since 6.15 it counts as file pages', () => {
  for (const [version, counted] of [
    ['6.18', true],
    ['6.12', false],
    ['4.13', false],
  ] as const) {
    const k = runDesign(version, [], function* (k, t, log) {
      mapDax(k, t.mm!, BASE, DEVICE);
      log.take();
      assert.equal(yield* access(k, t, BASE + 70_000, false), 'huge');
      assert.deepEqual(log.take(), counted ? [`FILE ${GB}`, 'fault huge'] : ['fault huge']);
      const {level, word} = entry(k, t, BASE);
      assert.equal(level, 2);
      // A device wants no notice of writes: writable and clean from the first read on.
      assert.equal(word & (PTE_WRITE | PTE_DIRTY), PTE_WRITE);
      assert.equal((word & PTE_SPECIAL) === 0, counted);
      assert.equal(yield* access(k, t, BASE + GB - 1, true), 'none');
      yield* unmap(k, t, t.mm!, BASE, BASE + GB);
      assert.equal(rss(t, MM_FILEPAGES), 0);
      assert.equal(entry(k, t, BASE).word, 0);
    });
    assert.deepEqual(k.checks.findings, []);
  }
});

test('units of 2 MB and 4 KB; a VMA that does not begin at a unit gets SIGBUS', () => {
  runDesign('6.18', [], function* (k, t) {
    mapDax(k, t.mm!, BASE, {kind: 'device', pages: 2048, alignPages: 512});
    assert.equal(yield* access(k, t, BASE + 700, true), 'huge');
    assert.equal(entry(k, t, BASE + 700).level, 1);
    assert.equal(rss(t, MM_FILEPAGES), 512);
    mapDax(k, t.mm!, BASE + 4096, {kind: 'device', pages: 64, alignPages: 1});
    assert.equal(yield* access(k, t, BASE + 4100, true), 'minor file');
    assert.equal(rss(t, MM_FILEPAGES), 513);
    mapDax(k, t.mm!, BASE + 8192 + 1, {kind: 'device', pages: 2048, alignPages: 512});
    assert.equal(yield* access(k, t, BASE + 8192 + 600, true), 'sigbus');
  });
});

test('a DAX file: 2 MB where extents allow, pages elsewhere, copies where it is private', () => {
  runDesign('6.18', [], function* (k, t) {
    const vma = mapDax(k, t.mm!, BASE, {kind: 'fs', pages: 1024, alignPages: 512});
    assert.equal(yield* access(k, t, BASE + 3, false), 'huge');
    // The file system hears of the first write (pfn_mkwrite).
    assert.equal(entry(k, t, BASE + 3).word & PTE_WRITE, 0);
    assert.equal(yield* access(k, t, BASE + 3, true), 'reuse');
    assert.equal(yield* access(k, t, BASE + 4, true), 'none');
    assert.equal(rss(t, MM_FILEPAGES), 512);
    mapDax(k, t.mm!, BASE + 4096 + 1, {kind: 'fs', pages: 1024, alignPages: 512});
    assert.equal(yield* access(k, t, BASE + 4096 + 1, true), 'minor file');
    vma.mapping!.sizePages = 512;
    assert.equal(yield* access(k, t, BASE + 600, true), 'sigbus');
    mapDax(k, t.mm!, BASE + 8192, {kind: 'fs', pages: 512, alignPages: 512}, PRIVATE_RW);
    assert.equal(yield* access(k, t, BASE + 8192, false), 'huge');
    assert.equal(yield* access(k, t, BASE + 8192 + 9, true), 'cow');
    assert.equal(rss(t, MM_ANONPAGES), 1);
    assert.equal(rss(t, MM_FILEPAGES), 513);
    assert.equal(yield* access(k, t, BASE + 8192 + 10, false), 'minor file');
    yield* unmap(k, t, t.mm!, BASE, BASE + 16384);
    assert.deepEqual([rss(t, MM_ANONPAGES), rss(t, MM_FILEPAGES)], [0, 0]);
  });
});

/** mprotect of a 1 GB leaf: what the notifier hears, and the entry afterwards. */
function protectLeaf(
  version: string,
  overrides: readonly string[],
  prot: number,
): {k: Kernel; heard: string[]; word: number; after: string} {
  const result = {heard: [] as string[], word: 0, after: ''};
  const k = runDesign(version, overrides, function* (k, t, log) {
    mapDax(k, t.mm!, BASE, DEVICE);
    yield* access(k, t, BASE, true);
    log.take();
    assert.equal(yield* do_mprotect(k, t, BASE, GB, prot), 0);
    result.heard = log.take();
    result.word = entry(k, t, BASE).word;
    result.after = yield* access(k, t, BASE + 5, false);
    yield* unmap(k, t, t.mm!, BASE, BASE + GB);
  });
  return {k, ...result};
}

test('mprotect-pud-dax: up to 6.11 the leaf is cleared as a bad pud and nobody is told', () => {
  const old = protectLeaf('6.6', [], 1);
  assert.deepEqual(old.heard, []);
  assert.equal(old.word, 0);
  assert.equal(old.after, 'huge');
  assert.match(old.k.checks.findings[0], /bad pud/);
  const fixed = protectLeaf('6.12', [], 1);
  // The flush of pudp_invalidate comes inside the pair, the gather's after it.
  assert.deepEqual(fixed.heard, [
    'start change_protection',
    'flush -1 (3)',
    'end change_protection',
    'flush -1 (3)',
  ]);
  assert.equal(fixed.word & (PTE_KIND | PTE_WRITE), PTE_PRESENT);
  assert.equal(fixed.after, 'none');
  assert.deepEqual(fixed.k.checks.findings, []);
  // Per PUD, as before 6.12, the pair would come with the first PMD: still not told.
  const perPud = protectLeaf('6.12', ['mprotect=per-pud'], 1);
  assert.deepEqual(perPud.heard, ['flush -1 (3)', 'flush -1 (3)']);
});

test('pud-leaf-prot-none: a leaf only when present is a bad pud on zap', () => {
  const broken = protectLeaf('6.12', ['pud=leaf-present'], 0);
  assert.equal(broken.word & PTE_KIND, PTE_PROTNONE);
  assert.equal(broken.after, 'sigsegv');
  assert.equal(broken.k.checks.counters.get('bad_pud'), 1);
  const fixed = protectLeaf('6.12', [], 0);
  assert.equal(fixed.word & PTE_KIND, PTE_PROTNONE);
  assert.deepEqual(fixed.k.checks.findings, []);
});

test('shadow-stack-zap: a dirty leaf made read-only without mksaveddirty looks like a shadow stack', () => {
  const broken = protectLeaf('6.12', ['pud=no-saved-dirty'], 1);
  assert.equal(broken.word & (PTE_WRITE | PTE_DIRTY), PTE_DIRTY);
  assert.match(broken.k.checks.findings[0], /arch_check_zapped_pud/);
  const fixed = protectLeaf('6.12', [], 1);
  assert.equal(fixed.word & (PTE_DIRTY | PTE_SAVED_DIRTY), PTE_SAVED_DIRTY);
  assert.deepEqual(fixed.k.checks.findings, []);
  const back = protectLeaf('6.12', [], 3);
  assert.deepEqual(back.k.checks.findings, []);
});

/** A thread writes to clean leaves while the other changes their protection again and again. */
function dirtyRace(overrides: readonly string[]): Kernel {
  return runDesign('6.12', overrides, function* (k, t): Code {
    let stop = false;
    mapDax(k, t.mm!, BASE, DEVICE, SHARED_RW | VM_MAYEXEC);
    yield* access(k, t, BASE, false);
    yield* sys_clone(k, t, {
      flags: PTHREAD_FLAGS,
      childTid: 101,
      childTgid: 100,
      pinnedCpu: 1,
      *program(child) {
        while (!stop) {
          yield* access(k, child, BASE + 3, true);
          yield* k.sched.userRun(child, nsToTicks(2_900));
        }
      },
    });
    const {pt} = k.mm;
    const slot = walkSlot(t.mm!.user!.pgd, BASE);
    for (let round = 0; round < 400; round++) {
      // Writeback has cleaned the entry.
      pt.flags[slot] &= ~(PTE_DIRTY | PTE_SAVED_DIRTY);
      assert.equal(yield* do_mprotect(k, t, BASE, GB, 3 + 4 * (~round & 1)), 0);
    }
    stop = true;
  });
}

test('pud-dirty-race: without pudp_invalidate the hardware’s dirty bit is lost', () => {
  const broken = dirtyRace(['pud=no-invalidate']);
  assert.ok((broken.checks.counters.get('lost_dirty_bits') ?? 0) > 0);
  const fixed = dirtyRace([]);
  assert.deepEqual(fixed.checks.findings, []);
});

test('mremap moves a leaf (5.14+); before, the walk clears it as a bad pud', () => {
  for (const [version, moves] of [
    ['6.18', true],
    ['6.6', true],
    ['5.5', false],
  ] as const) {
    const k = runDesign(version, [], function* (k, t, log) {
      mapDax(k, t.mm!, BASE, DEVICE);
      yield* access(k, t, BASE, true);
      log.take();
      const to = BASE + 4 * GB;
      const flags = MREMAP_FIXED | MREMAP_MAYMOVE;
      assert.equal(yield* do_mremap(k, t, BASE, GB, GB, flags, to), to);
      const heard = log.take().filter((line) => !line.includes('unmap_vmas'));
      assert.equal(heard[0], 'start move_page_tables');
      assert.equal(heard.includes('flush -1 (3)'), moves);
      assert.equal(entry(k, t, to).level === 2 && entry(k, t, to).word !== 0, moves);
      assert.equal(entry(k, t, BASE).word, 0);
      assert.equal(yield* access(k, t, to + 1, true), moves ? 'none' : 'huge');
    });
    assert.equal(k.checks.findings.length, moves ? 0 : 1);
  }
});

test('DONTNEED of a part takes the whole leaf: S and E of the split inside those of the zap', () => {
  for (const version of ['6.18', '6.12']) {
    runDesign(version, [], function* (k, t, log) {
      mapDax(k, t.mm!, BASE, DEVICE);
      yield* access(k, t, BASE, true);
      log.take();
      assert.equal(yield* do_madvise(k, t, BASE + 512, 512, MADV_DONTNEED), 0);
      const heard = log.take().filter((line) => /^(start|end)/.test(line));
      assert.deepEqual(heard, [
        'start zap_page_range_single',
        'start __split_huge_pud',
        'end __split_huge_pud',
        'end zap_page_range_single',
      ]);
      assert.equal(rss(t, MM_FILEPAGES), 0);
      assert.equal(yield* access(k, t, BASE + 1, true), 'huge');
    });
  }
});

test('fork copies leaves of mixed maps (to 4.18); later children fault them in', () => {
  for (const [version, copied] of [
    ['4.13', true],
    ['6.6', false],
    ['6.18', false],
  ] as const) {
    runDesign(version, [], function* (k, t) {
      mapDax(k, t.mm!, BASE, DEVICE);
      yield* access(k, t, BASE, true);
      const child = yield* duplicate(k, t, t.mm!);
      const slot = walkSlot(child.user!.pgd, BASE);
      assert.equal(k.mm.pt.flags[slot] !== 0, copied);
      assert.equal(child.user!.rss.counts[MM_FILEPAGES], 0);
      // Shared memory stays writable on both sides.
      if (copied) assert.ok((k.mm.pt.flags[slot] & PTE_WRITE) !== 0);
      yield* tearDown(k, t, child);
    });
  }
});

test('a device of 2 MB units: write access comes back with the protection, no fault needed', () => {
  runDesign('6.18', [], function* (k, t) {
    mapDax(k, t.mm!, BASE, {kind: 'device', pages: 1024, alignPages: 512});
    yield* access(k, t, BASE, false);
    assert.equal(yield* do_mprotect(k, t, BASE, 1024, 1), 0);
    assert.equal(yield* access(k, t, BASE, true), 'sigsegv');
    assert.equal(yield* do_mprotect(k, t, BASE, 1024, 3), 0);
    assert.equal(yield* access(k, t, BASE, true), 'none');
    // No VMA is split inside a unit.
    assert.equal(yield* do_mprotect(k, t, BASE, 600, 1), -22);
  });
});

test('writeback of a DAX file makes it read-only and clean again, told entry by entry', () => {
  for (const [version, pair] of [
    ['6.18', true],
    ['4.1', false],
  ] as const) {
    runDesign(version, [], function* (k, t, log) {
      const vma = mapDax(k, t.mm!, BASE, {kind: 'fs', pages: 1024, alignPages: 512});
      const pages = mapDax(k, t.mm!, BASE + 4096, {kind: 'fs', pages: 64, alignPages: 1});
      for (const vpn of [BASE, BASE + 512, BASE + 4096, BASE + 4100])
        yield* access(k, t, vpn, true);
      log.take();
      assert.equal(yield* dax_writeback_mapping_range(k, t, vma.mapping!, 0, 1024), 2);
      assert.equal(yield* dax_writeback_mapping_range(k, t, pages.mapping!, 0, 3), 1);
      const site = 'page_vma_mkclean_one';
      const one = pair ? [`start ${site}`, `end ${site}`] : [];
      const heard = log.take().filter((line) => /^(start|end)/.test(line));
      assert.deepEqual(heard, [...one, ...one, ...one]);
      assert.equal(yield* access(k, t, BASE + 3, true), 'reuse');
      assert.equal(yield* access(k, t, BASE + 4096, true), 'reuse');
      assert.equal(yield* access(k, t, BASE + 4100, true), 'none');
      assert.equal(yield* dax_writeback_mapping_range(k, t, vma.mapping!, 0, 1024), 1);
    });
  }
});
