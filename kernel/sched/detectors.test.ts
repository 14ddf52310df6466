import assert from 'node:assert/strict';
import {test} from 'node:test';
import type {Code} from '../../machine/process.ts';
import {nsToTicks} from '../../machine/time.ts';
import {bareKernel} from './testing.ts';
import {WaitQueue} from './wait_queue.ts';

const seconds = (n: number): number => nsToTicks(n * 1e9);

/**
 * One task computes for `length` seconds in the kernel, with a scheduling point every `step`
 * seconds.
 */
function kernelLoop(length: number, step: number, from = 0) {
  const k = bareKernel('1s1c1t');
  const fn = k.kernel.fn('loop');
  k.start('loop', function* (t): Code {
    yield* k.sched.userRun(t, seconds(from));
    for (let done = 0; done < length; done += step) {
      t.cpu.charge(seconds(step), fn);
      if (t.cpu.settle()) yield;
      if (k.sched.needsResched(t)) yield* k.sched.condResched(t);
    }
  });
  k.run();
  return k;
}

test('no scheduling point for more than 20 s at a sample is a soft lockup', () => {
  assert.equal(kernelLoop(19, 19).checks.softLockups, 0);
  assert.equal(kernelLoop(100, 10).checks.softLockups, 0);
  const caught = kernelLoop(25, 25).checks;
  assert.equal(caught.softLockups, 1);
  assert.match(caught.findings[0], /soft lockup - CPU#0 stuck for 2[0-4]s! \[loop:100\]/);
});

test('a gap of 21 s is seen or missed by where the 4 s samples fall', () => {
  const found = [0, 1, 2, 3.5].map((from) => kernelLoop(21, 21, from).checks.softLockups);
  assert.deepEqual(found, [0, 0, 0, 1]);
});

test('hours of user code are no lockup', () => {
  const k = bareKernel('1s1c1t');
  k.start('user', function* (t): Code {
    yield* k.sched.userRun(t, seconds(3600));
  });
  k.run();
  assert.equal(k.checks.softLockups, 0);
  assert.equal(k.sched.dispatcher.watchdog.longestGapTicks < seconds(1), true);
});

test('a lockup that lasts to the end of the run is found when the run is closed', () => {
  const k = bareKernel('1s1c1t');
  k.start('stuck', function* (): Code {
    yield;
  });
  k.machine.engine.schedule(
    k.machine.engine.create(
      'end',
      (function* (): Code {
        yield;
      })(),
    ),
    seconds(30),
  );
  assert.throws(() => k.run(), /for ever/);
  k.sched.finish();
  assert.equal(k.checks.softLockups, 1);
});

test('an uninterruptible sleep of more than 120 s is a hung task', () => {
  for (const [interruptible, expected] of [
    [false, 1],
    [true, undefined],
  ] as const) {
    const k = bareKernel('1s2c1t');
    const queue = new WaitQueue(k.kernel, 'q');
    const d = k.start('d', function* (t): Code {
      if (t.cpu.settle()) yield;
      yield* queue.wait(t, queue, interruptible);
    });
    k.start('w', function* (t): Code {
      yield* k.sched.sleep(t, seconds(130));
      queue.wakeOne();
    });
    k.run(seconds(125));
    k.sched.finish([d]);
    assert.equal(k.checks.counters.get('hung_tasks'), expected);
    k.run();
    assert.equal(k.checks.counters.get('hung_tasks'), expected && 2 * expected);
  }
});

test('sleeping is a bug with preemption or interrupts off, in RCU readers, in non_block', () => {
  const found = (version: string, field: 'preemptCount' | 'rcuDepth' | 'nonBlockCount' | 'irq') => {
    const k = bareKernel('1s1c1t', version);
    k.start('t', function* (t): Code {
      if (field === 'irq') t.cpu.disableInterrupts();
      else t[field]++;
      k.sched.mightSleep(t, 'f');
      if (field === 'irq') t.cpu.enableInterrupts();
      else t[field]--;
      k.sched.mightSleep(t, 'f');
      if (t.cpu.settle()) yield;
    });
    k.run();
    return k.checks.sleepInAtomic;
  };
  for (const field of ['preemptCount', 'rcuDepth', 'nonBlockCount', 'irq'] as const) {
    assert.equal(found('5.4', field), 1, field);
  }
  assert.equal(found('4.19', 'nonBlockCount'), 0, 'non_block exists since 5.4');
});

test('every sleep in atomic counts, one a second is shown', () => {
  const k = bareKernel('1s1c1t');
  k.start('t', function* (t): Code {
    t.preemptCount++;
    for (let i = 0; i < 100; i++) k.sched.mightSleep(t, 'f');
    yield* k.sched.sleep(t, seconds(2));
    t.preemptCount--;
  });
  k.run();
  assert.equal(k.checks.sleepInAtomic, 101);
  assert.equal(k.checks.findings.length, 1);
});
