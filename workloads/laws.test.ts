// The laws must be able to fail: each broken trace here breaks one.

import assert from 'node:assert/strict';
import {test} from 'node:test';
import {KIND} from '../formats/kinds.ts';
import type {TraceWriter} from '../formats/writer.ts';
import {lawViolations} from './laws.ts';
import {Stage} from './stage.ts';
import {decode, inMemory} from './testing.ts';
import {generatedHeader} from './workload.ts';

function violations(write: (writer: TraceWriter) => void): string[] {
  const made = inMemory((open) => {
    const writer = open(generatedHeader('test', {}, 1, 2));
    writer.task(10, 10, 1, 'a');
    write(writer);
    return writer.finish();
  });
  return lawViolations(decode(made));
}

const BROKEN: readonly (readonly [string, RegExp, (writer: TraceWriter) => void])[] = [
  ['no exit', /tid 10 has no exit/, (w) => w.append(KIND.think, 0, 10, 0, 1)],
  [
    'acts after its exit',
    /acts after its exit/,
    (w) => {
      w.append(KIND.exit, 0, 10, 0, 1);
      w.append(KIND.think, 1, 10, 0, 1);
    },
  ],
  ['time goes back', /earlier/, (w) => [5, 4].map((ns) => w.append(KIND.think, ns, 10, 0, 1))],
  ['cpu', /on CPU 2 of 2/, (w) => w.append(KIND.exit, 0, 10, 2, 1)],
  ['pin', /pins too high/, (w) => w.append(KIND.sched_setaffinity, 0, 10, 0, 2)],
  ['unknown task', /tid 11 is not in the task table/, (w) => w.append(KIND.exit, 0, 11, 0, 1)],
  ['fork of nobody', /task table differs/, (w) => w.append(KIND.fork, 0, 10, 0, 12, 0, 12)],
  ['wait for a stranger', /is no child/, (w) => w.append(KIND.wait4, 0, 10, 0, 12, 0)],
  ['barrier', /barrier 3: 1 arrivals/, (w) => w.append(KIND.barrier, 0, 10, 0, 3, 2)],
  ['touch', /touches what is not mapped/, (w) => w.append(KIND.touch, 0, 10, 0, 4096, 1, 1, 1)],
  ['vfree', /does not exist/, (w) => w.append(KIND.vfree, 0, 10, 0, 4096, 4096)],
  [
    'vmalloc twice',
    /exists/,
    (w) => [0, 1].map((ns) => w.append(KIND.vmalloc, ns, 10, 0, 4096, 4096)),
  ],
];

for (const [name, expected, write] of BROKEN) {
  test(`a broken trace is found: ${name}`, () => {
    assert.match(violations(write).join('\n'), expected);
  });
}

test('a good trace has no violations', () => {
  assert.deepEqual(
    violations((w) => w.append(KIND.exit, 0, 10, 1, 1)),
    [],
  );
});

test('a stage says who waits for ever', () => {
  const run = (): unknown =>
    inMemory((open) => {
      const writer = open(generatedHeader('test', {}, 1, 2));
      const stage = new Stage(writer);
      const gate = stage.gate(2);
      stage.adopt({comm: 'alone', cpu: 0}, function* (self) {
        yield self.arrive(gate);
      });
      stage.run();
      return writer.finish();
    });
  assert.throws(run, /tids 1000 wait for ever/);
});
