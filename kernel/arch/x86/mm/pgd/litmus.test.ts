import assert from 'node:assert/strict';
import {test} from 'node:test';
import {missingSeeds} from '../litmus.ts';

// smp_wmb in the creator is the SB pattern and misses under some schedules; a full barrier, or
// copying and listing in one pgd_lock section, never does. Rounds are aimed at the race; any 32
// seeds in a row are to find it.
const SEEDS = 32;

for (const design of ['lockless-v1', 'lockless-v2']) {
  test(`${design}: a new PGD misses an entry under some of ${SEEDS} seeds`, () => {
    assert.ok(missingSeeds(design, 1, SEEDS).length > 0);
    assert.ok(missingSeeds(design, 1001, SEEDS).length > 0);
  });
}

for (const design of [
  'lockless-2015-09',
  'sync-at-vmalloc',
  'count-at-switch',
  'pgd-list',
  'pgd-list-padded',
  'preallocated',
]) {
  test(`${design}: no seed misses an entry`, () => {
    assert.deepEqual(missingSeeds(design, 1, 2 * SEEDS), []);
  });
}
