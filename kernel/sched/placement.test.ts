import assert from 'node:assert/strict';
import {test} from 'node:test';
import type {Code} from '../../machine/process.ts';
import {nsToTicks} from '../../machine/time.ts';
import type {Task} from '../task.ts';
import {type BareKernel, bareKernel} from './testing.ts';
import {fairTunables} from './tunables.ts';

const ms = (n: number): number => nsToTicks(n * 1e6);

/** Keeps `cpus` busy in user mode for a second. */
function occupy(k: BareKernel, cpus: readonly number[]): void {
  for (const cpu of cpus) {
    k.start(
      `hog${cpu}`,
      function* (t): Code {
        yield* k.sched.userRun(t, ms(1000));
      },
      cpu,
    );
  }
}

/** A task that last ran on `previous`, free to move: where is it woken by a task on `waker`? */
function wokenOn(
  machine: string,
  previous: number,
  busy: readonly number[],
  waker: number,
): number {
  const k = bareKernel(machine);
  let where = -1;
  const sleeper = k.start(
    'sleeper',
    function* (t: Task): Code {
      t.pinnedCpu = -1;
      yield* k.sched.block(t, {name: 'the waker'});
      where = t.cpu.id;
    },
    previous,
  );
  occupy(k, busy);
  k.start(
    'waker',
    function* (t): Code {
      yield* k.sched.sleep(t, ms(3));
      k.sched.wake(sleeper);
    },
    waker,
  );
  k.run(ms(60));
  return where;
}

test('a task wakes where it ran when that CPU is idle', () => {
  assert.equal(wokenOn('2s4c1t', 2, [], 5), 2);
  assert.equal(wokenOn('2s4c1t', 2, [0, 1, 3, 4], 5), 2);
});

test('else on an idle CPU of the same L3, on an idle core before an idle thread', () => {
  assert.equal(wokenOn('1s4c1t', 0, [0, 1, 2], 1), 3);
  assert.equal(wokenOn('1s3c2t', 0, [0, 1], 1), 2);
  assert.equal(wokenOn('1s2c2t', 0, [0, 1], 1), 2);
});

test('fork stays in the socket while that is nearly empty, then goes to the emptier one', () => {
  const k = bareKernel('2s8c1t');
  const sockets: number[] = [];
  k.start(
    'parent',
    function* (t): Code {
      for (let i = 0; i < 10; i++) {
        const child = k.start(`c${i}`, function* (c): Code {
          yield* k.sched.userRun(c, ms(100));
        });
        sockets.push(k.machine.topology.socketOf[child.cpu.id]);
        if (t.cpu.settle()) yield;
      }
    },
    0,
  );
  k.run(ms(1));
  assert.deepEqual(sockets.slice(0, 1), [0]);
  const remote = sockets.filter((socket) => socket === 1).length;
  assert.ok(remote >= 4 && remote <= 7, sockets.join(' '));
});

test('a remote idle CPU takes longer to start than a busy one takes to be told', () => {
  const latency = (idleMs: number): number => {
    const k = bareKernel('1s2c1t');
    let began = 0;
    let woken = 0;
    const sleeper = k.start(
      'sleeper',
      function* (t): Code {
        yield* k.sched.block(t, {name: 'the waker'});
        woken = k.machine.engine.now;
      },
      1,
    );
    k.start(
      'waker',
      function* (t): Code {
        yield* k.sched.userRun(t, ms(idleMs));
        began = k.machine.engine.now;
        k.sched.wake(sleeper);
      },
      0,
    );
    k.run();
    return woken - began;
  };
  assert.ok(latency(10) > latency(0.005), 'a deeper idle state takes longer to leave');
  assert.ok(latency(10) < nsToTicks(25_000));
});

test('tunables of the versions', () => {
  const old = fairTunables('5.4', 64);
  assert.equal(old.latencyTicks, ms(24));
  assert.equal(old.minGranularityTicks, ms(3));
  assert.equal(fairTunables('5.4', 1).latencyTicks, ms(6));
  assert.equal(fairTunables('6.12', 4).minGranularityTicks, ms(2.25));
  assert.equal(fairTunables('6.18', 64).minGranularityTicks, ms(2.8));
  assert.deepEqual([old.eevdf, fairTunables('6.6', 64).eevdf], [false, true]);
});

test('a woken task preempts at once under CFS, after the slice under EEVDF', () => {
  const delay = (version: string): number => {
    const k = bareKernel('1s1c1t', version);
    let late = 0;
    k.start('hog', function* (t): Code {
      yield* k.sched.userRun(t, ms(100));
    });
    k.start('sleeper', function* (t): Code {
      for (let i = 0; i < 5; i++) {
        const due = k.machine.engine.now + ms(9);
        yield* k.sched.sleep(t, ms(9));
        late = Math.max(late, k.machine.engine.now - due);
      }
    });
    k.run();
    return late;
  };
  assert.ok(delay('5.4') < ms(0.1));
  assert.ok(delay('6.12') < ms(4.2));
});

test('a parent that waits for its child goes on before it, as soon as it is woken, since 6.12', () => {
  const waited = (version: string): number => {
    const k = bareKernel('1s1c1t', version);
    let ns = 0;
    k.start('parent', function* (t): Code {
      yield* k.sched.userRun(t, ms(1));
      k.start('child', function* (child): Code {
        yield* k.sched.userRun(child, ms(0.05));
        assert.ok(k.sched.wake(t));
        yield* k.sched.userRun(child, ms(1));
      });
      yield* k.sched.userRun(t, ms(0.02));
      const began = k.machine.engine.now;
      yield* k.sched.block(t, {name: 'vfork'});
      ns = k.machine.engine.now - began;
    });
    k.run();
    return ns;
  };
  assert.ok(waited('6.12') < ms(0.1), 'it stayed where it was, and the child is ahead of it');
  assert.ok(waited('6.6') > ms(0.9), 'it is placed behind, by its lag');
});
