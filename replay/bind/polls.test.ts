import assert from 'node:assert/strict';
import {test} from 'node:test';
import {KIND} from '../../formats/kinds.ts';
import {TraceWriter} from '../../formats/writer.ts';
import type {RunReport} from '../../results/run.ts';
import {traceFrom} from '../generated.ts';
import type {Order} from '../options.ts';
import {replayTrace} from '../replay.ts';

const PAGE = 4096;
const AREA = 0x7f00_0000_0000;
const ANY = 0xffff_ffff_ffff_ffffn;
const WNOHANG = 1;
const WEXITED = 4;
const [NR_FORK, NR_WAIT4, NR_WAITID, NR_MMAP] = [57, 61, 247, 9];
const MAP_PRIVATE_ANON_POPULATE = 0x8022;
const ECHILD = -10;

/** Recorded calls of a parent 7, us apart, each with its result. */
class Recording {
  private now = 0;

  constructor(private readonly w: TraceWriter) {
    w.task(7, 7, 1, 'parent');
  }

  fork(child: number): void {
    this.w.append(KIND.fork, this.next(), 7, 0, child, 17, child);
    this.w.append(KIND.sys_exit, this.next(), 7, 0, NR_FORK, child);
  }

  /** Long work of a task: a mapping is filled. */
  work(tid: number, pages = 4000): void {
    const bytes = pages * PAGE;
    const at = AREA + this.now * 1000;
    this.w.append(
      KIND.mmap,
      this.next(),
      tid,
      0,
      at,
      bytes,
      3,
      MAP_PRIVATE_ANON_POPULATE,
      -1,
      0,
      at,
    );
    this.w.append(KIND.sys_exit, this.next(), tid, 0, NR_MMAP, at);
  }

  poll(upid: number | bigint, result: number, options = WNOHANG): void {
    this.w.append(KIND.wait4, this.next(), 7, 0, upid, options);
    const nr = (options & WEXITED) === 0 ? NR_WAIT4 : NR_WAITID;
    this.w.append(KIND.sys_exit, this.next(), 7, 0, nr, result);
  }

  exit(tid: number): void {
    this.w.append(KIND.exit, this.next(), tid, 0, 1);
  }

  private next(): number {
    this.now += 1000;
    return this.now;
  }
}

function replayed(order: Order, script: (r: Recording) => void): RunReport {
  const trace = traceFrom('test', (sink) => {
    const w = new TraceWriter(sink, {source: 'perf-script'});
    const r = new Recording(w);
    script(r);
    r.exit(7);
    w.finish();
  });
  const options = {order, time: 'asap'} as const;
  return replayTrace(trace, {machine: '1s4c1t', kernel: '6.18', design: [], options});
}

/** Both children live through two polls in the recording, and die while the parent works. */
function reapedLate(r: Recording): void {
  r.fork(8);
  r.fork(9);
  r.work(7);
  r.poll(ANY, 0);
  r.poll(8, 0);
  r.exit(9);
  r.exit(8);
  r.poll(ANY, 8);
  r.poll(9, 9);
  r.poll(ANY, ECHILD);
}

for (const order of ['causal', 'resource', 'total'] as const) {
  test(`${order}: a poll that found nobody reaps nobody, the next one gets its child`, () => {
    const report = replayed(order, reapedLate);
    // The last poll finds no child, there and here.
    assert.equal(report.replay.operations.failed, 1);
    assert.equal(report.counters.polls_not_followed, undefined);
    assert.deepEqual(report.checks.findings, []);
  });

  test(`${order}: a poll that reaped a child waits for it`, () => {
    const report = replayed(order, (r) => {
      r.fork(8);
      r.work(8);
      r.exit(8);
      r.poll(ANY, 8);
    });
    assert.equal(report.replay.operations.failed, 0);
    assert.equal(report.counters.polls_not_followed, undefined);
    if (order !== 'total') assert.equal(report.counters.polls_waited, 1);
  });
}

test('without the recorded order polls take what is there', () => {
  const report = replayed('none', reapedLate);
  assert.equal(report.replay.operations.failed, 3, 'two polls reaped, three found no child');
});

test('a poll of a child that was never there cannot be followed, and is counted', () => {
  const report = replayed('causal', (r) => {
    r.fork(8);
    r.exit(8);
    r.poll(55, 0);
    r.poll(8, 8);
  });
  assert.equal(report.counters.polls_not_followed, 1);
  assert.equal(report.replay.operations.failed, 1);
});

test('waitid does not say whom it found: it takes what is there', () => {
  const report = replayed('causal', (r) => {
    r.fork(8);
    r.exit(8);
    r.work(7);
    r.poll(ANY, 0, WNOHANG | WEXITED);
    r.poll(ANY, ECHILD);
  });
  assert.equal(report.replay.operations.failed, 1);
});

test('twice the same', () => {
  const digest = (): string => replayed('causal', reapedLate).digest;
  assert.equal(digest(), digest());
});
