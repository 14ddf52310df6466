// What the methods of stress-ng --vm do to pages (stress-vm.c, V0.16): the order in which each of
// their passes visits the pages of the buffer, and whether it writes. Passes that repeat within a
// page are one visit. A method that swaps 64-byte chunks with random partners visits one random
// page for each page here, not 64; walk-0a and walk-1a visit, for each page, the page whose number
// differs in one bit.

import {PAGE_BYTES} from './address_space.ts';
import type {Stream} from './rng.ts';
import type {Actor, Step} from './stage.ts';
import {touch} from './vm_calls.ts';

/**
 * One pass over the buffer: `write`, `read` forward; `writeDown`, `readDown` from the end;
 * `writeEnds`, `readEnds` from both ends by turns; `random` writes, as many as pages; `swap` and
 * `swapDown` forward and backward with a random partner each; `address` with the page one address
 * bit away; `hammer` reads two pages.
 */
export type Pass =
  | 'write'
  | 'read'
  | 'writeDown'
  | 'readDown'
  | 'writeEnds'
  | 'readEnds'
  | 'random'
  | 'swap'
  | 'swapDown'
  | 'address'
  | 'hammer';

const WRITE_READ: readonly Pass[] = ['write', 'read'];
const WRITE_2: readonly Pass[] = ['write', 'write', 'read'];
const WRITE_3: readonly Pass[] = ['write', 'write', 'write', 'read'];
/** A pattern, eight changes of it, the check. */
const WRITE_9: readonly Pass[] = [...new Array<Pass>(9).fill('write'), 'read'];
const GALPAT: readonly Pass[] = ['write', 'random', 'read'];
/** Every 23rd byte: pattern, complement, check, for each of 23 offsets. */
const MODULO: readonly Pass[] = new Array(23).fill(WRITE_2).flat();

/** Passes by method, in stress-ng's order, which `all` follows. */
export const METHODS = {
  'cache-lines': WRITE_READ,
  'cache-stripe': WRITE_READ,
  checkerboard: WRITE_2,
  flip: WRITE_9,
  fwdrev: ['writeEnds', 'readEnds'],
  'galpat-0': GALPAT,
  'galpat-1': GALPAT,
  gray: WRITE_READ,
  grayflip: WRITE_READ,
  rowhammer: ['write', 'hammer', 'read'],
  incdec: WRITE_3,
  'inc-nybble': WRITE_3,
  lfsr32: WRITE_READ,
  'rand-set': WRITE_READ,
  'rand-sum': WRITE_READ,
  read64: ['read'],
  ror: WRITE_2,
  swap: ['write', 'swap', 'swapDown', 'read'],
  'move-inv': ['write', 'write', 'read', 'writeDown', 'writeDown', 'readDown'],
  'modulo-x': MODULO,
  mscan: ['write', 'read', 'write', 'read'],
  wrrd128nt: WRITE_READ,
  'prime-0': WRITE_9,
  'prime-1': WRITE_9,
  'prime-gray-0': WRITE_9,
  'prime-gray-1': WRITE_9,
  'prime-incdec': WRITE_3,
  'walk-0d': ['write'],
  'walk-1d': ['write'],
  'walk-0a': ['write', 'address'],
  'walk-1a': ['write', 'address'],
  write64: ['write'],
  write64nt: ['write'],
  write1024v: ['write'],
  'zero-one': ['write', 'read', 'write', 'read'],
} as const satisfies Readonly<Record<string, readonly Pass[]>>;

export type Method = keyof typeof METHODS;
/** Names of the methods, in stress-ng's order. */
export const METHOD_NAMES = Object.keys(METHODS) as Method[];

/** The buffer of one worker. */
export interface Buffer {
  readonly addr: number;
  readonly pages: number;
  readonly random: Stream;
}

/** Nominal ns of a visit to a page that is there: its 64 lines. */
const VISIT_NS = 400;
/** Loads of rowhammer, each from memory. */
const HAMMER_NS = 1_000_000 * 100;

function one(self: Actor, {addr}: Buffer, page: number, write = true): undefined {
  touch(self, addr + page * PAGE_BYTES, 1, write, VISIT_NS);
}

/** Single visits: `order(i)` is the page of the i-th. */
function* visits(
  self: Actor,
  buffer: Buffer,
  count: number,
  write: boolean,
  order: (i: number) => number,
): Generator<Step, void, void> {
  for (let i = 0; i < count; i++) yield one(self, buffer, order(i), write);
}

/** Each page, then its partner, both written. */
function* pairs(
  self: Actor,
  buffer: Buffer,
  order: (i: number) => number,
  partner: (page: number) => number,
): Generator<Step, void, void> {
  for (let i = 0; i < buffer.pages; i++) {
    const page = order(i);
    const other = partner(page);
    yield one(self, buffer, page);
    if (other < buffer.pages) yield one(self, buffer, other);
  }
}

/** Carries out one pass. */
export function* runPass(self: Actor, buffer: Buffer, pass: Pass): Generator<Step, void, void> {
  const {addr, pages, random} = buffer;
  const last = pages - 1;
  const bits = Math.max(1, Math.ceil(Math.log2(pages)));
  const up = (i: number): number => i;
  const down = (i: number): number => last - i;
  const ends = (i: number): number => (i % 2 === 0 ? i / 2 : last - (i - 1) / 2);
  const any = (): number => random.below(pages);
  switch (pass) {
    case 'write':
    case 'read':
      yield touch(self, addr, pages, pass === 'write', VISIT_NS);
      break;
    case 'writeDown':
    case 'readDown':
      yield* visits(self, buffer, pages, pass === 'writeDown', down);
      break;
    case 'writeEnds':
    case 'readEnds':
      yield* visits(self, buffer, pages, pass === 'writeEnds', ends);
      break;
    case 'random':
      yield* visits(self, buffer, pages, true, any);
      break;
    case 'swap':
    case 'swapDown':
      yield* pairs(self, buffer, pass === 'swap' ? up : down, any);
      break;
    case 'address':
      yield* pairs(self, buffer, up, (page) => page ^ (1 << (page % bits)));
      break;
    case 'hammer':
      yield* visits(self, buffer, 2, false, any);
      yield self.think(HAMMER_NS);
      break;
  }
}
