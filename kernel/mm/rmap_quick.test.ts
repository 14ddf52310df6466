// The plain walks of reclaim do what the waiting ones do: same notifications, counters, flushes and
// entries. Lockdep sends everything the slow way.

import assert from 'node:assert/strict';
import {test} from 'node:test';
import {pteSlot} from '../arch/x86/mm/pgtable.ts';
import {PTE_KIND, PTE_SWAP, PTE_YOUNG} from '../arch/x86/mm/pgtable_bits.ts';
import type {Kernel} from '../kernel.ts';
import type {Task} from '../task.ts';
import type {Code} from '../../machine/process.ts';
import {lru_add_drain_all} from './folio_lru.ts';
import {LRU_INACTIVE_ANON} from './lru.ts';
import {access, duplicate, mapAnon, type ProbeLog, runProcess} from './mm_testing.ts';
import {sys_swapon} from './swapfile.ts';
import {ScanControl} from './vmscan.ts';
import {shrink_inactive_list} from './vmscan_lists.ts';

const BASE = 0x5_5555_0000;
const PAGES = 16;

/** Reclaims pages of one mm, of two that share them, young ones and old ones. */
function* reclaim(k: Kernel, t: Task, log: ProbeLog): Code<string[]> {
  yield* sys_swapon(k, t, 512);
  mapAnon(k, t.mm!, BASE, PAGES);
  for (let i = 0; i < PAGES; i++) yield* access(k, t, BASE + i, true);
  const copy = yield* duplicate(k, t, t.mm!);
  for (let i = 0; i < PAGES; i += 4) yield* access(k, t, BASE + i, true);
  lru_add_drain_all(k, t);
  const mms = [t.mm!, copy];
  for (const {user} of mms) {
    for (let i = 0; i < PAGES; i += 2) k.mm.pt.flags[pteSlot(user!.pgd, BASE + i)] &= ~PTE_YOUNG;
  }
  log.take();
  const lruvec = k.mm.lruvecs.of(0, 0);
  const sc = new ScanControl('direct', 32, 0);
  for (let pass = 0; pass < 4; pass++) {
    const freed = yield* shrink_inactive_list(k, t, 32, lruvec, sc, LRU_INACTIVE_ANON);
    log.lines.push(`freed ${freed}`);
    yield* k.sched.sleep(t, 1e7);
  }
  const heard = log.take();
  for (const {user} of mms) {
    for (let i = 0; i < PAGES; i++) {
      const slot = pteSlot(user!.pgd, BASE + i);
      heard.push(`${k.mm.pt.flags[slot]} ${k.mm.pt.entries[slot]}`);
    }
  }
  return heard;
}

function outcome(slow: boolean): string[] {
  let heard: string[] = [];
  runProcess(function* (k, t, log) {
    if (slow) k.locks.enableLockdep();
    heard = yield* reclaim(k, t, log);
  });
  return heard;
}

test('reclaim without waiting leaves what reclaim with waiting leaves', () => {
  const quick = outcome(false);
  assert.deepEqual(quick, outcome(true));
  const swapped = quick.filter((line) => (Number(line.split(' ')[0]) & PTE_KIND) === PTE_SWAP);
  assert.ok(swapped.length > PAGES, `${swapped.length} swap entries`);
});
