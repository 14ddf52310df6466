import assert from 'node:assert/strict';
import {test} from 'node:test';
import {nsToTicks} from '../../machine/time.ts';
import {pteSlot} from '../arch/x86/mm/pgtable.ts';
import type {Task} from '../task.ts';
import {ANON_RW, access, duplicate, mapAnon, mapFile, runProcess, unmap} from './mm_testing.ts';
import {
  MmuIntervalNotifier,
  mmu_interval_notifier_insert,
  mmu_interval_notifier_remove,
  mmu_interval_read_begin,
} from './mmu_interval_notifier.ts';
import {mmu_notifier_release} from './mmu_notifier.ts';
import {mmu_notifier_register, mmu_notifier_unregister} from './mmu_notifier_register.ts';
import {MmuNotifier, type MmuNotifierOps, type MmuNotifierRange} from './mmu_notifier_types.ts';

const BASE = 0x5_5555_0000;
const SLEEP_TICKS = nsToTicks(50_000);

/** Delegating to it makes a generator of what does not wait. */
const AT_ONCE: readonly undefined[] = [];

/** A consumer that writes down what it is told. */
function recorder(name: string, said: string[], secondary = true): MmuNotifierOps {
  const span = (start: number, end: number): string =>
    `${start - BASE}..${end === Infinity ? 'end' : end - BASE}`;
  const ops: MmuNotifierOps = {
    name,
    *release() {
      yield* AT_ONCE;
      said.push(`${name} release`);
    },
    *invalidate_range_start(_n, _t, range) {
      yield* AT_ONCE;
      said.push(`${name} start ${span(range.start, range.end)}`);
      return 0;
    },
    *invalidate_range_end() {
      yield* AT_ONCE;
      said.push(`${name} end`);
    },
    change_pte() {
      said.push(`${name} change_pte`);
    },
    *invalidate_page() {
      yield* AT_ONCE;
      said.push(`${name} IP`);
    },
  };
  if (!secondary) return ops;
  return {
    ...ops,
    invalidate_range(_n, _t, start, end) {
      said.push(`${name} IR ${span(start, end)}`);
    },
  };
}

/**
 * What happens in the COW of one page: the consumer's callbacks, the CPU's flush, and whether a PTE
 * is there at change_pte.
 */
function cowHeard(version: string): string[] {
  const heard: string[] = [];
  runProcess(function* (k, t, log) {
    const mm = t.mm!;
    mapAnon(k, mm, BASE, 8);
    yield* access(k, t, BASE, true);
    yield* duplicate(k, t, mm);
    const ops = recorder('n', log.lines, version !== '6.6' && version !== '6.18');
    const n = new MmuNotifier(
      {
        ...ops,
        change_pte() {
          const mapped = k.mm.pt.flags[pteSlot(mm.user!.pgd, BASE)] !== 0;
          log.lines.push(`n change_pte ${mapped ? 'after' : 'before'}`);
        },
      },
      {},
    );
    assert.equal(yield* mmu_notifier_register(k, t, mm, n), 0);
    log.take();
    assert.equal(yield* access(k, t, BASE, true), 'cow');
    const own = /^(n |flush)/;
    heard.push(...log.take().filter((line) => own.test(line)));
    yield* mmu_notifier_unregister(k, t, n);
  }, version);
  return heard;
}

test('the order of a COW by generation', () => {
  assert.deepEqual(cowHeard('2.6.32'), ['flush -1 (3)', 'n IP', 'n change_pte after']);
  const pair = ['n start 0..1', 'flush 1 (3)', 'n change_pte before', 'n end'];
  assert.deepEqual(cowHeard('3.10'), pair);
  const flushed = ['n start 0..1', 'flush 1 (3)', 'n IR 0..1', 'n change_pte before'];
  assert.deepEqual(cowHeard('4.1'), [...flushed, 'n IR 0..1', 'n end']);
  assert.deepEqual(cowHeard('4.13'), [...flushed, 'n IR 0..1', 'n end']);
  assert.deepEqual(cowHeard('4.15'), [...flushed, 'n end']);
  assert.deepEqual(cowHeard('6.6'), pair);
  assert.deepEqual(cowHeard('6.18'), ['n start 0..1', 'flush 1 (3)', 'n end']);
});

test('callbacks run newest first, and hear of unmapping before pages are freed', () => {
  const said: string[] = [];
  runProcess(function* (k, t, log) {
    const mm = t.mm!;
    mapAnon(k, mm, BASE, 8);
    yield* access(k, t, BASE + 2, true);
    for (const name of ['first', 'second']) {
      yield* mmu_notifier_register(k, t, mm, new MmuNotifier(recorder(name, said, false), {}));
    }
    log.take();
    yield* unmap(k, t, mm, BASE, BASE + 8);
    assert.deepEqual(said.splice(0), [
      'second start 0..8',
      'first start 0..8',
      'second end',
      'first end',
    ]);
    const at = log.take();
    assert.ok(at.indexOf('end unmap_vmas') < at.findIndex((line) => line.startsWith('flush')));
    yield* mmu_notifier_release(k, t, mm);
    assert.deepEqual(said.splice(0), ['second release', 'first release']);
    mapAnon(k, mm, BASE, 8);
    yield* unmap(k, t, mm, BASE, BASE + 8);
    assert.deepEqual(said, []);
  });
});

test('6.6 refuses a notifier with both kinds of callbacks', () => {
  runProcess(function* (k, t) {
    const n = new MmuNotifier(recorder('both', []), {});
    assert.equal(yield* mmu_notifier_register(k, t, t.mm!, n), -22);
  }, '6.6');
});

test('an interval notifier makes its reader wait for the end of all active invalidations', () => {
  runProcess(function* (k, t) {
    const mm = t.mm!;
    const heard: number[] = [];
    const n = new MmuIntervalNotifier(
      {
        name: 'device',
        *invalidate(node: MmuIntervalNotifier, _t: Task, range: MmuNotifierRange, seq: number) {
          yield* AT_ONCE;
          node.setSeq(seq);
          heard.push(range.start - BASE);
          return true;
        },
      },
      {},
      BASE + 4,
      BASE + 8,
    );
    mmu_interval_notifier_insert(k, mm, n);
    mapAnon(k, mm, BASE, 16);
    for (let i = 0; i < 16; i++) yield* access(k, t, BASE + i, true);
    const first = yield* mmu_interval_read_begin(k, t, n);
    yield* unmap(k, t, mm, BASE, BASE + 4);
    assert.equal(n.readRetry(first), false);
    yield* unmap(k, t, mm, BASE + 6, BASE + 12);
    assert.deepEqual(heard, [6]);
    assert.equal(n.readRetry(first), true);
    const second = yield* mmu_interval_read_begin(k, t, n);
    assert.equal(n.readRetry(second), false);
    assert.equal(k.mm.notifierCounts.retries, 1);
    yield* mmu_interval_notifier_remove(k, t, n);
    assert.equal(mm.count, 1);
  });
});

test('an invalidation lasts from its start to its end, waits of callbacks included', () => {
  runProcess(function* (k, t) {
    const mm = t.mm!;
    const lasted: number[] = [];
    k.invalidated = (ticks) => lasted.push(ticks);
    const ops: MmuNotifierOps = {
      name: 'slow',
      *invalidate_range_start(_n, task) {
        yield* k.sched.sleep(task, SLEEP_TICKS);
        return 0;
      },
    };
    mapAnon(k, mm, BASE, 8);
    for (let i = 0; i < 8; i++) yield* access(k, t, BASE + i, true);
    yield* unmap(k, t, mm, BASE, BASE + 2);
    assert.deepEqual(lasted, [], 'nobody to tell');
    yield* mmu_notifier_register(k, t, mm, new MmuNotifier(ops, {}));
    yield* unmap(k, t, mm, BASE + 2, BASE + 8);
    assert.equal(lasted.length, 1);
    assert.ok(lasted[0] > SLEEP_TICKS && lasted[0] < 2 * SLEEP_TICKS, `${lasted[0]} ticks`);
    k.invalidated = null;
  });
});

test('registering takes the locks of every file and anon_vma once', () => {
  runProcess(function* (k, t) {
    const mm = t.mm!;
    const file = k.mm.files.create('file', 16);
    mapFile(k, mm, BASE, 8, file, 0, ANON_RW);
    mapFile(k, mm, BASE + 16, 8, file, 8, ANON_RW);
    mapAnon(k, mm, BASE + 32, 8);
    yield* access(k, t, BASE + 32, true);
    const before = k.locks.report().get('i_mmap_rwsem-W')?.acquired ?? 0;
    yield* mmu_notifier_register(k, t, mm, new MmuNotifier(recorder('n', [], false), {}));
    assert.equal(k.locks.report().get('i_mmap_rwsem-W')?.acquired, before + 1);
    assert.equal(k.locks.report().get('anon_vma->rwsem-W')?.acquired, 1);
    assert.equal(mm.count, 2);
  });
});
