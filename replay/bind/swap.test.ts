import assert from 'node:assert/strict';
import {test} from 'node:test';
import {KIND} from '../../formats/kinds.ts';
import type {LoadedTrace} from '../../formats/reader.ts';
import {TraceWriter} from '../../formats/writer.ts';
import type {RunReport} from '../../results/run.ts';
import {swapoff} from '../../workloads/swapoff.ts';
import {decode, generate} from '../../workloads/testing.ts';
import {traceFrom} from '../generated.ts';
import {replayTrace} from '../replay.ts';

const PAGE = 4096;
const AREA = 0x7f00_0000_0000;

function replay(trace: LoadedTrace, design: string[] = [], kernel = '6.18'): RunReport {
  return replayTrace(trace, {machine: 'epyc-2cpu-guest', kernel, design});
}

/** One process: `before` its memory of `pages` is written, and `after`. */
function hog(
  pages: number,
  before: (w: TraceWriter) => void,
  after: (w: TraceWriter) => void = () => {},
): LoadedTrace {
  return traceFrom('test', (sink) => {
    const w = new TraceWriter(sink, {source: 'generated'});
    w.task(7, 7, 1, 'hog');
    before(w);
    w.append(KIND.map, 10, 7, 0, AREA, pages * PAGE, 0, 3, 0x22, w.intern(''));
    w.append(KIND.touch, 20, 7, 0, AREA, pages, 1, 1);
    after(w);
    w.append(KIND.exit, 100, 7, 0, 1);
    w.finish();
  });
}

function swapon(w: TraceWriter, pages: number): void {
  w.append(KIND.swapon, 1, 7, 0, w.intern('/swapfile'), pages);
}

/** The process must have an address space before it can be put into a cgroup. */
function limit(w: TraceWriter, pages: number, timeNs = 2): void {
  w.append(KIND.memcg_limit, timeNs, 7, 0, pages * PAGE);
}

test('memcg_limit: what the limit does not hold goes to swap; 0 lifts it', () => {
  const limited = replay(
    hog(1024, (w) => {
      swapon(w, 4096);
      limit(w, 256);
    }),
  );
  assert.ok(limited.counters.pswpout >= 1024 - 256, `${limited.counters.pswpout} written`);
  const lifted = replay(
    hog(1024, (w) => {
      swapon(w, 4096);
      limit(w, 256);
      limit(w, 0);
    }),
  );
  assert.equal(lifted.counters.pswpout, undefined);
  assert.deepEqual(limited.checks.findings, []);
});

test('swapon without a size is 1 GiB, and says so; swapoff of an unknown path takes the only area', () => {
  const report = replay(
    hog(
      600,
      (w) => {
        swapon(w, 0);
        limit(w, 200);
      },
      (w) => {
        limit(w, 0, 40);
        w.append(KIND.swapoff, 50, 7, 0, w.intern('/dev/sda2'));
      },
    ),
  );
  assert.ok(Object.keys(report.checks.warnings).some((text) => text.includes('1 GiB')));
  assert.equal(report.replay.operations.skipped, 0);
  assert.ok(report.counters.swapoff_pages >= 400, `${report.counters.swapoff_pages}`);
});

test('swapoff of nothing is skipped', () => {
  const report = replay(
    hog(
      4,
      () => {},
      (w) => w.append(KIND.swapoff, 50, 7, 0, w.intern('/swapfile')),
    ),
  );
  assert.equal(report.replay.operations.skipped, 1);
});

test('the workload swapoff: a cgroup is kept over fork and exec', () => {
  const words = ['bytes=4M', 'limit=4M', 'touches=200', 'during=0', 'processes=2'];
  const report = replay(decode(generate(swapoff, words)));
  const pages = (2 * 4 * 2 ** 20) / PAGE;
  const {pswpout, swapoff_pages: back, pgscan_memcg: scanned} = report.counters;
  // Half of the memory does not fit. Reclaim in a small cgroup takes more than it must: what it writes is
  // not free yet, so it goes on.
  assert.ok(pswpout >= pages / 2, `${pswpout} written`);
  assert.ok(back > pages * 0.45 && back < pages * 0.85, `${back} brought in of ${pages}`);
  assert.ok(scanned >= pswpout);
  assert.deepEqual(report.checks.findings, []);
  assert.equal(report.replay.operations.failed, 0);
});

test('swapoff by slot searches every address space, by mm walks each once; both bring in the same', () => {
  const words = ['bytes=2M', 'limit=2M', 'touches=0', 'during=0', 'processes=2', 'children=3'];
  const trace = decode(generate(swapoff, words));
  const [old, now] = ['by-slot', 'by-mm'].map((choice) => replay(trace, [`swapoff=${choice}`]));
  assert.equal(old.counters.swapoff_pages, now.counters.swapoff_pages);
  assert.equal(old.counters.pswpin, now.counters.pswpin);
  // One walk: at most the PTEs of all eight. Slot by slot: half of those for each slot, about.
  const ptes = 8 * 512;
  assert.ok(now.counters.swapoff_ptes <= 2 * ptes, `${now.counters.swapoff_ptes}`);
  const slots = old.counters.swapoff_slots;
  assert.ok(old.counters.swapoff_ptes > (slots * ptes) / 8, `${old.counters.swapoff_ptes}`);
  const p50 = (report: RunReport): number => report.ops.swapoff.ns.p50;
  assert.ok(p50(old) > p50(now), `${p50(old)} and ${p50(now)}`);
});

test('kernels up to 5.0 search by slot, 5.4 and later walk by mm', () => {
  const words = ['bytes=1M', 'limit=1M', 'touches=0', 'during=0', 'processes=2'];
  const trace = decode(generate(swapoff, words));
  const walked = (kernel: string): number => replay(trace, [], kernel).counters.swapoff_ptes;
  assert.ok(walked('4.19') > 20 * walked('5.4'));
  assert.ok(walked('6.18') < 2 * walked('5.4'));
});
