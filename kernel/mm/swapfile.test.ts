import assert from 'node:assert/strict';
import {test} from 'node:test';
import type {Code} from '../../machine/process.ts';
import type {Kernel} from '../kernel.ts';
import type {MmStruct} from '../mm_types.ts';
import type {Task} from '../task.ts';
import {access, duplicate, mapAnon, runProcess} from './mm_testing.ts';
import {MM_ANONPAGES, MM_SWAPENTS} from './rss.ts';
import {install_memcg, sys_swapoff, sys_swapon} from './swapfile.ts';

const BASE = 0x5_5555_0000;
const PAGES = 512;

/** A process and `children` forks of it, most of their memory in swap. Returns the area's type. */
function* swappedFamily(
  k: Kernel,
  t: Task,
  children: number,
): Code<{type: number; mms: MmStruct[]}> {
  const mm = t.mm!;
  const type = yield* sys_swapon(k, t, 2048);
  install_memcg(k.mm);
  const memcg = k.mm.swap.memcgs.create();
  memcg.max = 64;
  k.mm.userOf(mm).memcg = memcg.id;
  mapAnon(k, mm, BASE, PAGES);
  for (let i = 0; i < PAGES; i++) yield* access(k, t, BASE + i, true);
  const mms = [mm];
  for (let i = 0; i < children; i++) mms.push(yield* duplicate(k, t, mm));
  memcg.max = Infinity;
  return {type, mms};
}

interface Outcome {
  readonly swapped: number;
  readonly ptes: number;
  readonly slots: number;
  readonly notifications: number;
}

function unuse(version: string, children: number): Outcome {
  let outcome: Outcome | null = null;
  runProcess(function* (k, t, log) {
    const {type, mms} = yield* swappedFamily(k, t, children);
    const swapped = k.mm.swap.areas.byType[type]!.inuse;
    assert.ok(swapped >= PAGES - 64, `${swapped} slots`);
    log.take();
    assert.equal(yield* sys_swapoff(k, t, type), 0);
    const lines = log.take();
    const notifications = lines.filter((line) => /^(start|flush)/.test(line)).length;
    for (const mm of mms) {
      assert.equal(mm.user!.rss.counts[MM_SWAPENTS], 0);
      assert.equal(mm.user!.rss.counts[MM_ANONPAGES], PAGES);
    }
    assert.equal(k.mm.swap.areas.byType[type], null);
    const {unusePtes, unuseSlots} = k.mm.swap.counts;
    outcome = {swapped, ptes: unusePtes, slots: unuseSlots, notifications};
  }, version);
  assert.ok(outcome !== null);
  return outcome;
}

test('swapoff: to 5.0 every slot searches all mms, since 5.1 every mm is walked once', () => {
  for (const children of [0, 1, 3]) {
    const old = unuse('4.19', children);
    const now = unuse('5.4', children);
    assert.equal(old.swapped, now.swapped, 'the same state to begin with');
    const mms = children + 1;
    // One walk of each mm: its PTEs once (and the first found empty ends it).
    assert.equal(now.ptes, mms * PAGES, `${children} children`);
    // Slots times half a page table of each mm, about.
    assert.ok(old.ptes > (old.swapped * mms * PAGES) / 4, `${old.ptes} PTEs`);
    assert.ok(old.ptes <= old.swapped * mms * PAGES, `${old.ptes} PTEs`);
    assert.equal(old.slots, old.swapped);
    assert.deepEqual([old.notifications, now.notifications], [0, 0]);
  }
});

test('swapoff counts SWAP down before ANON up; swap-in the other way round', () => {
  runProcess(function* (k, t, log) {
    const {type} = yield* swappedFamily(k, t, 0);
    const {counts} = t.mm!.user!.rss;
    const [anon, swap] = [counts[MM_ANONPAGES], counts[MM_SWAPENTS]];
    log.take();
    yield* sys_swapoff(k, t, type);
    const lines = log.take();
    assert.deepEqual(lines.slice(0, 2), [`SWAP ${swap - 1}`, `ANON ${anon + 1}`]);
    assert.equal(lines.length, 2 * swap);
  });
});

test('swapoff of what is no area, or of one that is gone, fails', () => {
  runProcess(function* (k, t) {
    assert.equal(yield* sys_swapoff(k, t, 3), -22);
    const type = yield* sys_swapon(k, t, 64);
    assert.equal(yield* sys_swapoff(k, t, type), 0);
    assert.equal(yield* sys_swapoff(k, t, type), -22);
    assert.equal(yield* sys_swapon(k, t, 1), -22);
  });
});

test('a killed swapoff leaves the area in use', () => {
  runProcess(function* (k, t) {
    const {type} = yield* swappedFamily(k, t, 0);
    t.sigkill = true;
    assert.equal(yield* sys_swapoff(k, t, type), -4);
    t.sigkill = false;
    assert.equal(k.mm.swap.areas.byType[type]!.writeOk, true);
    assert.equal(yield* sys_swapoff(k, t, type), 0);
  });
});
