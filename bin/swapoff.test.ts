// The workload swapoff, replayed, and the sample recording of the same name, graded.

import assert from 'node:assert/strict';
import {existsSync} from 'node:fs';
import {join} from 'node:path';
import {test} from 'node:test';
import type {LoadedTrace} from '../formats/reader.ts';
import {replayTrace} from '../replay/replay.ts';
import {verifyTrace} from '../replay/verify.ts';
import type {RunReport} from '../results/run.ts';
import {swapoff} from '../workloads/swapoff.ts';
import {decode, generate} from '../workloads/testing.ts';
import {loadTraceOrRecording} from './foreign_trace.ts';
import {packageRoot} from './package_info.ts';

const PAGE = 4096;

function replay(trace: LoadedTrace, design: string[] = [], kernel = '6.18'): RunReport {
  return replayTrace(trace, {machine: 'epyc-2cpu-guest', kernel, design});
}

test('the workload swapoff: a cgroup is kept over fork and exec', () => {
  const words = ['bytes=4M', 'limit=4M', 'touches=200', 'during=0', 'processes=2'];
  const report = replay(decode(generate(swapoff, words)));
  const pages = (2 * 4 * 2 ** 20) / PAGE;
  const {pswpout, swapoff_pages: back, pgscan_memcg: scanned} = report.counters;
  // Half of the memory does not fit. Reclaim in a small cgroup takes more than it must: what it
  // writes is not free yet, so it goes on.
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

const SAMPLE = join(packageRoot(), '../shared/traces/recorded/swapoff.perf.txt.zst');
const skip = existsSync(SAMPLE) ? false : 'needs ../shared/traces';

test('the sample recording of two processes in a 48 MB cgroup', {skip}, () => {
  const report = verifyTrace(loadTraceOrRecording(SAMPLE, false), {durations: false});
  assert.ok(report.faults.agreement >= 0.999, `faults ${report.faults.agreement}`);
  assert.ok(report.rss.agreement >= 0.99, `rss ${report.rss.agreement}`);
  const {written, faults, unused} = report.swap!;
  for (const {recorded, simulated} of [written, faults, unused])
    assert.ok(Math.abs(simulated / recorded - 1) < 0.01, `${recorded} and ${simulated}`);
});
