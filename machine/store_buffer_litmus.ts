// Litmus programs for the store buffers, and an explorer that runs one through every order of
// steps. A step is either the next instruction of a thread or the drain of one thread's oldest
// store; the explorer drives StoreBuffers by the very calls that the kernel model makes (store,
// load, fence, drainOne), with stores that never drain by themselves. Two paths that executed the
// same instructions, drained the same stores and hold the same values are one state, so a program
// of a dozen instructions costs a few thousand steps.

import {assert} from './assert.ts';
import {Rng} from './rng.ts';
import {StoreBuffers} from './store_buffer.ts';

/** Store of a constant, load into a register of the thread, full fence. */
export type LitmusOp =
  | readonly ['W', cell: string, value: number]
  | readonly ['R', cell: string, register: string]
  | readonly ['F'];

/** Final value asked for: of a memory cell, or of a thread's register. */
export type LitmusCondition = readonly [place: 'mem' | number, name: string, value: number];

/**
 * One program; all cells and registers start at 0, `exists` is a conjunction over the final state.
 */
export interface LitmusProgram {
  readonly name: string;
  readonly threads: readonly (readonly LitmusOp[])[];
  readonly exists: readonly LitmusCondition[];
}

/** All final states over (memory, registers), and how many of them satisfy `exists`. */
export interface LitmusResult {
  readonly states: ReadonlySet<string>;
  readonly satisfying: number;
}

/** How much is reordered: x86-TSO, or sequential consistency (a fence after every store). */
export type MemoryModel = 'tso' | 'sc';

const NEVER = {drainTicks: (): number => Infinity};

class Execution {
  readonly memory: Uint32Array;
  readonly registers: Map<string, number>[];
  readonly done: number[];
  readonly buffers: StoreBuffers;

  constructor(
    private readonly program: LitmusProgram,
    private readonly cells: readonly string[],
    private readonly model: MemoryModel,
  ) {
    this.memory = new Uint32Array(cells.length);
    this.registers = program.threads.map(() => new Map());
    this.done = program.threads.map(() => 0);
    this.buffers = new StoreBuffers(program.threads.length, NEVER, new Rng(0, 'litmus'));
  }

  /**
   * Steps 0 .. threads-1 execute, threads .. 2*threads-1 drain; false when there is nothing to do.
   */
  step(choice: number): boolean {
    const count = this.program.threads.length;
    if (choice >= count) return this.buffers.drainOne(choice - count);
    const op = this.program.threads[choice][this.done[choice]];
    if (op === undefined) return false;
    this.done[choice]++;
    this.execute(choice, op);
    return true;
  }

  private execute(thread: number, op: LitmusOp): void {
    const {buffers, memory} = this;
    if (op[0] === 'F') {
      buffers.fence(thread, 0);
      return;
    }
    const cell = this.cells.indexOf(op[1]);
    if (op[0] === 'R') {
      this.registers[thread].set(op[2], buffers.load(thread, memory, cell, 0));
      return;
    }
    buffers.store(thread, memory, cell, op[2], 0);
    if (this.model === 'sc') buffers.fence(thread, 0);
  }

  finished(): boolean {
    return (
      this.buffers.pending === 0 &&
      this.done.every((count, thread) => count === this.program.threads[thread].length)
    );
  }

  finalState(): string {
    const memory = this.cells.map((cell, i) => `${cell}=${this.memory[i]}`);
    const registers = this.registers.flatMap((values, thread) =>
      [...values].map(([name, value]) => `${thread}:${name}=${value}`),
    );
    return [...memory, ...registers.sort()].join(' ');
  }

  key(): string {
    const waiting = this.done.map((_, thread) => this.buffers.waiting(thread));
    return `${this.done.join()}/${waiting.join()}/${this.finalState()}`;
  }

  satisfies(): boolean {
    return this.program.exists.every(([place, name, value]) => {
      const found =
        place === 'mem'
          ? this.memory[this.cells.indexOf(name)]
          : (this.registers[place].get(name) ?? 0);
      return found === value;
    });
  }
}

/** Runs `program` through every order of its steps. */
export function exploreLitmus(program: LitmusProgram, model: MemoryModel): LitmusResult {
  const named = program.threads.flat().flatMap((op) => (op[0] === 'F' ? [] : [op[1]]));
  const cells = [...new Set(named)].sort();
  const choices = program.threads.length * 2;
  const seen = new Set<string>();
  const states = new Set<string>();
  const satisfied = new Set<string>();
  const open: number[][] = [[]];
  for (let path = open.pop(); path !== undefined; path = open.pop()) {
    for (let choice = 0; choice < choices; choice++) {
      const execution = new Execution(program, cells, model);
      for (const step of path) assert(execution.step(step), 'a litmus path can be repeated');
      if (!execution.step(choice)) continue;
      const key = execution.key();
      if (seen.has(key)) continue;
      seen.add(key);
      if (execution.finished()) {
        states.add(execution.finalState());
        if (execution.satisfies()) satisfied.add(execution.finalState());
      } else open.push([...path, choice]);
    }
  }
  return {states, satisfying: satisfied.size};
}

/**
 * What a catalogue says about a program: is `exists` reachable, and how many final states there
 * are.
 */
export interface LitmusExpectation {
  readonly program: LitmusProgram;
  readonly tso: 'Allow' | 'Forbid';
  readonly tsoStates: number;
  readonly scStates: number;
}

/** Reads `Wx=1 mf Ry:A / Wy=1 Rx:A` and `0:A=0 & [x]=1`. */
export function litmus(name: string, threads: string, exists: string): LitmusProgram {
  const op = (text: string): LitmusOp => {
    if (text === 'mf') return ['F'];
    const [, kind, cell, operand] = /^([WR])([a-z])[=:](\w+)$/.exec(text) ?? [];
    assert(kind !== undefined, `litmus ${name}: cannot read "${text}"`);
    return kind === 'W' ? ['W', cell, Number(operand)] : ['R', cell, operand];
  };
  const condition = (text: string): LitmusCondition => {
    const [, cell, thread, register, value] = /^(?:\[(\w)\]|(\d+):(\w+))=(\d+)$/.exec(text) ?? [];
    assert(value !== undefined, `litmus ${name}: cannot read "${text}"`);
    if (cell !== undefined) return ['mem', cell, Number(value)];
    return [Number(thread), register, Number(value)];
  };
  return {
    name,
    threads: threads.split(' / ').map((thread) => thread.split(' ').map(op)),
    exists: exists.split(' & ').map(condition),
  };
}

const expect = (
  name: string,
  threads: string,
  exists: string,
  tso: 'Allow' | 'Forbid',
  [tsoStates, scStates]: readonly [number, number],
): LitmusExpectation => ({program: litmus(name, threads, exists), tso, tsoStates, scStates});

/** The shapes that tell x86-TSO from stronger and weaker models, under their usual names. */
export const LITMUS_CATALOGUE: readonly LitmusExpectation[] = [
  expect('SB', 'Wx=1 Ry:A / Wy=1 Rx:A', '0:A=0 & 1:A=0', 'Allow', [4, 3]),
  expect('SB+mfence+po', 'Wx=1 mf Ry:A / Wy=1 Rx:A', '0:A=0 & 1:A=0', 'Allow', [4, 3]),
  expect('SB+mfences', 'Wx=1 mf Ry:A / Wy=1 mf Rx:A', '0:A=0 & 1:A=0', 'Forbid', [3, 3]),
  expect(
    'SB+po-mfence+mfence',
    'Wz=1 Wx=1 mf Ry:A / Wy=1 mf Rx:A',
    '0:A=0 & 1:A=0',
    'Forbid',
    [3, 3],
  ),
  expect(
    'SB+rfi-pos',
    'Wx=1 Rx:A Ry:B / Wy=1 Ry:A Rx:B',
    '0:A=1 & 0:B=0 & 1:A=1 & 1:B=0',
    'Allow',
    [4, 3],
  ),
  expect('MP', 'Wx=1 Wy=1 / Ry:A Rx:B', '1:A=1 & 1:B=0', 'Forbid', [3, 3]),
  expect('LB', 'Rx:A Wy=1 / Ry:A Wx=1', '0:A=1 & 1:A=1', 'Forbid', [3, 3]),
  expect('R', 'Wx=1 Wy=1 / Wy=2 Rx:A', '[y]=2 & 1:A=0', 'Allow', [4, 3]),
  expect('R+po+mfence', 'Wx=1 Wy=1 / Wy=2 mf Rx:A', '[y]=2 & 1:A=0', 'Forbid', [3, 3]),
  expect('S', 'Wx=2 Wy=1 / Ry:A Wx=1', '[x]=2 & 1:A=1', 'Forbid', [3, 3]),
  expect('2+2W', 'Wx=2 Wy=1 / Wy=2 Wx=1', '[x]=2 & [y]=2', 'Forbid', [3, 3]),
  expect(
    'IRIW',
    'Wx=1 / Wy=1 / Rx:A Ry:B / Ry:A Rx:B',
    '2:A=1 & 2:B=0 & 3:A=1 & 3:B=0',
    'Forbid',
    [15, 15],
  ),
];
