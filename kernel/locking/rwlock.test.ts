import assert from 'node:assert/strict';
import {test} from 'node:test';
import fc from 'fast-check';
import {Rng} from '../../machine/rng.ts';
import {AXES} from '../design.ts';
import {LockRig} from './rig.ts';

for (const policy of AXES.spinlock) {
  test(`rwlock over ${policy}: writers alone, readers together, everybody gets through`, () => {
    fc.assert(
      fc.property(
        fc.integer({min: 1, max: 16}),
        fc.integer({min: 0, max: 10}),
        fc.integer({min: 0, max: 1e6}),
        (cpus, writersInTen, seed) => {
          const rig = new LockRig('2s4c2t', policy, seed);
          const lock = rig.locks.rwlock('tasklist_lock');
          const cells = new Uint32Array(1);
          const {storeBuffers, engine} = rig.machine;
          let readers = 0;
          let writers = 0;
          let writes = 0;
          let done = 0;
          for (let cpu = 0; cpu < cpus; cpu++) {
            const rng = new Rng(seed, cpu);
            rig.start(cpu, function* (t) {
              for (let round = 0; round < 8; round++) {
                if (rig.work(t, rng.nextInt(3000))) yield;
                if (rng.nextInt(10) < writersInTen) {
                  if (!lock.writeAcquireIrq(t, rig.fn)) yield* lock.writeAcquireSlow(t, rig.fn);
                  assert.equal(++writers, 1);
                  assert.equal(readers, 0);
                  assert.ok(lock.isWrittenBy(t));
                  if (t.cpu.settle()) yield;
                  assert.equal(storeBuffers.load(cpu, cells, 0, engine.now), writes, 'lost write');
                  storeBuffers.store(cpu, cells, 0, ++writes, engine.now);
                  if (rig.work(t, rng.nextInt(1000))) yield;
                  writers--;
                  if (!lock.writeReleaseIrq(t)) yield* lock.writeReleaseIrqSlow(t);
                } else {
                  if (!lock.readAcquire(t, rig.fn)) yield* lock.readAcquireSlow(t, rig.fn);
                  readers++;
                  assert.equal(writers, 0);
                  if (rig.work(t, rng.nextInt(2000))) yield;
                  assert.equal(storeBuffers.load(cpu, cells, 0, engine.now), writes);
                  readers--;
                  if (!lock.readRelease(t)) yield* lock.readReleaseSlow(t);
                }
                assert.equal(t.preemptCount, 0);
                assert.equal(t.cpu.irqDisabledDepth, 0);
                done++;
              }
            });
          }
          engine.run();
          assert.equal(done, cpus * 8);
          const report = rig.locks.report();
          const count = (name: string): number => report.get(name)?.acquired ?? 0;
          assert.equal(count('tasklist_lock-R') + count('tasklist_lock-W'), done);
          for (const row of report.values()) {
            const waits = [...row.waitTicksByCaller.values()].reduce((a, b) => a + b, 0);
            assert.equal(waits, row.waitTicks);
            assert.ok(row.holdTicks >= 0);
          }
        },
      ),
      {numRuns: 50},
    );
  });
}

test('a waiting writer stops readers that come later', () => {
  const rig = new LockRig('2s4c1t', 'qspinlock');
  const lock = rig.locks.rwlock('l');
  const order: string[] = [];
  const reader = (cpu: number, startTick: number, holdTicks: number, name: string): void => {
    rig.start(cpu, function* (t) {
      if (rig.work(t, startTick)) yield;
      if (!lock.readAcquire(t, rig.fn)) yield* lock.readAcquireSlow(t, rig.fn);
      order.push(name);
      if (rig.work(t, holdTicks)) yield;
      if (!lock.readRelease(t)) yield* lock.readReleaseSlow(t);
    });
  };
  reader(0, 1, 100_000, 'first reader');
  reader(1, 5000, 10, 'second reader');
  rig.start(2, function* (t) {
    if (rig.work(t, 20_000)) yield;
    if (!lock.writeAcquire(t, rig.fn)) yield* lock.writeAcquireSlow(t, rig.fn);
    order.push('writer');
    if (rig.work(t, 1000)) yield;
    if (!lock.writeRelease(t)) yield* lock.writeReleaseSlow(t);
  });
  reader(3, 40_000, 10, 'late reader');
  rig.machine.engine.run();
  assert.deepEqual(order, ['first reader', 'second reader', 'writer', 'late reader']);
});

test('waiting shows in the profile under the function that spins', () => {
  const rig = new LockRig('2s4c1t', 'qspinlock');
  const lock = rig.locks.rwlock('l');
  for (let cpu = 0; cpu < 4; cpu++) {
    rig.start(cpu, function* (t) {
      if (rig.work(t, 1 + cpu)) yield;
      if (!lock.writeAcquire(t, rig.fn)) yield* lock.writeAcquireSlow(t, rig.fn);
      if (rig.work(t, 10_000)) yield;
      if (!lock.writeRelease(t)) yield* lock.writeReleaseSlow(t);
    });
  }
  rig.machine.engine.run();
  assert.ok(rig.machine.profile.ticksOf('queued_write_lock_slowpath') > 10_000);
  assert.ok(rig.machine.profile.ticksOf('queued_spin_lock_slowpath') > 10_000);
});
