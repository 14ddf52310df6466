import assert from 'node:assert/strict';
import {test} from 'node:test';
import type {Code} from '../../machine/process.ts';
import {CLONE_FILES, CLONE_FS, CLONE_SIGHAND, CLONE_THREAD, CLONE_VM} from '../clone_flags.ts';
import {EINTR} from '../errno.ts';
import {sys_execve} from '../exec.ts';
import {kill_group} from '../exit_task.ts';
import {sys_clone} from '../fork.ts';
import {testKernel} from '../fork_testing.ts';
import {startProcess} from '../init_task.ts';
import type {Kernel} from '../kernel.ts';
import {TaskKilled} from '../signal_struct.ts';
import type {Task} from '../task.ts';
import {do_mbind, MPOL_PREFERRED} from './mempolicy.ts';
import {access, mapAnon} from './mm_testing.ts';
import {mmap_read_lock, mmap_read_unlock, mmap_write_lock, mmap_write_unlock} from './mmap_lock.ts';
import {sys_munmap} from './mmap_unmap.ts';
import {install_memcg} from './swapfile.ts';
import type {UserMm} from './user_mm.ts';
import {vma_start_write} from './vma_lock.ts';

const BASE = 0x5_5555_0000;
const PAGES = 900;
const SECOND = 10_000_000_000;
const MS = SECOND / 1000;
const THREAD = CLONE_VM | CLONE_FS | CLONE_FILES | CLONE_SIGHAND | CLONE_THREAD;

/** What the victim does when it finds its lock taken; the result is noted. */
type Call = (k: Kernel, t: Task) => Code<unknown>;

interface Outcome {
  readonly k: Kernel;
  readonly result: unknown;
  /** When the call came back, and when the holder gave the lock up, in ms. */
  readonly backMs: number;
  readonly freeMs: number;
}

/**
 * A victim of 900 pages waits for its mmap_lock, which somebody else holds for 0.85 s, when another
 * process of its cgroup runs out of memory 0.1 s before the end of that.
 */
function oomWhileWaiting(version: string, call: Call, held = true): Outcome {
  const k = testKernel('2s4c1t', version);
  const {engine} = k.machine;
  install_memcg(k.mm);
  const memcg = k.mm.swap.memcgs.create();
  memcg.max = 1000;
  let user: UserMm | null = null;
  let result: unknown;
  let backMs = -1;
  let freeMs = -1;
  startProcess(k, {
    tid: 200,
    comm: 'victim',
    pinnedCpu: 1,
    *program(t) {
      user = k.mm.userOf(t.mm!);
      user.memcg = memcg.id;
      mapAnon(k, t.mm!, BASE, PAGES);
      for (let n = 0; n < PAGES - 1; n++) yield* access(k, t, BASE + n, true);
      yield* k.sched.sleep(t, SECOND / 2);
      try {
        result = yield* call(k, t);
      } finally {
        backMs = (engine.now + t.cpu.pendingTicks) / MS;
      }
      throw new TaskKilled();
    },
  });
  startProcess(k, {
    tid: 201,
    comm: 'holder',
    pinnedCpu: 2,
    *program(t) {
      yield* k.sched.sleep(t, SECOND / 4);
      if (!held) return;
      yield* mmap_write_lock(t, user!, k.fn('test'));
      // 6.4+: or faults would not need mmap_lock.
      yield* vma_start_write(k, t, user!, user!.space.tree.first!);
      yield* k.sched.sleep(t, 0.85 * SECOND);
      freeMs = engine.now / MS;
      yield* mmap_write_unlock(t, user!);
    },
  });
  startProcess(k, {
    tid: 202,
    comm: 'hog',
    pinnedCpu: 3,
    *program(t) {
      k.mm.userOf(t.mm!).memcg = memcg.id;
      mapAnon(k, t.mm!, BASE, 400);
      yield* k.sched.sleep(t, SECOND);
      for (let n = 0; n < 400; n++) yield* access(k, t, BASE + n, true);
    },
  });
  engine.run();
  assert.equal(k.mm.oom.kills[0].tid, 200);
  assert.equal(memcg.usage, 0, 'everything charged was given back');
  assert.deepEqual(k.checks.findings, []);
  return {k, result, backMs, freeMs};
}

const munmap: Call = (k, t) => sys_munmap(k, t, BASE, BASE + 1);
const fault: Call = (k, t) => access(k, t, BASE + PAGES - 1, true);
const mbind: Call = (k, t) => do_mbind(k, t, BASE, 1, MPOL_PREFERRED, [0], false);
const fork: Call = (k, t) =>
  sys_clone(k, t, {flags: 0, childTid: 300, program: () => munmap(k, t)});

for (const version of ['4.1', '4.13', '5.5', '6.18']) {
  test(`${version}: a victim that waits for mmap_lock for write`, () => {
    const {result, backMs, freeMs} = oomWhileWaiting(version, munmap);
    if (version === '4.1') {
      assert.equal(result, 0);
      assert.ok(backMs >= freeMs, 'up to 4.6 nothing ends such a wait');
      return;
    }
    assert.equal(result, -EINTR);
    assert.ok(backMs > 1000 && backMs < 1010, `back after ${backMs} ms, free after ${freeMs}`);
  });

  test(`${version}: a victim that waits for mmap_lock in a fault`, () => {
    const {result, backMs, freeMs} = oomWhileWaiting(version, fault);
    const killable = version === '6.18';
    assert.equal(result, killable ? 'killed' : 'minor anon');
    assert.equal(backMs < freeMs, killable, `back after ${backMs} ms, free after ${freeMs}`);
  });
}

test('a fork that waits for mmap_lock fails, and leaves nothing behind', () => {
  const {k, result, backMs} = oomWhileWaiting('6.18', fork);
  assert.equal(result, undefined, 'clone does not come back');
  assert.ok(backMs > 1000 && backMs < 1010, `back after ${backMs} ms`);
  assert.deepEqual([...k.mm.users()], []);
});

test('mbind waits on, as in Linux', () => {
  const {result, backMs, freeMs} = oomWhileWaiting('6.18', mbind);
  assert.equal(result, 0);
  assert.ok(backMs >= freeMs);
});

/** Holds mmap_lock for read in a wait that no signal ends, while a thread of its own queues. */
const stuckReader = (queued: Call): Call =>
  function* (k, t) {
    const user = k.mm.userOf(t.mm!);
    yield* mmap_read_lock(t, user, k.fn('test'));
    const program = function* (c: Task): Code {
      yield* queued(k, c);
      throw new TaskKilled();
    };
    yield* sys_clone(k, t, {flags: THREAD, childTid: 300, childTgid: 200, program});
    yield* k.sched.blockTimeout(t, {name: 'something'}, 1.6 * SECOND);
    yield* mmap_read_unlock(t, user);
  };

test('a victim that leaves the queue lets the reaper in, which only tries for the lock', () => {
  const left = oomWhileWaiting('5.5', stuckReader(munmap), false).k.mm.oom;
  assert.equal(left.kills[0].reapedPages, PAGES - 1);
  assert.equal(left.reaper.givenUp, 0);
  // A writer in the queue keeps new readers out, and this one stays.
  const stays = oomWhileWaiting('5.5', stuckReader(mbind), false).k.mm.oom;
  assert.equal(stays.kills[0].reapedPages, 0);
  assert.equal(stays.reaper.givenUp, 1);
});

/** Two threads queue for mmap_lock, then `end` ends them. When and how each came back. */
function threadsWaiting(end: (k: Kernel, t: Task, leader: Task) => Code<unknown>): string[] {
  const k = testKernel('2s4c1t', '6.18');
  const {engine} = k.machine;
  const log: string[] = [];
  const leader = startProcess(k, {
    tid: 300,
    comm: 'leader',
    pinnedCpu: 0,
    *program(t) {
      mapAnon(k, t.mm!, BASE, 8);
      const waiter = (name: string, call: Call) =>
        function* (c: Task): Code {
          yield* k.sched.sleep(c, 10 * MS);
          const result = yield* call(k, c);
          if (c.cpu.settle()) yield;
          log.push(`${name} ${result} ${engine.now / MS < 50 ? 'early' : 'late'}`);
          if (c.sigkill) throw new TaskKilled();
        };
      const unmaps = waiter('munmap', munmap);
      const faults = waiter('fault', (_, c) => access(k, c, BASE + 3, true));
      yield* sys_clone(k, t, {flags: THREAD, childTid: 301, childTgid: 300, program: unmaps});
      yield* sys_clone(k, t, {flags: THREAD, childTid: 302, childTgid: 300, program: faults});
      yield* k.sched.sleep(t, 30 * MS);
      yield* end(k, t, t);
      log.push(`leader ${t.sigkill} ${t.threads.length}`);
      if (t.sigkill) throw new TaskKilled();
    },
  });
  startProcess(k, {
    tid: 400,
    comm: 'holder',
    pinnedCpu: 3,
    *program(t) {
      yield* k.sched.sleep(t, 5 * MS);
      const user = k.mm.userOf(leader.mm!);
      yield* mmap_write_lock(t, user, k.fn('test'));
      yield* vma_start_write(k, t, user, user.space.tree.first!);
      yield* k.sched.sleep(t, 100 * MS);
      yield* mmap_write_unlock(t, user);
    },
  });
  engine.run();
  assert.deepEqual(k.checks.findings, []);
  assert.deepEqual([...k.mm.users()], [], 'every mm is gone');
  log.push(`${engine.now}`);
  return log;
}

test('exec of another thread and a kill of the group end the waits; twice the same', () => {
  const exec = threadsWaiting((k, t) => sys_execve(k, t, 'next'));
  assert.deepEqual(exec.slice(0, 2).sort(), [`fault killed early`, `munmap -${EINTR} early`]);
  assert.equal(exec[2], 'leader false 1');
  const kill = threadsWaiting((k, t, leader) => kill_group(k, t, leader));
  assert.deepEqual(kill.slice(0, 3).sort(), [
    'fault killed early',
    'leader true 3',
    `munmap -${EINTR} early`,
  ]);
  assert.deepEqual(
    threadsWaiting((k, t) => sys_execve(k, t, 'next')),
    exec,
  );
});
