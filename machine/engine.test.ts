import assert from 'node:assert/strict';
import {test} from 'node:test';
import {MM1_CYCLES, runMm1} from './engine.bench.ts';
import {Engine} from './engine.ts';
import {BoundReached, Deadlock} from './panics.ts';
import {PRIORITY} from './priorities.ts';
import {type Callee, type Code, type Process, Routine, Timer} from './process.ts';

test('processes run in order of time, first come first served on a tie', () => {
  const engine = new Engine();
  const log: string[] = [];
  const delays = [5, 3, 5, 0, 3, 0];
  delays.forEach((delay, i) => {
    engine.spawn(
      `p${i}`,
      (function* (): Code {
        if (engine.advance(delay)) yield;
        log.push(`${engine.now}:${i}`);
      })(),
    );
  });
  engine.run();
  assert.deepEqual(log, ['0:3', '0:5', '3:1', '3:4', '5:0', '5:2']);
});

test('events of one tick fire by priority, whatever the order in which they were queued', () => {
  const engine = new Engine();
  const log: string[] = [];
  const order = ['timer', 'cpu', 'interrupt', 'storeDrain'] as const;
  for (const name of order) {
    const timer = new Timer(engine, () => log.push(name));
    engine.schedule(timer, 10, PRIORITY[name]);
  }
  engine.run();
  assert.deepEqual(log, ['storeDrain', 'interrupt', 'cpu', 'timer']);
});

test('events for now go behind earlier ones of the same tick that are still in the heap', () => {
  const engine = new Engine();
  const log: string[] = [];
  const late = new Timer(engine, () => log.push('late'));
  const second = new Timer(engine, () => log.push('second'));
  const first = new Timer(engine, () => {
    log.push('first');
    engine.schedule(late, engine.now);
  });
  engine.schedule(first, 7);
  engine.schedule(second, 7);
  engine.run();
  assert.deepEqual(log, ['first', 'second', 'late']);
});

test('a newer event replaces the pending one, and cancelling takes it back', () => {
  const engine = new Engine();
  const fired: number[] = [];
  const timer = new Timer(engine, () => fired.push(engine.now));
  engine.schedule(timer, 10);
  engine.schedule(timer, 20);
  engine.schedule(timer, 15);
  assert.equal(engine.pendingEvents, 1);
  engine.run();
  assert.deepEqual(fired, [15]);
  engine.schedule(timer, 30);
  engine.cancel(timer);
  assert.equal(engine.pendingEvents, 0);
  engine.run();
  assert.deepEqual(fired, [15]);
});

test('dead events are swept out of the queue', () => {
  const engine = new Engine({maxEvents: 10, maxTicks: 1e9, maxQueue: 3000});
  let fired = 0;
  const timer = new Timer(engine, () => fired++);
  const other = new Timer(engine, () => fired++);
  for (let i = 0; i < 100_000; i++) engine.schedule(timer, 1000 + i);
  engine.schedule(other, 500);
  assert.equal(engine.pendingEvents, 2);
  engine.run();
  assert.equal(fired, 2);
});

test('time passes in place while nobody else is due, and costs no event', () => {
  const engine = new Engine();
  let yields = 0;
  engine.spawn(
    'p',
    (function* (): Code {
      for (let i = 0; i < 1000; i++) {
        if (engine.advance(10)) {
          yields++;
          yield;
        }
      }
    })(),
  );
  assert.equal(engine.run(), 10_000);
  assert.equal(yields, 0);
  assert.equal(engine.events, 1);
});

test('running until a time stops there, in place or not', () => {
  const engine = new Engine();
  let reached = 0;
  engine.spawn(
    'p',
    (function* (): Code {
      for (;;) {
        if (engine.advance(10)) yield;
        reached = engine.now;
      }
    })(),
  );
  assert.equal(engine.run(95), 95);
  assert.equal(reached, 90);
  assert.equal(engine.run(200), 200);
  assert.equal(reached, 200);
});

test('a frame returns its value, however deep, and yields suspend the whole stack', () => {
  const engine = new Engine();
  function* leaf(n: number): Code<number> {
    if (engine.advance(n)) yield;
    return n;
  }
  function* middle(n: number): Code<number> {
    const a = (yield leaf(n)) as number;
    const b = yield* leaf(n);
    return a + b;
  }
  const sums: number[] = [];
  for (const n of [7, 3]) {
    engine.spawn(
      `p${n}`,
      (function* (): Code {
        for (let i = 0; i < 3; i++) sums.push((yield middle(n)) as number);
      })(),
    );
  }
  engine.run();
  assert.deepEqual(sums, [6, 6, 14, 6, 14, 14]);
  assert.equal(engine.live, 0);
});

test('an exception goes up the frames and may be caught there', () => {
  const engine = new Engine();
  function* broken(): Code {
    if (engine.advance(1)) yield;
    throw new Error('oops');
  }
  function* between(): Code {
    yield broken();
  }
  let caught = '';
  engine.spawn(
    'p',
    (function* (): Code {
      try {
        yield between();
      } catch (error) {
        caught = (error as Error).message;
      }
      if (engine.advance(5)) yield;
    })(),
  );
  assert.equal(engine.run(), 6);
  assert.equal(caught, 'oops');
  engine.spawn('q', broken());
  assert.throws(() => engine.run(), /oops/);
});

/** Waits `delay` ticks, calls `program`, notes what it returned, and so on. */
class Rounds extends Routine {
  readonly returned: unknown[] = [];
  private calls = false;

  constructor(
    private readonly engine: Engine,
    private readonly delay: number,
    private readonly program: (round: number) => Callee,
  ) {
    super();
  }

  override resume(value: unknown): Callee | undefined {
    for (;;) {
      this.calls = !this.calls;
      if (this.calls) return this.program(this.returned.length);
      this.returned.push(value);
      if (this.engine.advance(this.delay)) return undefined;
    }
  }
}

test('a routine waits, and calls code that returns to it', () => {
  const engine = new Engine();
  const inner = function* (round: number): Code<string> {
    if (engine.advance(3)) yield;
    return `${round}@${engine.now}`;
  };
  const rounds = new Rounds(engine, 2, inner);
  const outer = function* (): Code {
    yield rounds;
  };
  engine.spawn('routine', outer());
  const other = new Timer(engine, () => {});
  for (let at = 1; at <= 12; at++) {
    engine.schedule(other, at);
    engine.run(at);
  }
  assert.deepEqual(rounds.returned, ['0@3', '1@8']);
});

test('a routine calls a routine, and an exception passes both', () => {
  const engine = new Engine();
  const crash = function* (): Code {
    if (engine.advance(1)) yield;
    throw new Error('inner');
  };
  const log: string[] = [];
  const outer = function* (): Code {
    try {
      yield new Rounds(engine, 1, () => new Rounds(engine, 1, crash));
    } catch (error) {
      log.push((error as Error).message);
    }
    if (engine.advance(4)) yield;
    log.push(`${engine.now}`);
  };
  engine.spawn('routine', outer());
  engine.run();
  assert.deepEqual(log, ['inner', '5']);
});

test('a process may crash alone when its owner says so', () => {
  const engine = new Engine();
  let ended = false;
  const process = engine.spawn(
    'p',
    (function* (): Code {
      if (engine.advance(1)) yield;
      throw new Error('oops');
    })(),
  );
  process.onCrash = () => true;
  process.onDone = () => {
    ended = true;
  };
  engine.run();
  assert.ok(ended && process.done);
  assert.equal(engine.live, 0);
});

test('a deadlock shows who waits for what, held by whom; daemons do not count', () => {
  const engine = new Engine();
  const idle = {name: 'work'};
  engine.spawn(
    'kworker',
    (function* (): Code {
      engine.current!.park(idle);
      yield;
    })(),
  ).daemon = true;
  const pair: Process[] = [];
  for (const [me, other, lock] of [
    [0, 1, 'lock 2'],
    [1, 0, 'lock 1'],
  ] as const) {
    const code = function* (): Code {
      engine.current!.park({name: lock, holder: () => pair[other]});
      yield;
    };
    pair[me] = engine.create('ab'[me], code());
  }
  engine.wake(pair[0]);
  engine.wake(pair[1], 30);
  assert.throws(
    () => engine.run(),
    (error) => {
      assert.ok(error instanceof Deadlock);
      assert.deepEqual(error.waitGraph, [
        'a waits for lock 2, held by b',
        'b waits for lock 1, held by a',
      ]);
      assert.match(error.message, /for ever at 3 ns/);
      return true;
    },
  );
});

test('every bound stops the run and names its flag', () => {
  const bounds = {maxEvents: 1000, maxTicks: 1e6, maxQueue: 100};
  const spin = (engine: Engine, ticks: number): Code =>
    (function* (): Code {
      for (;;) if (engine.advance(ticks)) yield;
    })();
  const events = new Engine(bounds);
  for (const i of [1, 2]) events.spawn(`p${i}`, spin(events, 1));
  assert.throws(() => events.run(), flagged('--max-events'));
  const time = new Engine(bounds);
  time.spawn('p', spin(time, 400_000));
  assert.throws(() => time.run(), flagged('--max-time'));
  const queue = new Engine(bounds);
  for (let i = 0; i < 200; i++) queue.spawn(`p${i}`, spin(queue, 5));
  assert.throws(() => queue.run(), flagged('--max-queue'));
});

function flagged(flag: string): (error: unknown) => boolean {
  return (error) => error instanceof BoundReached && error.message.includes(flag);
}

test('the same program has the same digest, another one has another', () => {
  const digestOf = (step: number): string => {
    const engine = new Engine();
    for (let i = 0; i < 20; i++) {
      engine.spawn(
        `p${i}`,
        (function* (): Code {
          for (let n = 0; n < 50; n++) if (engine.advance((i * n) % step)) yield;
        })(),
      );
    }
    engine.run();
    return engine.digest.hex();
  };
  assert.equal(digestOf(17), digestOf(17));
  assert.notEqual(digestOf(17), digestOf(19));
});

test('scheduling into the past is a bug of ours', () => {
  const engine = new Engine();
  const timer = new Timer(engine, () => engine.schedule(timer, engine.now - 1));
  engine.schedule(timer, 5);
  assert.throws(() => engine.run(), /event at 4 is in the past, now is 5/);
});

test('the M/M/1 workload gives the published counts of other engines', () => {
  for (const [horizon, cycles, waits] of [
    [1e4, 9_805, 191_331],
    [1e5, 97_673, 2_561_650],
    [2e5, 195_422, 4_757_847],
  ]) {
    const result = runMm1(horizon);
    assert.deepEqual([result.cycles, Math.round(result.waits)], [cycles, waits]);
  }
  assert.equal(runMm1(500_000).cycles, MM1_CYCLES);
});
