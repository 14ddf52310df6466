// The ksm workload end to end: what a run reports of KSM is what the selftest ksm_tests expects for
// these contents.

import assert from 'node:assert/strict';
import {test} from 'node:test';
import {traceFrom} from '../replay/generated.ts';
import {replayTrace} from '../replay/replay.ts';
import type {RunReport} from '../results/run.ts';
import {TraceWriter} from '../formats/writer.ts';
import {ksm} from '../workloads/ksm.ts';
import {parseParams} from '../workloads/workload.ts';

function run(words: readonly string[], kernel = '6.18', machine = '2s4c1t'): RunReport {
  const trace = traceFrom('ksm', (sink) => {
    ksm.generate((header) => new TraceWriter(sink, header), parseParams(ksm, words), 1);
  });
  const report = replayTrace(trace, {machine, kernel, design: []});
  assert.equal(report.replay.operations.failed + report.replay.operations.skipped, 0);
  return report;
}

/** ksm_tests: pages_shared and pages_sharing of `pages` equal pages under max_page_sharing. */
function expected(pages: number, limit: number): readonly [shared: number, sharing: number] {
  const nodes = Math.floor(pages / limit);
  if (pages % limit <= 1) return [nodes, nodes * (limit - 1)];
  return [nodes + 1, pages - nodes - 1];
}

/** Sums of `expected` over the contents of a run: `each` pages of every content. */
function sums(each: readonly number[], limit: number): readonly [shared: number, sharing: number] {
  const all = each.map((pages) => expected(pages, limit));
  const sum = (k: 0 | 1): number => all.reduce((total, counts) => total + counts[k], 0);
  return [sum(0), sum(1)];
}

function peak({counters}: RunReport): readonly [shared: number, sharing: number] {
  return [counters.ksm_peak_pages_shared ?? 0, counters.ksm_peak_pages_sharing ?? 0];
}

const QUIET = ['rounds=0', 'zeros=0', 'duplicates=1', 'smart_scan=no'];

test('pages_shared and pages_sharing follow the formula, whatever divides what', () => {
  const cases = [
    {processes: 1, pages: 512, contents: 1, limit: 256},
    {processes: 2, pages: 512, contents: 1, limit: 256},
    {processes: 1, pages: 513, contents: 1, limit: 256},
    {processes: 1, pages: 514, contents: 1, limit: 256},
    {processes: 3, pages: 100, contents: 4, limit: 256},
    {processes: 3, pages: 100, contents: 5, limit: 7},
    {processes: 2, pages: 60, contents: 30, limit: 2},
  ];
  for (const {processes, pages, contents, limit} of cases) {
    const words = [`processes=${processes}`, `pages=${pages}`, `contents=${contents}`];
    const report = run([...QUIET, ...words, `max_page_sharing=${limit}`]);
    const each = Array.from(
      {length: contents},
      (_, content) => processes * Math.ceil((pages - content) / contents),
    );
    assert.deepEqual(peak(report), sums(each, limit), words.join(' '));
  }
});

test('pages of zeros are a content like any other, or with use_zero_pages no KSM pages at all', () => {
  const words = ['pages=200', 'zeros=0.5', 'duplicates=0', 'rounds=0', 'processes=2'];
  assert.deepEqual(peak(run(words)), expected(200, 256));
  const zero = run([...words, 'use_zero_pages=yes']);
  assert.deepEqual(peak(zero), [0, 0]);
  assert.equal(zero.counters.ksm_pages_scanned > 400, true);
});

test('what was written leaves; it merges again when others hold the same', () => {
  const words = ['pages=200', 'duplicates=1', 'zeros=0', 'contents=1', 'smart_scan=no'];
  const unique = run([...words, 'rounds=1', 'writes=1', 'finish=unmerge']);
  assert.deepEqual(peak(unique), expected(400, 256));
  assert.equal(unique.counters.ksm_pages_sharing ?? 0, 0);
  const same = run([...words, 'rounds=3', 'writes=1', 'rewrite=duplicate', 'finish=stop']);
  assert.deepEqual(peak(same), expected(400, 256));
  assert.equal(same.counters.ksm_stable_node_chains ?? 0, 0);
});

test('full scans, and pages in no tree, are reported', () => {
  const {counters} = run(['pages=100', 'zeros=0', 'duplicates=0.5', 'contents=1', 'smart_scan=no']);
  assert.ok(counters.ksm_full_scans > 3);
  assert.equal(counters.ksm_peak_pages_unshared + (counters.ksm_peak_pages_volatile ?? 0), 100);
});

test('without a limit (before 4.13) one KSM page stands for all', () => {
  const words = ['rounds=0', 'zeros=0', 'duplicates=1', 'pages=400', 'contents=1'];
  assert.deepEqual(peak(run(words, '4.1')), [1, 799]);
});

test('a run ends the same way twice', () => {
  assert.equal(run(['pages=300']).digest, run(['pages=300']).digest);
});
