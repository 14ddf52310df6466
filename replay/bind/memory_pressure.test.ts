import assert from 'node:assert/strict';
import {test} from 'node:test';
import {KIND} from '../../formats/kinds.ts';
import {TraceWriter} from '../../formats/writer.ts';
import type {RunReport} from '../../results/run.ts';
import {traceFrom} from '../generated.ts';
import {replayTrace} from '../replay.ts';

const PAGE = 4096;
const AREA = 0x7f00_0000_0000;

/** One process and a file of 64 pages, all mapped and read; then `after`. */
function withFile(after: (w: TraceWriter, file: number) => void): RunReport {
  const trace = traceFrom('test', (sink) => {
    const w = new TraceWriter(sink, {source: 'generated'});
    w.task(7, 7, 1, 'reader');
    const file = w.intern('/data');
    w.append(KIND.map, 1, 7, 0, AREA, 64 * PAGE, 0, 3, 1, file);
    w.append(KIND.touch, 2, 7, 0, AREA, 64, 1, 0);
    after(w, file);
    w.append(KIND.exit, 100, 7, 0, 1);
    w.finish();
  });
  return replayTrace(trace, {machine: 'epyc-2cpu-guest', kernel: '6.18', design: []});
}

test('truncate: beyond the end accesses fail, in a hole they fault again', () => {
  const shrunk = withFile((w, file) => {
    w.append(KIND.truncate, 3, 7, 0, file, 32 * PAGE, 0);
    w.append(KIND.touch, 4, 7, 0, AREA, 32, 1, 0);
    w.append(KIND.touch, 5, 7, 0, AREA + 32 * PAGE, 1, 1, 0);
  });
  assert.deepEqual(shrunk.checks.findings, []);
  assert.equal(shrunk.counters.sigbus, 1);
  const punched = withFile((w, file) => {
    w.append(KIND.truncate, 3, 7, 0, file, 16 * PAGE, 16 * PAGE);
    w.append(KIND.touch, 4, 7, 0, AREA, 64, 1, 1);
  });
  assert.equal(punched.replay.operations.failed, 0);
});

test('clear_refs and oom_kill of a process by name', () => {
  const cleared = withFile((w) => w.append(KIND.clear_refs, 3, 7, 0, 4));
  assert.equal(cleared.replay.operations.failed, 0);
  const bad = withFile((w) => w.append(KIND.clear_refs, 3, 7, 0, 9));
  assert.equal(bad.replay.operations.failed, 1);
  const killed = withFile((w) => w.append(KIND.oom_kill, 3, 7, 0, 7));
  assert.equal(killed.counters.oom_kill, 1);
  const nobody = withFile((w) => w.append(KIND.oom_kill, 3, 7, 0, 99));
  assert.equal(nobody.replay.operations.failed, 1);
});

test('uprobe: the page of the file that is mapped there becomes private, and goes again', () => {
  const trace = traceFrom('test', (sink) => {
    const w = new TraceWriter(sink, {source: 'generated'});
    w.task(7, 7, 1, 'traced');
    w.append(KIND.map, 1, 7, 0, AREA, 4 * PAGE, 0, 5, 2, w.intern('/bin/traced'));
    w.append(KIND.touch, 2, 7, 0, AREA, 4, 1, 0);
    w.append(KIND.uprobe, 3, 7, 0, AREA + 0x123, 1);
    w.append(KIND.uprobe, 4, 7, 0, AREA + 0x123, 0);
    w.append(KIND.uprobe, 5, 7, 0, AREA + 0x123, 0);
    w.append(KIND.exit, 100, 7, 0, 1);
    w.finish();
  });
  const report = replayTrace(trace, {machine: 'epyc-2cpu-guest', kernel: '6.18', design: []});
  assert.equal(report.ops.uprobe.count, 3);
  assert.equal(report.replay.operations.failed, 1, 'removed twice');
});
