import assert from 'node:assert/strict';
import {test} from 'node:test';
import {KIND} from '../formats/kinds.ts';
import {TraceWriter} from '../formats/writer.ts';
import {dependenciesOf} from './dependencies.ts';
import {traceFrom} from './generated.ts';
import {compileTrace, type CompiledTrace} from './tracks.ts';

const CLONE_THREAD = 0x10f00;

/**
 * A process 7 with a thread 8, which unmaps something twice before the leader ends the process or
 * itself.
 */
function threads(group: number): CompiledTrace {
  return compileTrace(
    traceFrom('test', (sink) => {
      const w = new TraceWriter(sink, {source: 'perf-script'});
      w.task(7, 7, 0, 'fio');
      w.task(8, 7, 0, 'fio');
      w.append(KIND.fork, 0, 7, 0, 8, CLONE_THREAD, 7);
      w.append(KIND.munmap, 10, 8, 0, 0, 4096);
      w.append(KIND.munmap, 20, 8, 0, 0, 4096);
      w.append(KIND.exit, 30, 7, 0, group);
      w.append(KIND.munmap, 40, 8, 0, 0, 4096);
      w.finish();
    }),
  );
}

/** What operation `op` waits for. */
function before(compiled: CompiledTrace, op: number): number[] {
  const {start, from} = dependenciesOf(compiled, 'causal');
  return [...from.subarray(start[op], start[op + 1])];
}

test('in causal order a group exit comes after what the other threads did before it', () => {
  const compiled = threads(1);
  assert.deepEqual(before(compiled, 3), [2]);
  assert.deepEqual(before(compiled, 2), []);
});

test('the exit of one thread waits for nobody', () => {
  assert.deepEqual(before(threads(0), 3), []);
});
