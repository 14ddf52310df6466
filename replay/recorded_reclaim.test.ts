import assert from 'node:assert/strict';
import {test} from 'node:test';
import {KIND} from '../formats/kinds.ts';
import type {LoadedTrace} from '../formats/reader.ts';
import {TraceWriter} from '../formats/writer.ts';
import {traceFrom} from './generated.ts';
import {planReclaim, type ReclaimPlan} from './recorded_reclaim.ts';
import {compileTrace} from './tracks.ts';
import {verifyTrace} from './verify.ts';
import {readRecorded} from './verify_record.ts';

const ANON = 1;
const SWAP = 2;
const PAGE = 4096;
const HOG = 7;
const SWAPOFF = 9;
const CHILD = 11;
const KSWAPD = 45;
const OLD_MM = 40;
const MM = 50;
const CHILD_MM = 60;
const NR_EXECVE = 59;
const NR_CLONE = 56;
const NR_SWAPOFF = 168;
const FIRST = 0x100;
const PAGES = 64;

/** Writes what a perf recording of one process that is reclaimed from would hold. */
class Recording {
  private time = 0;
  private anon = 0;
  private swap = 0;
  /** Counters of the child, by member. */
  private readonly child = [0, 0, 0, 0];
  private readonly w: TraceWriter;

  constructor(w: TraceWriter) {
    this.w = w;
  }

  private next(): number {
    this.time += 20_000;
    return this.time;
  }

  rss(tid: number, member: number, by: number): void {
    if (member === ANON) this.anon += by;
    else this.swap += by;
    const pages = member === ANON ? this.anon : this.swap;
    const mine = tid === HOG ? 1 : 0;
    this.w.append(KIND.rss_stat, this.next(), tid, 0, MM, mine, member, pages * PAGE);
  }

  exec(): void {
    const {w} = this;
    w.append(KIND.exec, this.next(), HOG, 0, 0);
    this.anon = 1;
    w.append(KIND.rss_stat, this.next(), HOG, 0, MM, 0, ANON, PAGE);
    w.append(KIND.rss_stat, this.next(), HOG, 0, OLD_MM, 1, ANON, 11 * PAGE);
    w.append(KIND.rss_stat, this.next(), HOG, 0, OLD_MM, 1, ANON, 10 * PAGE);
    w.append(KIND.rss_stat, this.next(), HOG, 0, OLD_MM, 0, ANON, 0);
    w.append(KIND.map, this.next(), HOG, 0, FIRST * PAGE, PAGES * PAGE, 0, 3, 0x22, 0);
    w.append(KIND.sys_exit, this.next(), HOG, 0, NR_EXECVE, 0);
  }

  fault(page: number, code: number): void {
    this.w.append(KIND.access, this.next(), HOG, 0, (FIRST + page) * PAGE, code, 0);
  }

  anonFault(page: number, reclaimed = 0): void {
    this.fault(page, 6);
    this.reclaim(reclaimed);
    this.rss(HOG, ANON, 1);
  }

  reclaim(pages: number, tid = HOG): void {
    for (let n = 0; n < pages; n++) {
      this.rss(tid, ANON, -1);
      this.rss(tid, SWAP, 1);
      this.w.append(KIND.vmscan_write_folio, this.next(), tid, 0, 0x1000 + n, 0);
    }
  }

  private childRss(member: number, by: number, tid = CHILD): void {
    this.child[member] += by;
    const mine = tid === CHILD ? 1 : 0;
    const pages = this.child[member];
    this.w.append(KIND.rss_stat, this.next(), tid, 0, CHILD_MM, mine, member, pages * PAGE);
  }

  /** The child has so many pages. */
  fork(pages: number): void {
    this.w.append(KIND.fork, this.next(), HOG, 0, CHILD, 0x1200011, CHILD);
    this.childRss(ANON, pages, HOG);
    this.w.append(KIND.sys_exit, this.next(), HOG, 0, NR_CLONE, CHILD);
  }

  childFault(page: number, code: number): void {
    this.w.append(KIND.access, this.next(), CHILD, 1, (FIRST + page) * PAGE, code, 0);
    if (code === 7) this.w.append(KIND.tlb_flush, this.next(), CHILD, 1, 1, 3);
  }

  childSwapIn(page: number): void {
    this.childFault(page, 4);
    this.childRss(ANON, 1);
    this.childRss(SWAP, -1);
  }

  /** A page that both map goes, in the parent's fault. */
  reclaimShared(): void {
    this.reclaim(1);
    this.childRss(ANON, -1, HOG);
    this.childRss(SWAP, 1, HOG);
  }

  swapIn(page: number): void {
    this.fault(page, 4);
    this.rss(HOG, ANON, 1);
    this.rss(HOG, SWAP, -1);
  }

  swapoff(body: (unuse: () => void) => void): void {
    this.w.append(KIND.swapoff, this.next(), SWAPOFF, 1, 0);
    body(() => {
      this.rss(SWAPOFF, SWAP, -1);
      this.rss(SWAPOFF, ANON, 1);
    });
    this.w.append(KIND.sys_exit, this.next(), SWAPOFF, 1, NR_SWAPOFF, 0);
  }
}

function recording(write: (r: Recording) => void): LoadedTrace {
  return traceFrom('test', (sink) => {
    const w = new TraceWriter(sink, {source: 'perf-script'});
    const r = new Recording(w);
    r.exec();
    write(r);
    w.finish();
  });
}

function planOf(trace: LoadedTrace): ReclaimPlan {
  const compiled = compileTrace(trace);
  return planReclaim(compiled, readRecorded(compiled))!;
}

/** Pages that were taken, by operation. */
function takenPages(plan: ReclaimPlan): number[][] {
  return [...plan.taken.values()].map((lists) =>
    lists.flatMap(({vpns}) => vpns.map((vpn) => vpn - FIRST)),
  );
}

test('a page that parent and child share goes from both; one that the child will find there stays', () => {
  const plan = planOf(
    recording((r) => {
      for (let page = 0; page < 3; page++) r.anonFault(page);
      r.fork(3);
      r.childFault(0, 7);
      r.fault(3, 6);
      r.reclaimShared();
      r.rss(HOG, ANON, 1);
      r.childFault(2, 7);
      r.childSwapIn(1);
      r.swapIn(1);
    }),
  );
  // The child wrote page 0 before, and finds page 2 afterwards: page 1 is what both lost.
  assert.deepEqual(takenPages(plan), [[1]]);
  assert.deepEqual([plan.pages, plan.unknown, plan.unexplained], [1, 0, 0]);
});

test('reclaimed pages are those that come back, the earliest first; then those never seen again', () => {
  const plan = planOf(
    recording((r) => {
      for (let page = 0; page < 6; page++) r.anonFault(page);
      r.anonFault(6, 2);
      r.swapIn(4);
      r.anonFault(7, 3);
      r.swapIn(2);
      r.swapIn(4);
      r.swapIn(5);
    }),
  );
  // 4 and 2 come back first; 4 once more, 5 after it; the third of the second round is never seen
  // again.
  assert.deepEqual(takenPages(plan), [
    [4, 2],
    [4, 5, 0],
  ]);
  assert.deepEqual([plan.pages, plan.unknown, plan.unexplained], [5, 0, 0]);
  assert.equal(plan.areaMissing, true);
});

test('a swap-in that no reclaim explains is counted, and what nobody sees again is taken last', () => {
  const plan = planOf(
    recording((r) => {
      r.anonFault(0);
      r.anonFault(1);
      r.anonFault(2, 2);
      r.swapIn(1);
      r.swapIn(1);
    }),
  );
  assert.deepEqual(takenPages(plan), [[1, 0]]);
  assert.deepEqual([plan.pages, plan.unknown, plan.unexplained], [2, 0, 1]);
});

/**
 * 40 pages, 32 of them out, ten back, the rest by swapoff between other faults; then all written.
 */
function life(r: Recording): void {
  for (let page = 0; page < 40; page++) r.anonFault(page);
  r.anonFault(40, 32);
  for (let page = 1; page < 20; page += 2) r.swapIn(page);
  const swapped: number[] = [];
  for (let page = 0; page < 32; page++) if (page % 2 === 0 || page > 20) swapped.push(page);
  r.swapoff((unuse) => {
    swapped.slice(0, 12).forEach(unuse);
    r.swapIn(31);
    for (let n = 12; n < swapped.length - 1; n++) unuse();
  });
  for (const page of swapped) if (page !== 31) r.fault(page, 7);
}

test('a recording of reclaim and swapoff is replayed page for page', () => {
  const report = verifyTrace(recording(life), {durations: false});
  const {faults, rss, swap, inferred} = report;
  assert.equal(faults.agreement, 1, JSON.stringify(report.causes));
  assert.equal(rss.agreement, 1, JSON.stringify(report.causes));
  assert.deepEqual(swap, {
    written: {recorded: 32, simulated: 32},
    faults: {recorded: 11, simulated: 11},
    unused: {recorded: 21, simulated: 21},
  });
  assert.deepEqual([inferred.reclaimed_pages, inferred.reclaim_operations], [32, 1]);
});

test('what kswapd takes goes with the operation that began last', () => {
  const trace = recording((r) => {
    for (let page = 0; page < 20; page++) r.anonFault(page);
    r.reclaim(5, KSWAPD);
    for (let page = 3; page < 8; page++) r.swapIn(page);
  });
  assert.deepEqual(takenPages(planOf(trace)), [[3, 4, 5, 6, 7]]);
  const {faults, swap} = verifyTrace(trace, {durations: false});
  assert.equal(faults.agreement, 1);
  assert.deepEqual(swap!.written, {recorded: 5, simulated: 5});
  assert.deepEqual(swap!.faults, {recorded: 5, simulated: 5});
});

test('without the inference nothing is swapped; with the model choosing, as many pages are', () => {
  const none = verifyTrace(recording(life), {durations: false, reclaim: 'none'});
  assert.equal(none.swap!.written.simulated, 0);
  assert.ok(none.faults.agreement < 0.8);
  const model = verifyTrace(recording(life), {durations: false, reclaim: 'model'});
  assert.ok(model.inferred.memcg_limit_pages >= 40, `${model.inferred.memcg_limit_pages}`);
  assert.equal(model.inferred.reclaimed_pages, 0);
  assert.ok(model.swap!.written.simulated > 0);
});
