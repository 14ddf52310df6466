import assert from 'node:assert/strict';
import {test} from 'node:test';
import {pteSlot} from '../arch/x86/mm/pgtable.ts';
import {PTE_KIND, PTE_SWAP, PTE_SWP_EXCLUSIVE, PTE_YOUNG} from '../arch/x86/mm/pgtable_bits.ts';
import type {Kernel} from '../kernel.ts';
import type {Task} from '../task.ts';
import {lru_add_drain_all} from './folio_lru.ts';
import {LRU_INACTIVE_ANON, Lruvec} from './lru.ts';
import {ANON_RW, access, mapAnon, mapFile, runProcess} from './mm_testing.ts';
import {rmqueue} from './page_alloc.ts';
import {folio_referenced} from './rmap_unmap.ts';
import {swapin_nr_pages} from './swap_state_readahead.ts';
import {install_memcg, sys_swapon} from './swapfile.ts';
import {get_scan_count, inactive_is_low, memcg_reclaim, ScanControl} from './vmscan.ts';
import {shrink_inactive_list} from './vmscan_lists.ts';
import {reclaim_mapped, reclaim_written} from './vmscan_pages.ts';

const BASE = 0x5_5555_0000;

/** Leaves `spare` free pages above the low watermark of every node. */
function fillMemory(k: Kernel, t: Task, spare: number): void {
  for (const zone of k.mm.zones) {
    for (let order = 10; order >= 0; order--) {
      const floor = zone.watermarks.low + spare + (1 << order);
      while (zone.free > floor) if (rmqueue(k, t, zone, order) === 0) break;
    }
  }
}

test('below the low watermark kswapd swaps out until the high one is reached', () => {
  runProcess(function* (k, t) {
    yield* sys_swapon(k, t, 8192);
    const [zone] = k.mm.zones;
    // Watermarks of a small node, so that the test need not fill a large one.
    for (const {node} of k.mm.zones) {
      Object.assign(k.mm.zones[node], {watermarks: {min: 128, low: 256, high: 640, step: 384}});
    }
    mapAnon(k, t.mm!, BASE, 2048);
    for (let i = 0; i < 1500; i++) yield* access(k, t, BASE + i, true);
    fillMemory(k, t, 64);
    for (let i = 1500; i < 2048; i++) yield* access(k, t, BASE + i, true);
    yield* k.sched.sleep(t, 1e9);
    const {pgscan, pgsteal, pswpout} = k.mm.swap.counts;
    assert.ok(pgsteal.kswapd > 0, 'kswapd has freed pages');
    assert.ok(pgscan.kswapd >= pgsteal.kswapd);
    assert.ok(pswpout >= pgsteal.kswapd);
    assert.ok(zone.free >= zone.watermarks.high, `${zone.free} < ${zone.watermarks.high}`);
  });
});

test('unmapping for swap: notification, counters, one flush for the batch before writing', () => {
  runProcess(function* (k, t, log) {
    yield* sys_swapon(k, t, 512);
    mapAnon(k, t.mm!, BASE, 2);
    yield* access(k, t, BASE, true);
    lru_add_drain_all(k, t);
    const slot = pteSlot(t.mm!.user!.pgd, BASE);
    k.mm.pt.flags[slot] &= ~PTE_YOUNG;
    // Another CPU had the mm, so the flush is left for the batch.
    t.mm!.cpumask!.add((t.cpu.id + 1) % k.machine.topology.cpuCount);
    log.take();
    const lruvec = k.mm.lruvecs.of(0, 0);
    const sc = new ScanControl('direct', 32, 0);
    assert.equal(yield* shrink_inactive_list(k, t, 32, lruvec, sc, LRU_INACTIVE_ANON), 0);
    assert.deepEqual(log.take(), [
      'start try_to_unmap_one',
      'ANON 0',
      'SWAP 1',
      'end try_to_unmap_one',
      'flush -1 (4)',
      'flush -1 (2)',
    ]);
    assert.equal(k.mm.pt.flags[slot] & PTE_KIND, PTE_SWAP);
    assert.notEqual(k.mm.pt.flags[slot] & PTE_SWP_EXCLUSIVE, 0);
    assert.equal(k.mm.swap.writebacks, 1);
    yield* k.sched.sleep(t, 1e7);
    assert.equal(k.mm.swap.writebacks, 0);
    // Written, it is clean at the old end of the list: the next pass frees it.
    assert.equal(yield* shrink_inactive_list(k, t, 32, lruvec, sc, LRU_INACTIVE_ANON), 1);
    assert.equal(yield* access(k, t, BASE, true), 'major');
  });
});

test('an accessed page gets a second chance, an accessed one twice is activated', () => {
  runProcess(function* (k, t) {
    yield* sys_swapon(k, t, 512);
    mapAnon(k, t.mm!, BASE, 1);
    yield* access(k, t, BASE, true);
    lru_add_drain_all(k, t);
    const lruvec = k.mm.lruvecs.of(0, 0);
    const sc = new ScanControl('direct', 32, 0);
    for (const activated of [0, 1]) {
      yield* access(k, t, BASE, false);
      assert.equal(yield* shrink_inactive_list(k, t, 32, lruvec, sc, LRU_INACTIVE_ANON), 0);
      assert.equal(k.mm.swap.counts.activated, activated);
    }
    assert.equal(lruvec.size[LRU_INACTIVE_ANON + 1], 1);
    const pfn = k.mm.pt.entries[pteSlot(t.mm!.user!.pgd, BASE)];
    assert.equal((yield* folio_referenced(k, t, pfn, 0)).ptes, 0);
  });
});

test('clean file pages are dropped and read again; without swap a cgroup runs out', () => {
  runProcess(function* (k, t) {
    const file = k.mm.files.create('file', 64);
    mapFile(k, t.mm!, BASE, 64, file, 0, ANON_RW);
    for (let i = 0; i < 64; i += 16) yield* access(k, t, BASE + i, false);
    const sc = new ScanControl('direct', 32, 0);
    const lruvec = k.mm.lruvecs.of(0, 0);
    let freed = 0;
    for (let i = 0; i < 6; i++) freed += yield* shrink_inactive_list(k, t, 32, lruvec, sc, 2);
    assert.equal(freed, 64);
    assert.equal(file.nrpages, 0);
    assert.equal(yield* access(k, t, BASE, false), 'major');
    install_memcg(k.mm);
    const memcg = k.mm.swap.memcgs.create();
    memcg.max = 16;
    k.mm.userOf(t.mm!).memcg = memcg.id;
    // The OOM killer leaves it alone, so the charge fails.
    t.signal!.oomScoreAdj = -1000;
    mapAnon(k, t.mm!, BASE + 1024, 64);
    for (let i = 0; i < 16; i++) yield* access(k, t, BASE + 1024 + i, true);
    assert.equal(yield* memcg_reclaim(k, t, memcg.id, 1), false);
    assert.equal(memcg.oomEvents, 1);
    assert.equal(yield* access(k, t, BASE + 1024 + 16, true), 'oom');
  });
});

test('readahead: alone without a neighbour, then by hits, never above the limit', () => {
  // Next to the last fault, hits in the last window, last window: pages of the next one.
  const cases: [boolean, number, number, number][] = [
    [false, 0, 0, 1],
    [true, 0, 0, 2],
    [false, 1, 0, 4],
    [false, 3, 4, 8],
    [false, 20, 8, 8],
    [false, 0, 8, 4],
  ];
  for (const [next, hits, last, pages] of cases) {
    assert.equal(swapin_nr_pages(next, hits, 8, last), pages);
  }
});

test('sequential faults on swap read windows of eight: one in eight waits for the device', () => {
  runProcess(function* (k, t) {
    yield* sys_swapon(k, t, 4096);
    mapAnon(k, t.mm!, BASE, 512);
    const vpns = Array.from({length: 512}, (_, i) => BASE + i);
    for (const vpn of vpns) yield* access(k, t, vpn, true);
    const {written} = yield* reclaim_mapped(k, t, t.mm!.user!, vpns);
    yield* k.sched.sleep(t, 1e8);
    yield* reclaim_written(k, t, written);
    let major = 0;
    for (const vpn of vpns) if ((yield* access(k, t, vpn, false)) === 'major') major++;
    assert.ok(major >= 64 && major <= 70, `${major} of 512 faults read`);
    assert.equal(k.mm.swap.counts.pswpin, 512);
  });
});

test('scan counts follow priority and the cost of either kind', () => {
  runProcess(function* (k, t) {
    yield* sys_swapon(k, t, 4096);
    const lruvec = new Lruvec(k.mm.lists, 0, 1);
    lruvec.size.set([4096, 8192, 4096, 8192]);
    const sc = new ScanControl('memcg', 32, 1);
    sc.priority = 4;
    // Swappiness 60 of 200 with equal cost: 30 % of what priority 4 shows.
    const [anon, , file] = get_scan_count(k, lruvec, sc);
    assert.deepEqual([anon, file], [76, 179]);
    lruvec.anonCost = 1e6;
    assert.ok(get_scan_count(k, lruvec, sc)[0] < anon);
    sc.priority = 0;
    assert.deepEqual(get_scan_count(k, lruvec, sc), [4096, 8192, 4096, 8192]);
    assert.equal(inactive_is_low(lruvec, LRU_INACTIVE_ANON), true);
  });
});
