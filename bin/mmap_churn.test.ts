// What mmap-churn must show of a kernel: who takes mmap_lock for a page fault, and what that costs.

import assert from 'node:assert/strict';
import {test} from 'node:test';
import {replayTrace} from '../replay/replay.ts';
import type {RunReport} from '../results/run.ts';
import {workloadByName} from '../workloads/registry.ts';
import {parseParams} from '../workloads/workload.ts';
import {workloadTrace} from './workload_trace.ts';

function churn(kernel: string, words: readonly string[], machine = '2s8c1t'): RunReport {
  const workload = workloadByName('mmap-churn');
  const params = parseParams(workload, words);
  return replayTrace(workloadTrace(workload, params, 1), {machine, kernel, design: []});
}

/** Iterations per second, as will-it-scale counts them. */
function rate(kernel: string, words: readonly string[]): number {
  const workload = workloadByName('mmap-churn');
  const run = churn(kernel, words);
  assert.equal(run.replay.operations.failed, 0);
  return (workload.iterations(parseParams(workload, words))! * 1e9) / run.simulated_ns;
}

const PAGE_FAULT1 = ['kind=page_fault1', 'size=4M', 'iterations=3'];
const PAGES = 4 * 3 * 1024;

test('page_fault1_threads: every fault takes mmap_lock up to 6.3, none with per-VMA locks', () => {
  const old = churn('5.5', [...PAGE_FAULT1, 'threads=4']).locks['mmap_lock-R'];
  assert.ok(old.acquired >= PAGES, `${old.acquired} acquisitions`);
  assert.ok(old.wait_ns > 0, 'readers wait for munmap');
  const {locks} = churn('6.6', [...PAGE_FAULT1, 'threads=4']);
  const acquired = locks['mmap_lock-R']?.acquired ?? 0;
  assert.ok(acquired < PAGES / 100, `${acquired} acquisitions with per-VMA locks`);
  assert.ok(locks['mmap_lock-W'].wait_ns > 0, 'writers still wait for each other');
});

test('page_fault1_threads: per-VMA locks scale further; a few threads scale under either', () => {
  const speedup = (kernel: string, threads: number): number =>
    rate(kernel, [...PAGE_FAULT1, `threads=${threads}`]) /
    rate(kernel, [...PAGE_FAULT1, 'threads=1']);
  // Two threads once ran in step here: the writer of one met the faults of the other for 4 ms.
  assert.ok(speedup('5.5', 2) > 1.3);
  assert.ok(speedup('6.6', 2) > 1.5);
  assert.ok(speedup('6.6', 8) > 1.15 * speedup('5.5', 8));
});

test('page_fault1_processes: nobody shares mmap_lock', () => {
  const {locks} = churn('6.6', [...PAGE_FAULT1, 'threads=1', 'processes=4']);
  assert.equal(locks['mmap_lock-W'].wait_ns, 0);
});

for (const kind of ['page_fault2', 'page_fault3', 'mmap2', 'brk1', 'brk2', 'malloc1']) {
  test(`${kind}: every operation is done, on old kernels and new`, () => {
    const words = [`kind=${kind}`, 'size=64K', 'iterations=5', 'threads=2', 'processes=2'];
    for (const kernel of ['3.10', '5.5', '6.18']) {
      const {operations} = churn(kernel, words).replay;
      assert.equal(operations.failed + operations.skipped, 0, kernel);
    }
  });
}

test('stress_mmap: pages unmapped and mapped one by one', () => {
  const run = churn('6.18', ['kind=stress_mmap', 'size=256K', 'threads=2', 'iterations=2']);
  assert.equal(run.replay.operations.failed, 0);
  assert.equal(run.ops.munmap.count, 2 * 2 * (64 + 1));
  assert.equal(run.ops.mprotect.count, 2 * 2 * 64);
});

test('brk2 grows the VMA that it made; brk1, whose heap the parent shares, makes one', () => {
  const alone = ['threads=1', 'iterations=50'];
  const merges = (kind: string): number =>
    churn('6.18', [`kind=${kind}`, ...alone]).cpu.functions.vma_merge_new_range ?? 0;
  assert.equal(merges('brk1'), 0);
  assert.ok(merges('brk2') > 0);
});
