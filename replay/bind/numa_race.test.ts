// Everything at once on one address space: pages move between nodes while threads write them, drop
// them, change their protection, make them hint, and fork. Nobody may trip, and all memory comes
// back.

import assert from 'node:assert/strict';
import {test} from 'node:test';
import {KIND} from '../../formats/kinds.ts';
import type {LoadedTrace} from '../../formats/reader.ts';
import {TraceWriter} from '../../formats/writer.ts';
import {kernelFacts} from '../../kernel/design.ts';
import {drain_all_pages} from '../../kernel/mm/page_alloc.ts';
import {loadMachine} from '../../machine/machines.ts';
import {traceFrom} from '../generated.ts';
import {DEFAULT_OPTIONS} from '../options.ts';
import {ReplayRun} from '../replay_run.ts';
import {compileTrace} from '../tracks.ts';

const PAGE = 4096;
const AREA = 0x7f00_0000_0000;
const PAGES = 1024;
const BYTES = PAGES * PAGE;
const MADV_DONTNEED = 4;
const MADV_HUGEPAGE = 14;
const MADV_NOHUGEPAGE = 15;

/** Numbers below n, from a linear congruential sequence. */
function numbers(seed: number): (n: number) => number {
  let x = seed;
  return (n) => {
    x = (Math.imul(x, 1_103_515_245) + 12_345) >>> 0;
    return (x >>> 8) % n;
  };
}

function trouble(seed: number, advice: number): LoadedTrace {
  const below = numbers(seed);
  return traceFrom('test', (sink) => {
    const w = new TraceWriter(sink, {source: 'generated', machine: {cpus: 8}});
    const op = (kind: number, tid: number, ...args: number[]): void =>
      w.append(kind, 0, tid, 0, ...args);
    w.task(7, 7, 1, 'race');
    for (const tid of [8, 9, 10]) w.task(tid, 7, 7, 'race');
    op(KIND.map, 7, AREA, BYTES, 0, 3, 0x22, 0);
    op(KIND.madvise, 7, AREA, BYTES, advice);
    op(KIND.touch, 7, AREA, PAGES, 1, 1);
    for (const tid of [7, 8, 9, 10]) op(KIND.barrier, tid, 1, 4);
    for (let n = 0; n < 40; n++) {
      op(KIND.migrate_pages, 7, AREA, BYTES, (n + 1) % 2);
      op(KIND.walk_lines, 8, AREA, PAGES, 1, 1, 1, 1);
      const at = below(PAGES);
      const len = 1 + below(Math.min(600, PAGES - at));
      op(KIND.madvise, 9, AREA + at * PAGE, len * PAGE, MADV_DONTNEED);
      op(KIND.touch, 9, AREA + at * PAGE, len, 1, 1);
      if (n % 3 === 0) forkOne(w, op, 100 + n, below(500));
      op(KIND.mprotect, 10, AREA + below(512) * PAGE, (1 + below(400)) * PAGE, n % 2 === 0 ? 3 : 1);
      op(KIND.mprotect, 10, AREA, BYTES, 3);
      op(KIND.numa_scan, 10, AREA, BYTES);
    }
    for (const tid of [8, 9, 10, 7]) op(KIND.exit, tid, 0);
    w.finish();
  });
}

type Op = (kind: number, tid: number, ...args: number[]) => void;

/** A child that writes pages from `at` on while they move. */
function forkOne(w: TraceWriter, op: Op, child: number, at: number): void {
  w.task(child, child, 7, 'race');
  op(KIND.fork, 10, child, 0x1200011, child);
  op(KIND.touch, child, AREA + at * PAGE, 300, 1, 1);
  op(KIND.exit, child, 1);
  op(KIND.wait4, 10, child, 0);
}

for (const version of ['6.18', '5.5', '4.1']) {
  for (const advice of [MADV_HUGEPAGE, MADV_NOHUGEPAGE]) {
    test(`all memory comes back after moves amid everything else (${version}, ${advice})`, () => {
      for (const seed of [1, 2]) {
        const options = {...DEFAULT_OPTIONS, maxEvents: 1e8};
        const compiled = compileTrace(trouble(seed, advice), Infinity);
        const run = new ReplayRun(
          compiled,
          loadMachine('2s4c1t'),
          kernelFacts(version, []),
          options,
        );
        run.execute();
        const {kernel} = run;
        const {mm} = kernel;
        drain_all_pages(kernel);
        let batched = 0;
        mm.lruAdd.forEach((batch) => {
          batched += batch.count;
        });
        let used = 0;
        for (const {buddy, free} of mm.zones) used += buddy.managed - free;
        // What waits in LRU batches is freed with them.
        assert.equal(used, batched);
        assert.equal([...mm.users()].length, 0);
        assert.deepEqual(kernel.checks.findings, []);
        assert.ok(mm.migration.value('pgmigrate_success') > 5000);
        assert.ok(mm.migration.value('numa_pages_migrated') > 500);
      }
    });
  }
}
