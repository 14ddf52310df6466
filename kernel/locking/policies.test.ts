import assert from 'node:assert/strict';
import {test} from 'node:test';
import {Rng} from '../../machine/rng.ts';
import type {Choice} from '../design.ts';
import {LockRig} from './rig.ts';

const FOUR_SOCKETS = 'haswell-ex-4s-e7-8895v3';

interface Outcome {
  /** Acquisitions by CPU in the order of `cpus`. */
  counts: number[];
  total: number;
  handoff: Float64Array;
  /** CPUs in the order in which they got the lock. */
  order: number[];
}

/** The CPUs loop over hold and outside work for `us` microseconds. */
function loop(policy: Choice<'spinlock'>, cpus: readonly number[], us: number, seed = 1): Outcome {
  const rig = new LockRig(FOUR_SOCKETS, policy, seed);
  const lock = rig.locks.spinlock('l');
  const counts = cpus.map(() => 0);
  const order: number[] = [];
  cpus.forEach((cpu, index) => {
    const rng = new Rng(seed, index);
    rig.start(cpu, function* (t) {
      for (;;) {
        if (!lock.acquire(t, rig.fn)) yield* lock.acquireSlow(t, rig.fn);
        counts[index]++;
        order.push(cpu);
        if (rig.work(t, 500)) yield;
        if (!lock.release(t)) yield* lock.releaseSlow(t);
        if (rig.work(t, 200 + rng.nextInt(400))) yield;
      }
    });
  });
  rig.machine.engine.run(us * 10_000);
  const {handoff} = rig.locks.report().get('l')!;
  return {counts, total: counts.reduce((a, b) => a + b, 0), handoff, order};
}

const upTo = (n: number): number[] => Array.from({length: n}, (_, cpu) => cpu);
/** The first `perSocket` CPUs of each of the four sockets, round the sockets. */
const spread = (perSocket: number): number[] =>
  upTo(perSocket * 4).map((i) => (i % 4) * 18 + (i >> 2));

test('a ticket hand-off is linear in the waiters, an MCS hand-off does not depend on them', () => {
  const perHandoff = (policy: Choice<'spinlock'>, n: number): number =>
    200_000 / loop(policy, upTo(n), 200).total;
  const ticket = [4, 8, 16].map((n) => perHandoff('ticket', n));
  const mcs = [4, 8, 16].map((n) => perHandoff('mcs', n));
  // twice the waiters: the part above the hold time (50 ns) doubles, within a quarter
  for (let i = 1; i < 3; i++) {
    const growth = (ticket[i] - 50) / (ticket[i - 1] - 50);
    assert.ok(growth > 1.6 && growth < 2.4, `ticket grew by ${growth}: ${ticket.join(' ')}`);
    assert.ok(Math.abs(mcs[i] / mcs[i - 1] - 1) < 0.05, `mcs: ${mcs.join(' ')}`);
  }
  assert.ok(
    perHandoff('ticket', 18) > 3.5 * perHandoff('mcs', 18),
    'MCS at least 3.5 times better',
  );
});

test('qspinlock does not collapse either, and a second socket costs more than a first', () => {
  const small = loop('qspinlock', upTo(4), 200).total;
  const socket = loop('qspinlock', upTo(18), 200).total;
  const machine = loop('qspinlock', spread(18), 200).total;
  assert.ok(Math.abs(socket / small - 1) < 0.1, `${small} ${socket}`);
  assert.ok(machine < 0.7 * socket, `${machine} ${socket}`);
});

for (const policy of ['ticket', 'mcs', 'qspinlock'] as const) {
  test(`${policy}: waiters are served in order of arrival`, () => {
    const rig = new LockRig(FOUR_SOCKETS, policy);
    const lock = rig.locks.spinlock('l');
    const order: number[] = [];
    const cpus = spread(5);
    cpus.forEach((cpu, index) => {
      rig.start(cpu, function* (t) {
        if (rig.work(t, 1 + index * 10_000)) yield; // far enough apart to arrive in this order
        if (!lock.acquire(t, rig.fn)) yield* lock.acquireSlow(t, rig.fn);
        order.push(index);
        if (rig.work(t, index === 0 ? 1_000_000 : 300)) yield;
        if (!lock.release(t)) yield* lock.releaseSlow(t);
      });
    });
    rig.machine.engine.run();
    assert.deepEqual(order, upTo(cpus.length));
  });

  test(`${policy}: nobody gets twice as much as another`, () => {
    const {counts} = loop(policy, spread(4), 500);
    assert.ok(Math.max(...counts) <= 2 * Math.min(...counts), counts.join(' '));
  });
}

test('tas: near CPUs win more than twice as often as a far one', () => {
  // three CPUs of one socket against one of another
  const {counts} = loop('tas', [0, 1, 2, 18], 500);
  const near = (counts[0] + counts[1] + counts[2]) / 3;
  assert.ok(near > 2 * counts[3], counts.join(' '));
});

test('tas: a hand-off costs more with every waiter', () => {
  const totals = [2, 4, 8, 16].map((n) => loop('tas', upTo(n), 200).total);
  for (let i = 1; i < totals.length; i++)
    assert.ok(totals[i] < 0.75 * totals[i - 1], totals.join(' '));
});

test('cna: the lock stays on a node while somebody there waits, yet everybody gets it', () => {
  const crossing = (handoff: Float64Array, total: number): number =>
    (handoff[4] + handoff[5]) / total;
  const stock = loop('qspinlock', spread(6), 1500);
  const cna = loop('cna', spread(6), 1500);
  assert.ok(crossing(stock.handoff, stock.total) > 0.5);
  assert.ok(crossing(cna.handoff, cna.total) < 0.1, `${crossing(cna.handoff, cna.total)}`);
  assert.ok(cna.total > 1.5 * stock.total, `${cna.total} ${stock.total}`);
});

test('cna starves nobody: the secondary queue comes back with probability 2^-16', () => {
  const {counts} = loop('cna', spread(2), 60_000);
  assert.ok(
    counts.every((count) => count > 0),
    counts.join(' '),
  );
});

test('the same seed gives the same order under the policies that draw', () => {
  for (const policy of ['tas', 'ticket', 'cna'] as const) {
    const first = loop(policy, spread(3), 50, 3);
    assert.deepEqual(loop(policy, spread(3), 50, 3).order, first.order);
  }
});

test('two CPUs share a qspinlock through the pending bit, without a queue', () => {
  const rig = new LockRig(FOUR_SOCKETS, 'qspinlock');
  const lock = rig.locks.spinlock('l');
  const events: string[] = [];
  for (let cpu = 0; cpu < 2; cpu++) {
    rig.start(cpu, function* (t) {
      if (rig.work(t, 10 + cpu * 1000)) yield;
      if (!lock.acquire(t, rig.fn)) yield* lock.acquireSlow(t, rig.fn);
      if (t.cpu.settle()) yield;
      events.push(`${cpu} at ${rig.machine.engine.now}`);
      if (rig.work(t, 20_000)) yield;
      if (!lock.release(t)) yield* lock.releaseSlow(t);
    });
  }
  rig.machine.engine.run();
  // 10 + one miss to memory; then hold, then the unlock's store (the waiter has a copy) and the
  // waiter's fetch
  const {topology} = rig.machine;
  const taken = 10 + topology.memoryTicks(0, topology.defaultHomeNode);
  const second = taken + 20_000 + 2 * topology.sameL3Ticks + topology.l1HitTicks;
  assert.deepEqual(events, [`0 at ${taken}`, `1 at ${second}`]);
});

test('a waiter in an interrupt when its turn comes is late, an earlier one does not matter', () => {
  /** When the last CPU is done, with an interrupt of the waiter `leadTicks` before the release. */
  const finish = (interruptTicks: number, leadTicks: number): number => {
    const rig = new LockRig(FOUR_SOCKETS, 'qspinlock');
    const lock = rig.locks.spinlock('l');
    rig.start(0, function* (t) {
      if (!lock.acquire(t, rig.fn)) yield* lock.acquireSlow(t, rig.fn);
      if (rig.work(t, 200_000)) yield;
      rig.machine.cpus[1].interrupt(() => interruptTicks);
      if (rig.work(t, leadTicks)) yield;
      if (!lock.release(t)) yield* lock.releaseSlow(t);
    });
    rig.start(1, function* (t) {
      if (rig.work(t, 1000)) yield;
      if (!lock.acquire(t, rig.fn)) yield* lock.acquireSlow(t, rig.fn);
      if (!lock.release(t)) yield* lock.releaseSlow(t);
    });
    return rig.machine.engine.run();
  };
  assert.ok(finish(50_000, 10) - finish(0, 10) > 45_000);
  assert.equal(finish(50_000, 100_000), finish(0, 100_000));
});
