import assert from 'node:assert/strict';
import {test} from 'node:test';
import fc from 'fast-check';
import {loadMachine, machineNames} from './machines.ts';
import {placement, PLACEMENTS} from './placement.ts';
import {LINK_KINDS, socketHops} from './spec_types.ts';
import {DISTANCE_NAMES, Topology} from './topology.ts';

const shorthand = fc
  .tuple(
    fc.constantFrom(1, 2, 3, 4, 5, 6, 8),
    fc.integer({min: 1, max: 4}),
    fc.integer({min: 1, max: 4}),
    fc.integer({min: 1, max: 3}),
  )
  .map(([s, l, c, t]) => `${s}s${l}l${l * c}c${t}t@rome-2s-7742`);

test('CPUs are numbered as Linux numbers them', () => {
  const icelake = loadMachine('icelake-2s-6336y');
  assert.equal(icelake.cpuCount, 96);
  assert.deepEqual([...icelake.siblings[0]], [0, 48]);
  assert.deepEqual([...icelake.siblings[95]], [47, 95]);
  assert.equal(icelake.siblingOf(47), 95);
  assert.equal(icelake.siblingOf(95), 47);
  assert.equal(icelake.socketOf[23], 0);
  assert.equal(icelake.socketOf[24], 1);
  assert.equal(icelake.socketOf[71], 0);
  assert.equal(icelake.threadOf[71], 1);
  assert.equal(loadMachine('westmere-ex-8s-80c').siblingOf(3), -1);
});

test('distances by example', () => {
  const at = (machine: string, a: number, b: number): string =>
    DISTANCE_NAMES[loadMachine(machine).distance(a, b)];
  assert.equal(at('milan-2s-7763', 5, 5), 'self');
  assert.equal(at('milan-2s-7763', 5, 133), 'smt');
  assert.equal(at('milan-2s-7763', 0, 7), 'l3');
  assert.equal(at('milan-2s-7763', 0, 8), 'socket');
  assert.equal(at('milan-2s-7763', 0, 64), 'cross');
  assert.equal(at('haswell-ex-4s-e7-8895v3', 0, 54), 'cross');
  assert.equal(at('westmere-ex-8s-80c', 0, 79), 'two_hop');
});

test('transfers cost what the file says, by home node inside a socket', () => {
  const rome = loadMachine('rome-2s-7742');
  assert.equal(rome.transferTicks(0, 128, 0), 80);
  assert.equal(rome.transferTicks(0, 1, 1), 253);
  assert.equal(rome.transferTicks(0, 4, 0), 1321);
  assert.equal(rome.transferTicks(0, 4, 1), 2669);
  assert.equal(rome.transferTicks(64, 68, 0), 2669);
  assert.equal(rome.transferTicks(64, 68, 1), 1321);
  assert.equal(rome.transferTicks(0, 64, 0), 2666);
  assert.equal(rome.socketTransferTicks(1, 0, 0), 2666);
  assert.equal(rome.socketTransferTicks(0, 0, 1), 2669);
  assert.equal(loadMachine('westmere-2s-x5650').socketTransferTicks(0, 0, 1), 372);
});

test('on any machine: distance is symmetric, and costs follow it', () => {
  fc.assert(
    fc.property(shorthand, fc.nat(), fc.nat(), fc.nat(), (text, x, y, z) => {
      const machine = loadMachine(text);
      const [a, b] = [x % machine.cpuCount, y % machine.cpuCount];
      const node = z % machine.nodeCount;
      const distance = machine.distance(a, b);
      assert.equal(distance, machine.distance(b, a));
      assert.equal(machine.transferTicks(a, b, node), machine.transferTicks(b, a, node));
      assert.equal(distance <= 1, machine.coreOf[a] === machine.coreOf[b]);
      assert.equal(distance <= 2, machine.l3Of[a] === machine.l3Of[b]);
      assert.equal(distance <= 3, machine.socketOf[a] === machine.socketOf[b]);
      assert.equal(distance === 5, machine.socketHopsBetween(a, b) > 1);
      assert.ok(machine.siblings[a].includes(a));
      const home = machine.socketOfNode[node] === machine.socketOf[a];
      assert.equal(machine.memoryTicks(a, node) === machine.memoryLocalTicks, home);
      if (distance === 4) assert.equal(machine.transferTicks(a, b, node), machine.crossSocketTicks);
      if (distance === 5) assert.ok(machine.transferTicks(a, b, node) >= machine.twoHopTicks);
    }),
    {numRuns: 500, seed: 5},
  );
});

test('every placement is a permutation of all CPUs', () => {
  fc.assert(
    fc.property(shorthand, fc.constantFrom(...PLACEMENTS), (text, order) => {
      const machine = loadMachine(text);
      const cpus = [...placement(machine, order)].sort((a, b) => a - b);
      assert.deepEqual(
        cpus,
        Array.from({length: machine.cpuCount}, (_, cpu) => cpu),
      );
    }),
    {numRuns: 200, seed: 5},
  );
});

test('placements by example: 2 sockets, 2 L3s each, 4 cores, 2 threads', () => {
  const machine = loadMachine('2s2l4c2t');
  const first = (order: (typeof PLACEMENTS)[number]): number[] => [...placement(machine, order)];
  assert.deepEqual(first('compact'), [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15]);
  assert.deepEqual(first('compact-smt').slice(0, 6), [0, 8, 1, 9, 2, 10]);
  assert.deepEqual(first('scatter'), [0, 4, 2, 6, 1, 5, 3, 7, 8, 12, 10, 14, 9, 13, 11, 15]);
});

test('socket links: the 8-socket graph has 3 links per socket and no route over two hops', () => {
  const hops = socketHops('twisted-hypercube', 8);
  for (let from = 0; from < 8; from++) {
    const row = [...hops.subarray(from * 8, from * 8 + 8)];
    assert.equal(row.filter((count) => count === 1).length, 3);
    assert.equal(row.filter((count) => count === 2).length, 4);
  }
  for (const kind of LINK_KINDS) {
    const table = socketHops(kind, 8);
    for (let i = 0; i < 64; i++) assert.equal(table[i], table[(i % 8) * 8 + (i >> 3)], kind);
  }
  assert.equal(Math.max(...socketHops('ring', 8)), 4);
  assert.equal(Math.max(...socketHops('full', 5)), 1);
});

test('a third hop costs as much more as the second', () => {
  const ring = loadMachine('6s1c1t@westmere-ex-8s-80c');
  assert.equal(ring.transferTicks(0, 1, 0), 738);
  assert.equal(ring.transferTicks(0, 2, 0), 1104);
  assert.equal(ring.transferTicks(0, 3, 0), 1470);
});

test('the hash follows the numbers and nothing else', () => {
  const {spec} = loadMachine('icelake-2s-6336y');
  const hash = new Topology(spec).hash;
  assert.match(hash, /^[0-9a-f]{16}$/);
  assert.equal(new Topology({...spec, name: 'other', description: 'other'}).hash, hash);
  const invlpg = {value: 1, assumption: 'test'};
  assert.notEqual(new Topology({...spec, costsNs: {...spec.costsNs, invlpg}}).hash, hash);
  const hashes = machineNames().map((name) => loadMachine(name).hash);
  assert.equal(new Set(hashes).size, hashes.length);
});

test('1,024 CPUs are supported, with no table of CPU pairs', () => {
  const machine = loadMachine('32s16c2t');
  assert.equal(machine.cpuCount, 1024);
  assert.equal(machine.distance(0, 1023), 4);
  assert.equal(machine.distance(0, 512), 1);
});
