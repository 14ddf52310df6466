import assert from 'node:assert/strict';
import {test} from 'node:test';
import {CpuMask} from './cpumask.ts';
import {runShootdowns} from './engine.bench.ts';
import type {IpiMode} from './ipi.ts';
import {Machine} from './machine.ts';
import {loadMachine} from './machines.ts';
import type {Code} from './process.ts';

/**
 * One call from CPU 0 to all others, which work all the time. Returns when it ended and when each
 * CPU was done.
 */
function oneCall(mode: IpiMode, prepare: (machine: Machine) => void = () => {}) {
  const machine = new Machine(loadMachine('2s4c1t'), {seed: 1, ipi: mode});
  const {engine, cpus} = machine;
  const fn = machine.profile.id('f');
  const handled: number[] = [];
  const ends: number[] = [];
  let targets = 0;
  let acked = 0;
  prepare(machine);
  for (const cpu of cpus) {
    const code = function* (): Code {
      if (cpu.id === 0) {
        const all = new CpuMask(cpus.length);
        for (const other of cpus) all.add(other.id);
        targets = yield* machine.ipi.callMany(
          cpu,
          all,
          (on) => {
            handled.push(on.id);
            return 700;
          },
          fn,
        );
        acked = engine.now;
      } else {
        cpu.charge(100_000, fn);
        if (cpu.settle()) yield;
      }
      ends[cpu.id] = engine.now;
    };
    cpu.process = engine.spawn(`cpu${cpu.id}`, code(), cpu);
  }
  engine.run();
  return {targets, handled, ends, acked, machine};
}

test('one call: both forms have the same effects at the same times', () => {
  const event = oneCall('event');
  const closed = oneCall('closed');
  assert.equal(event.targets, 7);
  assert.deepEqual(event.handled, [1, 2, 3, 4, 5, 6, 7]);
  assert.deepEqual(closed.handled, event.handled);
  assert.deepEqual(closed.ends, event.ends);
  assert.equal(closed.acked, event.acked);
});

test('the sender pays for each target and waits for the last; targets lose time', () => {
  const {acked, ends, machine} = oneCall('event');
  const {ipiSendTicks, ipiDeliverTicks, ipiHandlerEntryTicks} = machine.topology;
  assert.equal(acked, 7 * ipiSendTicks + ipiDeliverTicks + ipiHandlerEntryTicks + 700);
  assert.equal(ends[3], 100_000 + ipiHandlerEntryTicks + 700);
  assert.equal(machine.cpus[3].interruptTicks, ipiHandlerEntryTicks + 700);
});

for (const mode of ['event', 'closed'] as const) {
  test(`${mode}: a CPU with interrupts off answers when it turns them on`, () => {
    let opened = 0;
    const {acked, handled} = oneCall(mode, (machine) => {
      const cpu = machine.cpus[5];
      cpu.disableInterrupts();
      machine.engine.spawn(
        'opener',
        (function* (): Code {
          if (machine.engine.advance(50_000)) yield;
          opened = machine.engine.now;
          cpu.enableInterrupts();
        })(),
      );
    });
    assert.equal(handled.length, 7);
    assert.ok(acked >= opened && acked < opened + 10_000, `${acked} after ${opened}`);
  });
}

test('64 CPUs that shoot at each other: same interrupts, same end within 0.2 %', () => {
  const event = runShootdowns('event', 20);
  const closed = runShootdowns('closed', 20);
  assert.equal(event.sent, 64 * 63 * 20);
  assert.equal(event.handled, event.sent);
  assert.equal(closed.sent, event.sent);
  assert.equal(closed.handled, event.handled);
  assert.ok(Math.abs(closed.end - event.end) < 0.002 * event.end, `${closed.end} ${event.end}`);
});
