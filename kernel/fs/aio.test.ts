import assert from 'node:assert/strict';
import {test} from 'node:test';
import type {Code} from '../../machine/process.ts';
import type {Kernel} from '../kernel.ts';
import {runToEnd, testKernel} from '../fork_testing.ts';
import {startProcess} from '../init_task.ts';
import type {Task} from '../task.ts';
import {sys_io_submit} from './aio.ts';

function submitters(count: number, requests: number): Kernel {
  const k = testKernel('2s4c1t', '6.18');
  for (let n = 0; n < count; n++) {
    const program = function* (t: Task): Code {
      for (let i = 0; i < 20; i++) assert.equal(yield* sys_io_submit(k, t, requests), requests);
    };
    startProcess(k, {tid: 100 + n, comm: 'fio', pinnedCpu: n, program});
  }
  runToEnd(k);
  return k;
}

test('one submitter never waits for the queue', () => {
  const queue = submitters(1, 3).locks.report().get('vq->lock')!;
  assert.equal(queue.acquired, 60);
  assert.equal(queue.contended, 0);
});

test('submitters on several CPUs wait for the one queue', () => {
  const queue = submitters(4, 3).locks.report().get('vq->lock')!;
  assert.equal(queue.acquired, 240);
  assert.ok(queue.contended > 0);
});
