import assert from 'node:assert/strict';
import {test} from 'node:test';
import fc from 'fast-check';
import {Rng} from '../../machine/rng.ts';
import {AXES} from '../design.ts';
import {LockRig} from './rig.ts';
import type {SpinLock} from './spinlock.ts';

const POLICIES = AXES.spinlock;
const MACHINE = '2s4c2t';

interface Plan {
  cpus: number;
  rounds: number;
  hold: number;
  outside: number;
  seed: number;
}

const plans = fc.record({
  cpus: fc.integer({min: 1, max: 16}),
  rounds: fc.integer({min: 1, max: 12}),
  hold: fc.integer({min: 0, max: 3000}),
  outside: fc.integer({min: 0, max: 6000}),
  seed: fc.integer({min: 0, max: 1e6}),
});

/**
 * Every CPU takes the lock `rounds` times, holding it and staying away for random times; a third of
 * them by irq.
 */
function torture(
  policy: (typeof POLICIES)[number],
  plan: Plan,
): {rig: LockRig; lock: SpinLock; done: number} {
  const rig = new LockRig(MACHINE, policy, plan.seed);
  const lock = rig.locks.spinlock('torture');
  const counters = {inside: 0, done: 0};
  for (let cpu = 0; cpu < plan.cpus; cpu++) {
    const rng = new Rng(plan.seed, cpu);
    rig.start(cpu, function* (t) {
      for (let round = 0; round < plan.rounds; round++) {
        const irq = rng.nextInt(3) === 0;
        if (rig.work(t, rng.nextInt(plan.outside + 1))) yield;
        const got = irq ? lock.acquireIrq(t, rig.fn) : lock.acquire(t, rig.fn);
        if (!got) yield* lock.acquireSlow(t, rig.fn);
        assert.equal(++counters.inside, 1, 'two holders');
        assert.ok(lock.isHeldBy(t));
        assert.equal(t.preemptCount, 1);
        if (rig.work(t, rng.nextInt(plan.hold + 1))) yield;
        counters.inside--;
        if (irq) {
          if (!lock.releaseIrq(t)) yield* lock.releaseIrqSlow(t);
        } else if (!lock.release(t)) yield* lock.releaseSlow(t);
        assert.equal(t.preemptCount, 0);
        assert.equal(t.cpu.irqDisabledDepth, 0);
        counters.done++;
      }
    });
  }
  rig.machine.engine.run();
  return {rig, lock, done: counters.done};
}

for (const policy of POLICIES) {
  test(`${policy}: one holder at a time, and everybody gets through`, () => {
    fc.assert(
      fc.property(plans, (plan) => {
        const {rig, lock, done} = torture(policy, plan);
        assert.equal(done, plan.cpus * plan.rounds);
        assert.equal(rig.machine.engine.live, 0);
        assert.ok(lock.isIdle);
      }),
      {numRuns: 60},
    );
  });

  test(`${policy}: statistics add up`, () => {
    fc.assert(
      fc.property(plans, (plan) => {
        const {rig, done} = torture(policy, plan);
        const stats = rig.locks.report().get('torture')!;
        assert.equal(stats.acquired, done);
        const handoffs = stats.handoff.reduce((a, b) => a + b, 0);
        assert.equal(handoffs, done - 1);
        const byCaller = [...stats.waitTicksByCaller.values()].reduce((a, b) => a + b, 0);
        assert.equal(byCaller, stats.waitTicks);
        assert.ok(stats.contended <= stats.acquired);
        assert.ok(stats.holdTicks <= rig.machine.engine.now, 'held more than all the time');
        if (plan.cpus === 1) assert.equal(stats.contended, 0);
      }),
      {numRuns: 30},
    );
  });

  test(`${policy}: the same seed gives the same digest`, () => {
    const plan = {cpus: 16, rounds: 10, hold: 900, outside: 1500, seed: 7};
    const first = torture(policy, plan).rig.machine.engine;
    const again = torture(policy, plan).rig.machine.engine;
    const other = torture(policy, {...plan, seed: 8}).rig.machine.engine;
    assert.equal(again.digest.hex(), first.digest.hex());
    assert.equal(again.now, first.now);
    assert.notEqual(other.digest.hex(), first.digest.hex());
  });

  test(`${policy}: trylock fails on a held lock and never waits`, () => {
    const rig = new LockRig(MACHINE, policy);
    const lock = rig.locks.spinlock('l');
    const got: boolean[] = [];
    rig.start(0, function* (t) {
      if (!lock.acquire(t, rig.fn)) yield* lock.acquireSlow(t, rig.fn);
      if (rig.work(t, 10000)) yield;
      if (!lock.release(t)) yield* lock.releaseSlow(t);
    });
    rig.start(1, function* (t) {
      if (rig.work(t, 5000)) yield;
      got.push(lock.tryAcquire(t, rig.fn));
      assert.equal(t.preemptCount, 0);
      if (rig.work(t, 20000)) yield;
      got.push(lock.tryAcquire(t, rig.fn));
      assert.equal(t.preemptCount, 1);
      if (!lock.release(t)) yield* lock.releaseSlow(t);
    });
    rig.machine.engine.run();
    assert.deepEqual(got, [false, true]);
  });

  test(`${policy}: a release is seen only after the releaser's earlier stores`, () => {
    fc.assert(
      fc.property(fc.integer({min: 0, max: 1e6}), fc.integer({min: 2, max: 16}), (seed, cpus) => {
        const rig = new LockRig(MACHINE, policy, seed);
        const lock = rig.locks.spinlock('l');
        const {storeBuffers, engine} = rig.machine;
        const cells = new Uint32Array(cpus + 1);
        let taken = 0;
        for (let cpu = 0; cpu < cpus; cpu++) {
          const rng = new Rng(seed, cpu);
          rig.start(cpu, function* (t) {
            if (rig.work(t, rng.nextInt(3000))) yield;
            if (!lock.acquire(t, rig.fn)) yield* lock.acquireSlow(t, rig.fn);
            if (t.cpu.settle()) yield;
            // every earlier holder's store is visible here
            for (let i = 0; i < taken; i++) {
              assert.equal(storeBuffers.load(t.cpu.id, cells, i, engine.now), 1, `store ${i}`);
            }
            storeBuffers.store(t.cpu.id, cells, taken++, 1, engine.now);
            if (rig.work(t, rng.nextInt(50))) yield;
            if (!lock.release(t)) yield* lock.releaseSlow(t);
          });
        }
        engine.run();
        assert.equal(taken, cpus);
      }),
      {numRuns: 60},
    );
  });
}

test('a releaser goes on before its release is visible', () => {
  const rig = new LockRig(MACHINE, 'qspinlock');
  const lock = rig.locks.spinlock('l');
  const {storeBuffers, engine} = rig.machine;
  let releasedTick = 0;
  let visibleTick = 0;
  let takenTick = 0;
  rig.start(0, function* (t) {
    if (!lock.acquire(t, rig.fn)) yield* lock.acquireSlow(t, rig.fn);
    if (rig.work(t, 5000)) yield;
    storeBuffers.store(0, new Uint32Array(1), 0, 1, engine.now);
    visibleTick = storeBuffers.drainedBy(0);
    if (!lock.release(t)) yield* lock.releaseSlow(t);
    releasedTick = engine.now;
  });
  rig.start(1, function* (t) {
    if (rig.work(t, 100)) yield;
    if (!lock.acquire(t, rig.fn)) yield* lock.acquireSlow(t, rig.fn);
    takenTick = engine.now;
    if (!lock.release(t)) yield* lock.releaseSlow(t);
  });
  engine.run();
  assert.ok(releasedTick < visibleTick, 'the store buffer drained at once');
  assert.ok(takenTick > visibleTick, `taken at ${takenTick}, visible at ${visibleTick}`);
});

test('a deadlock shows who holds the lock', () => {
  const rig = new LockRig(MACHINE, 'qspinlock');
  const lock = rig.locks.spinlock('pgd_lock');
  rig.start(0, function* (t) {
    if (!lock.acquire(t, rig.fn)) yield* lock.acquireSlow(t, rig.fn);
    t.process!.park({name: 'a page'});
    yield;
  });
  rig.start(1, function* (t) {
    if (rig.work(t, 1000)) yield;
    if (!lock.acquire(t, rig.fn)) yield* lock.acquireSlow(t, rig.fn);
  });
  assert.throws(() => rig.machine.engine.run(), /task2 waits for pgd_lock, held by task1/);
});

test('interrupts wait while they are off in spin_lock_irq', () => {
  const rig = new LockRig(MACHINE, 'qspinlock');
  const lock = rig.locks.spinlock('l');
  let handledInside = 0;
  let inside = false;
  rig.start(0, function* (t) {
    if (!lock.acquireIrq(t, rig.fn)) yield* lock.acquireSlow(t, rig.fn);
    inside = true;
    if (rig.work(t, 5000)) yield;
    inside = false;
    if (!lock.releaseIrq(t)) yield* lock.releaseIrqSlow(t);
    if (rig.work(t, 10)) yield;
  });
  rig.start(1, function* (t) {
    if (rig.work(t, 2000)) yield;
    const handler = (): number => {
      if (inside) handledInside++;
      return 10;
    };
    assert.equal(rig.machine.cpus[0].interrupt(handler), false);
  });
  rig.machine.engine.run();
  assert.equal(handledInside, 0);
  assert.ok(rig.machine.cpus[0].interruptTicks > 0, 'the interrupt was lost');
});
