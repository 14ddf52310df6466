import assert from 'node:assert/strict';
import {existsSync, readFileSync} from 'node:fs';
import {dirname, join} from 'node:path';
import {test} from 'node:test';
import fc from 'fast-check';
import {machineFolder} from './machines.ts';
import {Rng} from './rng.ts';
import {StoreBuffers} from './store_buffer.ts';
import {
  exploreLitmus,
  LITMUS_CATALOGUE,
  type LitmusCondition,
  type LitmusOp,
  type LitmusProgram,
} from './store_buffer_litmus.ts';

interface PublishedLitmus {
  readonly name: string;
  readonly source: string;
  readonly threads: LitmusOp[][];
  readonly exists: LitmusCondition[];
  readonly tso: string;
  readonly tso_states: number;
  readonly tso_pos: number;
  readonly sc: string;
  readonly sc_states: number;
}

const verdict = (satisfying: number): string => (satisfying > 0 ? 'Allow' : 'Forbid');

for (const {program, tso, tsoStates, scStates} of LITMUS_CATALOGUE) {
  test(`litmus ${program.name}: ${tso}, ${tsoStates} states`, () => {
    const found = exploreLitmus(program, 'tso');
    assert.equal(verdict(found.satisfying), tso);
    assert.equal(found.states.size, tsoStates, [...found.states].join('\n'));
    const strong = exploreLitmus(program, 'sc');
    assert.equal(strong.satisfying, 0);
    assert.equal(strong.states.size, scStates);
    for (const state of strong.states) assert.ok(found.states.has(state), 'SC is within TSO');
  });
}

const published = join(dirname(dirname(machineFolder())), '..', 'shared/data/litmus-x86.json');
const absent = existsSync(published) ? false : 'the published catalogue is not on this machine';

test('the 58 published x86 programs: verdicts and state counts', {skip: absent}, () => {
  const catalogue = JSON.parse(readFileSync(published, 'utf8')) as PublishedLitmus[];
  assert.equal(catalogue.length, 58);
  for (const entry of catalogue) {
    const where = `${entry.source} ${entry.name}`;
    const found = exploreLitmus(entry, 'tso');
    assert.equal(verdict(found.satisfying), entry.tso, where);
    assert.equal(found.satisfying, entry.tso_pos, where);
    assert.equal(found.states.size, entry.tso_states, where);
    const strong = exploreLitmus(entry, 'sc');
    assert.equal(verdict(strong.satisfying), entry.sc, where);
    assert.equal(strong.states.size, entry.sc_states, where);
  }
});

/** Runs a program once by the clock: random gaps between instructions, random drain times. */
function runTimed(program: LitmusProgram, seed: number): string {
  const rng = new Rng(seed, 'timed');
  const cells = [
    ...new Set(program.threads.flat().flatMap((op) => (op[0] === 'F' ? [] : [op[1]]))),
  ].sort();
  const memory = new Uint32Array(cells.length);
  const drainTicks = (_cpu: number, draw: Rng): number => draw.nextInt(30);
  const buffers = new StoreBuffers(program.threads.length, {drainTicks, capacity: 2}, rng);
  const clocks = program.threads.map(() => rng.nextInt(20));
  const done = program.threads.map(() => 0);
  const registers: string[] = [];
  for (;;) {
    let next = -1;
    for (let i = 0; i < clocks.length; i++) {
      if (done[i] === program.threads[i].length) continue;
      if (next < 0 || clocks[i] < clocks[next]) next = i;
    }
    if (next < 0) break;
    const op = program.threads[next][done[next]++];
    const now = clocks[next];
    if (op[0] === 'F') clocks[next] += buffers.fence(next, now);
    else if (op[0] === 'W') buffers.store(next, memory, cells.indexOf(op[1]), op[2], now);
    else {
      const value = buffers.load(next, memory, cells.indexOf(op[1]), now);
      registers.push(`${next}:${op[2]}=${value}`);
    }
    clocks[next] += rng.nextInt(20);
  }
  buffers.settle(Infinity);
  return [...cells.map((cell, i) => `${cell}=${memory[i]}`), ...registers.sort()].join(' ');
}

test('runs by the clock reach exactly what the exhaustive exploration reaches', () => {
  for (const {program} of LITMUS_CATALOGUE) {
    const {states} = exploreLitmus(program, 'tso');
    const reached = new Set(Array.from({length: 12000}, (_, seed) => runTimed(program, seed)));
    for (const state of reached) assert.ok(states.has(state), `${program.name}: ${state}`);
    assert.equal(reached.size, states.size, `${program.name}: a state was never reached`);
  }
});

test('random programs by the clock stay within x86-TSO', () => {
  const cell = fc.constantFrom('x', 'y');
  const op = fc.oneof(
    fc.tuple(fc.constant('W' as const), cell, fc.integer({min: 1, max: 3})),
    fc.tuple(fc.constant('R' as const), cell, fc.constantFrom('A', 'B')),
    fc.constant(['F'] as const),
  );
  const programs = fc.array(fc.array(op, {minLength: 1, maxLength: 3}), {
    minLength: 2,
    maxLength: 3,
  });
  const once = (threads: LitmusOp[][]): LitmusOp[][] =>
    threads.map((ops) =>
      ops.filter((a, i) => a[0] !== 'R' || ops.findIndex((b) => b[2] === a[2]) === i),
    );
  fc.assert(
    fc.property(programs, fc.nat(), (threads, seed) => {
      const program = {name: 'random', threads: once(threads), exists: []};
      const {states} = exploreLitmus(program, 'tso');
      return states.has(runTimed(program, seed));
    }),
    {numRuns: 100, seed: 7},
  );
});
