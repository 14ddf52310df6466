import assert from 'node:assert/strict';
import {test} from 'node:test';
import fc from 'fast-check';
import {PRIORITY} from '../../machine/priorities.ts';
import {type Code, Timer} from '../../machine/process.ts';
import {Mutex} from '../locking/mutex.ts';
import {RwSemaphore} from '../locking/rwsem.ts';
import type {Task} from '../task.ts';
import {Completion} from './completion.ts';
import {type BareKernel, bareKernel} from './testing.ts';
import {WaitQueue} from './wait_queue.ts';

const STEPS = [
  'user',
  'kernel',
  'sleep',
  'mutex',
  'read',
  'write',
  'yield',
  'wake',
  'wait',
  'rcu',
] as const;
type Step = {what: (typeof STEPS)[number]; ticks: number};

const step = fc.record({
  what: fc.constantFrom(...STEPS),
  ticks: fc.integer({min: 0, max: 30_000_000}),
});
const program = fc.record({pinned: fc.boolean(), steps: fc.array(step, {maxLength: 12})});
const workload = fc.record({
  machine: fc.constantFrom('1s1c1t', '1s2c2t', '2s2c2t', '2s2l4c1t'),
  version: fc.constantFrom('3.10', '4.19', '5.4', '6.12'),
  ipi: fc.constantFrom('event' as const, 'closed' as const),
  programs: fc.array(program, {minLength: 1, maxLength: 14}),
});

/** Every task is in exactly one place, and all tables agree about it. */
function check(k: BareKernel, tasks: readonly Task[]): void {
  const {rqs, selector} = k.sched.dispatcher;
  for (const rq of rqs) {
    const idle = rq.current === null;
    assert.equal(selector.idle[rq.cpu.id], idle ? 1 : 0);
    assert.equal(rq.cpu.process, rq.current?.process ?? null);
    if (idle) assert.equal(rq.tasks.length, 0, 'an idle CPU with tasks in its queue');
    rq.tasks.forEach((t, i) => {
      assert.equal(t.se.heapIndex, i);
      assert.ok(t.pinnedCpu < 0 || t.pinnedCpu === rq.cpu.id);
    });
  }
  for (const t of tasks) {
    const running = rqs.filter((rq) => rq.current === t).length;
    const queued = rqs.filter((rq) => rq.tasks.includes(t)).length;
    assert.equal(running, t.se.onCpu ? 1 : 0);
    assert.equal(queued, t.se.queued ? 1 : 0);
    assert.ok(running + queued <= 1, 'a task in two places');
    if (running === 0) assert.equal(t.process!.pendingKey, 0, 'an event of a task off its CPU');
    if (running + queued === 0) assert.ok(t.state === 'sleeping' || t.state === 'dead');
  }
}

/** Looks at everything at odd moments. */
function inspect(k: BareKernel, tasks: readonly Task[]): void {
  const {engine} = k.machine;
  const timer = new Timer(engine, () => {
    check(k, tasks);
    if (tasks.some((t) => t.state !== 'dead'))
      engine.schedule(timer, engine.now + 777_777, PRIORITY.timer);
  });
  engine.schedule(timer, 1, PRIORITY.timer);
}

test('whatever tasks do: each is in one place, all time is idle or busy, all end', () => {
  let wokenInTime = 0;
  fc.assert(
    fc.property(workload, ({machine, version, ipi, programs}) => {
      const k = bareKernel(machine, version, ipi);
      const fn = k.kernel.fn('work');
      const mutex = new Mutex(k.kernel, 'm');
      const sem = new RwSemaphore(k.kernel, 's');
      const queue = new WaitQueue(k.kernel, 'q');
      let woken = 0;
      function* act(t: Task, {what, ticks}: Step): Code {
        const work = ticks / 10;
        switch (what) {
          case 'user':
            return yield* k.sched.userRun(t, ticks);
          case 'sleep':
            return yield* k.sched.sleep(t, ticks);
          case 'yield':
            return yield* k.sched.yieldCpu(t);
          case 'rcu':
            return yield* k.rcu.synchronize(t);
          case 'kernel':
            t.cpu.charge(work, fn);
            if (t.cpu.settle()) yield;
            if (k.sched.needsResched(t)) yield* k.sched.condResched(t);
            return;
          case 'wake':
            if (t.cpu.settle()) yield;
            queue.wakeOne();
            return;
          case 'wait':
            queue.prepare(t);
            if (yield* k.sched.blockTimeout(t, queue, ticks + 1)) woken++;
            queue.finish(t);
            return;
          case 'mutex':
            if (!mutex.acquire(t, fn)) yield* mutex.acquireSlow(t, fn);
            t.cpu.charge(work, fn);
            if (ticks % 3 === 0) yield* k.sched.sleep(t, work);
            if (!mutex.release(t)) yield* mutex.releaseSlow(t);
            return;
          case 'read':
            if (!sem.readAcquire(t, fn)) yield* sem.readAcquireSlow(t, fn);
            t.cpu.charge(work, fn);
            if (!sem.readRelease(t)) yield* sem.readReleaseSlow(t);
            return;
          case 'write':
            if (!sem.writeAcquire(t, fn)) yield* sem.writeAcquireSlow(t, fn);
            t.cpu.charge(work, fn);
            if (!sem.writeRelease(t)) yield* sem.writeReleaseSlow(t);
        }
      }
      const cpus = k.machine.cpus.length;
      const tasks = programs.map(({pinned, steps}, i) =>
        k.start(
          `t${i}`,
          function* (t): Code {
            for (const one of steps)
              yield* act(t, {...one, ticks: Math.round(one.ticks / 10) * 10});
          },
          pinned ? i % cpus : -1,
        ),
      );
      inspect(k, tasks);
      k.run();
      assert.equal(k.machine.engine.live, 0);
      assert.ok(tasks.every((t) => t.state === 'dead'));
      for (let cpu = 0; cpu < cpus; cpu++) {
        const {idleTicks, busyTicks, userTicks} = k.sched.times(cpu);
        assert.equal(idleTicks + busyTicks, k.machine.engine.now);
        assert.ok(userTicks <= busyTicks);
      }
      assert.equal(k.checks.sleepInAtomic, 0, k.checks.findings.join('\n'));
      wokenInTime += woken;
    }),
    {numRuns: 150},
  );
  assert.ok(wokenInTime > 0, 'the workloads wake each other');
});

test('a completion lets waiters pass whether it comes before or after them', () => {
  const k = bareKernel('1s2c1t');
  const done = new Completion(k.kernel, 'c');
  const log: string[] = [];
  for (const [name, delay] of [
    ['first', 0],
    ['second', 2_000_000],
  ] as const) {
    k.start(name, function* (t): Code {
      yield* k.sched.sleep(t, delay);
      yield* done.wait(t);
      log.push(name);
    });
  }
  k.start('completer', function* (t): Code {
    yield* k.sched.sleep(t, 1_000_000);
    done.complete();
    done.complete();
  });
  k.run();
  assert.deepEqual(log, ['first', 'second']);
  assert.equal(done.tryWait(), false);
});

test('two waiters that nobody completes are a deadlock with names', () => {
  const k = bareKernel('1s2c1t');
  const done = new Completion(k.kernel, 'firmware to load');
  k.start('modprobe', function* (t): Code {
    yield* done.wait(t);
  });
  assert.throws(() => k.run(), /modprobe\/100 waits for firmware to load/);
});
