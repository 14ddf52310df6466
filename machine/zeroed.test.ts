import assert from 'node:assert/strict';
import {test} from 'node:test';
import {zeroed, zeroedBuffer} from './zeroed.ts';

test('arrays have the length asked for and are zero, however their memory comes', () => {
  for (const length of [0, 1, 1000, 2 ** 15, 2 ** 20]) {
    const words = zeroed(Int32Array, length);
    assert.equal(words.length, length);
    assert.ok(words.every((word) => word === 0));
  }
});

test('now and then buffers are such as the engine counts', () => {
  const kinds: string[] = [];
  for (let i = 0; i < 140; i++) {
    const buffer = zeroedBuffer(2 ** 20);
    assert.ok(buffer.byteLength >= 2 ** 25);
    kinds.push(buffer instanceof SharedArrayBuffer ? 's' : 'o');
  }
  assert.match(kinds.join(''), /s+o{4,5}s{60,}o{4,5}s/);
});
