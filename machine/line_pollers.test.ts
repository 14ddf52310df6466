import assert from 'node:assert/strict';
import {test} from 'node:test';
import fc from 'fast-check';
import {Machine} from './machine.ts';
import {loadMachine} from './machines.ts';

const machine = (): Machine => new Machine(loadMachine('4s8c1t'), {seed: 1});

test('after a write every poller has the line again, and the next write pays for it', () => {
  const {cpus, topology} = machine();
  const line = machine().line('l');
  line.write(cpus[0], 0);
  assert.equal(line.write(cpus[0], 100_000), topology.l1HitTicks);
  line.read(cpus[1], 150_000);
  line.poll(1);
  for (const now of [200_000, 300_000]) {
    assert.equal(line.write(cpus[0], now), topology.sameL3Ticks, 'the poller has a copy');
  }
  line.unpoll(1);
  assert.equal(line.write(cpus[0], 400_000), topology.l1HitTicks);
});

test('a second access right after a write still has the line', () => {
  const {cpus, topology} = machine();
  const line = machine().line('l');
  line.poll(9);
  const done = line.rmw(cpus[0], 0);
  assert.equal(line.rmw(cpus[0], done + 1), topology.atomicLocalTicks);
  assert.ok(line.rmw(cpus[0], done + 10 * topology.crossSocketTicks) > topology.atomicLocalTicks);
});

test('a storm in closed form leaves the line as one fetch after the other would', () => {
  fc.assert(
    fc.property(
      fc.uniqueArray(fc.integer({min: 0, max: 31}), {minLength: 1, maxLength: 31}),
      fc.integer({min: 0, max: 31}),
      (pollers, writer) => {
        const {cpus, topology} = machine();
        const bulk = machine().line('bulk');
        const single = machine().line('single');
        for (const cpu of pollers) bulk.poll(cpu);
        const done = bulk.write(cpus[writer], 0);
        assert.equal(single.write(cpus[writer], 0), done);
        const end = bulk.fetchAll();
        let at = done;
        for (const cpu of pollers) if (cpu !== writer) at = done + single.fetch(cpus[cpu], done);
        for (let cpu = 0; cpu < topology.cpuCount; cpu++) {
          assert.equal(bulk.holds(cpu), single.holds(cpu), `cpu ${cpu}`);
        }
        assert.equal(bulk.transfers, single.transfers);
        if (pollers.some((cpu) => cpu !== writer)) assert.equal(end, at);
        const next = cpus[(writer + 1) % 32];
        for (const cpu of pollers) bulk.unpoll(cpu);
        assert.equal(bulk.rmw(next, end + at), single.rmw(next, end + at));
      },
    ),
  );
});
