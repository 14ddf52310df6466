import assert from 'node:assert/strict';
import {test} from 'node:test';
import type {Code} from '../../machine/process.ts';
import {nsToTicks} from '../../machine/time.ts';
import {bareKernel} from '../sched/testing.ts';
import type {Task} from '../task.ts';
import {RwSemaphore} from './rwsem.ts';
import {readerSpinTicks} from './rwsem_facts.ts';

const us = (n: number): number => nsToTicks(n * 1e3);

for (const [machine, tasks] of [
  ['1s4c1t', 6],
  ['2s4c2t', 40],
  ['1s2c1t', 9],
] as const) {
  for (const version of ['3.10', '4.19', '5.4', '6.12']) {
    test(`${tasks} readers and writers on ${machine} under ${version} keep the rules`, () => {
      const k = bareKernel(machine, version);
      const sem = new RwSemaphore(k.kernel, 's');
      const fn = k.kernel.fn('test');
      let readers = 0;
      let writers = 0;
      let mostReaders = 0;
      for (let i = 0; i < tasks; i++) {
        k.start(`t${i}`, function* (t: Task): Code {
          for (let n = 0; n < 30; n++) {
            const writes = (i + n) % 4 === 0;
            if (writes) {
              if (!sem.writeAcquire(t, fn)) yield* sem.writeAcquireSlow(t, fn);
              assert.deepEqual([readers, ++writers], [0, 1]);
            } else {
              if (!sem.readAcquire(t, fn)) yield* sem.readAcquireSlow(t, fn);
              assert.equal(writers, 0);
              mostReaders = Math.max(mostReaders, ++readers);
            }
            t.cpu.charge(us(4), fn);
            if (t.cpu.settle()) yield;
            if (writes) {
              writers--;
              if (!sem.writeRelease(t)) yield* sem.writeReleaseSlow(t);
            } else {
              readers--;
              if (!sem.readRelease(t)) yield* sem.readReleaseSlow(t);
            }
            yield* k.sched.userRun(t, us(2));
          }
        });
      }
      k.run();
      assert.equal(k.machine.engine.live, 0);
      assert.ok(mostReaders > 1, 'readers share');
      const report = k.kernel.locks.report();
      const acquired = report.get('s-R')!.acquired + report.get('s-W')!.acquired;
      assert.equal(acquired, tasks * 30);
      assert.equal(k.checks.sleepInAtomic, 0, k.checks.findings.join('\n'));
    });
  }
}

test('a writer is not starved by readers that come all the time', () => {
  const k = bareKernel('1s4c1t', '5.4');
  const sem = new RwSemaphore(k.kernel, 's');
  const fn = k.kernel.fn('test');
  let waited = 0;
  let stop = false;
  for (let i = 0; i < 3; i++) {
    k.start(
      `r${i}`,
      function* (t: Task): Code {
        while (!stop) {
          if (!sem.readAcquire(t, fn)) yield* sem.readAcquireSlow(t, fn);
          t.cpu.charge(us(100 + 17 * i), fn);
          if (t.cpu.settle()) yield;
          if (!sem.readRelease(t)) yield* sem.readReleaseSlow(t);
        }
      },
      i,
    );
  }
  k.start(
    'w',
    function* (t: Task): Code {
      t.cpu.charge(us(500), fn);
      if (t.cpu.settle()) yield;
      const began = k.machine.engine.now;
      if (!sem.writeAcquire(t, fn)) yield* sem.writeAcquireSlow(t, fn);
      waited = k.machine.engine.now - began;
      stop = true;
      if (!sem.writeRelease(t)) yield* sem.writeReleaseSlow(t);
    },
    3,
  );
  k.run(us(50_000));
  assert.ok(waited > 0 && waited < us(5_000), `waited ${waited} ticks`);
});

test('downgrading lets queued readers in and keeps writers out', () => {
  const k = bareKernel('1s4c1t', '6.12');
  const sem = new RwSemaphore(k.kernel, 's');
  const fn = k.kernel.fn('test');
  const log: string[] = [];
  k.start(
    'w',
    function* (t: Task): Code {
      if (!sem.writeAcquire(t, fn)) yield* sem.writeAcquireSlow(t, fn);
      yield* k.sched.sleep(t, us(200));
      yield* sem.downgrade(t);
      log.push('downgraded');
      yield* k.sched.sleep(t, us(200));
      log.push('up');
      if (!sem.readRelease(t)) yield* sem.readReleaseSlow(t);
    },
    0,
  );
  for (const [name, cpu, delay] of [
    ['r', 1, 20],
    ['w2', 2, 40],
  ] as const) {
    k.start(
      name,
      function* (t: Task): Code {
        t.cpu.charge(us(delay), fn);
        if (t.cpu.settle()) yield;
        if (name === 'r') {
          if (!sem.readAcquire(t, fn)) yield* sem.readAcquireSlow(t, fn);
          log.push('reader in');
          if (!sem.readRelease(t)) yield* sem.readReleaseSlow(t);
        } else {
          if (!sem.writeAcquire(t, fn)) yield* sem.writeAcquireSlow(t, fn);
          log.push('writer in');
          if (!sem.writeRelease(t)) yield* sem.writeReleaseSlow(t);
        }
      },
      cpu,
    );
  }
  k.run();
  assert.deepEqual(log, ['downgraded', 'reader in', 'up', 'writer in']);
});

test('a writer spins on readers for 10 to 25 us', () => {
  assert.equal(readerSpinTicks(0), us(10));
  assert.equal(readerSpinTicks(10), us(15));
  assert.equal(readerSpinTicks(1000), us(25));
  const k = bareKernel('1s2c1t', '6.12');
  const sem = new RwSemaphore(k.kernel, 's');
  const fn = k.kernel.fn('test');
  k.start(
    'r',
    function* (t: Task): Code {
      if (!sem.readAcquire(t, fn)) yield* sem.readAcquireSlow(t, fn);
      yield* k.sched.sleep(t, us(500));
      if (!sem.readRelease(t)) yield* sem.readReleaseSlow(t);
    },
    0,
  );
  k.start(
    'w',
    function* (t: Task): Code {
      t.cpu.charge(us(50), fn);
      if (t.cpu.settle()) yield;
      if (!sem.writeAcquire(t, fn)) yield* sem.writeAcquireSlow(t, fn);
      if (!sem.writeRelease(t)) yield* sem.writeReleaseSlow(t);
    },
    1,
  );
  k.run();
  const spun = k.machine.profile.ticksOf('rwsem_spin_on_owner');
  assert.ok(spun >= us(10) && spun < us(13), `spun for ${spun}`);
});

for (const machine of ['1s2c1t', '2s4c2t'] as const) {
  test(`sections that are given up ahead exclude each other in time, on ${machine}`, () => {
    const k = bareKernel(machine, '6.12');
    const sem = new RwSemaphore(k.kernel, 's');
    const fn = k.kernel.fn('test');
    const {engine} = k.machine;
    const sections: {from: number; to: number}[] = [];
    let ahead = 0;
    for (let i = 0; i < 12; i++) {
      k.start(`t${i}`, function* (t: Task): Code {
        for (let n = 0; n < 40; n++) {
          const reads = (i * 7 + n) % 5 === 0;
          if (reads) {
            if (!sem.readAcquire(t, fn)) yield* sem.readAcquireSlow(t, fn);
          } else if (!sem.writeAcquire(t, fn)) yield* sem.writeAcquireSlow(t, fn);
          const from = engine.now + t.cpu.pendingTicks;
          t.cpu.charge(us(1 + ((i + n) % 3)), fn);
          const to = engine.now + t.cpu.pendingTicks;
          if (reads) {
            if (!sem.readRelease(t)) yield* sem.readReleaseSlow(t);
          } else {
            sections.push({from, to});
            const {now} = engine;
            if (!sem.writeReleaseAhead(t)) yield* sem.writeReleaseSlow(t);
            if (engine.now === now) ahead++;
          }
          yield* k.sched.userRun(t, us((i % 4) * 3));
        }
      });
    }
    k.run();
    assert.equal(k.machine.engine.live, 0);
    assert.ok(ahead > 10 && ahead < sections.length, `${ahead} of ${sections.length} ahead`);
    for (let n = 1; n < sections.length; n++) {
      assert.ok(sections[n].from >= sections[n - 1].to, `section ${n} begins too early`);
    }
    const {acquired, holdTicks} = k.kernel.locks.report().get('s-W')!;
    assert.equal(acquired, sections.length);
    const held = sections.reduce((sum, {from, to}) => sum + to - from, 0);
    assert.ok(holdTicks >= held && holdTicks < 1.3 * held, `${holdTicks} of ${held}`);
  });
}
