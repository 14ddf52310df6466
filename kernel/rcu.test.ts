import assert from 'node:assert/strict';
import {test} from 'node:test';
import type {Code} from '../machine/process.ts';
import {nsToTicks} from '../machine/time.ts';
import {bareKernel} from './sched/testing.ts';

const ms = (n: number): number => nsToTicks(n * 1e6);

test('synchronize_rcu takes one to two jiffies on an idle machine', () => {
  const k = bareKernel('2s4c1t');
  let waited = 0;
  k.start('t', function* (t): Code {
    const began = k.machine.engine.now;
    yield* k.rcu.synchronize(t);
    waited = k.machine.engine.now - began;
  });
  k.run();
  assert.ok(waited >= ms(4) && waited < ms(8.2), `waited ${waited}`);
  assert.equal(k.rcu.completed, 1);
});

test('a grace period waits for a reader that runs, and not for one that begins later', () => {
  const k = bareKernel('1s3c1t');
  const fn = k.kernel.fn('reader');
  let freed = 0;
  let early = 0;
  let late = 0;
  k.start(
    'early',
    function* (t): Code {
      k.rcu.readLock(t);
      t.cpu.charge(ms(30), fn);
      if (t.cpu.settle()) yield;
      assert.equal(freed, 0, 'freed under a reader');
      k.rcu.readUnlock(t);
      early = k.machine.engine.now;
    },
    0,
  );
  k.start(
    'late',
    function* (t): Code {
      yield* k.sched.sleep(t, ms(10));
      k.rcu.readLock(t);
      t.cpu.charge(ms(100), fn);
      if (t.cpu.settle()) yield;
      k.rcu.readUnlock(t);
      late = k.machine.engine.now;
    },
    1,
  );
  k.start(
    'writer',
    function* (t): Code {
      t.cpu.charge(ms(1), fn);
      if (t.cpu.settle()) yield;
      yield* k.rcu.synchronize(t);
      freed = k.machine.engine.now;
    },
    2,
  );
  k.run();
  assert.ok(freed > early && freed < early + ms(8.2), `${freed} after ${early}`);
  assert.ok(freed < late);
});

test('callbacks queued during a grace period wait for the next one, and run together', () => {
  const k = bareKernel('1s2c1t');
  const ran: [string, number][] = [];
  const note = (name: string) => () => {
    ran.push([name, k.rcu.completed]);
  };
  k.start('t', function* (t): Code {
    k.rcu.callRcu(note('a'));
    yield* k.sched.sleep(t, ms(1));
    k.rcu.callRcu(note('b'));
    k.rcu.callRcu(note('c'));
    assert.equal(k.rcu.pending, 3);
  });
  k.run();
  assert.deepEqual(ran, [
    ['a', 1],
    ['b', 2],
    ['c', 2],
  ]);
  assert.equal(k.rcu.pending, 0);
});

test('user code and idle CPUs do not hold a grace period up', () => {
  const k = bareKernel('1s2c1t');
  let done = 0;
  k.start(
    'user',
    function* (t): Code {
      yield* k.sched.userRun(t, ms(500));
    },
    0,
  );
  k.start(
    't',
    function* (t): Code {
      yield* k.sched.sleep(t, ms(50));
      yield* k.rcu.synchronize(t);
      done = k.machine.engine.now;
    },
    1,
  );
  k.run();
  assert.ok(done < ms(60), `${done}`);
});

test('a kernel loop without cond_resched stalls RCU after 21 s; with it, it does not', () => {
  for (const [reschedules, stalls] of [
    [false, 1],
    [true, 0],
  ] as const) {
    const k = bareKernel('1s2c1t');
    const fn = k.kernel.fn('loop');
    k.start(
      'loop',
      function* (t): Code {
        for (let i = 0; i < 250; i++) {
          t.cpu.charge(ms(100), fn);
          if (t.cpu.settle()) yield;
          if (reschedules && k.sched.needsResched(t)) yield* k.sched.condResched(t);
        }
      },
      0,
    );
    k.start(
      't',
      function* (t): Code {
        yield* k.sched.sleep(t, ms(50));
        yield* k.rcu.synchronize(t);
      },
      1,
    );
    k.run();
    assert.equal(k.rcu.stalls, stalls);
  }
});

test('waiting for a grace period under rcu_read_lock is reported, and a deadlock is found', () => {
  const k = bareKernel('1s2c1t');
  k.start(
    'stuck',
    function* (t): Code {
      k.rcu.readLock(t);
      if (t.cpu.settle()) yield;
      k.machine.engine.current!.park({name: 'a lock that nobody releases'});
      yield;
    },
    0,
  );
  k.start(
    't',
    function* (t): Code {
      yield* k.sched.sleep(t, ms(1));
      k.rcu.readLock(t);
      yield* k.rcu.synchronize(t);
    },
    1,
  );
  assert.throws(() => k.run(), /a lock that nobody releases[\s\S]*an RCU grace period/);
  assert.ok(k.checks.sleepInAtomic >= 1);
});
