import assert from 'node:assert/strict';
import {existsSync, readFileSync} from 'node:fs';
import {dirname, join} from 'node:path';
import {test} from 'node:test';
import {loadMachineSpec, machineFolder} from '../machines.ts';
import {classStatistics, classTable, MATRICES, readMatrix} from './classes.ts';

const matrices = join(dirname(dirname(machineFolder())), '..', 'shared/data/core-to-core');
const skip = existsSync(matrices) ? false : 'the measured matrices are not on this machine';

/** Two sockets, two L3s of one core each, two threads: CPU n and n + 4 are siblings. */
function synthetic(): string {
  const cost = (a: number, b: number): number => {
    const [x, y] = [a % 4, b % 4];
    if (x === y) return 8;
    return x >> 1 === y >> 1 ? 100 + (x >> 1) : 300;
  };
  return Array.from({length: 8}, (_, a) =>
    Array.from({length: 8}, (_, b) => (b < a ? cost(a, b) : '')).join(','),
  ).join('\n');
}

test('pairs fall into their classes', () => {
  const layout = {coresPerSocket: 2, coresPerL3: 1, siblings: 'high'} as const;
  const classes = classStatistics(readMatrix(synthetic(), 'test.csv'), layout);
  assert.deepEqual(
    Object.fromEntries(Object.entries(classes).map(([k, v]) => [k, [v.p50, v.count]])),
    {same_socket0: [100, 4], cross_socket: [300, 16], same_socket1: [101, 4], smt: [8, 4]},
  );
  assert.equal(
    classTable({smt: classes['smt']}),
    'class            p10_ns   p50_ns   p90_ns    pairs\n' +
      'smt                 8.0      8.0      8.0        4',
  );
});

test('adjacent siblings, and no siblings', () => {
  const text = ['', '5', '50,51', '50,52,6'].join('\n');
  const matrix = readMatrix(`,\n${text.slice(1)}`, 'test.csv');
  const layout = {coresPerSocket: 2, coresPerL3: 2} as const;
  const adjacent = classStatistics(matrix, {...layout, siblings: 'adjacent'});
  assert.deepEqual([adjacent['smt'].count, adjacent['same_l3'].count], [2, 4]);
  const none = classStatistics(matrix, {...layout, siblings: 'none'});
  assert.deepEqual([none['same_l3'].count, none['cross_socket'].count], [2, 4]);
});

test('a cell that is no latency is refused with its place', () => {
  assert.throws(
    () => readMatrix(',\n7,\nx,7,', 'test.csv'),
    /test\.csv:3: expected a latency in ns in column 1, found "x"/,
  );
});

test('the shipped transfer costs are the medians of their matrices', {skip}, () => {
  for (const [machine, source] of Object.entries(MATRICES)) {
    const file = join(matrices, source.csv);
    const classes = classStatistics(readMatrix(readFileSync(file, 'utf8'), file), source);
    const {costsNs} = loadMachineSpec(machine);
    const check = (key: keyof typeof costsNs, className: string): void => {
      const field = costsNs[key];
      const median = Math.round(classes[className].p50 * 10) / 10;
      assert.equal(field?.value, median, `${machine} ${key}`);
      const origin = source.standIn ? field?.assumption : field?.source;
      assert.match(origin ?? '', new RegExp(source.csv), `${machine} ${key}`);
    };
    check('sameL3', 'same_l3');
    if (source.siblings !== 'none') check('smt', 'smt');
    if (machine !== 'milan-1s-36c') check('crossSocket', 'cross_socket');
  }
});

test('the costs between L3s of one socket follow the matrices, socket by socket', {skip}, () => {
  const medians = (machine: string): [number, number] => {
    const source = MATRICES[machine];
    const file = join(matrices, source.csv);
    const classes = classStatistics(readMatrix(readFileSync(file, 'utf8'), file), source);
    return [classes['same_socket0'].p50, classes['same_socket1'].p50];
  };
  const stated = (machine: string): (number | undefined)[] => {
    const {sameSocket, sameSocketRemoteHome} = loadMachineSpec(machine).costsNs;
    return [sameSocket?.value, sameSocketRemoteHome?.value];
  };
  const near = (found: number | undefined, expected: number, machine: string): void =>
    assert.ok(Math.abs((found ?? 0) - expected) < 0.06, `${machine}: ${found}, ${expected}`);
  for (const machine of ['milan-2s-7763', 'genoa-2s-9654']) {
    const [zero, one] = medians(machine);
    for (const cost of stated(machine)) near(cost, (zero + one) / 2, machine);
  }
  const [remote, local] = medians('rome-2s-7742');
  near(stated('rome-2s-7742')[0], local, 'rome home');
  near(stated('rome-2s-7742')[1], remote, 'rome remote home');
  for (const cost of stated('milan-1s-36c')) near(cost, medians('milan-1s-36c')[0], 'milan-1s');
});

test('class percentiles agree with the published summary', {skip}, () => {
  const summary = JSON.parse(readFileSync(join(matrices, 'summary.json'), 'utf8')) as {
    checked: {file: string; classes_p10_p50_p90_count: Record<string, number[]>}[];
  };
  for (const source of Object.values(MATRICES)) {
    const entry = summary.checked.find(({file}) => file === source.csv);
    if (entry === undefined) continue;
    const file = join(matrices, source.csv);
    const classes = classStatistics(readMatrix(readFileSync(file, 'utf8'), file), source);
    for (const [name, [p10, p50, p90, count]] of Object.entries(entry.classes_p10_p50_p90_count)) {
      const found = classes[name];
      if (found === undefined) continue;
      assert.equal(found.count, count);
      for (const [got, expected] of [
        [found.p10, p10],
        [found.p50, p50],
        [found.p90, p90],
      ])
        assert.ok(Math.abs(got - expected) <= 0.1, `${source.csv} ${name}: ${got}, ${expected}`);
    }
  }
});
