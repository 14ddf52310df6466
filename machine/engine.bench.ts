// Benchmarks of the engine; `mmreplay bench` runs them, each in its own process.
//
// mm1: 1,000 processes loop think Exp(1000), queue for one FIFO resource, hold it Exp(1). Two
// events a cycle, as the published comparison of engines counts them. Each process draws from
// mulberry32 with seed pid + 1, so that cycles and waits can be compared with those engines; one
// time unit is UNIT ticks, which bounds the rounding error. hold: the event queue alone, 1,000
// pending events, integer increments 0 to 9. shootdown: every CPU works, takes one FIFO lock, zaps,
// interrupts all others and waits for their acknowledgements.

import {CpuMask} from './cpumask.ts';
import {Engine} from './engine.ts';
import {EventQueue} from './event_queue.ts';
import type {IpiMode} from './ipi.ts';
import {Machine} from './machine.ts';
import {loadMachine} from './machines.ts';
import type {Code, Process, Waitable} from './process.ts';
import type {Topology} from './topology.ts';

/** One benchmark: `fn` does `perCall` units of work. */
export interface Benchmark {
  readonly name: string;
  readonly unit: string;
  readonly perCall: number;
  readonly fn: () => void;
}

const UNIT = 2 ** 30;
const PROCESSES = 1000;

/** What the M/M/1 workload did; waits in time units. */
export interface Mm1Result {
  readonly cycles: number;
  readonly waits: number;
}

/** A capacity-1 resource with a FIFO queue. */
class Resource implements Waitable {
  readonly name = 'the resource';
  private busy = false;
  private readonly queue: (Process | null)[] = new Array(PROCESSES).fill(null);
  private head = 0;
  private length = 0;

  constructor(readonly engine: Engine) {}

  /** True when taken at once; else the caller yields and has it when it goes on. */
  take(): boolean {
    if (!this.busy) {
      this.busy = true;
      return true;
    }
    const process = this.engine.current!;
    process.park(this);
    this.queue[(this.head + this.length++) % PROCESSES] = process;
    return false;
  }

  give(): void {
    if (this.length === 0) {
      this.busy = false;
      return;
    }
    const next = this.queue[this.head]!;
    this.head = (this.head + 1) % PROCESSES;
    this.length--;
    this.engine.wake(next);
  }
}

/** mulberry32, the generator of the published comparison. */
function mulberry32(seed: number): () => number {
  let a = seed | 0;
  return () => {
    a = (a + 0x6d2b79f5) | 0;
    let t = Math.imul(a ^ (a >>> 15), 1 | a);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 4294967296;
  };
}

/** Runs the M/M/1 workload until `horizon` time units. */
export function runMm1(horizon: number): Mm1Result {
  const engine = new Engine();
  const resource = new Resource(engine);
  let cycles = 0;
  let waitTicks = 0;
  function* customer(pid: number): Code {
    const random = mulberry32(pid + 1);
    const exp = (mean: number): number => Math.round(-mean * Math.log(1 - random()) * UNIT);
    for (;;) {
      if (engine.advance(exp(1000))) yield;
      const asked = engine.now;
      if (!resource.take()) yield;
      waitTicks += engine.now - asked;
      if (engine.advance(exp(1))) yield;
      resource.give();
      cycles++;
    }
  }
  for (let pid = 0; pid < PROCESSES; pid++) engine.spawn(`p${pid}`, customer(pid));
  engine.run(horizon * UNIT);
  return {cycles, waits: waitTicks / UNIT};
}

const HOLD_PENDING = 1000;
const HOLD_ROUNDS = 200_000;

/** HOLD with ties: pops and pushes again 0 to 9 ticks later. Returns the last time. */
export function runHold(): number {
  const queue = new EventQueue();
  let state = 1;
  let key = 1;
  const next = (): number => {
    state = (Math.imul(state, 1664525) + 1013904223) | 0;
    return (state >>> 16) % 10;
  };
  for (let i = 0; i < HOLD_PENDING; i++) queue.push(next(), key++, i);
  let now = 0;
  for (let i = 0; i < HOLD_ROUNDS; i++) {
    const id = queue.pop();
    now = queue.poppedTime;
    queue.push(now + next(), key++, id);
  }
  return now;
}

const SHOOTDOWN_CPUS = '2s32c1t';
const SHOOTDOWNS_PER_CPU = 400;
let topology: Topology | undefined;

/** What a run of shootdowns did; `end` is the tick of its end. */
export interface ShootdownResult {
  readonly sent: number;
  readonly handled: number;
  readonly end: number;
}

/** 64 CPUs shoot each other's TLBs down, each `perCpu` times. */
export function runShootdowns(mode: IpiMode, perCpu: number): ShootdownResult {
  topology ??= loadMachine(SHOOTDOWN_CPUS);
  const machine = new Machine(topology, {seed: 1, ipi: mode});
  const {engine} = machine;
  const lock = new Resource(engine);
  const fn = machine.profile.id('shootdown');
  const zap = machine.topology.invlpgTicks;
  let handled = 0;
  const handler = (): number => {
    handled++;
    return zap;
  };
  const all = new CpuMask(machine.cpus.length);
  for (const cpu of machine.cpus) all.add(cpu.id);
  for (const cpu of machine.cpus) {
    const rng = machine.rng(`cpu${cpu.id}`);
    const code = function* (): Code {
      for (let i = 0; i < perCpu; i++) {
        cpu.charge(Math.round(rng.nextExp(200_000)), fn);
        if (cpu.settle()) yield;
        if (!lock.take()) yield;
        cpu.charge(32 * zap, fn);
        yield* machine.ipi.callMany(cpu, all, handler, fn);
        if (cpu.settle()) yield;
        lock.give();
      }
    };
    cpu.process = engine.spawn(`cpu${cpu.id}`, code(), cpu);
  }
  const end = engine.run();
  return {sent: machine.ipi.sent, handled, end};
}

const MM1_HORIZON = 500_000;
/** Cycles until MM1_HORIZON: the workload is deterministic, a test checks it. */
export const MM1_CYCLES = 487_356;
const SHOOTDOWN_COUNT = 64 * SHOOTDOWNS_PER_CPU;

export const benches: readonly Benchmark[] = [
  {
    name: 'engine: 1,000 processes, one FIFO resource',
    unit: 'events',
    perCall: 2 * MM1_CYCLES,
    fn: () => runMm1(MM1_HORIZON),
  },
  {
    name: 'event queue: hold, 1,000 pending, ties',
    unit: 'pop+push',
    perCall: HOLD_ROUNDS,
    fn: runHold,
  },
  {
    name: 'IPI: 64-CPU shootdown, events',
    unit: 'shootdowns',
    perCall: SHOOTDOWN_COUNT,
    fn: () => runShootdowns('event', SHOOTDOWNS_PER_CPU),
  },
  {
    name: 'IPI: 64-CPU shootdown, closed form',
    unit: 'shootdowns',
    perCall: SHOOTDOWN_COUNT,
    fn: () => runShootdowns('closed', SHOOTDOWNS_PER_CPU),
  },
];
