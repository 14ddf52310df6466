import assert from 'node:assert/strict';
import {test} from 'node:test';
import {KIND} from '../../formats/kinds.ts';
import {TraceWriter} from '../../formats/writer.ts';
import {traceFrom} from '../generated.ts';
import {replayTrace} from '../replay.ts';

const PAGE = 4096;
const AT = 0x5600_0000_0000;
const MAP_PRIVATE = 2;
const [R, RW, RX] = [1, 3, 5];

test('exec keeps of its first mapping of a program only the first segment', () => {
  const trace = traceFrom('test', (sink) => {
    const w = new TraceWriter(sink, {source: 'generated', machine: {cpus: 2}});
    w.task(7, 7, 1, 'sh');
    const [file, vmas] = [w.intern('/usr/bin/make'), w.intern('vmas')];
    const segment = (time: number, first: number, pages: number, prot: number): void => {
      w.append(
        KIND.map,
        time,
        7,
        0,
        AT + first * PAGE,
        pages * PAGE,
        first,
        prot,
        MAP_PRIVATE,
        file,
      );
    };
    const state = (time: number, first: number, pages: number, expected: number): void => {
      const step = w.intern(`pages from ${first}`);
      w.append(KIND.expect_state, time, 7, 0, step, vmas, AT + first * PAGE, pages, expected);
    };
    w.append(KIND.exec, 0, 7, 0, file);
    segment(10, 0, 24, R); // all of the program, at first
    segment(20, 4, 8, RX);
    segment(30, 12, 6, R);
    segment(40, 20, 4, RW);
    state(50, 0, 4, 1);
    state(60, 12, 6, 1);
    state(70, 18, 2, 0);
    w.append(KIND.exit, 80, 7, 0, 1);
    w.finish();
  });
  const report = replayTrace(trace, {machine: 'epyc-2cpu-guest', kernel: '6.18', design: []});
  assert.deepEqual(report.checks.findings, []);
  assert.equal(report.counters.conformance_steps, 3);
});
