// Host cost of locks: the uncontended pair inside a process, as shipped, and a contended hand-off.

import type {Choice} from '../design.ts';
import type {BulkLock} from './bulk_lock.ts';
import {LockRig} from './rig.ts';
import type {SpinLock} from './spinlock.ts';

const PAIRS = 100_000;
const MACHINE = '2s8c2t';

/**
 * Made when a benchmark first runs: machines that others made before would change what V8 knows of
 * the classes.
 */
function make(
  policy: Choice<'spinlock'>,
  bulk: boolean,
): {rig: LockRig; lock: SpinLock | BulkLock} {
  const rig = new LockRig(MACHINE, policy);
  return {rig, lock: bulk ? rig.locks.bulk('l', 0) : rig.locks.spinlock('l')};
}

/** Lock and unlock of one CPU that never has to wait. */
function uncontended(policy: Choice<'spinlock'>, bulk: boolean): () => void {
  let made: {rig: LockRig; lock: SpinLock | BulkLock} | null = null;
  return () => {
    made ??= make(policy, bulk);
    const {rig, lock} = made;
    rig.start(0, function* (t) {
      for (let i = 0; i < PAIRS; i++) {
        if (!lock.acquire(t, rig.fn)) yield* lock.acquireSlow(t, rig.fn);
        if (!lock.release(t)) yield* lock.releaseSlow(t);
      }
    });
    rig.machine.engine.run();
  };
}

/** Sixteen CPUs that fight for one lock; one call is 16,000 acquisitions. */
function contended(policy: Choice<'spinlock'>): () => void {
  let made: {rig: LockRig; lock: SpinLock | BulkLock} | null = null;
  return () => {
    made ??= make(policy, false);
    const {rig, lock} = made;
    for (let cpu = 0; cpu < 16; cpu++) {
      rig.start(cpu, function* (t) {
        for (let i = 0; i < 1000; i++) {
          if (!lock.acquire(t, rig.fn)) yield* lock.acquireSlow(t, rig.fn);
          if (rig.work(t, 500)) yield;
          if (!lock.release(t)) yield* lock.releaseSlow(t);
          if (rig.work(t, 1000)) yield;
        }
      });
    }
    rig.machine.engine.run();
  };
}

/** Benchmarks of `kernel/locking`; `perCall` units per call of `fn`. */
export const benches: readonly {name: string; unit: string; perCall: number; fn: () => void}[] = [
  {
    name: 'uncontended lock + unlock',
    unit: 'pairs',
    perCall: PAIRS,
    fn: uncontended('qspinlock', false),
  },
  {
    name: 'uncontended bulk lock + unlock',
    unit: 'pairs',
    perCall: PAIRS,
    fn: uncontended('qspinlock', true),
  },
  {name: 'contended qspinlock', unit: 'acquisitions', perCall: 16_000, fn: contended('qspinlock')},
  {name: 'contended ticket lock', unit: 'acquisitions', perCall: 16_000, fn: contended('ticket')},
  {name: 'contended cna lock', unit: 'acquisitions', perCall: 16_000, fn: contended('cna')},
];
