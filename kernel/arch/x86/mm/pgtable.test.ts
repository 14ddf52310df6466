// Page tables against a Map of what every virtual page should say.

import assert from 'node:assert/strict';
import {test} from 'node:test';
import fc from 'fast-check';
import {
  hardwareWalk,
  LEVEL_PAGES,
  nextAt,
  PageTables,
  pgdFree,
  populateSlot,
  pteClear,
  ptePopulate,
  pteSlot,
  pteValue,
  removeTable,
  setHuge,
  setPte,
  slotAt,
  UserPgd,
  vpnOfSlot,
  WALK_NOT_PRESENT,
  WALK_NOT_WRITABLE,
  walkSlot,
} from './pgtable.ts';
import {
  PTE_DIRTY,
  PTE_HUGE,
  PTE_KIND,
  PTE_PRESENT,
  PTE_PROTNONE,
  PTE_SWAP,
  PTE_TABLE,
  PTE_WRITE,
  PTE_YOUNG,
} from './pgtable_bits.ts';
import {copyPtes, depositTable, splitHuge, withdrawTable} from './pgtable_huge.ts';
import {
  clearPtes,
  firstPopulated,
  freePgdRange,
  moveEntry,
  nextRange,
  PgtableCursor,
  startRange,
} from './pgtable_range.ts';

type Model = Map<number, {value: number; flags: number}>;

/** Places where tables of every level begin and end, low, around 2^31 and 2^32 pages, and high. */
const BASES = [0, 510, 2 ** 18 - 3, 2 ** 27 - 2, 2 ** 31 - 1, 2 ** 32 - 2, 2 ** 35 - 2 ** 18 - 9];
const HIGH_BASES = [2 ** 36 - 1, 2 ** 40 + 511, 2 ** 44 - 2 ** 19];

/** All leaves of an mm as single pages, read through a cursor. */
function contents(pgd: UserPgd, end: number): Model {
  const {pt} = pgd;
  const found: Model = new Map();
  const cursor = new PgtableCursor();
  startRange(cursor, 0, end);
  while (nextRange(pgd, cursor)) {
    for (let i = 0; i < cursor.count; i++) {
      const slot = cursor.slot + i;
      const flags = pt.flags[slot];
      if (flags === 0) continue;
      const pages = LEVEL_PAGES[cursor.level];
      const first = vpnOfSlot(pt, slot);
      for (let page = 0; page < pages; page += Math.max(pages / 512, 1)) {
        found.set(first + page, {value: pteValue(pt, slot) + page, flags: flags & ~PTE_HUGE});
      }
    }
  }
  return found;
}

/** What the counts of tables and populations must be, from a walk over everything. */
function checkCounts(pgd: UserPgd): void {
  const {pt} = pgd;
  const seen = [0, 0, 0, 0, 0];
  const visit = (table: number, level: number): void => {
    seen[level]++;
    assert.equal(pt.level[table], level);
    assert.equal(pt.owner[table], pgd.mmId);
    let population = 0;
    for (let slot = table * 512; slot < table * 512 + 512; slot++) {
      if (pt.flags[slot] === 0) {
        assert.equal(pt.entries[slot], 0);
        continue;
      }
      population++;
      if ((pt.flags[slot] & PTE_KIND) !== PTE_TABLE) continue;
      const below = pt.entries[slot];
      assert.equal(pt.parent[below], slot);
      assert.equal(pt.base[below], vpnOfSlot(pt, slot));
      visit(below, level - 1);
    }
    assert.equal(pt.population[table], population);
    if (level === 1) seen[0] += pt.deposits[table];
  };
  visit(pgd.top, pgd.levels - 1);
  assert.deepEqual([...pgd.tables], seen);
}

const operation = fc.record({
  kind: fc.constantFrom('set', 'set', 'set', 'clear', 'zap', 'huge', 'split', 'free'),
  base: fc.nat(),
  offset: fc.nat(1500),
  length: fc.nat(1200),
  value: fc.nat(2 ** 31 - 1),
  flags: fc.constantFrom(PTE_PRESENT | PTE_WRITE, PTE_PROTNONE, PTE_SWAP, PTE_PRESENT | PTE_YOUNG),
});
type Operation = typeof operation extends fc.Arbitrary<infer T> ? T : never;

function zap(pgd: UserPgd, model: Model, start: number, end: number): void {
  const cursor = new PgtableCursor();
  startRange(cursor, start, end);
  while (nextRange(pgd, cursor)) {
    if (cursor.level === 0) clearPtes(pgd.pt, cursor.slot, cursor.count);
    else if (cursor.vpn % 512 === 0 && cursor.next - cursor.vpn === 512)
      pteClear(pgd.pt, cursor.slot);
    else {
      splitHuge(pgd, cursor.slot);
      cursor.next = cursor.vpn;
    }
  }
  for (const vpn of [...model.keys()]) if (vpn >= start && vpn < end) model.delete(vpn);
}

function apply(pgd: UserPgd, model: Model, op: Operation, bases: readonly number[]): void {
  const {pt} = pgd;
  const vpn = bases[op.base % bases.length] + op.offset;
  const huge = vpn - (vpn % 512);
  if (op.kind === 'set') {
    const slot = ptePopulate(pgd, vpn);
    if (slot < 0) {
      assert.ok(model.has(huge));
      return;
    }
    setPte(pt, slot, op.value, op.flags);
    model.set(vpn, {value: op.value, flags: op.flags});
  } else if (op.kind === 'clear') {
    const slot = pteSlot(pgd, vpn);
    if (slot >= 0) {
      pteClear(pt, slot);
      model.delete(vpn);
    }
  } else if (op.kind === 'zap') {
    zap(pgd, model, vpn, vpn + op.length);
  } else if (op.kind === 'huge') {
    zap(pgd, model, huge, huge + 512);
    const slot = populateSlot(pgd, huge, 1);
    if (pt.entries[slot] > 0) removeTable(pgd, slot);
    const value = op.value & ~511;
    setHuge(pt, slot, value, PTE_PRESENT);
    for (let i = 0; i < 512; i++) model.set(huge + i, {value: value + i, flags: PTE_PRESENT});
  } else if (op.kind === 'split') {
    const slot = walkSlot(pgd, vpn);
    if ((pt.flags[slot] & PTE_HUGE) !== 0) splitHuge(pgd, slot);
  } else {
    zap(pgd, model, vpn, vpn + op.length);
    freePgdRange(pgd, vpn, vpn + op.length, vpn, vpn + op.length);
  }
}

for (const levels of [4, 5]) {
  test(`page tables of ${levels} levels say what a Map says`, () => {
    const bases = levels === 5 ? [...BASES, ...HIGH_BASES] : BASES;
    fc.assert(
      fc.property(fc.array(operation, {maxLength: 40}), (operations) => {
        const pt = new PageTables();
        const pgd = new UserPgd(pt, levels, 7);
        const model: Model = new Map();
        for (const op of operations) {
          apply(pgd, model, op, bases);
          // What one walk remembers must not mislead the next.
          for (const vpn of bases) assert.equal(pteSlot(pgd, vpn), slotAt(pgd, vpn, 0));
        }
        checkCounts(pgd);
        assert.deepEqual(
          [...contents(pgd, 2 ** 44)].sort((a, b) => a[0] - b[0]),
          [...model].sort((a, b) => a[0] - b[0]),
        );
        for (const [vpn, {value, flags}] of model) {
          const slot = walkSlot(pgd, vpn);
          const level = pt.level[slot >>> 9];
          assert.equal(pteValue(pt, slot) + (vpn % LEVEL_PAGES[level]), value);
          assert.equal(pt.flags[slot] & ~PTE_HUGE, flags);
          assert.equal(pteSlot(pgd, vpn), level === 0 ? slot : -1);
        }
        zap(pgd, model, 0, 2 ** 44);
        freePgdRange(pgd, 0, 2 ** 44, 0, Infinity);
        pgdFree(pgd);
        assert.equal(pt.used, 0);
      }),
      {numRuns: 150},
    );
  });
}

test('freeing tables leaves those that a neighbour still needs', () => {
  const pt = new PageTables();
  const pgd = new UserPgd(pt, 4, 1);
  for (const vpn of [100, 600, 2 ** 18]) ptePopulate(pgd, vpn);
  assert.deepEqual([...pgd.tables.subarray(0, 4)], [3, 2, 1, 1]);
  // A neighbour below 100 keeps the first page table, and with it the first PMD table.
  assert.equal(freePgdRange(pgd, 100, 2 ** 18 + 1, 50, 2 ** 20), 3);
  assert.deepEqual([...pgd.tables.subarray(0, 4)], [1, 1, 1, 1]);
  // Nor does one that begins a page before the end of what the tables span.
  assert.equal(freePgdRange(pgd, 0, 100, 0, 511), 0);
  assert.equal(freePgdRange(pgd, 0, 100, 0, 512), 1);
  assert.equal(freePgdRange(pgd, 0, 100, 0, Infinity), 2);
  assert.equal(pgd.pgtablesBytes, 0);
});

test('what the MMU sets, and when it faults', () => {
  const pt = new PageTables();
  const pgd = new UserPgd(pt, 4, 1);
  assert.equal(hardwareWalk(pgd, 5, false), WALK_NOT_PRESENT);
  const slot = ptePopulate(pgd, 5);
  setPte(pt, slot, 77, PTE_PROTNONE | PTE_WRITE);
  assert.equal(hardwareWalk(pgd, 5, false), WALK_NOT_PRESENT);
  setPte(pt, slot, 77, PTE_PRESENT);
  assert.equal(hardwareWalk(pgd, 5, true), WALK_NOT_WRITABLE);
  assert.equal(pt.flags[slot], PTE_PRESENT);
  assert.equal(hardwareWalk(pgd, 5, false), slot);
  assert.equal(pt.flags[slot], PTE_PRESENT | PTE_YOUNG);
  setPte(pt, slot, 77, PTE_PRESENT | PTE_WRITE);
  assert.equal(hardwareWalk(pgd, 5, true), slot);
  assert.equal(pt.flags[slot], PTE_PRESENT | PTE_WRITE | PTE_YOUNG | PTE_DIRTY);
  const pmd = populateSlot(pgd, 2 ** 30, 1);
  setHuge(pt, pmd, 1024, PTE_PRESENT | PTE_WRITE);
  assert.equal(hardwareWalk(pgd, 2 ** 30 + 300, true), pmd);
  assert.ok((pt.flags[pmd] & PTE_DIRTY) !== 0);
});

test('a 1 GB leaf splits into 2 MB leaves and those into pages', () => {
  const pt = new PageTables();
  const pgd = new UserPgd(pt, 4, 1);
  const pud = populateSlot(pgd, 2 ** 18, 2);
  setHuge(pt, pud, 2 ** 20, PTE_PRESENT);
  splitHuge(pgd, pud);
  const pmd = slotAt(pgd, 2 ** 18 + 1024, 1);
  assert.equal(pteValue(pt, pmd), 2 ** 20 + 1024);
  assert.ok((pt.flags[pmd] & PTE_HUGE) !== 0);
  splitHuge(pgd, pmd);
  const slot = pteSlot(pgd, 2 ** 18 + 1030);
  assert.equal(pteValue(pt, slot), 2 ** 20 + 1030);
  assert.equal(pt.flags[slot], PTE_PRESENT);
  checkCounts(pgd);
});

test('moving an entry takes everything below along, deposits too', () => {
  const pt = new PageTables();
  const from = new UserPgd(pt, 4, 1);
  const to = new UserPgd(pt, 4, 2);
  setPte(pt, ptePopulate(from, 700), 9, PTE_PRESENT);
  setHuge(pt, populateSlot(from, 1024, 1), 512, PTE_PRESENT);
  depositTable(from, slotAt(from, 1024, 1));
  const target = 3 * 2 ** 18;
  assert.equal(pteValue(pt, pteSlot(from, 700)), 9);
  moveEntry(from, slotAt(from, 0, 2), to, populateSlot(to, target, 2));
  checkCounts(from);
  checkCounts(to);
  assert.equal(pteValue(pt, pteSlot(to, target + 700)), 9);
  assert.equal(pteSlot(from, 700), -1);
  moveEntry(to, slotAt(to, target + 1024, 1), to, populateSlot(to, 512, 1));
  withdrawTable(to, slotAt(to, 512, 1));
  checkCounts(to);
});

test('copies of a run are write-protected on both sides', () => {
  const pt = new PageTables();
  const pgd = new UserPgd(pt, 4, 1);
  const from = ptePopulate(pgd, 0);
  const to = ptePopulate(pgd, 1024);
  setPte(pt, from, 5, PTE_PRESENT | PTE_WRITE | PTE_DIRTY);
  setPte(pt, from + 3, 6, PTE_SWAP);
  assert.equal(copyPtes(pt, from, to, 8, true), 2);
  assert.equal(pt.flags[from], PTE_PRESENT | PTE_DIRTY);
  assert.deepEqual([pt.entries[to], pt.flags[to]], [5, PTE_PRESENT | PTE_DIRTY]);
  assert.deepEqual([pt.entries[to + 3], pt.flags[to + 3]], [6, PTE_SWAP]);
  checkCounts(pgd);
});

test('finding populated entries of a level skips what is empty', () => {
  const pt = new PageTables();
  const pgd = new UserPgd(pt, 5, 1);
  const high = 2 ** 40 + 5 * 2 ** 18 + 3;
  ptePopulate(pgd, high);
  assert.equal(firstPopulated(pgd, 0, 2 ** 44, 2), 2 ** 40 + 5 * 2 ** 18);
  assert.equal(firstPopulated(pgd, high, 2 ** 44, 2), high);
  assert.equal(firstPopulated(pgd, nextAt(high, 2), 2 ** 44, 2), -1);
  assert.equal(firstPopulated(pgd, 0, 2 ** 44, 0), -1);
});

test('skipNone finds the first entry that says something, whatever its flags', () => {
  const words = fc.array(
    fc.oneof({weight: 4, arbitrary: fc.constant(0)}, fc.integer({min: 1, max: 0x1fff})),
    {minLength: 40, maxLength: 40},
  );
  fc.assert(
    fc.property(words, fc.nat(40), fc.nat(40), (flags, a, b) => {
      const pt = new PageTables();
      const first = pt.takeTable(0, 1, -1, 0) << 9;
      flags.forEach((word, i) => {
        if (word !== 0) setPte(pt, first + i, 1, word);
      });
      const from = Math.min(a, b);
      const to = Math.max(a, b);
      const found = flags.findIndex((word, i) => i >= from && i < to && word !== 0);
      assert.equal(pt.skipNone(first + from, first + to), first + (found < 0 ? to : found));
    }),
  );
});
