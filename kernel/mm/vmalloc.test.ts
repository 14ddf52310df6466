import assert from 'node:assert/strict';
import {test} from 'node:test';
import fc from 'fast-check';
import type {Code} from '../../machine/process.ts';
import {computing, forkStorm, runToEnd, testKernel} from '../fork_testing.ts';
import {sys_clone} from '../fork.ts';
import {sys_wait4} from '../exit.ts';
import {startProcess} from '../init_task.ts';
import type {Kernel} from '../kernel.ts';
import type {Task} from '../task.ts';
import {lazyMaxPages} from './vmalloc.ts';
import {BusyList, FreeTree} from './vmalloc_space.ts';

function run(k: Kernel, program: (t: Task) => Code<unknown>): Kernel {
  startProcess(k, {tid: 100, comm: 'test', program});
  runToEnd(k);
  return k;
}

test('lazy_max_pages is fls(CPUs) * 32 MB', () => {
  assert.deepEqual([1, 2, 8, 64, 65].map(lazyMaxPages), [8192, 16384, 32768, 57344, 57344]);
});

test('searches never hand out a page twice; the tree is first fit, the list may pass a hole it has seen', () => {
  const steps = fc.array(fc.record({take: fc.boolean(), n: fc.integer({min: 1, max: 9})}));
  fc.assert(
    fc.property(steps, fc.constantFrom(BusyList, FreeTree), (operations, Space) => {
      const space = new Space(1000, 1099);
      const busy: {start: number; pages: number}[] = [];
      for (const {take, n} of operations) {
        if (!take) {
          const [gone] = busy.splice(n % Math.max(1, busy.length), 1);
          if (gone !== undefined) space.free(gone.start);
          continue;
        }
        const found = space.alloc(n);
        const lowest = lowestFit(busy, n, 1000, 1099);
        if (Space === FreeTree) assert.equal(found?.start ?? null, lowest);
        if (found !== null) {
          assert.ok(lowest !== null && found.start >= lowest && found.start + n <= 1100);
          assert.ok(
            busy.every((b) => b.start + b.pages <= found.start || found.start + n <= b.start),
          );
          busy.push({start: found.start, pages: n});
        }
        assert.equal(space.size, busy.length);
      }
    }),
    {numRuns: 300},
  );
});

/** The lowest start of a hole of `n` pages, by looking at every page. */
function lowestFit(
  busy: readonly {start: number; pages: number}[],
  n: number,
  first: number,
  last: number,
): number | null {
  for (let start = first; start + n - 1 <= last; start++) {
    if (busy.every((b) => b.start + b.pages <= start || start + n <= b.start)) return start;
  }
  return null;
}

test('addresses: no overlap, a guard page behind each, and reuse only after a purge', () => {
  for (const version of ['4.19', '6.18']) {
    const k = testKernel('2s4c1t', version);
    run(k, function* (t) {
      const live = new Map<number, number>();
      const freedSince = new Set<number>();
      let purges = 0;
      for (let i = 0; i < 60; i++) {
        const pages = 1 + ((i * 7) % 5);
        const vpn = yield* k.vmalloc.vmalloc(t, pages, 'test');
        for (const [start, size] of live) {
          assert.ok(vpn + pages + 1 <= start || start + size + 1 <= vpn, 'areas overlap');
        }
        if (k.vmalloc.purges === purges) assert.ok(!freedSince.has(vpn), 'reused before a purge');
        live.set(vpn, pages);
        yield* k.vmalloc.access(t, vpn);
        if (i % 3 === 0) {
          yield* k.vmalloc.vfree(t, vpn);
          live.delete(vpn);
          freedSince.add(vpn);
        }
        if (i % 20 !== 19) continue;
        yield* k.vmalloc.vm_unmap_aliases(t);
        purges = k.vmalloc.purges;
        freedSince.clear();
      }
      assert.equal(purges, 3);
    });
    assert.deepEqual(k.checks.findings, []);
  }
});

test('a purge comes when more than lazy_max_pages lie around, and flushes every CPU', () => {
  const k = testKernel('2s4c1t', '5.4');
  run(k, function* (t) {
    const pages = 4096;
    const count = Math.floor(k.vmalloc.lazy_max_pages / (pages + 1)) + 1;
    for (let i = 0; i < count; i++) {
      assert.equal(k.vmalloc.purges, 0);
      yield* k.vmalloc.vfree(t, yield* k.vmalloc.vmalloc(t, pages, 'test'));
    }
  });
  assert.equal(k.vmalloc.purges, 1);
  assert.equal(k.vmalloc.nrLazyPages, 0);
  assert.equal(k.tlb.counts.kernelFlushes, 1);
  assert.ok(k.machine.profile.ticksOf('sync_global_pgds') > 0, '5.4 syncs at the purge');
});

test('vmalloc-sync=alloc walks the PGDs once per stack, twice over (first and last entry); none does not', () => {
  const walks = (choice: string): number => {
    const k = testKernel('2s4c1t', '4.19', [`vmalloc-sync=${choice}`]);
    forkStorm(k, 1, 20);
    runToEnd(k);
    assert.equal(k.stacks.hits + k.stacks.misses, 20);
    return k.machine.profile.ticksOf('sync_global_pgds');
  };
  assert.ok(walks('alloc') > 0);
  assert.equal(walks('none'), 0);
  assert.equal(walks('purge'), 0);
});

test('vmalloc_fault: a mapping behind a new PGD entry is repaired at the first access of each process', () => {
  const k = testKernel('2s4c1t', '4.13');
  const {VMALLOC_START, entryShift} = k.pageTables.layout;
  const span = 2 ** entryShift;
  k.vmalloc.reserve(VMALLOC_START + 8192, span - 8192);
  let other = 0;
  run(k, function* (t) {
    const program = function* (c: Task): Code {
      yield* k.sched.userRun(c, 10_000_000);
      yield* k.vmalloc.access(c, other);
      yield* k.vmalloc.access(c, other);
    };
    yield* sys_clone(k, t, {flags: 0, childTid: 200, program});
    other = yield* k.vmalloc.vmalloc(t, 8000, 'does not fit into the first entry');
    assert.equal(k.pageTables.pgd_index(other), k.pageTables.pgd_index(VMALLOC_START) + 1);
    yield* k.vmalloc.access(t, other);
    yield* sys_wait4(k, t, 200, 0);
  });
  assert.equal(k.vmalloc.fault.repaired, 2, 'parent and child, once each');
  assert.deepEqual(k.checks.findings, []);
});

test('without vmalloc_fault and without a synchronised entry an access is an oops, and the task dies', () => {
  const k = testKernel('2s4c1t', '6.18');
  let died = 0;
  run(k, function* (t) {
    const program = function* (c: Task): Code {
      yield* k.vmalloc.access(c, k.pageTables.layout.VMALLOC_START + 1e6);
    };
    const child = yield* sys_clone(k, t, {flags: 0, childTid: 200, program});
    assert.equal(yield* sys_wait4(k, t, -1, 0), 200);
    died = child!.exitCode;
  });
  assert.equal(died, 11);
  assert.match(k.checks.findings[0], /unable to handle page fault/);
});

test('stacks: two per CPU are kept, the third goes through vfree; fork takes them back', () => {
  const k = testKernel('2s4c1t', '6.18');
  run(k, function* (t) {
    t.pinnedCpu = t.cpu.id;
    for (let round = 0; round < 2; round++) {
      for (let i = 0; i < 4; i++) {
        const childTid = 200 + round * 10 + i;
        yield* sys_clone(k, t, {flags: 0, childTid, program: computing(k, 1000)});
      }
      for (let i = 0; i < 4; i++) yield* sys_wait4(k, t, -1, 0);
    }
  });
  assert.equal(k.stacks.misses, 6, 'four at first, two of the second round');
  assert.equal(k.stacks.hits, 2);
  assert.equal(k.stacks.cachedCount, 2);
});
