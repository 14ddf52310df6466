import assert from 'node:assert/strict';
import {test} from 'node:test';
import fc from 'fast-check';
import {EventQueue} from './event_queue.ts';

interface Entry {
  time: number;
  key: number;
  id: number;
}

/** The obvious queue: a list that is sorted whenever somebody looks. */
class SortedList {
  entries: Entry[] = [];
  pop(): Entry | undefined {
    this.entries.sort((a, b) => a.time - b.time || a.key - b.key);
    return this.entries.shift();
  }
  get first(): number {
    return Math.min(Infinity, ...this.entries.map((entry) => entry.time));
  }
}

const operation = fc.oneof(
  {
    weight: 5,
    arbitrary: fc.record({
      kind: fc.constant('push' as const),
      delay: fc.nat(9),
      priority: fc.nat(3),
    }),
  },
  {weight: 2, arbitrary: fc.record({kind: fc.constant('now' as const)})},
  {weight: 5, arbitrary: fc.record({kind: fc.constant('pop' as const)})},
  {
    weight: 1,
    arbitrary: fc.record({
      kind: fc.constant('sweep' as const),
      modulus: fc.integer({min: 2, max: 5}),
    }),
  },
);

test('the queue agrees with a sorted list under any sequence of operations', () => {
  fc.assert(
    fc.property(fc.array(operation, {maxLength: 300}), (operations) => {
      const queue = new EventQueue();
      const list = new SortedList();
      let now = 0;
      let sequence = 1;
      for (const op of operations) {
        const id = sequence;
        if (op.kind === 'push') {
          const key = op.priority * 2 ** 44 + sequence++;
          queue.push(now + op.delay, key, id);
          list.entries.push({time: now + op.delay, key, id});
        } else if (op.kind === 'now') {
          const key = 2 * 2 ** 44 + sequence++;
          queue.pushNow(now, key, id);
          list.entries.push({time: now, key, id});
        } else if (op.kind === 'sweep') {
          queue.sweep((other) => other % op.modulus !== 0);
          list.entries = list.entries.filter((entry) => entry.id % op.modulus !== 0);
        } else now = popBoth(queue, list, now);
        assert.equal(queue.size, list.entries.length);
        for (const later of [0, 1, 5]) {
          assert.equal(queue.firstTime() > now + later, list.first > now + later);
        }
      }
      while (list.entries.length > 0) now = popBoth(queue, list, now);
      assert.equal(queue.pop(), -1);
    }),
    {numRuns: 300},
  );
});

function popBoth(queue: EventQueue, list: SortedList, now: number): number {
  const expected = list.pop();
  const id = queue.pop();
  if (expected === undefined) {
    assert.equal(id, -1);
    return now;
  }
  assert.deepEqual({time: queue.poppedTime, key: queue.poppedKey, id}, expected);
  return expected.time;
}

test('the queue grows past its first size, heap and ring', () => {
  const queue = new EventQueue();
  for (let i = 0; i < 5000; i++) {
    queue.push(10 + ((i * 7919) % 5000), 10_000 + i, i);
    queue.pushNow(0, i, i);
  }
  for (let i = 0; i < 5000; i++) assert.equal(queue.pop(), i);
  let last = 0;
  for (let i = 0; i < 5000; i++) {
    queue.pop();
    assert.ok(queue.poppedTime >= last);
    last = queue.poppedTime;
  }
  assert.equal(queue.size, 0);
});
