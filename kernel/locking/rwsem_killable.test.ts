import assert from 'node:assert/strict';
import {test} from 'node:test';
import fc from 'fast-check';
import type {Code} from '../../machine/process.ts';
import {nsToTicks} from '../../machine/time.ts';
import {type BareKernel, bareKernel} from '../sched/testing.ts';
import type {Task} from '../task.ts';
import {RwSemaphore} from './rwsem.ts';

const us = (n: number): number => nsToTicks(n * 1e3);

/** A semaphore that shows its queue: task numbers in order. */
class Shown extends RwSemaphore {
  get queue(): number[] {
    return this.waiters.map(({task}) => task.tid);
  }
  get handoffAsked(): boolean {
    return this.handoff;
  }
}

/** What send_sig does to a task that sleeps. */
function kill(k: BareKernel, t: Task): void {
  t.sigkill = true;
  if (t.state === 'sleeping' && (t.se.interruptible || t.se.killable)) k.sched.wake(t);
}

/** One task of a random run, times in us. */
interface Plan {
  readonly startUs: number;
  readonly holdUs: number;
  readonly writes: boolean;
  /** After the start of the task, 0: not killed. */
  readonly killUs: number;
}

const PLAN: fc.Arbitrary<Plan> = fc.record({
  startUs: fc.integer({min: 1, max: 400}),
  holdUs: fc.integer({min: 1, max: 6000}),
  writes: fc.boolean(),
  killUs: fc.oneof(fc.constant(0), fc.integer({min: 1, max: 9000})),
});

interface Run {
  readonly k: BareKernel;
  readonly sem: Shown;
  /** By task: us from the kill to the end of the wait that it ended; -1: it got the lock. */
  readonly gaveUpUs: number[];
  readonly log: string;
}

/** Runs the plans; asserts exclusion and the order of the queue on the way. */
function run(version: string, plans: readonly Plan[], cpus: string): Run {
  const k = bareKernel(cpus, version);
  const sem = new Shown(k.kernel, 's');
  const fn = k.kernel.fn('test');
  const {engine} = k.machine;
  const log: string[] = [];
  const gaveUpUs = plans.map(() => Number.NaN);
  let seen: number[] = [];
  const look = (): void => {
    const now = sem.queue;
    const kept = now.filter((tid) => seen.includes(tid));
    assert.deepEqual(
      kept,
      seen.filter((tid) => now.includes(tid)),
      'a waiter has lost or won a place',
    );
    assert.deepEqual(now.slice(0, kept.length), kept, 'a new waiter came in before others');
    seen = now;
  };
  let readers = 0;
  let writers = 0;
  let running = plans.length;
  plans.forEach((plan, i) => {
    let killedAt = 0;
    const t = k.start(`t${i}`, function* (self: Task): Code {
      yield* k.sched.sleep(self, us(plan.startUs));
      const fast = plan.writes ? sem.writeAcquire(self, fn) : sem.readAcquire(self, fn);
      const slow = plan.writes ? sem.writeAcquireSlow : sem.readAcquireSlow;
      const taken = fast || (yield* slow.call(sem, self, fn, true));
      if (self.cpu.settle()) yield;
      look();
      log.push(`${self.tid} ${taken} ${engine.now}`);
      gaveUpUs[i] = taken ? -1 : (engine.now - killedAt) / us(1);
      if (taken) {
        if (plan.writes) assert.deepEqual([readers, ++writers], [0, 1]);
        else assert.deepEqual([++readers > 0, writers], [true, 0]);
        yield* k.sched.sleep(self, us(plan.holdUs));
        if (plan.writes) {
          writers--;
          if (!sem.writeRelease(self)) yield* sem.writeReleaseSlow(self);
        } else {
          readers--;
          if (!sem.readRelease(self)) yield* sem.readReleaseSlow(self);
        }
      }
      running--;
    });
    if (plan.killUs === 0) return;
    k.start(`k${i}`, function* (killer: Task): Code {
      yield* k.sched.sleep(killer, us(plan.startUs + plan.killUs));
      killedAt = engine.now;
      kill(k, t);
    });
  });
  k.start('monitor', function* (t: Task): Code {
    while (running > 0) {
      yield* k.sched.sleep(t, us(7));
      look();
    }
  });
  k.run();
  assert.equal(running, 0, 'somebody waits for ever');
  assert.equal(engine.live, 0);
  assert.deepEqual(sem.queue, []);
  assert.equal(sem.handoffAsked, false);
  assert.equal(k.checks.sleepInAtomic, 0, k.checks.findings.join('\n'));
  return {k, sem, gaveUpUs, log: log.join('\n')};
}

for (const version of ['4.1', '4.13', '4.19', '5.4', '6.18']) {
  test(`${version}: killed waiters leave the queue, the others keep their places`, () => {
    let gaveUp = 0;
    fc.assert(
      fc.property(fc.array(PLAN, {minLength: 2, maxLength: 14}), (plans) => {
        const {gaveUpUs} = run(version, plans, '1s4c1t');
        gaveUpUs.forEach((wait, i) => {
          if (wait === -1) return;
          gaveUp++;
          assert.ok(plans[i].killUs > 0 && wait < 100, `left ${wait} us after the kill`);
          assert.ok(version !== '4.1', 'no killable waits before 4.7');
          assert.ok(version !== '4.13' || plans[i].writes, 'no killable readers before 4.15');
        });
      }),
      {numRuns: 60, seed: 20261121},
    );
    assert.equal(gaveUp > 0, version !== '4.1', `${gaveUp} gave up`);
  });
}

test('the same run twice is the same run', () => {
  const plans = fc.sample(PLAN, {numRuns: 40, seed: 7});
  assert.equal(run('6.18', plans, '2s4c2t').log, run('6.18', plans, '2s4c2t').log);
});

/**
 * A writer and then a reader queue behind a reader that sleeps; the writer is killed after 1 ms.
 */
function readerBehindKilledWriter(version: string): number {
  const k = bareKernel('1s4c1t', version);
  const sem = new Shown(k.kernel, 's');
  const fn = k.kernel.fn('test');
  let gotIn = -1;
  k.start('holder', function* (t: Task): Code {
    if (!sem.readAcquire(t, fn)) yield* sem.readAcquireSlow(t, fn);
    yield* k.sched.sleep(t, us(10_000));
    if (!sem.readRelease(t)) yield* sem.readReleaseSlow(t);
  });
  const writer = k.start('writer', function* (t: Task): Code {
    yield* k.sched.sleep(t, us(100));
    if (sem.writeAcquire(t, fn)) return;
    assert.equal(yield* sem.writeAcquireSlow(t, fn, true), false);
  });
  k.start('reader', function* (t: Task): Code {
    yield* k.sched.sleep(t, us(200));
    if (!sem.readAcquire(t, fn)) yield* sem.readAcquireSlow(t, fn);
    gotIn = k.machine.engine.now / us(1);
    if (!sem.readRelease(t)) yield* sem.readReleaseSlow(t);
  });
  k.start('killer', function* (t: Task): Code {
    yield* k.sched.sleep(t, us(1000));
    kill(k, writer);
  });
  k.run();
  return gotIn;
}

test('a killed writer lets the readers behind it in', () => {
  for (const version of ['4.19', '5.4', '6.18']) {
    const gotIn = readerBehindKilledWriter(version);
    assert.ok(gotIn > 1000 && gotIn < 1100, `${version}: ${gotIn} us`);
  }
});

test('a hand-off that a killed writer asked for: taken along to 5.15, inherited since', () => {
  const afterKill = (version: string): boolean => {
    const k = bareKernel('1s4c1t', version);
    const sem = new Shown(k.kernel, 's');
    const fn = k.kernel.fn('test');
    let asked = false;
    k.start('holder', function* (t: Task): Code {
      if (!sem.writeAcquire(t, fn)) yield* sem.writeAcquireSlow(t, fn);
      yield* k.sched.sleep(t, us(20_000));
      if (!sem.writeRelease(t)) yield* sem.writeReleaseSlow(t);
    });
    const writers = [100, 5900].map((at) =>
      k.start(`w${at}`, function* (t: Task): Code {
        yield* k.sched.sleep(t, us(at));
        if (sem.writeAcquire(t, fn)) return;
        if (!(yield* sem.writeAcquireSlow(t, fn, true))) return;
        if (!sem.writeRelease(t)) yield* sem.writeReleaseSlow(t);
      }),
    );
    k.start('killer', function* (t: Task): Code {
      // After 4 ms the first waiter asks for the lock when it looks at it.
      yield* k.sched.sleep(t, us(6000));
      k.sched.wake(writers[0]);
      yield* k.sched.sleep(t, us(1000));
      assert.equal(sem.handoffAsked, true);
      kill(k, writers[0]);
      yield* k.sched.sleep(t, us(50));
      asked = sem.handoffAsked;
    });
    k.run();
    assert.equal(k.machine.engine.live, 0);
    return asked;
  };
  assert.equal(afterKill('5.5'), false);
  assert.equal(afterKill('6.6'), true);
});
