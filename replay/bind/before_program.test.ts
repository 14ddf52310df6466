import assert from 'node:assert/strict';
import {test} from 'node:test';
import {KIND} from '../../formats/kinds.ts';
import {TraceWriter} from '../../formats/writer.ts';
import {traceFrom} from '../generated.ts';
import {replayTrace} from '../replay.ts';

const RECORDER = 7;
const CHILD = 8;

/**
 * Warnings and notes, by how often each came, of a recording whose process maps nothing that is
 * known.
 */
function said(execs: boolean): {warnings: number[]; notes: number[]} {
  const trace = traceFrom('test', (sink) => {
    const w = new TraceWriter(sink, {source: 'perf-script', machine: {cpus: 2}});
    w.task(RECORDER, RECORDER, 1, 'perf');
    w.append(KIND.access, 0, RECORDER, 0, 0x7f00_0000_0000, 4, 0);
    w.append(KIND.fork, 1, RECORDER, 0, CHILD, 0, CHILD);
    w.append(KIND.access, 2, CHILD, 0, 0x7f00_0000_0000, 4, 0);
    w.append(KIND.access, 3, CHILD, 0, 0x7f00_0000_0000, 4, 0);
    w.append(KIND.exec, 4, CHILD, 0, w.intern('/bin/true'));
    w.append(KIND.exit, 5, CHILD, 0, 1);
    if (execs) w.append(KIND.exec, 6, RECORDER, 0, w.intern('/bin/true'));
    w.append(KIND.exit, 7, RECORDER, 0, 1);
    w.finish();
  });
  const {checks} = replayTrace(trace, {machine: '2s4c1t', kernel: '5.4', design: []});
  return {warnings: Object.values(checks.warnings), notes: Object.values(checks.notes ?? {})};
}

test('what the recorder touched before it started the program is a note', () => {
  // The child is forked, so what it touches before its exec is part of the workload.
  assert.deepEqual(said(true), {warnings: [2], notes: [1]});
});

test('a process that was there before and stays is a warning', () => {
  assert.deepEqual(said(false), {warnings: [3], notes: []});
});
