// The workload oom from end to end: who is killed, and what becomes of the others.

import assert from 'node:assert/strict';
import {test} from 'node:test';
import {replayTrace} from '../replay/replay.ts';
import type {RunReport} from '../results/run.ts';
import {oom} from '../workloads/oom.ts';
import {decode, generate} from '../workloads/testing.ts';

function run(words: readonly string[], kernel = '6.18'): RunReport {
  const trace = decode(generate(oom, [...words], 1));
  return replayTrace(trace, {machine: '2s4c1t', kernel, design: []});
}

test('the hogs do not fit: the largest is killed, the others end, nothing hangs', () => {
  // 1, 2, 3 and 4 MiB in 7 MiB: one must go.
  const report = run(['bytes=4M', 'limit=7M', 'run=32', 'hold=200ms']);
  assert.equal(report.counters.oom_kill, 1);
  assert.equal(report.checks.findings.length, 0);
  assert.ok(report.counters.oom_reclaim_us < 100_000, `${report.counters.oom_reclaim_us} us`);
  assert.equal(report.ops.exit.count, 4, 'three hogs and the manager');
});

test('oom_score_adj decides: -1000 for the largest kills others for it', () => {
  const report = run(['bytes=4M', 'limit=5M', 'run=32', 'hold=200ms', 'adj=spare-largest']);
  assert.ok(report.counters.oom_kill >= 2);
  assert.equal(report.checks.findings.length, 0);
});

test('with swap for what does not fit nobody dies', () => {
  const report = run(['bytes=4M', 'limit=5M', 'run=32', 'swap=64M', 'hold=50ms']);
  assert.equal(report.counters.oom_kill, undefined);
  assert.ok(report.counters.pswpout > 0);
});

test('rounds: every round kills anew, before the reaper and since', () => {
  for (const kernel of ['4.1', '6.18']) {
    const report = run(['bytes=4M', 'limit=7M', 'run=32', 'hold=300ms', 'rounds=3'], kernel);
    assert.equal(report.counters.oom_kill, 3, kernel);
  }
});

test('more hogs than CPUs: who finds nothing to reclaim gives way to the victim', () => {
  const words = ['hogs=3', 'bytes=16M', 'limit=32M', 'swap=1M', 'spread=equal', 'hold=5s'];
  const trace = decode(generate(oom, words, 1));
  const report = replayTrace(trace, {machine: 'epyc-2cpu-guest', kernel: '6.18', design: []});
  assert.ok(report.counters.oom_kill >= 1);
  assert.equal(report.counters.oom_reaped_pages, undefined);
  assert.ok(report.counters.oom_reclaim_us < 500_000, `${report.counters.oom_reclaim_us} us`);
});
