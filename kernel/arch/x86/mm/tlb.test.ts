import assert from 'node:assert/strict';
import {test} from 'node:test';
import type {Code} from '../../../../machine/process.ts';
import {PTHREAD_FLAGS} from '../../../clone_flags.ts';
import {sys_wait4} from '../../../exit.ts';
import {sys_clone} from '../../../fork.ts';
import {computing, runToEnd, testKernel} from '../../../fork_testing.ts';
import {startProcess} from '../../../init_task.ts';
import type {Kernel} from '../../../kernel.ts';
import type {Task} from '../../../task.ts';

/**
 * Runs a process with threads pinned to the CPUs `others`, each doing `body`; flushes from CPU 0,
 * then looks.
 */
function flushAmong(
  k: Kernel,
  others: readonly number[],
  body: (t: Task) => Code<unknown>,
  look: (interrupts: number, lazySkipped: number) => void,
): void {
  let looked = false;
  startProcess(k, {
    tid: 100,
    comm: 'flusher',
    pinnedCpu: 0,
    *program(t) {
      for (const cpu of others) {
        const args = {flags: PTHREAD_FLAGS, childTid: 200 + cpu, pinnedCpu: cpu, program: body};
        yield* sys_clone(k, t, args);
      }
      yield* k.sched.userRun(t, 5_000_000);
      const before = {...k.tlb.counts};
      yield* k.tlb.flush_tlb_mm(t, t.mm!);
      const {interrupts, lazySkipped} = k.tlb.counts;
      look(interrupts - before.interrupts, lazySkipped - before.lazySkipped);
      looked = true;
      assert.equal(t.preemptCount, 0);
    },
  });
  runToEnd(k);
  assert.ok(looked);
}

test('a flush interrupts exactly the CPUs that run the mm', () => {
  const k = testKernel('2s4c1t', '6.18');
  flushAmong(k, [2, 5], computing(k, 100_000_000), (interrupts) => assert.equal(interrupts, 2));
});

test('lazy CPUs: interrupted and leaving the mm up to 4.19, left alone since', () => {
  const sleeper = (k: Kernel) => (t: Task) => k.sched.sleep(t, 500_000_000);
  const old = testKernel('2s4c1t', '4.15');
  flushAmong(old, [3], sleeper(old), (interrupts) => {
    assert.equal(interrupts, 1);
    assert.equal(old.tlb.loadedMm(old.machine.cpus[3]), null);
  });
  const recent = testKernel('2s4c1t', '5.4');
  flushAmong(recent, [3], sleeper(recent), (interrupts, lazySkipped) => {
    assert.equal(interrupts, 0);
    assert.equal(lazySkipped, 1);
    assert.notEqual(recent.tlb.loadedMm(recent.machine.cpus[3]), null);
  });
});

test('fork of a process with threads shoots down its other CPUs', () => {
  const k = testKernel('2s4c1t', '6.18');
  startProcess(k, {
    tid: 100,
    comm: 'test',
    pinnedCpu: 0,
    *program(t) {
      const program = computing(k, 30_000_000);
      yield* sys_clone(k, t, {flags: PTHREAD_FLAGS, childTid: 200, pinnedCpu: 4, program});
      yield* k.sched.userRun(t, 3_000_000);
      yield* sys_clone(k, t, {flags: 0, childTid: 300, program: computing(k, 1)});
      assert.equal(k.tlb.counts.interrupts, 1);
      yield* sys_wait4(k, t, 300, 0);
    },
  });
  runToEnd(k);
  assert.ok(k.tlb.counts.interrupts >= 1);
});

test('a kernel range is flushed on every CPU, idle ones included', () => {
  const k = testKernel('2s4c1t', '6.18');
  startProcess(k, {
    tid: 100,
    comm: 'test',
    *program(t) {
      yield* k.tlb.flush_tlb_kernel_range(t, 1000, 1002);
      yield* k.tlb.flush_tlb_kernel_range(t, 1000, 2000);
    },
  });
  runToEnd(k);
  assert.equal(k.tlb.counts.interrupts, 14);
  for (const tlb of k.machine.tlbs) assert.equal(tlb.counts.pages, 2);
});

test('no CPU keeps the tables of a freed mm', () => {
  const k = testKernel('2s4c1t', '5.4');
  startProcess(k, {
    tid: 100,
    comm: 'test',
    *program(t) {
      for (let i = 0; i < 8; i++) {
        const program = computing(k, 1000);
        yield* sys_clone(k, t, {flags: 0, childTid: 200 + i, pinnedCpu: i, program});
      }
      for (let i = 0; i < 8; i++) yield* sys_wait4(k, t, -1, 0);
      for (const cpu of k.machine.cpus) {
        const loaded = k.tlb.loadedMm(cpu);
        assert.ok(loaded === null || loaded === t.mm, `CPU ${cpu.id} holds a freed mm`);
      }
    },
  });
  runToEnd(k);
});
