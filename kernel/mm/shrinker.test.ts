import assert from 'node:assert/strict';
import {test} from 'node:test';
import type {Code} from '../../machine/process.ts';
import type {Kernel} from '../kernel.ts';
import type {Task} from '../task.ts';
import {access, ANON_RW, runProcess} from './mm_testing.ts';
import {zap_page_range_single} from './memory_zap.ts';
import {drain_all_pages} from './page_alloc.ts';
import {Shrinkers} from './shrinker.ts';
import {install_memcg} from './swapfile.ts';
import {anonProps} from './vma.ts';
import {insertVma} from './vma_ops.ts';
import {try_to_free_mem_cgroup_pages, try_to_free_pages} from './vmscan.ts';

const HUGE = 512;
const BASE = HUGE * 1024;

test('do_shrink_slab: a share that grows with the effort, in batches; the rest is put off', () => {
  runProcess(function* (k, t) {
    const shrinkers = new Shrinkers(k);
    let objects = 10_000;
    const asked: number[] = [];
    shrinkers.register({
      name: 'cache',
      aware: false,
      count: () => objects,
      *scan(_t, _node, _memcg, nr): Code<number> {
        if (t.cpu.settle()) yield;
        asked.push(nr);
        const got = Math.min(nr, objects);
        objects -= got;
        return got;
      },
    });
    // 10,000 >> 12 is 2, times 4 / 2: four objects, no batch.
    assert.equal(yield* shrinkers.shrink_slab(t, 0, 0, 12), 0);
    // 10,000 >> 6 is 156, so 312 of them: two batches, 56 and those four put off.
    assert.equal(yield* shrinkers.shrink_slab(t, 0, 0, 6), 256);
    assert.deepEqual(asked, [128, 128]);
    // All of it at the last effort.
    assert.equal(yield* shrinkers.shrink_slab(t, 0, 0, 0), 9744);
    assert.equal(objects, 0);
    assert.equal(shrinkers.freed.get('cache'), 10_000);
    assert.equal(shrinkers.hasWork(0, 0), false);
    assert.equal(shrinkers.hasWork(1, 0), false);
  });
});

/** A huge page of which 500 pages are unmapped. */
function* partlyUnmapped(k: Kernel, t: Task, memcg: number): Code {
  const user = k.mm.userOf(t.mm!);
  user.memcg = memcg;
  k.mm.huge!.settings = {...k.mm.huge!.settings, enabled: 'always'};
  const vma = insertVma(user.space, BASE, BASE + HUGE, BASE, anonProps(ANON_RW));
  assert.equal(yield* access(k, t, BASE, true), 'huge');
  yield* zap_page_range_single(k, t, vma, BASE + 12, BASE + HUGE, null);
  assert.equal(k.mm.huge!.deferredSplit.size, 1);
}

function freePages(k: Kernel): number {
  drain_all_pages(k);
  return k.mm.zones.reduce((sum, zone) => sum + zone.free, 0);
}

test('direct reclaim splits huge pages that are mostly unmapped', () => {
  runProcess(function* (k, t) {
    yield* partlyUnmapped(k, t, 0);
    const before = freePages(k);
    yield* try_to_free_pages(k, t, 0);
    assert.equal(k.mm.huge!.deferredSplit.size, 0);
    assert.equal(freePages(k) - before, 500);
    assert.equal(k.mm.shrinkers.freed.get('thp-deferred_split'), 1);
  });
});

test("a cgroup's reclaim splits its own, and leaves the others'", () => {
  runProcess(function* (k, t) {
    install_memcg(k.mm);
    const mine = k.mm.swap.memcgs.create();
    const other = k.mm.swap.memcgs.create();
    yield* partlyUnmapped(k, t, mine.id);
    assert.equal(mine.usage, 512);
    yield* try_to_free_mem_cgroup_pages(k, t, other.id, 1);
    assert.equal(k.mm.huge!.deferredSplit.size, 1);
    yield* try_to_free_mem_cgroup_pages(k, t, mine.id, 1);
    assert.equal(k.mm.huge!.deferredSplit.size, 0);
    assert.equal(mine.usage, 12);
  });
});

test('the huge page of zeros goes when no mm uses it', () => {
  runProcess(function* (k, t) {
    const huge = k.mm.huge!;
    const user = k.mm.userOf(t.mm!);
    huge.settings = {...huge.settings, enabled: 'always'};
    insertVma(user.space, BASE, BASE + HUGE, BASE, anonProps(ANON_RW));
    yield* access(k, t, BASE, false);
    assert.notEqual(huge.hugeZeroPfn, 0);
    yield* try_to_free_pages(k, t, 0);
    assert.notEqual(huge.hugeZeroPfn, 0, 'in use');
    huge.putHugeZero(user);
    yield* try_to_free_pages(k, t, 0);
    assert.equal(huge.hugeZeroPfn, 0);
  });
});
