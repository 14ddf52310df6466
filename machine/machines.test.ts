import assert from 'node:assert/strict';
import {copyFileSync, mkdtempSync, readFileSync, rmSync} from 'node:fs';
import {tmpdir} from 'node:os';
import {dirname, join} from 'node:path';
import {test} from 'node:test';
import {listMachines, loadMachine, machineFolder, machineNames} from './machines.ts';

const complaint = (text: string): string => {
  try {
    loadMachine(text);
  } catch (error) {
    return String(error);
  }
  return 'accepted';
};

test('every shipped machine loads under its own name and says where its numbers come from', () => {
  for (const machine of listMachines()) {
    const {spec} = loadMachine(machine.name);
    assert.equal(spec.name, machine.name);
    assert.ok(machine.cpus > 0 && machine.sourced > 0, machine.name);
    for (const group of [spec.layout, spec.costsNs, spec.model]) {
      for (const [key, field] of Object.entries(group)) {
        const origin = field.source ?? field.assumption ?? '';
        assert.ok(origin.length >= 8, `${machine.name} ${key}`);
        assert.ok(!origin.startsWith('stand-in') || field.source === undefined, key);
      }
    }
  }
});

test('the machines that published results need are there', () => {
  const cpus = Object.fromEntries(listMachines().map(({name, cpus}) => [name, cpus]));
  assert.deepEqual(cpus, {
    'broadwell-2s-e5-2680v4': 56,
    'epyc-2cpu-guest': 2,
    'genoa-2s-9654': 384,
    'haswell-ex-4s-e7-8895v3': 144,
    'icelake-2s-6336y': 96,
    'icelake-2s-64t': 64,
    'milan-1s-36c': 72,
    'milan-2s-7763': 256,
    'rome-2s-7742': 256,
    'westmere-2s-x5650': 24,
    'westmere-ex-8s-80c': 80,
  });
});

test('costs grow with distance on every shipped machine', () => {
  for (const name of machineNames()) {
    const m = loadMachine(name);
    const present = [m.l1HitTicks, m.smtTicks, m.sameL3Ticks, m.sameSocketTicks]
      .concat(m.crossSocketTicks, m.twoHopTicks)
      .filter((ticks) => ticks > 0);
    assert.deepEqual(
      present,
      present.toSorted((a, b) => a - b),
      name,
    );
    assert.ok(m.l1HitTicks <= m.atomicLocalTicks, name);
    assert.ok(m.sameSocketRemoteHomeTicks >= m.sameSocketTicks, name);
  }
});

test('docs/machines.md shows every shipped machine with the numbers of its file', () => {
  const root = dirname(dirname(machineFolder()));
  const shown = readFileSync(join(root, 'docs', 'machines.md'), 'utf8').split('\n');
  for (const {name, cpus} of listMachines()) {
    const {costsNs: costs} = loadMachine(name).spec;
    const ns = (key: keyof typeof costs): string => String(costs[key]?.value ?? '-');
    const pair = (a: keyof typeof costs, b: keyof typeof costs): string =>
      costs[a] === undefined ? '-' : `${ns(a)} / ${ns(b)}`;
    const row = [
      `| \`${name}\` | ${cpus} | ${ns('smt')} | ${ns('sameL3')}`,
      pair('sameSocket', 'sameSocketRemoteHome'),
      ns('crossSocket'),
      ns('twoHop'),
      `${pair('memoryLocal', 'memoryRemote')} |`,
    ].join(' | ');
    assert.ok(shown.includes(row), `missing in docs/machines.md:\n${row}`);
  }
});

test('a path loads the file it names', () => {
  const folder = mkdtempSync(join(tmpdir(), 'mmreplay-'));
  const copy = join(folder, 'mine.json');
  copyFileSync(join(machineFolder(), 'icelake-2s-6336y.json'), copy);
  assert.equal(loadMachine(copy).hash, loadMachine('icelake-2s-6336y').hash);
  assert.equal(loadMachine(`1s4c2t@${copy}`).cpuCount, 8);
  rmSync(folder, {recursive: true});
  assert.match(complaint(copy), /mine\.json: cannot be read \(ENOENT\)/);
});

test('shorthand: layout as asked for, costs of the base', () => {
  const big = loadMachine('8s18c2t');
  assert.deepEqual([big.cpuCount, big.socketCount, big.nodeCount], [288, 8, 8]);
  assert.equal(big.spec.layout.links.value, 'twisted-hypercube');
  assert.equal(big.twoHopTicks, 1642, '2 x 106.0 - 47.8 ns');
  assert.match(big.spec.costsNs.twoHop?.assumption ?? '', /second link/);
  assert.equal(big.spec.layout.sockets.source, 'as asked for: 8s18c2t');
  const split = loadMachine('2s4l16c2t');
  assert.deepEqual([split.l3Count, split.sameSocketTicks], [8, 993]);
  assert.equal(loadMachine('8s18c2t@westmere-ex-8s-80c').crossSocketTicks, 738);
  assert.equal(loadMachine('2s8c').cpuCount, 16);
  const same = '2s24c2t@icelake-2s-6336y';
  assert.equal(loadMachine(same).hash === loadMachine('icelake-2s-6336y').hash, false);
});

test('what cannot be a machine is refused with what to write instead', () => {
  const cases: [text: string, expected: RegExp][] = [
    ['genoa', /machine "genoa" is not known; did you mean genoa-2s-9654\?/],
    ['icelake-2s-6336', /did you mean icelake-2s-6336y\?/],
    ['qqqqqqqq', /"qqqqqqqq" is not known; Known: broadwell-2s-e5-2680v4, /],
    ['8S18C2T', /did you mean 8s18c2t\?/],
    ['2x16x2', /did you mean 2s16c2t\?/],
    ['2s3l16c', /16 cores do not divide into 3 L3 groups; did you mean 2s3l15c1t\?/],
    ['0s4c', /0s: expected 1 to 32 sockets/],
    ['2s4c9t', /9t: expected 1 to 8 threads per core/],
    ['32s64c', /2048 CPUs; at most 1024 are supported/],
    ['2s4l8c@icelake-2s-6336y', /base icelake-2s-6336y has no costsNs\.sameSocket; name another/],
    ['2s4c@epyc-2cpu-guest', /has no costsNs\.crossSocket/],
    ['2s4c@nowhere', /machine "nowhere" is not known/],
  ];
  for (const [text, expected] of cases) assert.match(complaint(text), expected, text);
});
