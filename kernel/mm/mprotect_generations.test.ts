// One mprotect of a large, mostly empty mapping, in the three generations: what a notifier is told.

import assert from 'node:assert/strict';
import {readFileSync} from 'node:fs';
import {test} from 'node:test';
import {startProcess} from '../init_task.ts';
import type {Kernel} from '../kernel.ts';
import {testKernel} from '../fork_testing.ts';
import {mapAnon, ProbeLog} from './mm_testing.ts';
import {MMU_NOTIFY_PROTECTION_VMA} from './mmu_notifier_types.ts';
import {do_mprotect} from './mprotect.ts';
import {store} from './mremap_testing.ts';

const GB = 2 ** 18;
const TB = 2 ** 28;

interface Case {
  readonly name: string;
  readonly start: number;
  readonly pages: number;
  /** Pages written to, from the start of the mapping. */
  readonly touched: readonly number[];
}

const CASES: readonly Case[] = [
  {name: '1 TB, empty', start: 2 ** 31, pages: TB, touched: []},
  {name: '1 TB, 1 page', start: 2 ** 31, pages: TB, touched: [5]},
  {
    name: '1 TB, 16 pages 64 GB apart',
    start: 2 ** 31,
    pages: TB,
    touched: Array.from({length: 16}, (_, i) => i * 64 * GB + 77),
  },
  {
    name: '64 GB, 1 page in each GB',
    start: 2 ** 31 + GB / 2,
    pages: 64 * GB,
    touched: Array.from({length: 64}, (_, i) => i * GB + 3),
  },
  {name: '2 MB, full', start: 2 ** 31, pages: 512, touched: [...Array(512).keys()]},
];

/** Pairs sent and pages that they cover. */
function measure(design: string, {start, pages, touched}: Case): [pairs: number, covered: number] {
  const k = testKernel('2s4c1t', '6.18', [`mprotect=${design}`]);
  run(k, function* (t) {
    mapAnon(k, t.mm!, start, pages);
    for (const page of touched) assert.ok(yield* store(k, t, start + page, 1));
    assert.equal(yield* do_mprotect(k, t, start, pages, 1), 0);
    for (const page of touched) assert.equal(yield* store(k, t, start + page, 1), false);
  });
  const row = k.mm.notifierCounts.site('change_protection');
  assert.equal(row.start[MMU_NOTIFY_PROTECTION_VMA], row.end[MMU_NOTIFY_PROTECTION_VMA]);
  return [row.start[MMU_NOTIFY_PROTECTION_VMA], row.pages];
}

type Program = Parameters<typeof startProcess>[1]['program'];

function run(k: Kernel, program: Program): void {
  let done = false;
  startProcess(k, {
    tid: 100,
    comm: 'mprotect',
    pinnedCpu: 0,
    *program(t) {
      yield* program(t);
      done = true;
    },
  });
  k.machine.engine.run();
  assert.ok(done);
}

test('three generations of mprotect on large, mostly empty mappings', () => {
  const head = `${'mapping'.padEnd(30)}${'design'.padEnd(10)}${'pairs'.padStart(6)}`;
  const rows = [`${head}${'pages covered'.padStart(15)}`];
  for (const one of CASES) {
    for (const design of ['per-call', 'per-pud', 'per-p4d']) {
      const [pairs, covered] = measure(design, one);
      const left = `${one.name.padEnd(30)}${design.padEnd(10)}${String(pairs).padStart(6)}`;
      rows.push(`${left}${String(covered).padStart(15)}`);
    }
  }
  // Compiled tests run from dist/, the golden file lies in the source tree.
  const here = import.meta.url.replace('/dist/kernel/', '/kernel/');
  const golden = new URL('./mprotect_generations.golden.txt', here);
  assert.equal(`${rows.join('\n')}\n`, readFileSync(golden, 'utf8'));
});

test('ends come before the flush, but in the oldest generation', () => {
  const orders: string[][] = [];
  for (const [version, design] of [
    ['3.10', 'per-call'],
    ['4.1', 'per-pud'],
    ['6.6', 'per-pud'],
    ['6.18', 'per-p4d'],
  ]) {
    const k = testKernel('2s4c1t', version, [`mprotect=${design}`]);
    const log = new ProbeLog();
    run(k, function* (t) {
      mapAnon(k, t.mm!, 2 ** 31, 4);
      for (let i = 0; i < 3; i++) yield* store(k, t, 2 ** 31 + i, 1);
      k.mm.probe = log;
      k.tlb.traced = log;
      yield* do_mprotect(k, t, 2 ** 31, 4, 1);
      k.mm.probe = null;
      k.tlb.traced = null;
    });
    orders.push(log.take());
  }
  const start = 'start change_protection';
  const end = 'end change_protection';
  assert.deepEqual(orders, [
    [start, 'flush 4 (3)', end],
    [start, end, 'flush 4 (3)'],
    [start, end, 'flush 3 (3)'],
    [start, end, 'flush 3 (3)'],
  ]);
});

test('at address 0 starts are repeated and their end is missing', () => {
  const counts: number[][] = [];
  for (const touched of [[1], [1, GB], [GB]]) {
    const k = testKernel('2s4c1t', '6.18');
    run(k, function* (t) {
      mapAnon(k, t.mm!, 0, 2 * GB);
      for (const page of touched) yield* store(k, t, page, 1);
      yield* do_mprotect(k, t, 0, 2 * GB, 1);
    });
    const {start, end} = k.mm.notifierCounts.site('change_protection');
    counts.push([start[MMU_NOTIFY_PROTECTION_VMA], end[MMU_NOTIFY_PROTECTION_VMA]]);
  }
  // One GB populated: no end at all. Two: the second start has one. None at 0: a proper pair.
  assert.deepEqual(counts, [
    [1, 0],
    [2, 1],
    [1, 1],
  ]);
});
