import assert from 'node:assert/strict';
import {test} from 'node:test';
import {pteSlot} from '../../arch/x86/mm/pgtable.ts';
import {PTE_YOUNG} from '../../arch/x86/mm/pgtable_bits.ts';
import type {Kernel} from '../../kernel.ts';
import {ANON_RW, access, duplicate, mapFile, runProcess} from '../../mm/mm_testing.ts';
import {vm_mmap} from '../../mm/mmap.ts';
import {propsFor, vmFlags} from '../../mm/mmap_prot.ts';
import {do_mprotect} from '../../mm/mprotect.ts';
import type {MmStruct} from '../../mm_types.ts';
import type {Task} from '../../task.ts';
import type {Code} from '../../../machine/process.ts';
import {clear_refs_write, pagemap_read} from './task_mmu.ts';

const BASE = 0x5_5555_0000;
const RW = 3;
const MAP_PRIVATE = 2;

function* map(k: Kernel, t: Task, start: number, pages: number): Code {
  const props = propsFor(vmFlags(k, RW, MAP_PRIVATE), null);
  yield* vm_mmap(k, t, t.mm!, {start, fixed: true, pages, pgoff: 0, props, populate: false});
}

/** Soft-dirty pages of the range, as in the selftest soft-dirty.c: 1 or 0 each. */
function dirty(k: Kernel, mm: MmStruct, start: number, pages: number): string {
  let text = '';
  for (let vpn = start; vpn < start + pages; vpn++) {
    text += pagemap_read(k, mm.user!, vpn).softDirty ? '1' : '0';
  }
  return text;
}

test('soft-dirty: clear makes 0, a write makes 1, again and again; a read does not', () => {
  runProcess(function* (k, t, log) {
    const mm = t.mm!;
    yield* map(k, t, BASE, 4);
    assert.equal(dirty(k, mm, BASE, 4), '1111', 'a new mapping is soft-dirty');
    yield* access(k, t, BASE, true);
    for (let round = 0; round < 3; round++) {
      assert.equal(yield* clear_refs_write(k, t, mm.user!, 4), 0);
      assert.equal(dirty(k, mm, BASE, 4), '0000');
      yield* access(k, t, BASE, false);
      assert.equal(dirty(k, mm, BASE, 4), '0000');
      log.take();
      assert.equal(yield* access(k, t, BASE, true), 'reuse');
      assert.equal(dirty(k, mm, BASE, 4), '1000');
    }
    yield* access(k, t, BASE + 2, true);
    assert.equal(dirty(k, mm, BASE, 4), '1010');
  });
});

test('soft-dirty: a new mapping where one was is soft-dirty; mprotect keeps 0', () => {
  runProcess(function* (k, t) {
    const mm = t.mm!;
    yield* map(k, t, BASE, 2);
    yield* access(k, t, BASE, true);
    yield* clear_refs_write(k, t, mm.user!, 4);
    assert.equal(yield* do_mprotect(k, t, BASE, 2, 1), 0);
    assert.equal(dirty(k, mm, BASE, 2), '00');
    assert.equal(yield* do_mprotect(k, t, BASE, 2, RW), 0);
    assert.equal(dirty(k, mm, BASE, 2), '00');
    yield* access(k, t, BASE, true);
    assert.equal(dirty(k, mm, BASE, 2), '10');
    yield* clear_refs_write(k, t, mm.user!, 4);
    yield* map(k, t, BASE, 2);
    assert.equal(dirty(k, mm, BASE, 2), '11');
  });
});

test('clear_refs 4: one SOFT_DIRTY pair over everything, the flush after its end', () => {
  runProcess(function* (k, t, log) {
    yield* map(k, t, BASE, 4);
    yield* access(k, t, BASE, true);
    log.take();
    yield* clear_refs_write(k, t, t.mm!.user!, 4);
    assert.deepEqual(log.take(), [
      'start clear_refs_write',
      'end clear_refs_write',
      'flush -1 (3)',
    ]);
    for (const value of [1, 2, 3, 5]) yield* clear_refs_write(k, t, t.mm!.user!, value);
    assert.deepEqual(log.take(), []);
    assert.equal(yield* clear_refs_write(k, t, t.mm!.user!, 6), -22);
    assert.equal(yield* clear_refs_write(k, t, t.mm!.user!, 0), -22);
  });
});

test('clear_refs by generation: which values exist, which flush', () => {
  const flushes = (version: string, value: number): number | string => {
    let result: number | string = 0;
    runProcess(function* (k, t, log) {
      yield* map(k, t, BASE, 4);
      yield* access(k, t, BASE, true);
      log.take();
      const error = yield* clear_refs_write(k, t, t.mm!.user!, value);
      result = error < 0 ? 'EINVAL' : log.take().filter((line) => line.startsWith('flush')).length;
    }, version);
    return result;
  };
  assert.deepEqual(
    [1, 4, 5].map((value) => flushes('2.6.32', value)),
    [1, 'EINVAL', 'EINVAL'],
  );
  assert.deepEqual(
    [1, 4, 5].map((value) => flushes('4.1', value)),
    [1, 1, 0],
  );
  assert.deepEqual(
    [1, 4, 5].map((value) => flushes('5.5', value)),
    [0, 0, 0],
  );
  assert.deepEqual(
    [1, 4, 5].map((value) => flushes('6.18', value)),
    [0, 1, 0],
  );
});

test('clear_refs 1, 2, 3: all, anonymous, file mappings become old', () => {
  runProcess(function* (k, t) {
    const mm = t.mm!;
    yield* map(k, t, BASE, 1);
    const file = k.mm.files.create('file', 1);
    mapFile(k, mm, BASE + 64, 1, file, 0, ANON_RW);
    const young = (): string =>
      [BASE, BASE + 64]
        .map((vpn) => ((k.mm.pt.flags[pteSlot(mm.user!.pgd, vpn)] & PTE_YOUNG) === 0 ? 'o' : 'y'))
        .join('');
    const touch = function* (): Code {
      yield* access(k, t, BASE, true);
      yield* access(k, t, BASE + 64, false);
    };
    yield* touch();
    assert.equal(young(), 'yy');
    yield* clear_refs_write(k, t, mm.user!, 2);
    assert.equal(young(), 'oy');
    yield* touch();
    yield* clear_refs_write(k, t, mm.user!, 3);
    assert.equal(young(), 'yo');
    yield* clear_refs_write(k, t, mm.user!, 1);
    assert.equal(young(), 'oo');
  });
});

test('clear_refs 5 sets the high-water mark to what is resident', () => {
  runProcess(function* (k, t) {
    const user = t.mm!.user ?? k.mm.userOf(t.mm!);
    yield* map(k, t, BASE, 8);
    for (let i = 0; i < 5; i++) yield* access(k, t, BASE + i, true);
    user.rss.hiwater = 1000;
    yield* clear_refs_write(k, t, user, 5);
    assert.equal(user.rss.hiwater, user.rss.rss);
  });
});

test('fork passes soft-dirty on; a copy made by a write is soft-dirty', () => {
  runProcess(function* (k, t) {
    const mm = t.mm!;
    yield* map(k, t, BASE, 3);
    for (let i = 0; i < 3; i++) yield* access(k, t, BASE + i, true);
    yield* clear_refs_write(k, t, mm.user!, 4);
    yield* access(k, t, BASE + 1, true);
    const child = yield* duplicate(k, t, mm);
    assert.equal(dirty(k, child, BASE, 3), '010');
    assert.equal(yield* access(k, t, BASE + 2, true), 'cow');
    assert.equal(dirty(k, mm, BASE, 3), '011');
    assert.equal(dirty(k, child, BASE, 3), '010');
    assert.equal(pagemap_read(k, mm.user!, BASE + 2).exclusive, true);
    assert.equal(pagemap_read(k, mm.user!, BASE + 1).exclusive, false);
  });
});
