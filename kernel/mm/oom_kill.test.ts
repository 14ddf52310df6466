import assert from 'node:assert/strict';
import {test} from 'node:test';
import type {Code} from '../../machine/process.ts';
import {EAGAIN} from '../errno.ts';
import {kill_group} from '../exit_task.ts';
import {sys_clone} from '../fork.ts';
import {testKernel} from '../fork_testing.ts';
import {startProcess} from '../init_task.ts';
import type {Kernel} from '../kernel.ts';
import {TaskKilled} from '../signal_struct.ts';
import type {Task} from '../task.ts';
import {access, mapAnon} from './mm_testing.ts';
import {mmu_notifier_register} from './mmu_notifier_register.ts';
import {MmuNotifier} from './mmu_notifier_types.ts';
import {drain_all_pages, rmqueue} from './page_alloc.ts';
import {install_memcg} from './swapfile.ts';

const BASE = 0x5_5555_0000;
const SECOND = 10_000_000_000;

const AT_ONCE: readonly undefined[] = [];

/** What a hog is asked to do, and how it went. */
interface Hog {
  readonly tid: number;
  readonly pages: number;
  readonly adj?: number;
  /** Ticks before it starts. */
  readonly afterTicks?: number;
  written: number;
  died: boolean;
}

function* touchAll(k: Kernel, t: Task, hog: Hog): Code {
  for (let i = 0; i < hog.pages; i++) {
    yield* access(k, t, BASE + i, true);
    if (t.sigkill) throw new TaskKilled();
    hog.written++;
  }
}

/** Starts a process that maps and writes its pages, then lives on for 10 s. */
function startHog(k: Kernel, memcg: number, hog: Hog): Task {
  return startProcess(k, {
    tid: hog.tid,
    comm: `hog${hog.tid}`,
    pinnedCpu: hog.tid % 4,
    *program(t) {
      hog.died = true;
      t.signal!.oomScoreAdj = hog.adj ?? 0;
      k.mm.userOf(t.mm!).memcg = memcg;
      mapAnon(k, t.mm!, BASE, hog.pages);
      yield* k.sched.sleep(t, hog.afterTicks ?? 1);
      yield* touchAll(k, t, hog);
      yield* k.sched.sleep(t, 10 * SECOND);
      if (t.sigkill) throw new TaskKilled();
      hog.died = false;
    },
  });
}

function hogs(
  version: string,
  limit: number,
  specs: readonly Omit<Hog, 'written' | 'died'>[],
): {k: Kernel; all: Hog[]} {
  const k = testKernel('2s4c1t', version);
  install_memcg(k.mm);
  const memcg = k.mm.swap.memcgs.create();
  memcg.max = limit;
  const all = specs.map((spec) => ({...spec, written: 0, died: false}));
  for (const hog of all) startHog(k, memcg.id, hog);
  k.machine.engine.run();
  assert.equal(memcg.usage, 0, 'everything charged was given back');
  return {k, all};
}

const VERSIONS = ['2.6.32', '3.10', '4.1', '4.13', '4.15', '4.19', '5.5', '6.6', '6.18'];

for (const version of VERSIONS) {
  test(`${version}: over a cgroup's limit the largest process dies, the others go on`, () => {
    const {k, all} = hogs(version, 1000, [
      {tid: 100, pages: 700},
      {tid: 101, pages: 200, afterTicks: SECOND / 10},
      {tid: 102, pages: 250, afterTicks: SECOND / 5},
    ]);
    assert.deepEqual(
      k.mm.oom.kills.map(({tid, rss, memcg}) => ({tid, rss, memcg})),
      [{tid: 100, rss: 700, memcg: 1}],
    );
    assert.deepEqual(
      all.map(({died}) => died),
      [true, false, false],
    );
    assert.equal(all[2].written, 250);
  });
}

test('oom_score_adj moves the score by thousandths of the limit; -1000 is never killed', () => {
  const {k} = hogs('6.18', 10_000, [
    {tid: 100, pages: 6000, adj: -1000},
    {tid: 101, pages: 3000, afterTicks: SECOND / 10},
    {tid: 102, pages: 700, adj: 400, afterTicks: SECOND / 5},
    {tid: 103, pages: 400, afterTicks: SECOND / 2},
  ]);
  // 700 pages and 400 thousandths of 10,000, and the tables.
  const [kill] = k.mm.oom.kills;
  assert.equal(kill.tid, 102);
  assert.equal(kill.points, 700 + kill.tablePages + 4000);
  assert.equal(k.mm.oom.kills.length, 1);
});

test('a process alone over the limit kills itself, and its memory comes back at once', () => {
  const {k, all} = hogs('6.18', 300, [{tid: 100, pages: 1000}]);
  const [kill] = k.mm.oom.kills;
  assert.equal(kill.tid, 100);
  assert.equal(all[0].written, 300);
  assert.equal(kill.reapedTick, -1, 'its own exit was faster than the reaper');
  assert.ok(kill.exitTick - kill.killTick < SECOND / 100);
});

test('nobody left to kill: the charge fails, the task lives', () => {
  const {k, all} = hogs('6.18', 300, [{tid: 100, pages: 310, adj: -1000}]);
  assert.equal(k.mm.oom.kills.length, 0);
  assert.equal(all[0].died, false);
  assert.equal(k.checks.findings.length, 0);
});

/** A victim that holds its mmap_lock for read and sleeps, so that only the reaper can help. */
function stuck(version: string, notifier: 'none' | 'blocks' | 'quick'): Kernel {
  const k = testKernel('2s4c1t', version);
  install_memcg(k.mm);
  const memcg = k.mm.swap.memcgs.create();
  memcg.max = 1000;
  startProcess(k, {
    tid: 200,
    comm: 'stuck',
    pinnedCpu: 1,
    *program(t) {
      const user = k.mm.userOf(t.mm!);
      user.memcg = memcg.id;
      mapAnon(k, t.mm!, BASE, 900);
      if (notifier !== 'none') {
        const ops = {
          name: 'consumer',
          *invalidate_range_start(): Code<number> {
            yield* AT_ONCE;
            return notifier === 'blocks' ? -EAGAIN : 0;
          },
        };
        yield* mmu_notifier_register(k, t, t.mm!, new MmuNotifier(ops, {}));
      }
      yield* touchAll(k, t, {tid: 200, pages: 900, written: 0, died: false});
      const queue = {name: 'something that a signal does not end'};
      yield* k.sched.blockTimeout(t, queue, 4 * SECOND);
      throw new TaskKilled();
    },
  });
  startHog(k, memcg.id, {tid: 201, pages: 500, afterTicks: SECOND, written: 0, died: false});
  k.machine.engine.run();
  assert.equal(memcg.usage, 0);
  return k;
}

function reapSeconds(k: Kernel): number {
  const [kill] = k.mm.oom.kills;
  assert.equal(kill.tid, 200);
  return kill.reapedTick < 0
    ? -1
    : Math.round((kill.reapedTick - kill.killTick) / (SECOND / 10)) / 10;
}

test('a stuck victim is reaped: at once up to 5.17, after 2 s since', () => {
  for (const version of ['4.13', '5.5']) {
    const k = stuck(version, 'none');
    assert.equal(reapSeconds(k), 0, version);
    assert.equal(k.mm.oom.kills[0].reapedPages, 900);
  }
  for (const version of ['6.18']) {
    const k = stuck(version, 'none');
    assert.equal(reapSeconds(k), 2, version);
    assert.equal(k.mm.oom.kills[0].reapedPages, 900);
  }
});

test('notifiers: unnoticed in 4.13, left alone in 4.15, asked without waiting since 4.19', () => {
  const pairs = (k: Kernel): number =>
    k.mm.notifierCounts.sites.get('__oom_reap_task_mm')?.start[0] ?? 0;
  const silent = stuck('4.13', 'blocks');
  assert.equal(silent.mm.oom.kills[0].reapedPages, 900);
  assert.equal(pairs(silent), 0);
  const shy = stuck('4.15', 'quick');
  assert.equal(shy.mm.oom.kills[0].reapedPages, 0);
  assert.equal(shy.mm.oom.reaper.attempts, 1);
  const asked = stuck('4.19', 'quick');
  assert.equal(asked.mm.oom.kills[0].reapedPages, 900);
  assert.equal(pairs(asked), 2, 'once by the reaper, once by exit_mmap');
  const refused = stuck('6.18', 'blocks');
  assert.equal(refused.mm.oom.kills[0].reapedPages, 0);
  assert.equal(refused.mm.oom.reaper.attempts, 10);
  assert.equal(refused.mm.oom.reaper.givenUp, 1);
  assert.equal(pairs(refused), 10);
  assert.equal(refused.mm.notifierCounts.eagain, 10);
});

/** Takes all free memory of the machine but `spare` pages of each node above its min watermark. */
function fillMemory(k: Kernel, t: Task, spare: number): void {
  for (const zone of k.mm.zones) {
    for (let order = 10; order >= 0; order--) {
      const floor = zone.watermarks.min + spare + 2 ** order;
      while (zone.free > floor) if (rmqueue(k, t, zone, order) === 0) break;
    }
  }
}

/** Free pages, those on the CPUs' lists included. */
function freePages(k: Kernel): number {
  drain_all_pages(k);
  return k.mm.zones.reduce((sum, zone) => sum + zone.free, 0);
}

test('the machine is out of memory: the hog dies, what it had is free', () => {
  const k = testKernel('2s4c1t', '6.18');
  const hog = {tid: 101, pages: 4000, written: 0, died: false};
  let before = 0;
  startProcess(k, {
    tid: 100,
    comm: 'filler',
    pinnedCpu: 0,
    *program(t) {
      fillMemory(k, t, 1000);
      before = freePages(k);
      startHog(k, 0, hog);
      yield* k.sched.sleep(t, 5 * SECOND);
      assert.ok(freePages(k) >= before, 'all that the hog had is free');
    },
  });
  k.machine.engine.run();
  assert.deepEqual(
    k.mm.oom.kills.map(({tid, memcg}) => ({tid, memcg})),
    [{tid: 101, memcg: 0}],
  );
  assert.ok(hog.died && hog.written >= 1800 && hog.written < 2100, `${hog.written}`);
});

test('up to 5.0 a child with an mm of its own dies for its parent', () => {
  const run = (version: string): number => {
    const k = testKernel('2s4c1t', version);
    install_memcg(k.mm);
    const memcg = k.mm.swap.memcgs.create();
    memcg.max = 1000;
    startProcess(k, {
      tid: 100,
      comm: 'parent',
      pinnedCpu: 0,
      *program(t) {
        k.mm.userOf(t.mm!).memcg = memcg.id;
        mapAnon(k, t.mm!, BASE, 2000);
        const child = {flags: 0, childTid: 101, comm: 'child', pinnedCpu: 1};
        const program = function* (c: Task): Code {
          for (let i = 0; i < 50; i++) yield* access(k, c, BASE + i, true);
          yield* k.sched.sleep(c, 5 * SECOND);
          if (c.sigkill) throw new TaskKilled();
        };
        yield* sys_clone(k, t, {...child, program});
        yield* k.sched.sleep(t, SECOND / 10);
        yield* touchAll(k, t, {tid: 100, pages: 970, written: 0, died: false});
      },
    });
    k.machine.engine.run();
    return k.mm.oom.kills[0].tid;
  };
  assert.equal(run('4.19'), 101);
  assert.equal(run('5.4'), 100);
});

test('process_mrelease takes the memory of a process that dies, in the caller', () => {
  const k = testKernel('2s4c1t', '6.18');
  const {reaper} = k.mm.oom;
  const results: number[] = [];
  const victim = startProcess(k, {
    tid: 300,
    comm: 'dying',
    pinnedCpu: 1,
    *program(t) {
      mapAnon(k, t.mm!, BASE, 400);
      for (let i = 0; i < 400; i++) yield* access(k, t, BASE + i, true);
      yield* k.sched.blockTimeout(t, {name: 'something'}, 2 * SECOND);
      throw new TaskKilled();
    },
  });
  startProcess(k, {
    tid: 301,
    comm: 'lmkd',
    pinnedCpu: 2,
    *program(t) {
      yield* k.sched.sleep(t, SECOND / 10);
      results.push(yield* reaper.process_mrelease(t, victim));
      yield* kill_group(k, t, victim);
      results.push(yield* reaper.process_mrelease(t, victim));
      results.push(victim.mm!.user!.rss.rss);
      yield* k.sched.sleep(t, 3 * SECOND);
      results.push(yield* reaper.process_mrelease(t, victim));
    },
  });
  k.machine.engine.run();
  // EINVAL while it lives, then 0 with nothing left, then ESRCH.
  assert.deepEqual(results, [-22, 0, 0, -3]);
});

test('a parent that is killed copies its mappings no further (4.20+)', () => {
  const copied = (version: string): number => {
    const k = testKernel('2s4c1t', version);
    const parent = startProcess(k, {
      tid: 300,
      comm: 'parent',
      pinnedCpu: 1,
      *program(t) {
        for (let n = 0; n < 400; n++) mapAnon(k, t.mm!, BASE + n * 16, 8);
        for (let n = 0; n < 400; n++) yield* access(k, t, BASE + n * 16, true);
        yield* k.sched.sleep(t, SECOND / 10);
        const program = (c: Task): Code => k.sched.userRun(c, 1);
        yield* sys_clone(k, t, {flags: 0, childTid: 301, program});
      },
    });
    startProcess(k, {
      tid: 302,
      comm: 'killer',
      pinnedCpu: 2,
      *program(t) {
        while (parent.state !== 'sleeping') yield* k.sched.sleep(t, 1_000_000);
        while (parent.state === 'sleeping') yield* k.sched.sleep(t, 100_000);
        yield* k.sched.sleep(t, 500_000);
        yield* kill_group(k, t, parent);
      },
    });
    k.machine.engine.run();
    return k.mm.notifierCounts.sites.get('copy_page_range')!.start.reduce((sum, n) => sum + n, 0);
  };
  assert.equal(copied('4.19'), 400);
  const since = copied('6.18');
  assert.ok(since > 0 && since < 400, `${since} of 400`);
});
