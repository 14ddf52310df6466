import assert from 'node:assert/strict';
import {test} from 'node:test';
import type {Code} from '../../machine/process.ts';
import {nsToTicks} from '../../machine/time.ts';
import {slotAt} from '../arch/x86/mm/pgtable.ts';
import {PTE_KIND, PTE_PROTNONE, PTE_WRITE} from '../arch/x86/mm/pgtable_bits.ts';
import type {Kernel} from '../kernel.ts';
import type {Task} from '../task.ts';
import {
  migrate_misplaced_folio_prepare,
  migrate_misplaced_transhuge_page,
} from './migrate_misplaced.ts';
import {do_pages_move} from './migrate_move.ts';
import {access, mapAnon, runProcess} from './mm_testing.ts';
import {change_prot_numa} from './mprotect_walk.ts';
import {VmFault} from './vm_fault.ts';
import {VM_HUGEPAGE} from './vma_flags.ts';

const BASE = 0x5_5540_0000;
const MS = nsToTicks(1e6);

function slot(t: Task, vpn: number, level = 0): number {
  return slotAt(t.mm!.user!.pgd, vpn, level);
}

function nodeAt(k: Kernel, t: Task, vpn: number, level = 0): number {
  return k.mm.pages.nodeOf(k.mm.pt.entries[slot(t, vpn, level)] & 0x7fff_ffff);
}

/** Pages on node 1 (the process runs on node 0), written, in a VMA of its own. */
function* farMemory(k: Kernel, t: Task, pages: number, flags = 0): Code {
  const vma = mapAnon(k, t.mm!, BASE, pages);
  vma.flags |= flags;
  for (let i = 0; i < pages; i++) yield* access(k, t, BASE + i, true);
  const user = t.mm!.user!;
  const {moved} = yield* do_pages_move(k, t, user, BASE, pages, 1, false);
  assert.equal(moved, pages);
}

test('the scan sends a PROTECTION_VMA pair and flushes; the fault brings the page here', () => {
  runProcess(function* (k, t, log) {
    yield* farMemory(k, t, 4);
    const vma = t.mm!.user!.space.tree.lookup(BASE)!;
    yield* do_pages_move(k, t, t.mm!.user!, BASE + 4, 1, 1, false); // drains the batches
    log.take();
    assert.equal(yield* change_prot_numa(k, t, vma, BASE, BASE + 4), 4);
    assert.deepEqual(log.take(), [
      'start change_protection',
      'end change_protection',
      'flush 4 (3)',
    ]);
    assert.equal(k.mm.pt.flags[slot(t, BASE)] & PTE_KIND, PTE_PROTNONE);
    assert.equal(yield* access(k, t, BASE, true), 'numa');
    assert.deepEqual(log.take(), [
      'start try_to_migrate_one',
      'flush 1 (3)',
      'end try_to_migrate_one',
      'fault numa',
    ]);
    assert.equal(nodeAt(k, t, BASE), 0);
    assert.equal(k.mm.pt.flags[slot(t, BASE)] & PTE_WRITE, 0);
    assert.equal(yield* access(k, t, BASE, true), 'reuse');
    assert.equal(nodeAt(k, t, BASE + 1), 1);
    const {migration} = k.mm;
    assert.equal(migration.value('numa_hint_faults'), 1);
    assert.equal(migration.value('numa_hint_faults_local'), 0);
    assert.equal(migration.value('numa_pages_migrated'), 1);
  });
});

test('a local page stays, and is writable again at once', () => {
  runProcess(function* (k, t) {
    const vma = mapAnon(k, t.mm!, BASE, 2);
    yield* access(k, t, BASE, true);
    // With one user the scan leaves local pages alone.
    assert.equal(yield* change_prot_numa(k, t, vma, BASE, BASE + 2), 0);
    t.mm!.users++;
    assert.equal(yield* change_prot_numa(k, t, vma, BASE, BASE + 2), 1);
    t.mm!.users--;
    assert.equal(yield* access(k, t, BASE, false), 'numa');
    assert.equal(yield* access(k, t, BASE, true), 'none');
    assert.equal(k.mm.migration.value('numa_hint_faults_local'), 1);
    assert.equal(k.mm.migration.value('pgmigrate_success'), 0);
  });
});

test('a huge page is one hinting fault and moves whole', () => {
  runProcess(function* (k, t) {
    yield* farMemory(k, t, 512, VM_HUGEPAGE);
    yield* do_pages_move(k, t, t.mm!.user!, BASE, 1, 1, false);
    const vma = t.mm!.user!.space.tree.lookup(BASE)!;
    assert.equal(yield* change_prot_numa(k, t, vma, BASE, BASE + 512), 512);
    assert.equal(yield* access(k, t, BASE + 7, false), 'numa');
    assert.equal(nodeAt(k, t, BASE, 1), 0);
    assert.equal(k.mm.migration.value('numa_pages_migrated'), 512);
  });
});

test('the filter: a shared fault moves a page only when the last one came from this node', () => {
  runProcess(function* (k, t) {
    yield* farMemory(k, t, 1);
    const {numa, pages} = k.mm;
    const pfn = k.mm.pt.entries[slot(t, BASE)];
    numa.of(t).preferredNode = 0;
    numa.of(t).scanSeq = 5;
    const {topology} = k.machine;
    const far = topology.nodeOf.indexOf(1);
    // Somebody else on node 1 had the last fault.
    pages.cpupid[pfn] = 1 + ((far << 8) | ((t.tid + 1) & 255));
    assert.equal(numa.shouldMigrate(t, pfn, 1).move, false);
    // This task itself has now: private.
    assert.equal(numa.shouldMigrate(t, pfn, 1).move, true);
    // Somebody else on this node.
    pages.cpupid[pfn] = 1 + ((t.cpu.id << 8) | ((t.tid + 1) & 255));
    assert.equal(numa.shouldMigrate(t, pfn, 1).move, true);
  });
});

test('a task that runs scans after a second, and its memory comes to it', () => {
  const k = runProcess(function* (k, t) {
    yield* farMemory(k, t, 600);
    yield* do_pages_move(k, t, t.mm!.user!, BASE, 1, 1, false);
    let before = -1;
    for (let n = 0; n < 80; n++) {
      yield* k.sched.userRun(t, 40 * MS);
      for (let i = 0; i < 600; i++) yield* access(k, t, BASE + i, true);
      if (before < 0 && nodeAt(k, t, BASE) === 0) before = n;
    }
    // 25 rounds make the first second.
    assert.equal(before >= 24 && before <= 27, true, `moved in round ${before}`);
    let near = 0;
    for (let i = 0; i < 600; i++) if (nodeAt(k, t, BASE + i) === 0) near++;
    assert.equal(near, 600);
    // All of it was one window of private faults; what is local now faults no more.
    assert.deepEqual([...k.mm.numa.of(t).memWindow], [0, 600, 0, 0]);
  });
  assert.equal(k.mm.migration.value('numa_pages_migrated'), 600);
  assert.equal(k.mm.migration.value('numa_pte_updates') >= 600, true);
});

test('one node: nothing scans', () => {
  const k = runProcess(
    function* (k, t) {
      mapAnon(k, t.mm!, BASE, 4);
      yield* access(k, t, BASE, true);
      yield* k.sched.userRun(t, 3000 * MS);
    },
    '6.18',
    '1s2c1t',
  );
  assert.equal(k.mm.migration.value('numa_pte_updates'), 0);
  assert.equal(k.sched.taskWork, null);
});

for (const [version, sent] of [
  [
    '4.1',
    [
      'start migrate_misplaced_transhuge_page',
      'flush -1 (3)',
      'end migrate_misplaced_transhuge_page',
    ],
  ],
  ['5.5', ['flush -1 (3)']],
] as const) {
  test(`before 5.14 a huge page moves by an exchange of its entry (${version})`, () => {
    runProcess(function* (k, t, log) {
      const vma = mapAnon(k, t.mm!, BASE, 512);
      vma.flags |= VM_HUGEPAGE;
      yield* access(k, t, BASE, true);
      k.mm.pages.content[k.mm.pt.entries[slot(t, BASE, 1)] & 0x7fff_ffff] = 9;
      t.mm!.users++;
      assert.equal(yield* change_prot_numa(k, t, vma, BASE, BASE + 512), 512);
      t.mm!.users--;
      const head = k.mm.pt.entries[slot(t, BASE, 1)] & 0x7fff_ffff;
      log.take();
      assert.equal(yield* move(k, t, head), true);
      assert.deepEqual(log.take(), sent);
      const fresh = k.mm.pt.entries[slot(t, BASE, 1)] & 0x7fff_ffff;
      assert.equal(k.mm.pages.nodeOf(fresh), 1);
      assert.equal(k.mm.pages.content[fresh], 9);
      assert.equal(k.mm.pages.refcount.get(head), 0);
      assert.equal(yield* access(k, t, BASE + 5, true), 'none');
    }, version);
  });
}

/** The migration of the huge page at BASE to node 1 by a fault of `t`. */
function* move(k: Kernel, t: Task, head: number): Code<boolean> {
  const user = t.mm!.user!;
  const vma = user.space.tree.lookup(BASE)!;
  const f = new VmFault(t.mm!, user, vma, BASE + 5, 0);
  f.slot = slot(t, BASE, 1);
  f.pmdSlot = f.slot;
  f.word = k.mm.pt.flags[f.slot];
  f.value = head;
  assert.equal(migrate_misplaced_folio_prepare(k, t, head, vma, 1), true);
  return yield* migrate_misplaced_transhuge_page(k, t, f, head, 1);
}

test('a task goes to its preferred node when a CPU there is idle', () => {
  runProcess(function* (k, t) {
    const vma = mapAnon(k, t.mm!, BASE, 2);
    yield* access(k, t, BASE, true);
    yield* access(k, t, BASE + 1, true);
    t.pinnedCpu = -1;
    k.mm.numa.of(t).preferredNode = 1;
    t.mm!.users++;
    assert.equal(yield* change_prot_numa(k, t, vma, BASE, BASE + 2), 2);
    t.mm!.users--;
    assert.equal(yield* access(k, t, BASE, false), 'numa');
    assert.equal(k.machine.topology.nodeOf[t.cpu.id], 1);
    assert.equal(t.pinnedCpu, -1);
    // From there the other page is remote, and comes.
    assert.equal(yield* access(k, t, BASE + 1, false), 'numa');
  });
});
