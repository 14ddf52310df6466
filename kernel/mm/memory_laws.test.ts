import assert from 'node:assert/strict';
import {test} from 'node:test';
import fc from 'fast-check';
import type {Code} from '../../machine/process.ts';
import {PTE_KIND, PTE_PRESENT, PTE_SPECIAL, PTE_WRITE} from '../arch/x86/mm/pgtable_bits.ts';
import {nextRange, PgtableCursor, startRange} from '../arch/x86/mm/pgtable_range.ts';
import {CLONE_VM} from '../clone_flags.ts';
import {sys_wait4} from '../exit.ts';
import {sys_clone} from '../fork.ts';
import type {Kernel} from '../kernel.ts';
import type {MmStruct} from '../mm_types.ts';
import type {Task} from '../task.ts';
import type {AddressSpace} from './address_space.ts';
import {
  ANON_RW,
  access,
  duplicate,
  mapAnon,
  mapFile,
  runProcess,
  tearDown,
  unmap,
} from './mm_testing.ts';
import {folio_test_anon} from './page.ts';
import {PG_anon_exclusive, PG_swapbacked} from './page_flags.ts';
import {MM_ANONPAGES, MM_FILEPAGES, MM_SHMEMPAGES} from './rss.ts';
import {VM_SHARED} from './vma_flags.ts';

const BASE = 0x5_5555_0000;

/** Calls `visit` for every present PTE with a page. */
function forEachPte(k: Kernel, mm: MmStruct, visit: (pfn: number, word: number) => void): void {
  const cursor = new PgtableCursor();
  const {pt} = k.mm;
  startRange(cursor, 0, 2 ** 35);
  while (nextRange(mm.user!.pgd, cursor)) {
    for (let at = cursor.slot; at < cursor.slot + cursor.count; at++) {
      const word = pt.flags[at];
      if ((word & PTE_KIND) === PTE_PRESENT && (word & PTE_SPECIAL) === 0)
        visit(pt.entries[at], word);
    }
  }
}

/**
 * Counters, mapcounts and references say what the page tables say; an exclusive page is mapped
 * once, a shared one read-only.
 */
function checkAll(k: Kernel, mms: readonly MmStruct[]): void {
  const {pages} = k.mm;
  const mapped = new Map<number, number>();
  const writers = new Set<number>();
  for (const mm of mms) {
    const rss = [0, 0, 0, 0];
    forEachPte(k, mm, (pfn, word) => {
      mapped.set(pfn, (mapped.get(pfn) ?? 0) + 1);
      const anon = folio_test_anon(pages, pfn);
      const file = (pages.flags[pfn] & PG_swapbacked) === 0 ? MM_FILEPAGES : MM_SHMEMPAGES;
      rss[anon ? MM_ANONPAGES : file]++;
      if (anon && (word & PTE_WRITE) !== 0) writers.add(pfn);
    });
    assert.deepEqual([...mm.user!.rss.counts], rss);
  }
  const batched = new Map<number, number>();
  k.mm.lruAdd.forEach(({folios, count}) => {
    for (const pfn of folios.subarray(0, count)) batched.set(pfn, (batched.get(pfn) ?? 0) + 1);
  });
  for (const [pfn, count] of mapped) {
    assert.equal(pages.mapcount.get(pfn), count);
    const cached = folio_test_anon(pages, pfn) ? 0 : 1;
    assert.equal(pages.refcount.get(pfn), count + cached + (batched.get(pfn) ?? 0));
    if ((pages.flags[pfn] & PG_anon_exclusive) !== 0) assert.equal(count, 1);
    if (writers.has(pfn)) assert.equal(count, 1);
  }
}

const STEP = fc.record({
  what: fc.constantFrom('read', 'write', 'write', 'fork', 'exit', 'unmap', 'map'),
  who: fc.nat(3),
  page: fc.nat(70),
  count: fc.integer({min: 1, max: 40}),
});
type Step = typeof STEP extends fc.Arbitrary<infer T> ? T : never;

function map(
  k: Kernel,
  mm: MmStruct,
  page: number,
  count: number,
  files: readonly AddressSpace[],
): void {
  const kind = page % 4;
  const start = BASE + page * 16;
  if (kind < 2) mapAnon(k, mm, start, count);
  else mapFile(k, mm, start, count, files[kind - 2], 0, kind === 2 ? ANON_RW : ANON_RW | VM_SHARED);
}

function* perform(
  k: Kernel,
  t: Task,
  mms: MmStruct[],
  files: readonly AddressSpace[],
  step: Step,
): Code {
  const mm = mms[step.who % mms.length];
  const own = t.mm;
  t.mm = mm;
  const at = BASE + step.page * 16 + (step.count % 16);
  if (step.what === 'read') yield* access(k, t, at, false);
  else if (step.what === 'write') yield* access(k, t, at, true);
  else if (step.what === 'fork' && mms.length < 4) mms.push(yield* duplicate(k, t, mm));
  else if (step.what === 'unmap') yield* unmap(k, t, mm, at, at + step.count);
  else if (step.what === 'map') {
    yield* unmap(k, t, mm, BASE + step.page * 16, BASE + step.page * 16 + step.count);
    map(k, mm, step.page, step.count, files);
  } else if (step.what === 'exit' && mm !== own && mms.length > 1) {
    yield* tearDown(k, t, mm);
    mms.splice(mms.indexOf(mm), 1);
    k.mm.forget(mm);
  }
  t.mm = own;
}

test('counters, mapcounts and references follow the page tables', () => {
  fc.assert(
    fc.property(fc.array(STEP, {minLength: 20, maxLength: 80}), (steps) => {
      runProcess(function* (k, t, log) {
        const files = [k.mm.files.create('file', 30), k.mm.files.create('shmem', 30)];
        const mms = [t.mm!];
        k.mm.userOf(t.mm!);
        for (let page = 0; page < 70; page += 3) map(k, t.mm!, page, 30 + (page % 17), files);
        for (const step of steps) {
          yield* perform(k, t, mms, files, step);
          log.take();
        }
        checkAll(k, mms);
        for (const mm of mms) {
          yield* tearDown(k, t, mm);
          assert.deepEqual([...mm.user!.rss.counts], [0, 0, 0, 0]);
          assert.equal(mm.user!.pgd.pgtablesBytes, 0);
        }
        assert.equal(k.mm.anon.used, 0);
      });
    }),
    {numRuns: 60},
  );
});

test('threads that fault in the same pages on several CPUs agree on every page', () => {
  for (const version of ['4.1', '6.18']) {
    const classes = new Map<string, number>();
    const k = runProcess(function* (k, t) {
      mapAnon(k, t.mm!, BASE, 600);
      for (let i = 0; i < 300; i++) yield* access(k, t, BASE + i, true);
      const child = yield* duplicate(k, t, t.mm!);
      for (let cpu = 0; cpu < 4; cpu++) {
        yield* sys_clone(k, t, {
          flags: CLONE_VM,
          childTid: 200 + cpu,
          pinnedCpu: cpu,
          *program(thread) {
            for (let i = 0; i < 600; i++) {
              const what = yield* access(k, thread, BASE + ((i * 7 + cpu) % 600), true);
              classes.set(what, (classes.get(what) ?? 0) + 1);
            }
          },
        });
      }
      for (let cpu = 0; cpu < 4; cpu++) yield* sys_wait4(k, t, -1, 0);
      checkAll(k, [t.mm!, child]);
      assert.equal(t.mm!.user!.rss.rss, 600);
      yield* tearDown(k, t, child);
      yield* tearDown(k, t, t.mm!);
    }, version);
    assert.equal(classes.get('minor anon'), 300, version);
    assert.equal(classes.get('cow'), 300, version);
    assert.ok(k.tlb.counts.interrupts > 0, version);
    const ptl = k.locks.report().get('ptlock_ptr(ptdesc)');
    assert.ok(
      ptl?.handoff.slice(1).some((n) => n > 0),
      version,
    );
  }
});
