import assert from 'node:assert/strict';
import {test} from 'node:test';
import type {Code} from '../../machine/process.ts';
import {pteSlot} from '../arch/x86/mm/pgtable.ts';
import {PTE_KIND, PTE_PRESENT, PTE_YOUNG} from '../arch/x86/mm/pgtable_bits.ts';
import type {Kernel} from '../kernel.ts';
import type {Task} from '../task.ts';
import type {AddressSpace} from './address_space.ts';
import {lru_add_drain_all} from './folio_lru.ts';
import {LRU_INACTIVE_ANON} from './lru.ts';
import {ANON_RW, access, duplicate, mapFile, runProcess, tearDown} from './mm_testing.ts';
import {sys_swapoff, sys_swapon} from './swapfile.ts';
import {do_truncate, punch_hole} from './truncate.ts';
import {ScanControl} from './vmscan.ts';
import {shrink_inactive_list} from './vmscan_lists.ts';
import {VM_MAYSHARE, VM_SHARED} from './vma_flags.ts';

const BASE = 0x5_5555_0000;
const SHARED_RW = ANON_RW | VM_SHARED | VM_MAYSHARE;

/** `pages` of a shared file, mapped and written; the references of the writes are forgotten. */
function* written(k: Kernel, t: Task, pages: number): Code<AddressSpace> {
  const file = k.mm.files.create('shmem', pages);
  mapFile(k, t.mm!, BASE, pages, file, 0, SHARED_RW);
  for (let i = 0; i < pages; i++) yield* access(k, t, BASE + i, true);
  forget(k, t, pages);
  return file;
}

function forget(k: Kernel, t: Task, pages: number): void {
  lru_add_drain_all(k, t);
  const {flags} = k.mm.pt;
  for (let i = 0; i < pages; i++) {
    const slot = pteSlot(t.mm!.user!.pgd, BASE + i);
    if (slot >= 0 && (flags[slot] & PTE_KIND) === PTE_PRESENT) flags[slot] &= ~PTE_YOUNG;
  }
}

/** Two passes of reclaim over shared memory, with time for the device between. Pages freed. */
function* reclaim(k: Kernel, t: Task): Code<number> {
  const sc = new ScanControl('direct', 32, 0);
  let freed = 0;
  for (let pass = 0; pass < 4; pass++) {
    for (const {node} of k.mm.zones) {
      const lruvec = k.mm.lruvecs.of(node, 0);
      freed += yield* shrink_inactive_list(k, t, 32, lruvec, sc, LRU_INACTIVE_ANON);
    }
    yield* k.sched.sleep(t, 1e7);
  }
  return freed;
}

test('shared memory goes to swap for all who map it, and comes back for all', () => {
  runProcess(function* (k, t) {
    const type = yield* sys_swapon(k, t, 512);
    const file = yield* written(k, t, 16);
    const other = yield* duplicate(k, t, t.mm!);
    for (let i = 0; i < 16; i++) k.mm.pages.content[k.mm.files.page(file, i)] = 100 + i;
    assert.equal(yield* reclaim(k, t), 16);
    assert.equal(file.nrpages, 0);
    assert.equal(file.nrValues, 16);
    assert.deepEqual([...t.mm!.user!.rss.counts], [0, 0, 0, 0], 'no SWAPENTS for shared memory');
    const area = k.mm.swap.areas.byType[type]!;
    assert.equal(area.inuse, 16);
    assert.equal(yield* access(k, t, BASE + 3, false), 'major');
    assert.equal(k.mm.pages.content[k.mm.files.page(file, 3)], 103);
    assert.deepEqual([...t.mm!.user!.rss.counts], [0, 0, 0, 1 + around(k, t)]);
    const own = t.mm;
    t.mm = other;
    assert.equal(yield* access(k, t, BASE + 3, true), 'minor file');
    t.mm = own;
    yield* tearDown(k, t, other);
  });
});

/** Pages beside the one that was wanted that came in with it and were mapped around it. */
function around(k: Kernel, t: Task): number {
  let n = 0;
  for (let i = 0; i < 16; i++) {
    const slot = pteSlot(t.mm!.user!.pgd, BASE + i);
    if (i !== 3 && slot >= 0 && (k.mm.pt.flags[slot] & PTE_KIND) === PTE_PRESENT) n++;
  }
  return n;
}

test('swapoff brings shared memory in, in both generations; the slots are free', () => {
  for (const version of ['4.19', '6.18']) {
    runProcess(function* (k, t) {
      const type = yield* sys_swapon(k, t, 512);
      const file = yield* written(k, t, 24);
      assert.equal(yield* reclaim(k, t), 24, version);
      assert.equal(yield* sys_swapoff(k, t, type), 0);
      assert.equal(file.nrpages, 24);
      assert.equal(file.nrValues, 0);
      assert.equal(k.mm.shmemSwaplist.size, 0);
      assert.equal(yield* access(k, t, BASE + 5, false), 'minor file');
    }, version);
  }
});

test('truncation and holes give the slots back; pages that nobody wrote need none', () => {
  runProcess(function* (k, t) {
    const type = yield* sys_swapon(k, t, 512);
    const file = yield* written(k, t, 16);
    assert.equal(yield* reclaim(k, t), 16);
    const area = k.mm.swap.areas.byType[type]!;
    yield* punch_hole(k, t, file, 0, 4);
    assert.equal(area.inuse, 12);
    yield* do_truncate(k, t, file, 10);
    assert.equal(area.inuse, 6);
    assert.equal(yield* access(k, t, BASE, true), 'minor file');
    yield* do_truncate(k, t, file, 0);
    assert.equal(area.inuse, 0);
    const clean = k.mm.files.create('shmem', 4);
    mapFile(k, t.mm!, BASE + 100, 4, clean, 0, ANON_RW | VM_MAYSHARE);
    for (let i = 0; i < 4; i++) yield* access(k, t, BASE + 100 + i, false);
    lru_add_drain_all(k, t);
    for (let i = 0; i < 4; i++) {
      k.mm.pt.flags[pteSlot(t.mm!.user!.pgd, BASE + 100 + i)] &= ~PTE_YOUNG;
    }
    assert.equal(yield* reclaim(k, t), 4);
    assert.equal(area.inuse, 0);
    assert.equal(clean.nrpages + clean.nrValues, 0);
  });
});
