import assert from 'node:assert/strict';
import {test} from 'node:test';
import fc from 'fast-check';
import {KIND} from '../formats/kinds.ts';
import {TraceWriter} from '../formats/writer.ts';
import {inferContents, type KsmContents} from './ksm_contents.ts';
import {inferPace, roundest} from './ksm_pace.ts';
import {PageRanges} from './page_ranges.ts';
import {traceFrom} from './generated.ts';
import {compileTrace} from './tracks.ts';
import {verifyTrace} from './verify.ts';

const PAGE = 4096;
const AREA = 0x7f00_0000_0000;
const MM = 0xffff_8881_0000_1000n;
const KSMD = 37;
const WRITE_FAULT = 6;
const COW_FAULT = 7;

/** Content of what `page` was last written with; undefined when nothing is known. */
function contentOf(
  {found, r}: {found: KsmContents; r: Recording},
  page: number,
): number | undefined {
  const event = r.eventOf.get(page) ?? -1;
  return found.written.get(event)?.get(AREA / PAGE + page);
}

/** A recording while it is written: task 7 with mergeable memory from AREA on. */
class Recording {
  private now = 1000;
  private seq = 0;
  /** Event of the last write to each page. */
  readonly eventOf = new Map<number, number>();
  private events = 0;

  constructor(private readonly w: TraceWriter) {
    this.add(KIND.mmap, 7, AREA, 1000 * PAGE, 3, 0x22, 0xffff_ffff_ffff_ffffn, 0, AREA);
    this.add(KIND.madvise, 7, AREA, 1000 * PAGE, 12);
    this.add(KIND.ksm_entered, 7, MM);
  }

  private add(kind: number, tid: number, ...args: (number | bigint)[]): number {
    this.now += 100;
    this.w.append(kind, this.now, tid, 0, ...args);
    return this.events++;
  }

  write(page: number, code = WRITE_FAULT): void {
    this.eventOf.set(page, this.add(KIND.access, 7, AREA + page * PAGE, code, 0));
  }

  /** The counter of anonymous pages after the last fault. */
  grew(pages: number): void {
    this.add(KIND.rss_stat, 7, 99, 1, 1, pages * PAGE);
  }

  scan(items: number, body: () => void = () => {}): void {
    this.add(KIND.ksm_scan, KSMD, 1, this.seq, items);
    body();
    this.add(KIND.ksm_scan, KSMD, 0, this.seq++, items);
  }

  /** ksmd takes so long for what it does next. */
  busy(ns: number): void {
    this.now += ns;
  }

  /** ksmd leaves its CPU for a while. */
  preempted(ns: number): void {
    this.add(KIND.sched_switch, KSMD, KSMD, 16, 0);
    this.now += ns;
  }

  /** Page `item` becomes the KSM page `frame` (first), or is mapped to it. */
  merge(frame: number, item: number, first = false): void {
    this.add(KIND.ksm_merge_with, KSMD, first ? 0 : 1, frame, item, MM, 0);
  }
}

function infer(record: (r: Recording) => void): {found: KsmContents; r: Recording} {
  let r: Recording | undefined;
  const trace = traceFrom('test', (sink) => {
    const w = new TraceWriter(sink, {source: 'perf-script', machine: {cpus: 1}});
    r = new Recording(w);
    record(r);
    w.finish();
  });
  return {found: inferContents(compileTrace(trace)), r: r!};
}

test('a scan that merged every page that was new to it says exactly which', () => {
  const {found, r} = infer((r) => {
    for (let page = 0; page < 4; page++) r.write(page);
    r.scan(4);
    r.scan(4, () => {
      // Page 0 waits in the unstable tree, page 1 meets it; 2 and 3 join.
      r.merge(500, 1, true);
      r.merge(500, 0);
      r.merge(500, 2);
      r.merge(500, 3);
    });
  });
  const classes = [0, 1, 2, 3].map((page) => contentOf({found, r}, page));
  assert.equal(new Set(classes).size, 1);
  assert.notEqual(classes[0], undefined);
  assert.equal(found.unplaced, 0);
  assert.equal(found.recording.merged, 4);
  assert.equal(found.recording.nodes, 1);
});

test('items that a later scan places are placed in earlier ones too', () => {
  const {found, r} = infer((r) => {
    for (let page = 0; page < 6; page++) r.write(page);
    r.scan(6);
    // Items 101, 103, 104 and 105; pages 0 and 2 have no equal. Nothing says so but what follows.
    r.scan(6, () => {
      r.merge(500, 103, true);
      r.merge(500, 101);
      r.merge(600, 105, true);
      r.merge(600, 104);
    });
    for (const page of [1, 3, 4, 5]) r.write(page, COW_FAULT);
    r.scan(6);
    r.scan(6, () => {
      for (const item of [101, 103, 104, 105]) r.merge(700, item);
    });
  });
  assert.equal(found.certain, 8);
  const last = [1, 3, 4, 5].map((page) => contentOf({found, r}, page));
  assert.equal(new Set(last).size, 1);
});

test('a page whose write broke COW had been merged', () => {
  const {found, r} = infer((r) => {
    for (let page = 0; page < 8; page++) r.write(page);
    r.scan(8);
    const first = new Map(r.eventOf);
    r.scan(8, () => {
      r.merge(500, 3);
      r.merge(500, 6);
    });
    r.write(3, COW_FAULT);
    r.write(6, COW_FAULT);
    for (const [page, event] of first) r.eventOf.set(page, event);
  });
  const merged = [...r.eventOf].filter(([, event]) => found.written.has(event));
  assert.deepEqual(
    merged.map(([page]) => page),
    [3, 6],
  );
});

test('pages without a merge are where ksmd took longer to come to the next one', () => {
  const merged = [1, 2, 3, 4, 6, 7, 8, 9, 13, 14];
  const {found, r} = infer((r) => {
    for (let page = 0; page < 15; page++) r.write(page);
    r.scan(15);
    r.scan(15, () => {
      merged.forEach((page, k) => {
        const skipped = page - (merged[k - 1] ?? -1) - 1;
        r.busy(400 * skipped);
        // An interruption is no work.
        if (page === 9) r.preempted(1e6);
        r.merge(500, page);
      });
    });
  });
  const pages = [...r.eventOf].filter(([, event]) => found.written.has(event));
  assert.deepEqual(
    pages.map(([page]) => page),
    merged,
  );
  assert.equal(found.placed, 10);
});

test('a huge page is 512 pages; those that did not merge have no equals', () => {
  const {found, r} = infer((r) => {
    // AREA is aligned to 2 MB.
    r.grew(0);
    r.write(600);
    r.grew(512);
    r.scan(512);
    r.scan(512, () => {
      r.merge(500, 5, true);
      r.merge(500, 4);
    });
  });
  const pages = found.written.get(r.eventOf.get(600)!)!;
  for (let page = 512; page < 1024; page++) {
    // The page that faulted has a content of its own by its access.
    if (page !== 600) assert.ok(pages.has(AREA / PAGE + page), `page ${page}`);
  }
  assert.equal(found.placed, 2);
  assert.equal(new Set(pages.values()).size, pages.size - 1);
});

test('merges of an mm that was never seen to enter are counted, not placed', () => {
  const {found} = infer((r) => {
    r.write(0);
    r.scan(1);
  });
  assert.equal(found.written.size, 0);
  const trace = traceFrom('test', (sink) => {
    const w = new TraceWriter(sink, {source: 'perf-script', machine: {cpus: 1}});
    w.append(KIND.ksm_merge_with, 0, KSMD, 0, 1, 5, 1, 0x1234, 0);
    w.finish();
  });
  assert.equal(inferContents(compileTrace(trace)).recording.unknown, 1);
});

test('of a recording of KSM alone each rmap_item is a page', () => {
  const trace = traceFrom('test', (sink) => {
    const w = new TraceWriter(sink, {source: 'perf-script', machine: {cpus: 1}});
    w.append(KIND.ksm_enter, 100, 7, 0, MM);
    w.append(KIND.ksm_scan, 200, KSMD, 0, 1, 1, 0);
    w.append(KIND.ksm_scan, 300, KSMD, 0, 0, 1, 3);
    w.append(KIND.ksm_scan, 400, KSMD, 0, 1, 2, 3);
    for (const [n, item] of [11, 10, 12].entries()) {
      w.append(KIND.ksm_merge_with, 500 + n, KSMD, 0, n === 0 ? 0 : 1, 500, item, MM, 0);
    }
    w.append(KIND.ksm_scan, 600, KSMD, 0, 0, 2, 3);
    w.append(KIND.ksm_exited, 1e8, 7, 0, MM);
    w.finish();
  });
  const {written, unplaced} = inferContents(compileTrace(trace));
  assert.equal(unplaced, 0);
  const [pages] = written.values();
  assert.equal(pages.size, 3);
  assert.equal(new Set(pages.values()).size, 1);
  const report = verifyTrace(trace, {durations: false});
  assert.deepEqual(report.ksm?.merges, {recorded: 3, simulated: 3});
  assert.deepEqual(report.ksm?.ksm_pages, {recorded: 1, simulated: 1});
});

test('pages_to_scan lies where the sleeps of a full scan put it, sleep is whole ticks', () => {
  const {found} = infer((r) => {
    r.write(0);
    r.scan(12_288);
  });
  const scan = {...found.recording.scans[0], items: 12_288, sleeps: 8};
  const later = {...scan, startNs: scan.endNs + 7.7e6};
  const pace = inferPace({...found.recording, scans: [scan, later]});
  assert.equal(pace?.pagesToScan, 1500);
  assert.equal(pace?.sleepMs, 8);
  assert.equal(inferPace({...found.recording, scans: []}), null);
});

test('the roundest number lies in the range', () => {
  fc.assert(
    fc.property(fc.nat(1e6), fc.nat(1e6), (a, b) => {
      const [low, high] = [Math.min(a, b) + 1, Math.max(a, b) + 1];
      const found = roundest(low, high);
      assert.ok(found >= low && found <= high);
    }),
  );
});

test('ranges of pages behave as a set', () => {
  const steps = fc.array(fc.tuple(fc.boolean(), fc.nat(40), fc.nat(40)), {maxLength: 30});
  fc.assert(
    fc.property(steps, (list) => {
      const ranges = new PageRanges();
      const set = new Set<number>();
      for (const [add, a, b] of list) {
        const [start, end] = [Math.min(a, b), Math.max(a, b)];
        if (add) ranges.add(start, end);
        else ranges.remove(start, end);
        for (let page = start; page < end; page++) add ? set.add(page) : set.delete(page);
      }
      for (let page = 0; page <= 40; page++) assert.equal(ranges.has(page), set.has(page));
    }),
  );
});
