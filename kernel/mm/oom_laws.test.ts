import assert from 'node:assert/strict';
import {test} from 'node:test';
import fc from 'fast-check';
import type {Code} from '../../machine/process.ts';
import {CLONE_FILES, CLONE_FS, CLONE_SIGHAND, CLONE_THREAD, CLONE_VM} from '../clone_flags.ts';
import {sys_clone} from '../fork.ts';
import {testKernel} from '../fork_testing.ts';
import {startProcess} from '../init_task.ts';
import type {Kernel} from '../kernel.ts';
import {TaskKilled} from '../signal_struct.ts';
import type {Task} from '../task.ts';
import {lru_add_drain_all} from './folio_lru.ts';
import {access, mapAnon} from './mm_testing.ts';
import {drain_all_pages} from './page_alloc.ts';
import {install_memcg, sys_swapon} from './swapfile.ts';

const BASE = 0x5_5555_0000;
const SECOND = 10_000_000_000;
const THREAD = CLONE_VM | CLONE_FS | CLONE_FILES | CLONE_SIGHAND | CLONE_THREAD;

const PROCESS = fc.record({
  pages: fc.integer({min: 1, max: 500}),
  threads: fc.nat(2),
  /** Another process in the same mm. */
  shares: fc.boolean(),
  child: fc.boolean(),
  adj: fc.constantFrom(0, 0, 300, -500),
  startMs: fc.nat(50),
});
type ProcessSpec = typeof PROCESS extends fc.Arbitrary<infer T> ? T : never;

function* write(k: Kernel, t: Task, from: number, pages: number): Code {
  for (let i = from; i < pages; i += 2) {
    yield* access(k, t, BASE + i, true);
    if (t.sigkill) throw new TaskKilled();
  }
  yield* k.sched.sleep(t, SECOND / 2);
  if (t.sigkill) throw new TaskKilled();
}

function start(k: Kernel, memcg: number, tid: number, spec: ProcessSpec): void {
  startProcess(k, {
    tid,
    comm: `p${tid}`,
    *program(t) {
      t.signal!.oomScoreAdj = spec.adj;
      k.mm.userOf(t.mm!).memcg = memcg;
      mapAnon(k, t.mm!, BASE, spec.pages);
      yield* k.sched.sleep(t, (spec.startMs * SECOND) / 1000 + 1);
      const other = (flags: number, childTid: number): Code<Task | null> =>
        sys_clone(k, t, {flags, childTid, program: (c) => write(k, c, 1, spec.pages)});
      for (let n = 0; n < spec.threads; n++) yield* other(THREAD, tid + 1 + n);
      if (spec.shares) yield* other(CLONE_VM, tid + 5);
      yield* write(k, t, 0, spec.pages);
      if (spec.child) yield* other(0, tid + 6);
    },
  });
}

/** Free pages, once nothing waits on any CPU. */
function* freePages(k: Kernel, t: Task): Code<number> {
  lru_add_drain_all(k, t);
  drain_all_pages(k);
  if (t.cpu.settle()) yield;
  return k.mm.zones.reduce((sum, zone) => sum + zone.free, 0);
}

test('law: whoever is killed, everybody ends and all memory comes back', () => {
  let allKills = 0;
  fc.assert(
    fc.property(
      fc.constantFrom('3.10', '4.1', '4.13', '4.15', '4.19', '5.5', '6.6', '6.18'),
      fc.array(PROCESS, {minLength: 2, maxLength: 5}),
      fc.integer({min: 200, max: 700}),
      fc.boolean(),
      (version, specs, limit, swaps) => {
        const k = testKernel('2s4c1t', version);
        install_memcg(k.mm);
        const memcg = k.mm.swap.memcgs.create();
        memcg.max = limit;
        let lost = 0;
        startProcess(k, {
          tid: 50,
          comm: 'watch',
          *program(t) {
            if (swaps) yield* sys_swapon(k, t, 128);
            const before = yield* freePages(k, t);
            for (const [i, spec] of specs.entries()) start(k, memcg.id, 100 + 10 * i, spec);
            yield* k.sched.sleep(t, 20 * SECOND);
            lost = before - (yield* freePages(k, t));
          },
        });
        k.machine.engine.run();
        assert.equal(memcg.usage, 0);
        assert.deepEqual(k.checks.findings, []);
        const daemons = [...k.mm.users()].map(({mm}) => mm.id);
        assert.deepEqual(daemons, [], 'every mm is gone');
        assert.equal(lost, 0, 'every page is free again');
        const {kills} = k.mm.oom;
        allKills += kills.length;
        assert.equal(new Set(kills.map(({tid}) => tid)).size, kills.length);
        for (const kill of kills) assert.ok(kill.exitTick >= kill.killTick);
      },
    ),
    {numRuns: 25, seed: 20150611},
  );
  assert.ok(allKills > 20, `${allKills} kills`);
});
