import assert from 'node:assert/strict';
import {test} from 'node:test';
import {KIND} from '../../formats/kinds.ts';
import {TraceWriter} from '../../formats/writer.ts';
import type {RunReport} from '../../results/run.ts';
import {traceFrom} from '../generated.ts';
import {replayTrace} from '../replay.ts';

const PAGE = 4096;
const AREA = 0x7f00_0000_0000;
const MADV_MERGEABLE = 12;
const MADV_UNMERGEABLE = 13;
const MS = 1e6;

/**
 * Replays what `write` has task 7 do; the task has one mergeable area of 100 pages, and ksmd is set
 * up.
 */
function run(
  write: (w: TraceWriter, sysfs: (path: string, value: number) => void) => void,
): RunReport {
  const trace = traceFrom('test', (sink) => {
    const w = new TraceWriter(sink, {source: 'generated', machine: {cpus: 2}});
    const sysfs = (path: string, value: number): void => {
      w.append(KIND.sysfs_write, 0, 7, 0, w.intern(path), w.intern(String(value)));
    };
    w.task(7, 7, 1, 'ksm');
    w.append(KIND.map, 0, 7, 0, AREA, 100 * PAGE, 0, 3, 0x22, w.intern(''));
    w.append(KIND.madvise, 0, 7, 0, AREA, 100 * PAGE, MADV_MERGEABLE);
    sysfs('/sys/kernel/mm/ksm/pages_to_scan', 1000);
    sysfs('/sys/kernel/mm/ksm/sleep_millisecs', 1);
    write(w, sysfs);
    w.finish();
  });
  return replayTrace(trace, {machine: 'epyc-2cpu-guest', kernel: '6.18', design: []});
}

test('pages of equal content are merged, others are not', () => {
  const {counters, replay} = run((w, sysfs) => {
    w.append(KIND.write_content, 0, 7, 0, AREA, 40, 1, 5, 0);
    w.append(KIND.write_content, 0, 7, 0, AREA + 40 * PAGE, 30, 1, 10, 1);
    w.append(KIND.touch, 0, 7, 0, AREA + 70 * PAGE, 30, 1, 1);
    // Pages that did not merge for long leave the unstable tree while they are skipped.
    sysfs('ksm/smart_scan', 0);
    sysfs('ksm/run', 1);
    w.append(KIND.sleep, 0, 7, 0, 20 * MS);
  });
  assert.equal(replay.operations.failed + replay.operations.skipped, 0);
  assert.equal(counters.ksm_pages_shared, 1);
  assert.equal(counters.ksm_pages_sharing, 39);
  assert.equal(counters.ksm_pages_unshared, 60);
  assert.ok(counters.ksm_full_scans > 2);
});

test('a write of unknown content takes a page out; run 2 takes all', () => {
  const merged = (stop: number): RunReport =>
    run((w, sysfs) => {
      w.append(KIND.write_content, 0, 7, 0, AREA, 40, 1, 5, 0);
      w.append(KIND.ksm_run, 0, 7, 0, 1);
      w.append(KIND.sleep, 0, 7, 0, 20 * MS);
      w.append(KIND.access, 0, 7, 0, AREA, 7, 0);
      w.append(KIND.sleep, 0, 7, 0, 20 * MS);
      sysfs('ksm/run', stop);
    });
  assert.equal(merged(0).counters.ksm_pages_sharing, 38);
  const {counters} = merged(2);
  assert.equal(counters.ksm_pages_sharing, undefined);
  assert.equal(counters.ksm_pages_shared, undefined);
  assert.equal(counters.ksm_peak_pages_sharing, 39);
});

test('max_page_sharing is refused while pages are merged', () => {
  const {replay, counters} = run((w, sysfs) => {
    sysfs('ksm/max_page_sharing', 10);
    w.append(KIND.write_content, 0, 7, 0, AREA, 95, 1, 5, 0);
    sysfs('ksm/run', 1);
    w.append(KIND.sleep, 0, 7, 0, 30 * MS);
    sysfs('ksm/max_page_sharing', 20);
  });
  assert.equal(replay.operations.failed, 1);
  // With M = max_page_sharing, N mod M is neither 0 nor 1.
  assert.deepEqual([counters.ksm_pages_shared, counters.ksm_pages_sharing], [10, 85]);
});

test('prctl makes all of a process mergeable, what it maps later too, and takes it back', () => {
  const second = AREA + 1000 * PAGE;
  const counted = (last: number): RunReport =>
    run((w, sysfs) => {
      w.append(KIND.madvise, 0, 7, 0, AREA, 100 * PAGE, MADV_UNMERGEABLE);
      w.append(KIND.ksm_enter, 0, 7, 0, 0);
      w.append(KIND.map, 0, 7, 0, second, 10 * PAGE, 0, 3, 0x22, w.intern(''));
      w.append(KIND.write_content, 0, 7, 0, AREA, 10, 1, 5, 0);
      w.append(KIND.write_content, 0, 7, 0, second, 10, 1, 5, 0);
      sysfs('ksm/run', 1);
      w.append(KIND.sleep, 0, 7, 0, 20 * MS);
      w.append(last, 0, 7, 0, 0);
      // Counted until ksmd comes by again.
      w.append(KIND.sleep, 0, 7, 0, 5 * MS);
    });
  assert.equal(counted(KIND.ksm_enter).counters.ksm_pages_sharing, 19);
  assert.equal(counted(KIND.ksm_exit).counters.ksm_pages_sharing, undefined);
});

test("prctl's choice outlives exec since 6.7", () => {
  const merged = (kernel: string): number => {
    const trace = traceFrom('test', (sink) => {
      const w = new TraceWriter(sink, {source: 'generated', machine: {cpus: 2}});
      w.task(7, 7, 1, 'ksm');
      w.append(KIND.ksm_run, 0, 7, 0, 1);
      w.append(KIND.map, 0, 7, 0, AREA, PAGE, 0, 3, 0x22, w.intern(''));
      w.append(KIND.ksm_enter, 0, 7, 0, 0);
      w.append(KIND.exec, 0, 7, 0, w.intern('/bin/true'));
      w.append(KIND.map, 0, 7, 0, AREA, 10 * PAGE, 0, 3, 0x22, w.intern(''));
      w.append(KIND.write_content, 0, 7, 0, AREA, 10, 1, 5, 0);
      w.append(KIND.sleep, 0, 7, 0, 100 * MS);
      w.finish();
    });
    const {counters} = replayTrace(trace, {machine: 'epyc-2cpu-guest', kernel, design: []});
    return counters.ksm_pages_sharing ?? 0;
  };
  assert.equal(merged('6.18'), 9);
  assert.equal(merged('6.6'), 0);
});

test('the same trace gives the same digest', () => {
  const one = (): string =>
    run((w, sysfs) => {
      w.append(KIND.write_content, 0, 7, 0, AREA, 40, 1, 5, 0);
      sysfs('ksm/run', 1);
      w.append(KIND.sleep, 0, 7, 0, 10 * MS);
    }).digest;
  assert.equal(one(), one());
});
