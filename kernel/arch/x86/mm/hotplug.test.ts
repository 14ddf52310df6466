import assert from 'node:assert/strict';
import {test} from 'node:test';
import type {Kernel} from '../../../kernel.ts';
import {kernel_access} from './fault.ts';
import {add_memory, remove_memory} from './hotplug.ts';
import {bootKernel, startOn} from './testing.ts';

const SECTION = 32_768;
const PFN = 5 * 2 ** 27;

/** Two processes live while memory in a new top-level entry is added, removed and added again. */
function addRemoveAdd(version: string, design: string): Kernel {
  const k = bootKernel({version, design: [`pgd=${design}`]});
  startOn(k, 0, function* (t) {
    yield* k.sched.sleep(t, 1e8);
  });
  startOn(k, 1, function* (t) {
    yield* k.sched.sleep(t, 1e6);
    yield* add_memory(k, t, PFN, SECTION, 0);
    yield* remove_memory(k, t, PFN, SECTION, 0);
    yield* add_memory(k, t, PFN, SECTION, 0);
  });
  k.machine.engine.run();
  return k;
}

test('3.10: copies are never cleared, the next add hits the BUG on mismatch', () => {
  const k = addRemoveAdd('3.10', 'pgd-list');
  const text = k.checks.findings.join('\n');
  assert.match(text, /frees the PUD page of entry 21, which 2 PGDs name/);
  assert.match(text, /BUG: entry 21 of the PGD of mm \d+ differs from the reference/);
});

test('4.1: the copies are cleared, the window before that stays', () => {
  const k = addRemoveAdd('4.1', 'pgd-list');
  assert.equal(k.checks.counters.get('pgd_freed_in_use'), 2);
  assert.equal(k.checks.counters.get('pgd_bug'), undefined);
  assert.equal(k.checks.findings.length, 1);
});

test('clean where entries are never freed: 4.13, and the lockless series on any kernel', () => {
  for (const [version, design] of [
    ['4.13', 'pgd-list'],
    ['6.6', 'preallocated'],
    ['4.1', 'lockless-2015-09'],
    ['3.10', 'count-at-switch'],
  ]) {
    assert.deepEqual(addRemoveAdd(version, design).checks.findings, [], `${version} ${design}`);
  }
});

test('4.1: an access in the window goes through a freed page table', () => {
  const k = bootKernel({version: '4.1'});
  const vpn = k.pageTables.directMapVpn(PFN);
  let removing = false;
  let removed = false;
  startOn(k, 0, function* (t) {
    while (!removed) {
      if (removing) yield* kernel_access(k, t, vpn);
      t.cpu.charge(50, k.fn('test'));
      if (t.cpu.settle()) yield;
    }
  });
  startOn(k, 1, function* (t) {
    yield* add_memory(k, t, PFN, SECTION, 0);
    removing = true;
    yield* remove_memory(k, t, PFN, SECTION, 0);
    removed = true;
  });
  k.machine.engine.run();
  assert.match(k.checks.findings.join('\n'), /use-after-free: .* through a freed page table/);
});

test('2.6.32: nobody tells the PGDs about a new direct-map entry', () => {
  const k = bootKernel({version: '2.6.32', design: ['spinlock=ticket']});
  startOn(k, 0, function* (t) {
    yield* k.sched.sleep(t, 1e8);
  });
  startOn(k, 1, function* (t) {
    yield* k.sched.sleep(t, 1e6);
    yield* add_memory(k, t, PFN, SECTION, 0);
    yield* k.sched.sleep(t, 1e6);
    k.pageTables.checks.examineVisible(0);
  });
  k.machine.engine.run();
  assert.equal(k.checks.missedPgdEntries, 2);
});

test('an added page is mapped and an unmapped one is an oops', () => {
  const k = bootKernel();
  const vpn = k.pageTables.directMapVpn(PFN);
  startOn(k, 0, function* (t) {
    yield* add_memory(k, t, PFN, SECTION, 0);
    assert.equal(yield* kernel_access(k, t, vpn), false);
    yield* kernel_access(k, t, vpn + 2 ** 28);
  });
  k.machine.engine.run();
  assert.match(k.checks.findings.join('\n'), /unable to handle kernel paging request at 0xffff8/);
});
