import assert from 'node:assert/strict';
import {test} from 'node:test';
import {KIND} from '../formats/kinds.ts';
import {TraceWriter} from '../formats/writer.ts';
import {traceFrom} from './generated.ts';
import {compileTrace, INTERRUPTED, type CompiledTrace} from './tracks.ts';

/** Compiles the events that `write` appends, as a recording. */
function compiled(write: (writer: TraceWriter) => void, source = 'perf-script'): CompiledTrace {
  return compileTrace(
    traceFrom('test', (sink) => {
      const writer = new TraceWriter(sink, {source});
      write(writer);
      writer.finish();
    }),
  );
}

const RUNNABLE = 0;
const SLEEPING = 1;

test('time between operations is think time', () => {
  const {opThinkNs, opSleepNs} = compiled((w) => {
    w.append(KIND.munmap, 100, 7, 0, 0, 4096);
    w.append(KIND.sys_exit, 150, 7, 0, 11, 0);
    w.append(KIND.munmap, 400, 7, 0, 0, 4096);
  });
  assert.equal(opThinkNs[1], 250);
  assert.equal(opSleepNs[1], 0);
});

test('recorded contention is stripped out of think time', () => {
  const {opThinkNs} = compiled((w) => {
    w.append(KIND.munmap, 0, 7, 0, 0, 4096);
    w.append(KIND.sys_exit, 10, 7, 0, 11, 0);
    w.append(KIND.contention_begin, 30, 7, 0, 1, 0);
    w.append(KIND.contention_end, 930, 7, 0, 1, 0);
    w.append(KIND.munmap, 950, 7, 0, 0, 4096);
  });
  assert.equal(opThinkNs[1], 40);
});

test('time runnable but not running is stripped, time asleep is sleep', () => {
  const {opThinkNs, opSleepNs} = compiled((w) => {
    w.append(KIND.munmap, 0, 7, 0, 0, 4096);
    w.append(KIND.sys_exit, 10, 7, 0, 11, 0);
    w.append(KIND.sched_switch, 20, 7, 0, 7, RUNNABLE, 8);
    w.append(KIND.sched_switch, 520, 8, 0, 8, SLEEPING, 7);
    w.append(KIND.sched_switch, 530, 7, 0, 7, SLEEPING, 8);
    w.append(KIND.sched_switch, 830, 8, 0, 8, SLEEPING, 7);
    w.append(KIND.munmap, 840, 7, 0, 0, 4096);
  });
  assert.equal(opThinkNs[1], 10 + 10 + 10);
  assert.equal(opSleepNs[1], 300);
});

test('a task whose return to its CPU was not recorded is back with its next event', () => {
  const {opThinkNs, opSleepNs} = compiled((w) => {
    w.append(KIND.munmap, 0, 7, 0, 0, 4096);
    w.append(KIND.sys_exit, 10, 7, 0, 11, 0);
    w.append(KIND.sched_switch, 20, 7, 0, 7, SLEEPING, 0);
    // Written by the task that leaves, when it has left.
    w.append(KIND.tlb_flush, 21, 7, 0, 0, 0);
    w.append(KIND.access, 820, 7, 0, 0x1000, 6, 0);
    w.append(KIND.sched_switch, 840, 7, 0, 7, SLEEPING, 0);
    w.append(KIND.rss_stat, 1340, 7, 0, 1, 1, 1, 4096);
    w.append(KIND.munmap, 1350, 7, 0, 0, 4096);
  });
  assert.deepEqual([opThinkNs[1], opSleepNs[1]], [10, 800]);
  assert.deepEqual([opThinkNs[2], opSleepNs[2]], [20 + 10, 500]);
});

test('sleep inside a modelled operation is not replayed: it re-emerges', () => {
  const {opSleepNs, opThinkNs, opDurationNs} = compiled((w) => {
    w.append(KIND.wait4, 0, 7, 0, 0xffffffffffffffffn, 0);
    w.append(KIND.sched_switch, 20, 7, 0, 7, SLEEPING, 8);
    w.append(KIND.sched_switch, 520, 8, 0, 8, SLEEPING, 7);
    w.append(KIND.sys_exit, 530, 7, 0, 61, 8);
    w.append(KIND.munmap, 540, 7, 0, 0, 4096);
  });
  assert.equal(opDurationNs[0], 530);
  assert.equal(opSleepNs[1], 0);
  assert.equal(opThinkNs[1], 10);
});

test('what happens inside a system call is part of it and no think time', () => {
  const {opThinkNs, opDurationNs} = compiled((w) => {
    w.append(KIND.exec, 0, 7, 0, 0);
    w.append(KIND.map, 300, 7, 0, 0x1000, 0x1000, 0, 3, 2, 0);
    w.append(KIND.access, 500, 7, 0, 0x1000, 2, 0);
    w.append(KIND.sys_exit, 900, 7, 0, 59, 0);
    w.append(KIND.access, 950, 7, 0, 0x1000, 6, 0);
  });
  assert.deepEqual([...opThinkNs], [0, 0, 0, 50]);
  assert.equal(opDurationNs[0], 900);
});

test('a wait4 that a signal ended waits for no child', () => {
  const {opReaped, opDurationNs} = compiled((w) => {
    w.append(KIND.wait4, 0, 7, 0, 8, 0);
    w.append(KIND.sys_exit, 400, 7, 0, 61, -512);
  });
  assert.equal(opReaped[0], INTERRUPTED);
  assert.equal(opDurationNs[0], 400);
});

test('an access ends with the last answer that follows it', () => {
  const {opThinkNs} = compiled((w) => {
    w.append(KIND.access, 0, 7, 0, 4096, 6, 0);
    w.append(KIND.rss_stat, 700, 7, 0, 1, 1, 1, 4096);
    w.append(KIND.tlb_flush, 800, 7, 0, 1, 3);
    w.append(KIND.access, 1000, 7, 0, 8192, 6, 0);
  });
  assert.equal(opThinkNs[1], 200);
});

test('a forked task gets its own track, also when its tid was used before', () => {
  const {tracks, opChild} = compiled((w) => {
    w.append(KIND.fork, 0, 7, 0, 9, 0, 9);
    w.append(KIND.exit, 10, 9, 0, 1);
    w.append(KIND.fork, 20, 7, 0, 9, 0, 9);
    w.append(KIND.exit, 30, 9, 0, 1);
  });
  assert.deepEqual(
    tracks.map((track) => [track.tid, track.parent, track.ops.length]),
    [
      [7, -1, 2],
      [9, 0, 1],
      [9, 0, 1],
    ],
  );
  assert.deepEqual([opChild[0], opChild[2]], [1, 2]);
});

test('a wait4 that returned a child is tied to that child', () => {
  const {edges, opReaped} = compiled((w) => {
    w.append(KIND.fork, 0, 7, 0, 9, 0, 9);
    w.append(KIND.sys_exit, 5, 7, 0, 56, 9);
    w.append(KIND.exit, 10, 9, 0, 1);
    w.append(KIND.wait4, 20, 7, 0, 0xffffffffffffffffn, 0);
    w.append(KIND.sys_exit, 30, 7, 0, 61, 9);
  });
  assert.deepEqual(edges, [{kind: 'wait', from: 1, to: 2}]);
  assert.equal(opReaped[2], 1);
});

test('a wake-up by a traced task is an edge and no sleep', () => {
  const {edges, opSleepNs} = compiled((w) => {
    w.append(KIND.munmap, 0, 7, 0, 0, 4096);
    w.append(KIND.sys_exit, 10, 7, 0, 11, 0);
    w.append(KIND.sched_switch, 20, 7, 0, 7, SLEEPING, 8);
    w.append(KIND.munmap, 30, 8, 0, 0, 4096);
    w.append(KIND.sys_exit, 40, 8, 0, 11, 0);
    w.append(KIND.sched_waking, 50, 8, 0, 7, 0);
    w.append(KIND.sched_switch, 60, 8, 0, 8, SLEEPING, 7);
    w.append(KIND.munmap, 70, 7, 0, 0, 4096);
  });
  assert.deepEqual(edges, [{kind: 'wake', from: 1, to: 2}]);
  assert.equal(opSleepNs[2], 0);
});

test('events out of order are taken in order of time', () => {
  const {opStartNs} = compiled((w) => {
    w.append(KIND.munmap, 500, 7, 1, 0, 4096);
    w.append(KIND.munmap, 100, 8, 0, 0, 4096);
  });
  assert.deepEqual([...opStartNs], [0, 400]);
});

test('nothing is derived for generated traces, and listed tasks exist', () => {
  const {tracks, opThinkNs} = compiled((w) => {
    w.task(5, 5, 1, 'idle');
    w.append(KIND.munmap, 0, 7, 0, 0, 4096);
    w.append(KIND.munmap, 900, 7, 0, 0, 4096);
  }, 'generated');
  assert.equal(opThinkNs[1], 0);
  assert.deepEqual(
    tracks.map((track) => [track.tid, track.ops.length]),
    [
      [7, 2],
      [5, 0],
    ],
  );
});
