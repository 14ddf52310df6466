import assert from 'node:assert/strict';
import {test} from 'node:test';
import {Rng} from './rng.ts';
import {StoreBuffers} from './store_buffer.ts';

function buffersWith(drains: number[], capacity = 56): {buffers: StoreBuffers; cells: Uint32Array} {
  const drainTicks = (): number => drains.shift() ?? 0;
  const buffers = new StoreBuffers(3, {capacity, drainTicks}, new Rng(1, 'test'));
  return {buffers, cells: new Uint32Array(4)};
}

test('a store is seen by its CPU at once and by the others when it has drained', () => {
  const {buffers, cells} = buffersWith([50]);
  buffers.store(0, cells, 1, 7, 100);
  assert.equal(buffers.load(0, cells, 1, 100), 7);
  assert.equal(buffers.load(1, cells, 1, 149), 0);
  assert.equal(buffers.load(1, cells, 1, 150), 7);
  assert.equal(buffers.pending, 0);
});

test('the newest own store is forwarded and values are unsigned', () => {
  const {buffers, cells} = buffersWith([50, 50]);
  buffers.store(0, cells, 0, 1, 0);
  buffers.store(0, cells, 0, -1, 0);
  assert.equal(buffers.load(0, cells, 0, 0), 0xffffffff);
  assert.equal(cells[0], 0);
  buffers.settle(50);
  assert.equal(buffers.load(0, cells, 0, 60), 0xffffffff);
});

test('a later store with a shorter drain waits for the earlier one', () => {
  const {buffers, cells} = buffersWith([100, 1]);
  buffers.store(0, cells, 0, 1, 0);
  buffers.store(0, cells, 1, 1, 10);
  assert.equal(buffers.load(1, cells, 1, 99), 0);
  assert.equal(buffers.load(1, cells, 1, 100), 1);
  assert.equal(cells[0], 1);
});

test('stores of several CPUs reach memory in order of time, lower CPU first on a tie', () => {
  const {buffers, cells} = buffersWith([30, 20, 30]);
  buffers.store(2, cells, 0, 3, 0);
  buffers.store(1, cells, 0, 2, 0);
  buffers.store(0, cells, 0, 1, 0);
  assert.equal(buffers.load(2, cells, 1, 25), 0);
  assert.equal(cells[0], 2);
  buffers.settle(30);
  assert.equal(cells[0], 3, 'CPU 0 and then CPU 2');
});

test('a fence empties its own buffer only and reports the wait', () => {
  const {buffers, cells} = buffersWith([40, 90, 60]);
  buffers.store(0, cells, 0, 1, 0);
  buffers.store(0, cells, 1, 1, 0);
  buffers.store(1, cells, 2, 1, 0);
  assert.equal(buffers.drainedBy(0), 90);
  assert.equal(buffers.fence(0, 10), 80);
  assert.deepEqual([...cells], [1, 1, 0, 0]);
  assert.equal(buffers.fence(0, 10), 0);
  assert.equal(buffers.fence(1, 70), 0, 'already drained by then');
  assert.equal(cells[2], 1);
});

test('a full buffer pushes its oldest store out', () => {
  const {buffers, cells} = buffersWith([1000, 1000, 1000], 2);
  buffers.store(0, cells, 0, 1, 0);
  buffers.store(0, cells, 1, 1, 0);
  assert.equal(buffers.load(1, cells, 0, 5), 0);
  buffers.store(0, cells, 2, 1, 0);
  assert.equal(buffers.waiting(0), 2);
  assert.equal(buffers.load(1, cells, 0, 5), 1);
  assert.equal(buffers.load(1, cells, 1, 5), 0);
});

test('stepping drains one store and says when there is none', () => {
  const {buffers, cells} = buffersWith([10, 20]);
  buffers.store(0, cells, 0, 1, 0);
  buffers.store(0, cells, 1, 2, 0);
  assert.equal(buffers.drainOne(0), true);
  assert.deepEqual([...cells], [1, 0, 0, 0]);
  assert.equal(buffers.drainOne(1), false);
  assert.equal(buffers.load(1, cells, 1, 19), 0);
  assert.equal(buffers.load(1, cells, 1, 20), 2);
});
