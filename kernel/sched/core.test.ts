import assert from 'node:assert/strict';
import {test} from 'node:test';
import type {Code} from '../../machine/process.ts';
import {nsToTicks} from '../../machine/time.ts';
import type {Task} from '../task.ts';
import {bareKernel} from './testing.ts';
import {WaitQueue} from './wait_queue.ts';

const ms = (n: number): number => nsToTicks(n * 1e6);

test('four computing tasks share one CPU evenly, and it never idles meanwhile', () => {
  const k = bareKernel('1s1c1t');
  const done: number[] = [];
  for (let i = 0; i < 4; i++) {
    k.start(`w${i}`, function* (t): Code {
      yield* k.sched.userRun(t, ms(100));
      done.push(k.machine.engine.now);
    });
  }
  k.run();
  const {busyTicks, idleTicks, userTicks} = k.sched.times();
  assert.equal(userTicks, ms(400));
  assert.ok(done[0] > ms(390), 'nobody may finish long before the others');
  assert.ok(busyTicks - userTicks < ms(2), 'switches and ticks cost little');
  assert.ok(busyTicks - userTicks > 0);
  assert.ok(idleTicks < ms(0.1));
});

test('tasks spread over idle CPUs and run side by side', () => {
  const k = bareKernel('2s4c1t');
  for (let i = 0; i < 8; i++) {
    k.start(`w${i}`, function* (t): Code {
      yield* k.sched.userRun(t, ms(10));
    });
  }
  const end = k.run();
  assert.ok(end < ms(10.1), `took ${end} ticks`);
  for (const rq of k.sched.dispatcher.rqs) assert.equal(rq.switches, 1);
});

test('an idle CPU takes queued tasks from a loaded one', () => {
  const k = bareKernel('1s2c1t');
  const home = k.machine.cpus[0];
  k.start(
    'long',
    function* (t): Code {
      yield* k.sched.userRun(t, ms(50));
    },
    0,
  );
  const moved: Task[] = [];
  let last = 0;
  for (let i = 0; i < 4; i++) {
    moved.push(
      k.start(`w${i}`, function* (t): Code {
        yield* k.sched.userRun(t, ms(10));
        last = k.machine.engine.now;
      }),
    );
  }
  k.run();
  assert.ok(moved.filter((t) => t.cpu !== home).length >= 3);
  assert.ok(last < ms(35), `the last one ended at ${last}`);
});

test('a CPU that goes idle takes a queued task at once', () => {
  const k = bareKernel('1s2c1t');
  let began = 0;
  for (const [name, length] of [
    ['long', 10],
    ['short', 1],
  ] as const) {
    k.start(name, function* (t): Code {
      yield* k.sched.userRun(t, ms(length));
    });
  }
  k.start('queued', function* (t): Code {
    began = k.machine.engine.now;
    yield* k.sched.userRun(t, ms(1));
  });
  k.run();
  assert.ok(began > ms(0.9) && began < ms(1.1), `began at ${began}`);
});

test('a pinned task never runs elsewhere', () => {
  const k = bareKernel('1s4c1t');
  const seen = new Set<number>();
  for (let i = 0; i < 3; i++) {
    k.start(
      'p',
      function* (t): Code {
        for (let n = 0; n < 5; n++) {
          yield* k.sched.userRun(t, ms(1));
          seen.add(t.cpu.id);
          yield* k.sched.sleep(t, ms(1));
          seen.add(t.cpu.id);
        }
      },
      2,
    );
  }
  k.run();
  assert.deepEqual([...seen], [2]);
});

test('a sleeper preempts user work when it wakes', () => {
  const k = bareKernel('1s1c1t');
  let woken = 0;
  k.start('hog', function* (t): Code {
    yield* k.sched.userRun(t, ms(100));
  });
  k.start('sleeper', function* (t): Code {
    const began = k.machine.engine.now;
    yield* k.sched.sleep(t, ms(50));
    woken = k.machine.engine.now - began;
  });
  k.run();
  assert.ok(woken > ms(50));
  assert.ok(woken < ms(50.01), `woken after ${woken}`);
});

test('kernel code is not preempted until it says so', () => {
  const k = bareKernel('1s1c1t');
  const order: string[] = [];
  const fn = k.kernel.fn('long_loop');
  k.start('kernel', function* (t): Code {
    for (let i = 0; i < 40; i++) {
      t.cpu.charge(ms(1), fn);
      if (t.cpu.settle()) yield;
    }
    order.push('loop done');
    if (k.sched.needsResched(t)) yield* k.sched.condResched(t);
    order.push('back');
  });
  k.start('sleeper', function* (t): Code {
    order.push('sleeper');
    yield* k.sched.sleep(t, 1);
  });
  k.run();
  assert.deepEqual(order, ['loop done', 'sleeper', 'back']);
});

test('no wake-up between looking and sleeping is lost', () => {
  const k = bareKernel('1s2c1t');
  const queue = new WaitQueue(k.kernel, 'q');
  let ready = false;
  const fn = k.kernel.fn('x');
  k.start('waiter', function* (t): Code {
    if (t.cpu.settle()) yield;
    while (!ready) {
      queue.prepare(t);
      t.cpu.charge(ms(1), fn);
      if (t.cpu.settle()) yield;
      if (!ready) yield* queue.sleep(t);
      queue.finish(t);
    }
  });
  k.start('waker', function* (t): Code {
    t.cpu.charge(ms(0.5), fn);
    if (t.cpu.settle()) yield;
    ready = true;
    queue.wakeOne();
  });
  k.run();
  assert.equal(k.machine.engine.live, 0);
});

test('a busy SMT sibling slows user work down, for as long as it is busy', () => {
  const k = bareKernel('1s1c2t');
  const slow = k.machine.topology.smtSlowdown;
  const ends: number[] = [];
  k.start(
    'long',
    function* (t): Code {
      yield* k.sched.userRun(t, ms(20));
      ends[0] = k.machine.engine.now;
    },
    0,
  );
  k.start(
    'short',
    function* (t): Code {
      yield* k.sched.userRun(t, ms(5));
      ends[1] = k.machine.engine.now;
    },
    1,
  );
  k.run();
  const expected = ms(5) * slow + (ms(20) - ms(5));
  assert.ok(Math.abs(ends[1] - ms(5) * slow) < ms(0.1));
  assert.ok(Math.abs(ends[0] - expected) < ms(0.1), `${ends[0]} against ${expected}`);
});

test('the same seed gives the same digest', () => {
  const once = (): string => {
    const k = bareKernel('2s2c2t');
    for (let i = 0; i < 30; i++) {
      k.start(`w${i}`, function* (t): Code {
        for (let n = 0; n < 20; n++) {
          yield* k.sched.userRun(t, 1000 * (i + n * 7));
          yield* k.sched.sleep(t, 5000 * (n + 1));
        }
      });
    }
    k.run();
    return k.machine.engine.digest.hex();
  };
  assert.equal(once(), once());
});
