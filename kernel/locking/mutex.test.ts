import assert from 'node:assert/strict';
import {test} from 'node:test';
import type {Code} from '../../machine/process.ts';
import {nsToTicks} from '../../machine/time.ts';
import {type BareKernel, bareKernel} from '../sched/testing.ts';
import type {Task} from '../task.ts';
import {Mutex} from './mutex.ts';

const us = (n: number): number => nsToTicks(n * 1e3);

/**
 * Tasks that take the mutex `rounds` times, hold it for `hold` and stay away for `away`; checks
 * exclusion.
 */
function contend(
  k: BareKernel,
  m: Mutex,
  tasks: number,
  rounds: number,
  hold: number,
  away: number,
) {
  const fn = k.kernel.fn('test');
  const got = new Float64Array(tasks);
  let inside = 0;
  for (let i = 0; i < tasks; i++) {
    k.start(`t${i}`, function* (t: Task): Code {
      for (let n = 0; n < rounds; n++) {
        if (!m.acquire(t, fn)) yield* m.acquireSlow(t, fn);
        assert.equal(++inside, 1);
        got[i]++;
        t.cpu.charge(hold, fn);
        if (t.cpu.settle()) yield;
        inside--;
        if (!m.release(t)) yield* m.releaseSlow(t);
        yield* k.sched.userRun(t, away);
      }
    });
  }
  return got;
}

for (const [machine, tasks] of [
  ['1s4c1t', 4],
  ['1s2c1t', 7],
  ['2s4c2t', 40],
  ['1s1c1t', 3],
] as const) {
  for (const version of ['4.1', '5.4', '6.12']) {
    test(`${tasks} tasks on ${machine} under ${version} all get through, one by one`, () => {
      const k = bareKernel(machine, version);
      const m = new Mutex(k.kernel, 'm');
      contend(k, m, tasks, 30, us(3), us(2));
      k.run();
      assert.equal(k.machine.engine.live, 0);
      assert.equal(m.isHeld, false);
      const report = k.kernel.locks.report().get('m')!;
      assert.equal(report.acquired, tasks * 30);
      assert.equal(
        report.handoff.reduce((a, b) => a + b),
        report.acquired - 1,
      );
      const byCaller = [...report.waitTicksByCaller.values()].reduce((a, b) => a + b, 0);
      assert.equal(byCaller, report.waitTicks);
      assert.ok(report.contended <= report.acquired);
      assert.equal(report.contended > 0, machine !== '1s1c1t');
      assert.equal(k.checks.sleepInAtomic, 0, k.checks.findings.join('\n'));
    });
  }
}

test('a task spins while the owner runs and is faster than one that sleeps', () => {
  const k = bareKernel('1s2c1t');
  const m = new Mutex(k.kernel, 'm');
  const fn = k.kernel.fn('test');
  let switches = 0;
  k.start(
    'owner',
    function* (t): Code {
      if (!m.acquire(t, fn)) yield* m.acquireSlow(t, fn);
      t.cpu.charge(us(50), fn);
      if (t.cpu.settle()) yield;
      if (!m.release(t)) yield* m.releaseSlow(t);
    },
    0,
  );
  k.start(
    'spinner',
    function* (t): Code {
      t.cpu.charge(us(5), fn);
      if (t.cpu.settle()) yield;
      if (!m.acquire(t, fn)) yield* m.acquireSlow(t, fn);
      switches = k.sched.dispatcher.rqs[1].switches;
      if (!m.release(t)) yield* m.releaseSlow(t);
    },
    1,
  );
  k.run();
  assert.equal(switches, 1);
  assert.ok(k.machine.profile.ticksOf('mutex_spin_on_owner') > us(35));
});

test('nobody spins on an owner that sleeps', () => {
  const k = bareKernel('1s2c1t');
  const m = new Mutex(k.kernel, 'm');
  const fn = k.kernel.fn('test');
  k.start(
    'owner',
    function* (t): Code {
      if (!m.acquire(t, fn)) yield* m.acquireSlow(t, fn);
      yield* k.sched.sleep(t, us(1000));
      if (!m.release(t)) yield* m.releaseSlow(t);
    },
    0,
  );
  k.start(
    'waiter',
    function* (t): Code {
      t.cpu.charge(us(5), fn);
      if (t.cpu.settle()) yield;
      if (!m.acquire(t, fn)) yield* m.acquireSlow(t, fn);
      if (!m.release(t)) yield* m.releaseSlow(t);
    },
    1,
  );
  k.run();
  assert.ok(k.machine.profile.ticksOf('mutex_spin_on_owner') < us(10));
  assert.ok(k.sched.times(1).idleTicks > us(900));
});

test('a mutex taken under a spinlock is reported', () => {
  const k = bareKernel('1s1c1t');
  const m = new Mutex(k.kernel, 'm');
  const lock = k.kernel.locks.spinlock('s');
  const fn = k.kernel.fn('test');
  k.start('t', function* (t): Code {
    if (!lock.acquire(t, fn)) yield* lock.acquireSlow(t, fn);
    if (!m.acquire(t, fn)) yield* m.acquireSlow(t, fn);
    if (!m.release(t)) yield* m.releaseSlow(t);
    if (!lock.release(t)) yield* lock.releaseSlow(t);
  });
  k.run();
  assert.equal(k.checks.sleepInAtomic, 1);
  assert.match(k.checks.findings[0], /invalid context at mutex_lock/);
});

/**
 * How long a waiter that has slept once waits for a mutex that another task takes again and again
 * for `total` us.
 */
function waitBesideGreedy(version: string, total: number): number {
  const k = bareKernel('1s2c1t', version);
  const m = new Mutex(k.kernel, 'm');
  const fn = k.kernel.fn('test');
  let waited = 0;
  k.start(
    'greedy',
    function* (t): Code {
      for (let i = 0; i < total / 10; i++) {
        if (!m.acquire(t, fn)) yield* m.acquireSlow(t, fn);
        t.cpu.charge(us(10), fn);
        if (!m.release(t)) yield* m.releaseSlow(t);
      }
    },
    0,
  );
  k.start(
    'waiter',
    function* (t): Code {
      t.cpu.charge(us(5), fn);
      if (t.cpu.settle()) yield;
      const began = k.machine.engine.now;
      if (!m.acquire(t, fn)) yield* m.acquireSlow(t, fn);
      waited = k.machine.engine.now - began;
      if (!m.release(t)) yield* m.releaseSlow(t);
    },
    1,
  );
  k.start(
    'neighbour',
    function* (t): Code {
      yield* k.sched.userRun(t, us(total / 2));
    },
    1,
  );
  k.run();
  return waited;
}

test('the first waiter gets the lock by hand-off from 4.10 on, and not before', () => {
  assert.ok(waitBesideGreedy('5.4', 400_000) < us(100_000));
  assert.ok(waitBesideGreedy('4.1', 400_000) > us(390_000));
});
