import assert from 'node:assert/strict';
import {test} from 'node:test';
import fc from 'fast-check';
import type {Code} from '../../machine/process.ts';
import {pteSlot} from '../arch/x86/mm/pgtable.ts';
import {PTE_KIND, PTE_SWAP} from '../arch/x86/mm/pgtable_bits.ts';
import {CLONE_FILES, CLONE_FS, CLONE_SIGHAND, CLONE_THREAD, CLONE_VM} from '../clone_flags.ts';
import {sys_clone} from '../fork.ts';
import {testKernel} from '../fork_testing.ts';
import {startProcess} from '../init_task.ts';
import type {Kernel} from '../kernel.ts';
import type {MmStruct} from '../mm_types.ts';
import type {Task} from '../task.ts';
import {lru_add_drain_all} from './folio_lru.ts';
import {do_madvise} from './madvise.ts';
import {MADV_DONTNEED, MADV_GUARD_INSTALL, MADV_PAGEOUT} from './madvise_numbers.ts';
import {access, mapAnon, runProcess} from './mm_testing.ts';
import {drain_all_pages} from './page_alloc.ts';
import {install_memcg, sys_swapoff, sys_swapon} from './swapfile.ts';

/** A multiple of 2 MB. */
const BASE = 0x4_0000_0000;
const MB2 = 512;
const SECOND = 10_000_000_000;
const THREAD = CLONE_VM | CLONE_FS | CLONE_FILES | CLONE_SIGHAND | CLONE_THREAD;

/** Tables of PTEs that an mm has. */
function tables(mm: MmStruct): number {
  return mm.user!.pgd.tables[0];
}

function freePages(k: Kernel, t: Task): number {
  lru_add_drain_all(k, t);
  drain_all_pages(k);
  return k.mm.zones.reduce((sum, zone) => sum + zone.free, 0);
}

function* fill(k: Kernel, t: Task, from: number, pages: number, step = 1): Code {
  for (let n = 0; n < pages; n += step) yield* access(k, t, from + n, true);
}

for (const [version, left] of [
  ['6.12', 4],
  ['6.18', 2],
] as const) {
  test(`${version}: DONTNEED of whole 2 MB ${left === 2 ? 'frees' : 'keeps'} their tables`, () => {
    runProcess(function* (k, t, log) {
      mapAnon(k, t.mm!, BASE, 4 * MB2);
      yield* fill(k, t, BASE, 4 * MB2, 64);
      assert.equal(tables(t.mm!), 4);
      const free = freePages(k, t);
      const before = log.lines.length;
      // The middle two, and half of the first and the last.
      yield* do_madvise(k, t, BASE + MB2 / 2, 3 * MB2, MADV_DONTNEED);
      assert.equal(tables(t.mm!), left);
      assert.equal(freePages(k, t) - free, 24 + (4 - left));
      assert.ok(log.lines.slice(before).some((line) => line.includes('flush')));
      assert.equal(yield* access(k, t, BASE + MB2 + 5, true), 'minor anon');
      assert.equal(yield* access(k, t, BASE, true), 'none');
    }, version);
  });
}

test('a table that keeps a marker stays; a range that has no tables costs little', () => {
  runProcess(function* (k, t) {
    mapAnon(k, t.mm!, BASE, 2 ** 28);
    yield* fill(k, t, BASE, MB2, 8);
    yield* do_madvise(k, t, BASE + 3, 1, MADV_GUARD_INSTALL);
    yield* do_madvise(k, t, BASE, MB2, MADV_DONTNEED);
    assert.equal(tables(t.mm!), 1);
    assert.ok(pteSlot(t.mm!.user!.pgd, BASE + 3) >= 0);
    yield* do_madvise(k, t, BASE + MB2, 2 ** 28 - MB2, MADV_DONTNEED);
    assert.equal(k.checks.counters.get('reclaimed_tables') ?? 0, 0);
  });
});

const STEP = fc.record({
  thread: fc.nat(2),
  what: fc.constantFrom('write', 'read', 'dontneed', 'dontneed', 'pageout'),
  at: fc.nat(3 * MB2 - 1),
  pages: fc.integer({min: 1, max: 3 * MB2}),
  pauseUs: fc.nat(40),
});

test('law: threads that touch and give back: counters are true, all memory comes back', () => {
  let freed = 0;
  fc.assert(
    fc.property(fc.array(STEP, {minLength: 4, maxLength: 40}), fc.boolean(), (steps, swaps) => {
      const k = testKernel('2s4c1t', '6.18');
      install_memcg(k.mm);
      let lost = 0;
      const run = function* (t: Task, thread: number): Code {
        for (const step of steps.filter((s) => s.thread === thread)) {
          const end = Math.min(step.at + step.pages, 3 * MB2);
          yield* k.sched.sleep(t, step.pauseUs * 10_000 + 1);
          if (step.what === 'dontneed') {
            const first = step.at < MB2 ? 0 : step.at;
            yield* do_madvise(k, t, BASE + first, end - first, MADV_DONTNEED);
          } else if (step.what === 'pageout') {
            yield* do_madvise(k, t, BASE + step.at, end - step.at, MADV_PAGEOUT);
          } else {
            for (let n = step.at; n < end; n += 37) {
              yield* access(k, t, BASE + n, step.what === 'write');
            }
          }
        }
      };
      startProcess(k, {
        tid: 50,
        comm: 'watch',
        pinnedCpu: 3,
        *program(w) {
          const before = freePages(k, w);
          if (swaps) yield* sys_swapon(k, w, 4096);
          startProcess(k, {
            tid: 100,
            comm: 'threads',
            *program(t) {
              mapAnon(k, t.mm!, BASE, 3 * MB2);
              for (const n of [1, 2]) {
                const program = (c: Task): Code => run(c, n);
                yield* sys_clone(k, t, {flags: THREAD, childTid: 100 + n, childTgid: 100, program});
              }
              yield* run(t, 0);
              yield* k.sched.sleep(t, SECOND);
              checkTables(k, t.mm!);
            },
          });
          yield* k.sched.sleep(w, 10 * SECOND);
          // What was given back while it was being written is in the swap cache still.
          if (swaps) yield* sys_swapoff(k, w, 0);
          lost = before - freePages(k, w);
        },
      });
      k.machine.engine.run();
      assert.equal(lost, 0);
      assert.deepEqual(k.checks.findings, []);
      freed += k.checks.counters.get('reclaimed_tables') ?? 0;
    }),
    {numRuns: 40, seed: 618},
  );
  assert.ok(freed > 25, `${freed} tables`);
});

/** Populations and resident counters are those of the entries. */
function checkTables(k: Kernel, mm: MmStruct): void {
  const {pt} = k.mm;
  const {user} = mm;
  let present = 0;
  let swapped = 0;
  let found = 0;
  for (let at = BASE; at < BASE + 3 * MB2; at += MB2) {
    const slot = pteSlot(user!.pgd, at);
    if (slot < 0) continue;
    found++;
    let entries = 0;
    for (let n = slot; n < slot + MB2; n++) {
      if (pt.flags[n] === 0) continue;
      entries++;
      if (k.mm.swap.areas.byType[0] !== undefined && isSwap(k, n)) swapped++;
      else if (pt.entries[n] !== k.mm.zeroPfn) present++;
    }
    assert.equal(pt.population[slot >>> 9], entries);
  }
  assert.equal(tables(mm), found);
  assert.deepEqual([...user!.rss.counts], [0, present, swapped, 0]);
}

function isSwap(k: Kernel, slot: number): boolean {
  return (k.mm.pt.flags[slot] & PTE_KIND) === PTE_SWAP;
}
