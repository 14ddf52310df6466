// Where older kernels treat huge pages differently: copies of shared huge pages, and what
// khugepaged takes.

import assert from 'node:assert/strict';
import {test} from 'node:test';
import type {Code} from '../../machine/process.ts';
import {pteSlot, slotAt} from '../arch/x86/mm/pgtable.ts';
import {PTE_HUGE, PTE_WRITE} from '../arch/x86/mm/pgtable_bits.ts';
import type {Kernel} from '../kernel.ts';
import type {Task} from '../task.ts';
import {lru_add_drain_all} from './folio_lru.ts';
import type {HugeMemory} from './huge_memory.ts';
import {thp_store} from './huge_memory_sysfs.ts';
import {khugepaged_do_scan} from './khugepaged.ts';
import {hpage_collapse_scan_pmd, SCAN_SUCCEED} from './khugepaged_collapse.ts';
import {
  access,
  duplicate,
  mapAnon,
  type ProbeLog,
  runProcess,
  tearDown,
  unmap,
} from './mm_testing.ts';
import {MM_ANONPAGES} from './rss.ts';
import type {VmArea} from './vma.ts';
import {VM_HUGEPAGE, VM_NOHUGEPAGE} from './vma_flags.ts';

const BASE = 0x5_5540_0000;

type Program = (huge: HugeMemory, t: Task, log: ProbeLog, vma: VmArea) => Code<unknown>;

function run(version: string, program: Program): Kernel {
  return runProcess(function* (k, t, log) {
    const vma = mapAnon(k, t.mm!, BASE, 512);
    vma.flags |= VM_HUGEPAGE;
    yield* program(k.mm.huge!, t, log, vma);
  }, version);
}

function isHuge(k: Kernel, t: Task): boolean {
  return (k.mm.pt.flags[slotAt(t.mm!.user!.pgd, BASE, 1)] & PTE_HUGE) !== 0;
}

test('before 5.8 a write to a shared huge page copies all of it', () => {
  for (const version of ['4.1', '5.4']) {
    run(version, function* (huge, t, log) {
      const {k} = huge;
      yield* access(k, t, BASE, true);
      const child = yield* duplicate(k, t, t.mm!);
      log.take();
      assert.equal(yield* access(k, t, BASE + 9, true), 'huge');
      assert.deepEqual(log.take(), [
        'start do_huge_pmd_wp_page',
        'flush -1 (3)',
        'end do_huge_pmd_wp_page',
        'fault huge',
      ]);
      assert.equal(huge.counts.splitPmd, 0);
      assert.ok(isHuge(k, t));
      assert.equal(t.mm!.user!.rss.counts[MM_ANONPAGES], 512);
      assert.equal(yield* access(k, t, BASE + 10, true), 'none');
      yield* tearDown(k, t, child);
      yield* unmap(k, t, t.mm!, BASE, BASE + 512);
      assert.equal(huge.depositedFrames, 0);
      assert.equal(t.mm!.user!.rss.counts[MM_ANONPAGES], 0);
    });
  }
});

test('before 5.8 a write to the huge page of zeros gets a huge page', () => {
  run('4.1', function* ({k, counts}, t) {
    yield* access(k, t, BASE, false);
    assert.equal(yield* access(k, t, BASE + 1, true), 'huge');
    assert.equal(counts.splitPmd, 0);
  });
});

/** Small pages everywhere, then khugepaged's look at them. */
function* collapsed(huge: HugeMemory, t: Task, vma: VmArea, prepare: () => Code): Code<boolean> {
  const {k} = huge;
  vma.flags = (vma.flags & ~VM_HUGEPAGE) | VM_NOHUGEPAGE;
  for (let page = 0; page < 512; page++) yield* access(k, t, BASE + page, true);
  vma.flags = (vma.flags & ~VM_NOHUGEPAGE) | VM_HUGEPAGE;
  yield* prepare();
  lru_add_drain_all(k, t);
  const {mmapLock} = t.mm!.user!;
  if (!mmapLock.readAcquire(t, 0)) yield* mmapLock.readAcquireSlow(t, 0);
  const result = yield* hpage_collapse_scan_pmd(huge, t, vma, BASE, true);
  if (result < 20 && !mmapLock.readRelease(t)) yield* mmapLock.readReleaseSlow(t);
  return result === SCAN_SUCCEED;
}

test('2 MB without a writable page are collapsed since 6.18', () => {
  const outcome = new Map<string, boolean>();
  for (const version of ['6.12', '6.18']) {
    run(version, function* (huge, t, _log, vma) {
      const {k} = huge;
      // biome-ignore lint/correctness/useYield: the caller's type wants simulated code
      const protect = function* (): Code {
        for (let page = 0; page < 512; page++) {
          k.mm.pt.flags[pteSlot(t.mm!.user!.pgd, BASE + page)] &= ~PTE_WRITE;
        }
      };
      outcome.set(version, yield* collapsed(huge, t, vma, protect));
    });
  }
  assert.deepEqual([...outcome.values()], [false, true]);
});

test('a page that a child shares keeps 2 MB from being collapsed before 5.8', () => {
  const outcome = new Map<string, boolean>();
  for (const version of ['5.4', '6.18']) {
    run(version, function* (huge, t, _log, vma) {
      const {k} = huge;
      const share = function* (): Code {
        yield* duplicate(k, t, t.mm!);
        // All but one are the parent's own again.
        for (let page = 1; page < 512; page++) yield* access(k, t, BASE + page, true);
      };
      outcome.set(version, yield* collapsed(huge, t, vma, share));
    });
  }
  assert.deepEqual([...outcome.values()], [false, true]);
});

test('only khugepaged counts as khugepaged; sysfs sets it up as the kernel has it', () => {
  run('5.4', function* (huge, t, _log, vma) {
    const {k, khugepaged} = huge;
    assert.equal(thp_store(huge, 'khugepaged/max_ptes_shared', '10'), -2);
    assert.equal(thp_store(huge, 'khugepaged/max_ptes_none', 'many'), -22);
    assert.equal(thp_store(huge, 'enabled', 'sometimes'), -22);
    assert.equal(thp_store(huge, 'enabled', 'always'), 0);
    assert.equal(yield* collapsed(huge, t, vma, function* () {}), true);
    assert.equal(khugepaged.pagesCollapsed, 0);
    k.mm.hooks.khugepaged_enter_vma!(t, vma, vma.flags);
    assert.equal(khugepaged.slots.length, 1);
    yield* khugepaged_do_scan(khugepaged, t);
    assert.equal(khugepaged.fullScans, 2);
  });
});
