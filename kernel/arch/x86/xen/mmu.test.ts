import assert from 'node:assert/strict';
import {test} from 'node:test';
import {sys_clone} from '../../../fork.ts';
import type {Kernel} from '../../../kernel.ts';
import {bootKernel, startOn} from '../mm/testing.ts';
import {xen_mm_pin_all, xen_mm_unpin_all} from './mmu.ts';

/** A fork, and a suspend after `delayTicks`: in the middle of it, or after. */
function forkAndSuspend(design: string, paging: string, delayTicks: number): Kernel {
  const k = bootKernel({design: [`pgd=${design}`, `paging=${paging}`]});
  startOn(k, 0, function* (t) {
    yield* k.sched.sleep(t, 1e6);
    const program = function* (c: typeof t) {
      yield* k.sched.sleep(c, 1e7);
    };
    yield* sys_clone(k, t, {flags: 0, childTid: 300, childTgid: 300, program});
    yield* k.sched.sleep(t, 1e7);
  });
  startOn(k, 1, function* (t) {
    yield* k.sched.sleep(t, 1e6 + delayTicks);
    yield* xen_mm_pin_all(k, t);
    yield* k.sched.sleep(t, 1e6);
    yield* xen_mm_unpin_all(k, t);
  });
  k.machine.engine.run();
  return k;
}

test('suspend in the middle of a fork: pgd_list finds the new PGD, the task list does not', () => {
  for (const paging of ['4-level-xen', 'pae-private']) {
    // The suspend comes at many moments of the fork: some lie between pgd_alloc and the child's
    // place on the task list.
    const found = (design: string): number =>
      Array.from({length: 30}, (_, i) => forkAndSuspend(design, paging, i * 2e4))
        .map((k) => k.checks.counters.get('xen_unpinned_pgds') ?? 0)
        .reduce((a, b) => a + b);
    assert.equal(found('pgd-list'), 0);
    assert.ok(found('lockless-2015-09') > 0);
  }
});

test('suspend when no fork is under way: everything is pinned', () => {
  const k = forkAndSuspend('lockless-2015-09', '4-level-xen', 5e6);
  assert.deepEqual(k.checks.findings, []);
});

test('lockless-v1 stores plainly to a pinned PGD; v2 uses set_pgd', () => {
  const text = (design: string): string =>
    forkAndSuspend(design, '4-level-xen', 5e6).checks.findings.join('\n');
  assert.match(text('lockless-v1'), /plain store to entry \d+ of the pinned PGD/);
  assert.equal(text('lockless-v2'), '');
});
