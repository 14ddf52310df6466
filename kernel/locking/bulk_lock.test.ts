import assert from 'node:assert/strict';
import {test} from 'node:test';
import fc from 'fast-check';
import {Rng} from '../../machine/rng.ts';
import {AXES} from '../design.ts';
import {LockRig} from './rig.ts';

for (const policy of AXES.spinlock) {
  test(`bulk locks under ${policy}: one holder at a time, statistics of the class`, () => {
    fc.assert(
      fc.property(
        fc.integer({min: 1, max: 12}),
        fc.integer({min: 1, max: 4}),
        fc.integer({min: 0, max: 1e6}),
        fc.boolean(),
        (cpus, lockCount, seed, stores) => {
          const rig = new LockRig('2s4c2t', policy, seed);
          const locks = Array.from({length: lockCount}, (_, i) => rig.locks.bulk('ptl', i % 2));
          const inside = locks.map(() => 0);
          const cells = new Uint32Array(1);
          let done = 0;
          for (let cpu = 0; cpu < cpus; cpu++) {
            const rng = new Rng(seed, cpu);
            rig.start(cpu, function* (t) {
              for (let round = 0; round < 8; round++) {
                if (rig.work(t, rng.nextInt(2000))) yield;
                const which = rng.nextInt(lockCount);
                const lock = locks[which];
                if (!lock.acquire(t, rig.fn)) yield* lock.acquireSlow(t, rig.fn);
                assert.equal(++inside[which], 1, 'two holders');
                assert.ok(lock.isHeldBy(t));
                if (rig.work(t, rng.nextInt(1500))) yield;
                if (stores)
                  rig.machine.storeBuffers.store(cpu, cells, 0, 1, rig.machine.engine.now);
                inside[which]--;
                if (!lock.release(t)) yield* lock.releaseSlow(t);
                assert.equal(t.preemptCount, 0);
                done++;
              }
            });
          }
          rig.machine.engine.run();
          assert.equal(done, cpus * 8);
          const stats = rig.locks.report().get('ptl')!;
          assert.equal(stats.acquired, done);
          assert.ok(locks.every((lock) => !lock.isHeld || stores));
          const handoffs = stats.handoff.reduce((a, b) => a + b, 0);
          assert.ok(handoffs <= done && handoffs >= done - lockCount);
        },
      ),
      {numRuns: 40},
    );
  });
}

test('a bulk lock borrows a full lock while contended and gives it back', () => {
  const rig = new LockRig('2s4c1t', 'qspinlock');
  const lock = rig.locks.bulk('ptl', 0);
  let queueSeen = false;
  for (let cpu = 0; cpu < 4; cpu++) {
    rig.start(cpu, function* (t) {
      if (rig.work(t, 1 + cpu)) yield;
      if (!lock.acquire(t, rig.fn)) yield* lock.acquireSlow(t, rig.fn);
      if (rig.work(t, 20_000)) yield;
      queueSeen ||= lock.isBorrowing;
      if (!lock.release(t)) yield* lock.releaseSlow(t);
    });
  }
  rig.machine.engine.run();
  assert.ok(queueSeen);
  assert.equal(lock.isBorrowing, false);
  lock.destroy();
});

test('trylock of a bulk lock', () => {
  const rig = new LockRig('2s4c1t', 'qspinlock');
  const lock = rig.locks.bulk('ptl', 0);
  const got: boolean[] = [];
  rig.start(0, function* (t) {
    got.push(lock.tryAcquire(t, rig.fn));
    if (rig.work(t, 10_000)) yield;
    if (!lock.release(t)) yield* lock.releaseSlow(t);
  });
  rig.start(1, function* (t) {
    if (rig.work(t, 5000)) yield;
    got.push(lock.tryAcquire(t, rig.fn));
    assert.equal(t.preemptCount, 0);
  });
  rig.machine.engine.run();
  assert.deepEqual(got, [true, false]);
});
