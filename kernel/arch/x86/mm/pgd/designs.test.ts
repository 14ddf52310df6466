import assert from 'node:assert/strict';
import {test} from 'node:test';
import fc from 'fast-check';
import {AXES, type Choice} from '../../../../design.ts';
import {PTHREAD_FLAGS} from '../../../../clone_flags.ts';
import {sys_wait4} from '../../../../exit.ts';
import {sys_clone} from '../../../../fork.ts';
import type {Kernel} from '../../../../kernel.ts';
import {add_memory} from '../hotplug.ts';
import type {KernelPgd} from '../pgd_pool.ts';
import {bootKernel, startOn} from '../testing.ts';
import {auditPgds} from './check.ts';
import type {PgdListDesign} from './pgd_list.ts';

const SECTION = 32_768;
const SLOT_PAGES = 2 ** 27;

/**
 * Forks `children` that sleep, adds memory in a new top-level entry meanwhile, audits, and lets
 * everybody exit.
 */
function forkAndHotAdd(design: string, paging: string, children: number, seed: number): Kernel {
  const k = bootKernel({design: [`pgd=${design}`, `paging=${paging}`], seed});
  const slot = 2 ** (k.pageTables.layout.entryShift - 27) * 5;
  startOn(k, 0, function* (t) {
    for (let i = 0; i < children; i++) {
      const program = function* (c: typeof t) {
        yield* k.sched.sleep(c, 2e8);
      };
      yield* sys_clone(k, t, {flags: 0, childTid: 200 + i, childTgid: 200 + i, program});
    }
    for (let i = 0; i < children; i++) yield* sys_wait4(k, t, 200 + i, 0);
  });
  startOn(k, 1, function* (t) {
    yield* k.sched.sleep(t, 3e6);
    yield* add_memory(k, t, slot * SLOT_PAGES, SECTION, 0);
    yield* k.sched.sleep(t, 5e7);
    auditPgds(k);
  });
  k.machine.engine.run();
  return k;
}

const SOUND: readonly Choice<'pgd'>[] = [
  'pgd-list',
  'pgd-list-padded',
  'lockless-2015-09',
  'count-at-switch',
  'sync-at-vmalloc',
  'preallocated',
];

for (const design of SOUND) {
  for (const paging of ['4-level', '5-level']) {
    test(`${design}, ${paging}: every PGD gets a new direct-map entry`, () => {
      const k = forkAndHotAdd(design, paging, 5, 1);
      assert.equal(k.checks.missedPgdEntries, 0);
      assert.deepEqual(k.checks.findings, []);
      assert.equal(k.pageTables.pool.size, 0, 'every PGD is freed');
      assert.equal(k.mmCounts.pgdAllocs, k.mmCounts.pgdFrees);
    });
  }
}

for (const design of ['lockless-v1', 'lockless-v2']) {
  test(`${design}: the walk does not index by address`, () => {
    const k = forkAndHotAdd(design, '4-level', 5, 1);
    assert.ok(k.checks.missedPgdEntries > 0);
    assert.ok((k.checks.counters.get('pgd_missed_not_indexed') ?? 0) > 0);
    assert.ok((k.checks.counters.get('pgd_user_entry_written') ?? 0) > 0);
    assert.match(k.checks.findings.join('\n'), /suspicious RCU usage/);
    // The second walk, for vmemmap, meets what the first one left in user entry 0.
    assert.match(k.checks.findings.join('\n'), /BUG: user entry 0/);
  });
}

test('lockless-v1: a kernel thread on the task list is an oops, v2 skips it', () => {
  for (const [design, oopses] of [
    ['lockless-v1', true],
    ['lockless-v2', false],
  ] as const) {
    const k = bootKernel({design: [`pgd=${design}`]});
    const worker = startOn(k, 0, function* (t) {
      yield* k.sched.sleep(t, 1e8);
    });
    k.taskList.storeMm(worker, worker, null);
    startOn(k, 1, function* (t) {
      k.taskList.storeMm(worker, worker, null);
      yield* add_memory(k, t, 5 * SLOT_PAGES, SECTION, 0);
    });
    k.machine.engine.run(5e7);
    assert.equal(/NULL pointer dereference/.test(k.checks.findings.join('\n')), oopses, design);
  }
});

test('laws of pgd_list: listed exactly while allocated, newest first, links agree', () => {
  fc.assert(
    fc.property(fc.array(fc.nat(9), {maxLength: 40}), (choices) => {
      const k = bootKernel();
      const design = k.pgd as PgdListDesign;
      const mms: ReturnType<Kernel['newMm']>[] = [];
      startOn(k, 0, function* (t) {
        const before = design.pgd_list.count;
        for (const choice of choices) {
          if (choice < 6 || mms.length === 0) {
            const mm = k.newMm(0);
            yield* k.pgd.pgd_alloc(t, mm);
            mms.unshift(mm);
          } else {
            const [mm] = mms.splice(choice % mms.length, 1);
            const pgd = mm.pgd as KernelPgd;
            yield* k.pgd.pgd_free(t, mm);
            assert.ok(pgd.freed && !pgd.listed && mm.pgd === null);
          }
          assert.equal(design.pgd_list.count, before + mms.length);
          let prev: KernelPgd | null = null;
          let pgd = design.pgd_list.first;
          for (const mm of mms) {
            assert.equal(pgd, mm.pgd);
            assert.equal(pgd!.prev, prev);
            prev = pgd;
            pgd = pgd!.next;
          }
        }
        while (mms.length > 0) yield* k.pgd.pgd_free(t, mms.pop()!);
      });
      k.machine.engine.run();
      assert.equal(k.pageTables.pool.size, 0);
    }),
    {numRuns: 25},
  );
});

test('a fresh PGD has the whole kernel half, whatever the paging mode', () => {
  for (const paging of AXES.paging) {
    for (const design of SOUND) {
      const k = bootKernel({design: [`pgd=${design}`, `paging=${paging}`]});
      let checked = 0;
      startOn(k, 0, function* (t) {
        const pgd = t.mm!.pgd as KernelPgd;
        for (const index of k.pageTables.populated) {
          const ref = k.pageTables.reference(t.cpu, index);
          assert.equal(k.pageTables.entry(t.cpu, pgd, index), ref, `${design} ${paging} ${index}`);
          checked++;
        }
        yield* k.sched.sleep(t, 1e3);
      });
      k.machine.engine.run();
      assert.ok(checked > 0, `${design} ${paging}`);
      assert.deepEqual(k.checks.findings, []);
    }
  }
});

test('same seed, same digest', () => {
  for (const design of AXES.pgd) {
    const a = forkAndHotAdd(design, '4-level', 4, 7).machine.engine.digest;
    const b = forkAndHotAdd(design, '4-level', 4, 7).machine.engine.digest;
    assert.deepEqual(a, b);
  }
});

test('a leader that exited does not hide the mm of its threads', () => {
  for (const design of SOUND) {
    const k = bootKernel({design: [`pgd=${design}`]});
    let audited = -1;
    startOn(k, 0, function* (t) {
      const program = function* (c: typeof t) {
        yield* k.sched.sleep(c, 2e8);
      };
      yield* sys_clone(k, t, {flags: PTHREAD_FLAGS, childTid: 500, program});
    });
    startOn(k, 1, function* (t) {
      yield* k.sched.sleep(t, 3e7);
      const leader = k.taskList.find(100);
      assert.ok(leader !== null && leader.mm === null, 'the leader is a zombie');
      yield* add_memory(k, t, 5 * SLOT_PAGES, SECTION, 0);
      yield* k.sched.sleep(t, 1e7);
      const pgd = k.taskList.find(500)!.mm!.pgd as KernelPgd;
      const index = k.pageTables.pgd_index(k.pageTables.directMapVpn(5 * SLOT_PAGES));
      if (design !== 'count-at-switch') assert.notEqual(k.pageTables.entry(t.cpu, pgd, index), 0);
      audited = auditPgds(k);
    });
    k.machine.engine.run();
    assert.equal(audited, 0, design);
  }
});
