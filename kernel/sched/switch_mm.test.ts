import assert from 'node:assert/strict';
import {test} from 'node:test';
import {MmStruct} from '../mm_types.ts';
import {Task} from '../task.ts';
import {type BareKernel, bareKernel} from './testing.ts';

/** A user task with an mm of its own, for CPU 0. */
function userTask(k: BareKernel, id: number): Task {
  const t = new Task(id, id, `t${id}`, k.machine.cpus[0], null);
  t.mm = new MmStruct(id, k.kernel.locks.bulk('page_table_lock', 0));
  return t;
}

function setUp(version: string) {
  const k = bareKernel('1s1c1t', version);
  const {mms, rqs} = k.sched.dispatcher;
  const switchTo = (t: Task): number => mms.switchTo(rqs[0], t);
  return {k, switchTo, tlb: k.machine.tlbs[0], flush: k.machine.topology.fullTlbFlushTicks};
}

test('coming back from a kernel thread or from idling costs nothing', () => {
  const {k, switchTo, tlb} = setUp('6.12');
  const t = userTask(k, 1);
  const kthread = new Task(9, 9, 'kthread', k.machine.cpus[0], null);
  assert.ok(switchTo(t) > 0);
  assert.equal(switchTo(kthread), 0);
  assert.ok(tlb.lazy);
  assert.equal(kthread.activeMm, t.mm);
  assert.equal(switchTo(t), 0);
  assert.equal(tlb.lazy, false);
});

test('what changed while the CPU was lazy is flushed when it stops being lazy', () => {
  const {k, switchTo, flush} = setUp('6.12');
  const t = userTask(k, 1);
  switchTo(t);
  k.sched.dispatcher.mms.enterLazy(k.sched.dispatcher.rqs[0]);
  t.mm!.tlbGeneration++;
  assert.equal(switchTo(t), flush);
  assert.equal(switchTo(t), 0);
});

test('with PCID six address spaces keep their translations, the seventh throws one out', () => {
  const {k, switchTo, tlb} = setUp('4.15');
  const tasks = [1, 2, 3, 4, 5, 6, 7].map((id) => userTask(k, id));
  for (const t of tasks.slice(0, 6)) switchTo(t);
  assert.equal(tlb.counts.full, 6);
  for (const t of tasks.slice(0, 6)) switchTo(t);
  assert.equal(tlb.counts.full, 6);
  switchTo(tasks[6]);
  switchTo(tasks[0]);
  assert.equal(tlb.counts.full, 8);
});

test('without PCID every load flushes', () => {
  const {k, switchTo, tlb} = setUp('4.13');
  const [a, b] = [userTask(k, 1), userTask(k, 2)];
  for (const t of [a, b, a, b]) switchTo(t);
  assert.equal(tlb.counts.full, 4);
});

test('a space flushed while loaded needs no flush when it returns, one changed since does', () => {
  const {k, switchTo, tlb} = setUp('6.12');
  const [a, b] = [userTask(k, 1), userTask(k, 2)];
  switchTo(a);
  switchTo(b);
  switchTo(a);
  a.mm!.tlbGeneration = 5;
  tlb.flushPages(3, 5);
  switchTo(b);
  const before = tlb.counts.full;
  switchTo(a);
  assert.equal(tlb.counts.full, before);
  switchTo(b);
  a.mm!.tlbGeneration = 6;
  switchTo(a);
  assert.equal(tlb.counts.full, before + 1);
});
