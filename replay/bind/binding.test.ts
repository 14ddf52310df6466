import assert from 'node:assert/strict';
import {test} from 'node:test';
import type {EventColumns} from '../../formats/columns.ts';
import {emptyColumns} from '../../formats/columns.ts';
import {flagsArg, isAligned, lengthPages, vpnArg} from './binding.ts';

/** One event with these arguments. */
function eventOf(args: readonly bigint[]): EventColumns {
  const events = emptyColumns(1, args.length);
  events.count = 1;
  events.argStart[1] = args.length;
  args.forEach((arg, k) => {
    events.argLo[k] = Number(arg & 0xffff_ffffn);
    events.argHi[k] = Number(arg >> 32n);
  });
  return events;
}

test('a length of bytes is whole pages', () => {
  const events = eventOf([0n, 1n, 4096n, 4097n, 0x2_0000_0001n]);
  const pages = [0, 1, 2, 3, 4].map((k) => lengthPages(events, 0, k));
  assert.deepEqual(pages, [0, 1, 1, 2, 0x20_0001]);
  assert.equal(lengthPages(events, 0, 2, 1), 2);
});

test('a garbage length is longer than any address space, and no error', () => {
  const events = eventOf([0xffff_ffff_ffff_ffffn, 2n ** 63n]);
  assert.ok(lengthPages(events, 0, 0) > 2 ** 44);
  assert.ok(lengthPages(events, 0, 1) > 2 ** 44);
});

test('addresses of all 64 bits have a page, and some are aligned', () => {
  const events = eventOf([0xffff_ffff_ffff_f000n, 0x7fff_1234_5678n, 0xffff_ffff_0000_0022n]);
  assert.equal(vpnArg(events, 0, 0), 2 ** 52 - 1);
  assert.deepEqual([isAligned(events, 0, 0), isAligned(events, 0, 1)], [true, false]);
  assert.equal(flagsArg(events, 0, 2), 0x22);
});
