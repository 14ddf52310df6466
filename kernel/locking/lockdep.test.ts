import assert from 'node:assert/strict';
import {test} from 'node:test';
import type {Code} from '../../machine/process.ts';
import type {Task} from '../task.ts';
import type {Lockdep} from './lockdep.ts';
import {LockRig} from './rig.ts';
import type {SpinLock} from './spinlock.ts';

function watched(): {rig: LockRig; lockdep: Lockdep} {
  const rig = new LockRig('2s4c1t', 'qspinlock');
  return {rig, lockdep: rig.locks.enableLockdep()};
}

/** Takes the locks in order and lets them go again, alone on CPU 0. */
function takeInOrder(rig: LockRig, locks: readonly SpinLock[], subclass = 0): void {
  rig.start(0, function* (t: Task): Code {
    for (const [i, lock] of locks.entries()) {
      if (!lock.acquire(t, rig.fn, i === 0 ? 0 : subclass)) yield* lock.acquireSlow(t, rig.fn);
    }
    for (const lock of [...locks].reverse()) if (!lock.release(t)) yield* lock.releaseSlow(t);
  });
  rig.machine.engine.run();
}

test('two orders that were never in each other’s way are a possible deadlock', () => {
  const {rig, lockdep} = watched();
  const [a, b, c] = ['a', 'b', 'c'].map((name) => rig.locks.spinlock(name));
  takeInOrder(rig, [a, b]);
  takeInOrder(rig, [b, c]);
  assert.equal(rig.checks.lockdep, 0);
  takeInOrder(rig, [c, a]);
  assert.equal(rig.checks.lockdep, 1);
  assert.deepEqual(rig.checks.findings, [
    'lockdep: possible circular locking dependency: task3/3 takes a in rig holding c; ' +
      'existing chain: a -> b (rig) -> c (rig)',
  ]);
  assert.equal(lockdep.active, false);
  takeInOrder(rig, [b, a]);
  assert.equal(rig.checks.lockdep, 1, 'reports only once');
});

test('one order everywhere is fine', () => {
  const {rig, lockdep} = watched();
  const [a, b] = ['a', 'b'].map((name) => rig.locks.spinlock(name));
  for (let i = 0; i < 3; i++) takeInOrder(rig, [a, b]);
  assert.equal(rig.checks.lockdep, 0);
  assert.ok(lockdep.hasEdge(rig.locks.classId('a'), rig.locks.classId('b')));
  assert.ok(!lockdep.hasEdge(rig.locks.classId('b'), rig.locks.classId('a')));
});

test('two locks of one class need a nesting annotation', () => {
  for (const subclass of [0, 1]) {
    const {rig} = watched();
    const [a, b] = ['ptl a', 'ptl b'].map((name) => rig.locks.spinlock(name, {class: 'ptl'}));
    takeInOrder(rig, [a, b], subclass);
    assert.equal(rig.checks.lockdep, subclass === 0 ? 1 : 0);
    if (subclass === 0)
      assert.match(rig.checks.findings[0], /possible recursive locking.*takes ptl in rig/);
  }
});

test('a trylock adds no edge to itself, but what is taken under it does', () => {
  const {rig, lockdep} = watched();
  const [a, b, c] = ['a', 'b', 'c'].map((name) => rig.locks.spinlock(name));
  rig.start(0, function* (t) {
    if (!a.acquire(t, rig.fn)) yield* a.acquireSlow(t, rig.fn);
    if (t.cpu.settle()) yield;
    assert.ok(b.tryAcquire(t, rig.fn));
    if (!c.acquire(t, rig.fn)) yield* c.acquireSlow(t, rig.fn);
    for (const lock of [c, b, a]) if (!lock.release(t)) yield* lock.releaseSlow(t);
  });
  rig.machine.engine.run();
  const id = (name: string): number => rig.locks.classId(name);
  assert.ok(!lockdep.hasEdge(id('a'), id('b')));
  assert.ok(lockdep.hasEdge(id('b'), id('c')));
  assert.ok(lockdep.hasEdge(id('a'), id('c')));
});

test('a sleeping lock under a spinlock is an invalid wait context', () => {
  const {rig, lockdep} = watched();
  const ptl = rig.locks.spinlock('ptl');
  const mutex = rig.locks.classId('i_mmap_rwsem');
  rig.start(0, function* (t) {
    lockdep.acquire(t, mutex, rig.fn, {sleeping: true});
    if (!ptl.acquire(t, rig.fn)) yield* ptl.acquireSlow(t, rig.fn);
    if (!ptl.release(t)) yield* ptl.releaseSlow(t);
    lockdep.release(t, mutex);
    assert.equal(rig.checks.lockdep, 0);
    if (!ptl.acquire(t, rig.fn)) yield* ptl.acquireSlow(t, rig.fn);
    lockdep.acquire(t, mutex, rig.fn, {sleeping: true});
  });
  rig.machine.engine.run();
  assert.match(
    rig.checks.findings[0],
    /invalid wait context.*i_mmap_rwsem.*holding the spinlock ptl/,
  );
});

test('fs_reclaim and the notifier map: an allocation under a lock that callbacks take', () => {
  const {rig, lockdep} = watched();
  const [reclaim, map] = ['fs_reclaim', 'mmu_notifier_invalidate_range_start'].map((name) =>
    rig.locks.classId(name),
  );
  const driver = rig.locks.classId('driver_lock');
  rig.start(0, function* (t) {
    if (t.cpu.settle()) yield;
    // registration primes the order reclaim -> map; a callback takes the driver's mutex
    lockdep.acquire(t, reclaim, rig.fn, {pseudo: true});
    lockdep.acquire(t, map, rig.fn, {pseudo: true});
    lockdep.release(t, map);
    lockdep.release(t, reclaim);
    lockdep.acquire(t, map, rig.fn, {pseudo: true});
    lockdep.acquire(t, driver, rig.fn, {sleeping: true});
    lockdep.release(t, driver);
    lockdep.release(t, map);
    assert.equal(rig.checks.lockdep, 0);
    lockdep.acquire(t, driver, rig.fn, {sleeping: true});
    lockdep.acquire(t, reclaim, rig.fn, {pseudo: true});
  });
  rig.machine.engine.run();
  assert.match(
    rig.checks.findings[0],
    /takes fs_reclaim in rig holding driver_lock; existing chain: fs_reclaim -> /,
  );
});

test('rwlock readers may nest in one class', () => {
  const {rig} = watched();
  const lock = rig.locks.rwlock('tasklist_lock');
  rig.start(0, function* (t) {
    for (let i = 0; i < 2; i++) {
      if (!lock.readAcquire(t, rig.fn)) yield* lock.readAcquireSlow(t, rig.fn);
    }
    for (let i = 0; i < 2; i++) {
      if (!lock.readRelease(t)) yield* lock.readReleaseSlow(t);
    }
  });
  rig.machine.engine.run();
  assert.equal(rig.checks.lockdep, 0);
});
