import assert from 'node:assert/strict';
import {test} from 'node:test';
import fc from 'fast-check';
import type {Code} from '../machine/process.ts';
import {CLONE_VFORK, CLONE_VM, PTHREAD_FLAGS, WNOHANG} from './clone_flags.ts';
import {sys_execve} from './exec.ts';
import {do_exit, sys_wait4} from './exit.ts';
import {kill_group} from './exit_task.ts';
import {sys_clone} from './fork.ts';
import {
  buildImage,
  childWrites,
  computing,
  forkStorm,
  parentWrites,
  runToEnd,
  startProgram,
  testKernel,
} from './fork_testing.ts';
import {startProcess} from './init_task.ts';
import type {Kernel} from './kernel.ts';
import type {Task} from './task.ts';

const US = 10_000;

/** Runs `program` as the only process of a small machine and returns the kernel. */
function run(program: (k: Kernel, t: Task) => Code<unknown>, version = '6.18'): Kernel {
  const k = testKernel('2s4c1t', version);
  startProcess(k, {tid: 100, comm: 'test', program: (t) => program(k, t)});
  runToEnd(k);
  return k;
}

/** What must hold when everybody has gone. `init` may have come to reap orphans; it stays. */
function assertQuiescent(k: Kernel): void {
  const stays = k.init === null ? 0 : 1;
  assert.equal(k.taskList.count, stays, 'tasks still listed');
  assert.equal(k.taskList.nextProcess(k.machine.cpus[0], null), k.init);
  assert.equal(k.mmCounts.pgdAllocs - k.mmCounts.pgdFrees, stays, 'PGDs not freed');
  assert.equal(k.reaped, k.exits, 'zombies not reaped once each');
  assert.equal(k.checks.sleepInAtomic, 0);
  assert.deepEqual(k.checks.findings, []);
  for (const cpu of k.machine.cpus) assert.equal(cpu.irqDisabledDepth, 0);
}

test('fork and wait: the parent gets the number of its child, and nothing is left', () => {
  const seen: number[] = [];
  const k = run(function* (k, t) {
    const child = yield* sys_clone(k, t, {flags: 0, childTid: 200, program: computing(k, 50 * US)});
    seen.push(child!.tid, yield* sys_wait4(k, t, -1, 0), yield* sys_wait4(k, t, -1, 0));
  });
  assert.deepEqual(seen, [200, 200, -10]);
  assertQuiescent(k);
  assert.equal(k.mmCounts.pgdAllocs, 2);
});

test('lmbench fork+exit and fork+execve come out as the inputs they were set from (6.14)', () => {
  const us: number[] = [];
  const k = testKernel('icelake-2s-64t', '6.18');
  const latencies = function* (t: Task): Code {
    yield* buildImage(k, t);
    for (let i = 0; i < 10; i++) {
      const began = k.machine.engine.now;
      const program = function* (c: Task): Code {
        yield* childWrites(k, c);
        if (i < 5) return;
        yield* sys_execve(k, c, 'hello');
        yield* startProgram(k, c);
      };
      yield* sys_clone(k, t, {flags: 0, childTid: 200 + i, pinnedCpu: -1, program});
      yield* parentWrites(k, t);
      yield* sys_wait4(k, t, -1, 0);
      us.push((k.machine.engine.now - began) / US);
    }
  };
  startProcess(k, {tid: 100, comm: 'lat_proc', pinnedCpu: 0, program: latencies});
  runToEnd(k);
  assert.ok(Math.abs(us[4] / 178.2 - 1) < 0.03, `fork+exit takes ${us[4]} us`);
  assert.ok(Math.abs(us[9] / 549.4 - 1) < 0.03, `fork+execve takes ${us[9]} us`);
});

test('wait4: WNOHANG does not sleep, one pid is waited for among several, strangers are no children', () => {
  const seen: number[] = [];
  const k = run(function* (k, t) {
    for (const [tid, us] of [
      [201, 500],
      [202, 100],
      [203, 900],
    ]) {
      yield* sys_clone(k, t, {flags: 0, childTid: tid, program: computing(k, us * US)});
    }
    seen.push(yield* sys_wait4(k, t, -1, WNOHANG));
    seen.push(yield* sys_wait4(k, t, 203, 0), yield* sys_wait4(k, t, 999, 0));
    seen.push(yield* sys_wait4(k, t, -1, 0), yield* sys_wait4(k, t, -1, 0));
  });
  assert.deepEqual(seen, [0, 203, -10, 202, 201]);
  assertQuiescent(k);
});

test('vfork: the parent waits for exec or exit of the child, and shares its mm until then', () => {
  const order: string[] = [];
  const k = run(function* (k, t) {
    const flags = CLONE_VM | CLONE_VFORK;
    const program = (exec: boolean) =>
      function* (c: Task): Code {
        assert.equal(c.mm, t.mm);
        yield* k.sched.userRun(c, 300 * US);
        order.push('child');
        if (exec) {
          yield* sys_execve(k, c, 'ls');
          assert.notEqual(c.mm, t.mm);
        }
      };
    yield* sys_clone(k, t, {flags, childTid: 201, program: program(true)});
    order.push('parent');
    yield* sys_clone(k, t, {flags, childTid: 202, program: program(false)});
    order.push('parent');
    yield* sys_wait4(k, t, -1, 0);
    yield* sys_wait4(k, t, -1, 0);
  });
  assert.deepEqual(order, ['child', 'parent', 'child', 'parent']);
  assertQuiescent(k);
  assert.equal(k.mmCounts.pgdAllocs, 2, 'only the exec made an mm');
});

test('exec gives the process another mm and frees the old one', () => {
  const k = run(function* (k, t) {
    const before = t.mm!;
    assert.equal(yield* sys_execve(k, t, 'cat'), 0);
    assert.notEqual(t.mm, before);
    assert.equal(before.count, 0);
    assert.equal(t.comm, 'cat');
    assert.equal(k.taskList.loadMm(t.cpu, t), t.mm);
  });
  assertQuiescent(k);
  assert.equal(k.mmCounts.pgdAllocs, 2);
});

test('threads share the mm; it lives until the last of them is gone', () => {
  const k = run(function* (k, t) {
    for (let i = 0; i < 3; i++) {
      const program = computing(k, (i + 1) * 200 * US);
      const thread = yield* sys_clone(k, t, {flags: PTHREAD_FLAGS, childTid: 201 + i, program});
      assert.equal(thread!.mm, t.mm);
      assert.equal(thread!.tgid, 100);
    }
    assert.equal(t.mm!.users, 4);
    yield* do_exit(k, t, {group: false});
  });
  assertQuiescent(k);
  assert.equal(k.mmCounts.pgdAllocs, 1);
  assert.equal(k.exits, 4);
});

test('exit_group ends threads that sleep and threads that compute', () => {
  const reached: string[] = [];
  const k = run(function* (k, t) {
    yield* sys_clone(k, t, {
      flags: PTHREAD_FLAGS,
      childTid: 201,
      *program(c) {
        yield* sys_clone(k, c, {flags: 0, childTid: 301, program: computing(k, 5000 * US)});
        yield* sys_wait4(k, c, -1, 0);
        reached.push('waiter came back to user mode');
      },
    });
    yield* sys_clone(k, t, {
      flags: PTHREAD_FLAGS,
      childTid: 202,
      *program(c) {
        yield* k.sched.userRun(c, 1e6 * US);
        reached.push('computing thread came back to user mode');
      },
    });
    yield* k.sched.userRun(t, 500 * US);
  });
  assert.deepEqual(reached, []);
  assert.ok(k.machine.profile.ticksOf('[user]') < 1e5 * US, 'the rest was not computed');
  assertQuiescent(k);
});

test('exec from a thread: the others die, and the thread goes on under the number of the leader', () => {
  const tids: number[] = [];
  let waited = 0;
  const k = run(function* (k, t) {
    const program = function* (leader: Task): Code {
      yield* sys_clone(k, leader, {
        flags: PTHREAD_FLAGS,
        childTid: 301,
        *program(c) {
          yield* sys_execve(k, c, 'exec-from-thread');
          tids.push(c.tid, c.leader.tid, c.threads.length);
          assert.equal(k.taskList.find(200), c);
          assert.equal(k.taskList.find(301), null);
        },
      });
      yield* k.sched.userRun(leader, 100 * US);
      yield* sys_wait4(k, leader, -1, 0);
      yield* sys_wait4(k, leader, 7, 0);
      for (;;) {
        yield* k.sched.userRun(leader, 100 * US);
        yield* sys_wait4(k, leader, 7, 0);
      }
    };
    yield* sys_clone(k, t, {flags: 0, childTid: 200, program});
    waited = yield* sys_wait4(k, t, -1, 0);
  });
  assert.deepEqual(tids, [200, 200, 1]);
  assert.equal(waited, 200);
  assertQuiescent(k);
});

test('orphans go to another thread, to a subreaper, or to init, who reaps them', () => {
  const k = run(function* (k, t) {
    t.signal!.isChildSubreaper = true;
    const program = function* (c: Task): Code {
      yield* sys_clone(k, c, {flags: 0, childTid: 301, program: computing(k, 900 * US)});
      yield* sys_clone(k, c, {flags: 0, childTid: 302, program: computing(k, 1 * US)});
      yield* k.sched.userRun(c, 400 * US);
    };
    yield* sys_clone(k, t, {flags: 0, childTid: 200, program});
    const reaped: number[] = [];
    for (let i = 0; i < 3; i++) reaped.push(yield* sys_wait4(k, t, -1, 0));
    assert.deepEqual(reaped.sort(), [200, 301, 302]);
    yield* sys_clone(k, t, {flags: 0, childTid: 400, program: computing(k, 2000 * US)});
  });
  assert.equal(k.init!.comm, 'init');
  assertQuiescent(k);
});

test('kill: a process in wait4 dies, and its parent learns it', () => {
  const codes: number[] = [];
  const k = run(function* (k, t) {
    const child = yield* sys_clone(k, t, {
      flags: 0,
      childTid: 200,
      *program(c) {
        yield* sys_clone(k, c, {flags: 0, childTid: 300, program: computing(k, 9000 * US)});
        yield* sys_wait4(k, c, -1, 0);
      },
    });
    yield* k.sched.userRun(t, 1000 * US);
    yield* kill_group(k, t, child!);
    codes.push(yield* sys_wait4(k, t, -1, 0), child!.exitCode);
  });
  assert.equal(codes[0], 200);
  assertQuiescent(k);
});

test('bad flags are refused without a trace', () => {
  const k = run(function* (k, t) {
    const args = {flags: 0x10000, childTid: 200, program: computing(k, 1)};
    assert.equal(yield* sys_clone(k, t, args), null);
  });
  assert.equal(k.forks, 0);
  assertQuiescent(k);
});

for (const spinlock of ['tas', 'ticket', 'mcs', 'qspinlock', 'cna']) {
  test(`fork storm under ${spinlock}: everybody is reaped, nobody waits, and the digest is stable`, () => {
    const digests: string[] = [];
    for (let i = 0; i < 2; i++) {
      const k = testKernel('2s4c1t', '4.19', [`spinlock=${spinlock}`]);
      const {reaped} = forkStorm(k, 4, 100);
      runToEnd(k);
      assert.equal(new Set(reaped).size, 400);
      assert.deepEqual(k.machine.engine.waitGraph(), []);
      assertQuiescent(k);
      digests.push(k.machine.engine.digest.hex());
    }
    assert.match(digests[0], /^[0-9a-f]{16}$/);
    assert.equal(digests[0], digests[1]);
  });
}

test('fork storm on 64 threads: pgd_alloc is far below 1 % of CPU, percpu counters cost more (6.18)', () => {
  const k = testKernel('icelake-2s-64t', '6.18');
  forkStorm(k, 64, 20);
  k.machine.engine.run(500 * US);
  const atStart = ticksSpent(k);
  runToEnd(k);
  const atEnd = ticksSpent(k);
  const [pgd, counters] = atEnd.map((ticks, i) => (ticks - atStart[i]) / (atEnd[2] - atStart[2]));
  assert.ok(pgd > 0 && pgd < 0.0074, `pgd_alloc is ${(100 * pgd).toFixed(2)} %`);
  assert.ok(counters > 1.5 * pgd, `percpu counters are ${(100 * counters).toFixed(2)} %`);
});

/** CPU time so far: pgd_alloc and percpu_counter_init, their waits included, and all. */
function ticksSpent(k: Kernel): [number, number, number] {
  const waits = k.locks.report();
  const wait = (lock: string, fn: string): number =>
    waits.get(lock)?.waitTicksByCaller.get(fn) ?? 0;
  const {profile} = k.machine;
  const counters =
    profile.ticksOf('pcpu_alloc') +
    profile.ticksOf('percpu_counter_init') +
    wait('pcpu_lock', 'pcpu_alloc') +
    wait('percpu_counters_lock', 'percpu_counter_init');
  const total = profile.entries().reduce((sum, [, ticks]) => sum + ticks, 0);
  return [profile.ticksOf('pgd_alloc') + wait('pgd_lock', 'pgd_alloc'), counters, total];
}

const VERSIONS = ['2.6.32', '4.1', '4.13', '4.19', '5.4', '5.5', '6.6', '6.18'];
const PGDS = ['pgd-list', 'lockless-2015-09', 'count-at-switch', 'sync-at-vmalloc'];

const FLAGS = new Map([
  ['fork', 0],
  ['thread', PTHREAD_FLAGS],
  ['vfork', CLONE_VM | CLONE_VFORK],
]);

test('process tree law: any tree of forks, threads and execs ends with every task reaped once', () => {
  const action = fc.record({
    kind: fc.constantFrom('fork', 'thread', 'vfork', 'exec', 'wait', 'run'),
    us: fc.integer({min: 0, max: 400}),
  });
  const shape = fc.record({
    version: fc.constantFrom(...VERSIONS),
    pgd: fc.constantFrom(...PGDS),
    actions: fc.array(action, {maxLength: 12}),
    seed: fc.integer({min: 0, max: 1000}),
  });
  fc.assert(
    fc.property(shape, ({version, pgd, actions, seed}) => {
      const k = testKernel('2s4c1t', version, [`pgd=${pgd}`], seed);
      let tid = 200;
      const program = (from: number) =>
        function* (t: Task): Code {
          for (let i = from; i < actions.length; i++) {
            const {kind, us} = actions[i];
            yield* k.sched.userRun(t, us * US);
            if (kind === 'exec') yield* sys_execve(k, t, `x${i}`);
            if (kind === 'wait') yield* sys_wait4(k, t, -1, us % 2);
            if (tid > 260) continue;
            const flags = FLAGS.get(kind);
            if (flags === undefined) continue;
            yield* sys_clone(k, t, {flags, childTid: tid++, program: program(i + 1)});
          }
        };
      startProcess(k, {tid: 100, comm: 'tree', program: program(0)});
      runToEnd(k);
      assertQuiescent(k);
    }),
    {numRuns: 60},
  );
});
