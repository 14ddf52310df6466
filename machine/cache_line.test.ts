import assert from 'node:assert/strict';
import {test} from 'node:test';
import fc from 'fast-check';
import {CacheLine} from './cache_line.ts';
import {Machine} from './machine.ts';
import {loadMachine} from './machines.ts';

const MACHINES = ['1s2c2t', '2s4c1t', '2s4l8c2t', '4s2c1t'];

for (const name of MACHINES) {
  const machine = new Machine(loadMachine(name), {seed: 1});
  const {topology, cpus} = machine;
  const access = fc.record({
    cpu: fc.nat(cpus.length - 1),
    how: fc.constantFrom('read', 'write', 'rmw'),
    wait: fc.nat(3000),
  });

  test(`${name}: after any history a writer is the only holder, a reader is a holder`, () => {
    fc.assert(
      fc.property(
        fc.array(access, {maxLength: 60}),
        fc.nat(topology.nodeCount - 1),
        (steps, home) => {
          const line = new CacheLine('l', topology, home);
          let now = 0;
          for (const {cpu, how, wait} of steps) {
            now += wait;
            const held = line.holds(cpu);
            const exclusive = line.isExclusiveTo(cpu);
            const before = line.transfers;
            const ticks = line[how as 'read'](cpus[cpu], now);
            assert.ok(Number.isInteger(ticks) && ticks > 0);
            assert.ok(line.holds(cpu));
            const others = cpus.filter((other) => other.id !== cpu && line.holds(other.id));
            if (how === 'read') {
              assert.equal(line.transfers - before, held ? 0 : 1);
              if (held) assert.equal(ticks, topology.l1HitTicks);
            } else {
              assert.equal(others.length, 0);
              assert.ok(line.isExclusiveTo(cpu));
              assert.equal(line.owner, cpu);
              assert.equal(line.transfers - before, exclusive ? 0 : 1);
              const local = how === 'rmw' ? topology.atomicLocalTicks : topology.l1HitTicks;
              if (exclusive) assert.equal(ticks, local);
            }
            assert.ok(cpus.filter((other) => line.isExclusiveTo(other.id)).length <= 1);
          }
        },
      ),
    );
  });

  test(`${name}: transfers of one line do not overlap`, () => {
    fc.assert(
      fc.property(fc.array(access, {minLength: 2, maxLength: 60}), (steps) => {
        const line = new CacheLine('l', topology, 0);
        let now = 0;
        let served = 0;
        for (const {cpu, how, wait} of steps) {
          if (how === 'read') continue;
          now += wait % 100;
          const moves = !line.isExclusiveTo(cpu);
          const done = now + line[how as 'write'](cpus[cpu], now);
          if (!moves) continue;
          assert.ok(done > served, 'a later request is done later');
          assert.ok(done - Math.max(now, served) > 0);
          assert.equal(line.busyUntil, done);
          served = done;
        }
      }),
    );
  });
}

test('a line passed between two CPUs costs the distance between them', () => {
  const machine = new Machine(loadMachine('2s4c2t'), {seed: 1});
  const {topology, cpus} = machine;
  const cost = (from: number, to: number): number => {
    const line = new CacheLine('l', topology, 0);
    line.rmw(cpus[from], 0);
    return line.rmw(cpus[to], 1e6);
  };
  assert.equal(cost(0, 0), topology.atomicLocalTicks);
  assert.equal(cost(0, 8), topology.smtTicks);
  assert.equal(cost(0, 1), topology.sameL3Ticks);
  assert.equal(cost(0, 4), topology.crossSocketTicks);
});

test('an untouched line comes from memory, near or far', () => {
  const machine = new Machine(loadMachine('2s4c1t'), {seed: 1});
  const {topology, cpus} = machine;
  const first = (cpu: number, home: number): number =>
    new CacheLine('l', topology, home).read(cpus[cpu], 0);
  assert.equal(first(0, 0), topology.memoryLocalTicks);
  assert.equal(first(0, 1), topology.memoryRemoteTicks);
});
