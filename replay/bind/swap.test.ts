import assert from 'node:assert/strict';
import {test} from 'node:test';
import {KIND} from '../../formats/kinds.ts';
import type {LoadedTrace} from '../../formats/reader.ts';
import {TraceWriter} from '../../formats/writer.ts';
import type {RunReport} from '../../results/run.ts';
import {traceFrom} from '../generated.ts';
import {replayTrace} from '../replay.ts';

const PAGE = 4096;
const AREA = 0x7f00_0000_0000;

function replay(trace: LoadedTrace): RunReport {
  return replayTrace(trace, {machine: 'epyc-2cpu-guest', kernel: '6.18', design: []});
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
