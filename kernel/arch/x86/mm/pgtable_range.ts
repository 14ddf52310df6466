// Walks of page-table ranges, a table at a time: the shape of zap_pte_range and its kind. A cursor
// gives one run of entries per step; the caller's loop over the run is a plain loop over the
// arena's arrays. Every step walks from the top again, so that entries may be cleared, split or
// allocated between steps.

import {assert} from '../../../../machine/assert.ts';
import {
  indexAt,
  LEVEL_PAGES,
  nextAt,
  type PageTables,
  pteClear,
  pteSlot,
  type UserPgd,
  vpnOfSlot,
} from './pgtable.ts';
import {PTE_HUGE, PTE_KIND, PTE_TABLE} from './pgtable_bits.ts';

/** A place in a walk. Reuse one object for many walks. */
export class PgtableCursor {
  /** First virtual page of this run, clipped to the range. */
  vpn = 0;
  /** Slot of the run's first entry, and number of entries: 1 for an entry above level 0. */
  slot = 0;
  count = 0;
  /**
   * 0: PTEs (none or not); 1, 2: a huge or other leaf at PMD or PUD level, of which the range may
   * be a part only.
   */
  level = 0;
  /** Where the walk goes on, and where it ends. */
  next = 0;
  end = 0;
}

/** Starts a walk of the virtual pages [vpn, end). */
export function startRange(cursor: PgtableCursor, vpn: number, end: number): void {
  cursor.next = vpn;
  cursor.end = end;
}

/**
 * Goes to the next run of PTEs or the next huge entry; false at the end. Holes and empty tables are
 * skipped.
 */
export function nextRange(pgd: UserPgd, cursor: PgtableCursor): boolean {
  while (cursor.next < cursor.end) {
    const vpn = cursor.next;
    const pte = pteSlot(pgd, vpn);
    if (pte >= 0 && pgd.pt.population[pte >>> 9] !== 0) {
      cursor.vpn = vpn;
      cursor.slot = pte;
      cursor.count = Math.min(512 - (pte & 511), cursor.end - vpn);
      cursor.level = 0;
      cursor.next = vpn + cursor.count;
      return true;
    }
    if (leafAbove(pgd, cursor)) return true;
  }
  return false;
}

/** Where no populated page table is: goes to the leaf above it (true) or past the hole. */
function leafAbove(pgd: UserPgd, cursor: PgtableCursor): boolean {
  const {entries, population} = pgd.pt;
  const {next: vpn, end} = cursor;
  let table = pgd.top;
  let level = pgd.levels - 1;
  let slot = (table << 9) | indexAt(vpn, level);
  while (level > 0 && entries[slot] > 0) {
    table = entries[slot];
    level--;
    slot = (table << 9) | indexAt(vpn, level);
  }
  if (population[table] === 0) {
    cursor.next = nextAt(vpn, level + 1);
    return false;
  }
  if (entries[slot] === 0) {
    cursor.next = skipHoles(pgd.pt, slot, vpn);
    return false;
  }
  cursor.vpn = vpn;
  cursor.slot = slot;
  cursor.count = 1;
  cursor.level = level;
  cursor.next = Math.min(nextAt(vpn, level), end);
  return true;
}

/** First page after the none entries that begin with `slot`, as far as its table goes. */
function skipHoles(pt: PageTables, slot: number, vpn: number): number {
  const level = pt.level[slot >>> 9];
  const after = slot + 1;
  const more = pt.skipNone(after, (slot | 511) + 1) - after;
  return nextAt(vpn, level) + more * LEVEL_PAGES[level];
}

/**
 * First virtual page in [vpn, end) whose entry at `level` is not none, -1 when there is none. An
 * entry above `level` that is a leaf counts. Clipped: for a populated entry that begins before
 * `vpn` it is `vpn` itself.
 */
export function firstPopulated(pgd: UserPgd, vpn: number, end: number, level: number): number {
  const {entries} = pgd.pt;
  while (vpn < end) {
    let at = pgd.levels - 1;
    let slot = (pgd.top << 9) | indexAt(vpn, at);
    while (at > level && entries[slot] > 0) {
      at--;
      slot = (entries[slot] << 9) | indexAt(vpn, at);
    }
    if (pgd.pt.flags[slot] !== 0) return vpn;
    vpn = at === 0 ? vpn + 1 : skipHoles(pgd.pt, slot, vpn);
  }
  return -1;
}

/**
 * pte_clear for `count` entries from `slot` on, all in one PTE table. Returns how many were not
 * none.
 */
export function clearPtes(pt: PageTables, slot: number, count: number): number {
  const {flags} = pt;
  const end = slot + count;
  let cleared = 0;
  for (let at = slot; at < end; at++) if (flags[at] !== 0) cleared++;
  pt.entries.fill(0, slot, end);
  flags.fill(0, slot, end);
  pt.population[slot >>> 9] -= cleared;
  return cleared;
}

/**
 * free_pgtables: frees every table that spans part of [vpn, end) and lies wholly inside [floor,
 * ceiling), the hole between the VMAs that stay. Their entries must have been cleared. Returns how
 * many tables were freed.
 */
export function freePgdRange(
  pgd: UserPgd,
  vpn: number,
  end: number,
  floor: number,
  ceiling: number,
): number {
  if (vpn >= end) return 0;
  return freeBelow(pgd, pgd.top, pgd.levels - 1, vpn, end, floor, ceiling);
}

function freeBelow(
  pgd: UserPgd,
  table: number,
  level: number,
  vpn: number,
  end: number,
  floor: number,
  ceiling: number,
): number {
  const {pt} = pgd;
  const span = LEVEL_PAGES[level];
  let freed = 0;
  let slot = (table << 9) | indexAt(vpn, level);
  for (let at = vpnOfSlot(pt, slot); at < end && pt.population[table] > 0; at += span) {
    const below = pt.entries[slot];
    if (below > 0) {
      if (level > 1) {
        const from = Math.max(at, vpn);
        const to = Math.min(at + span, end);
        freed += freeBelow(pgd, below, level - 1, from, to, floor, ceiling);
      }
      if (at >= floor && at + span <= ceiling) {
        pgd.tables[level - 1]--;
        pt.dropTable(below);
        pteClear(pt, slot);
        freed++;
      }
    }
    slot++;
  }
  return freed;
}

/**
 * Moves an entry above level 0, with all that hangs from it, to a none entry of the same level
 * (move_normal_pmd, _pud).
 */
export function moveEntry(from: UserPgd, oldSlot: number, to: UserPgd, newSlot: number): void {
  const {pt} = from;
  assert(pt.flags[newSlot] === 0, 'page table moved over an entry');
  assert(pt.level[oldSlot >>> 9] === pt.level[newSlot >>> 9], 'page table moved between levels');
  const value = pt.entries[oldSlot];
  const word = pt.flags[oldSlot];
  pteClear(pt, oldSlot);
  pt.entries[newSlot] = value;
  pt.flags[newSlot] = word;
  pt.population[newSlot >>> 9]++;
  if ((word & PTE_KIND) === PTE_TABLE) rebase(from, to, value, newSlot);
  else if ((word & PTE_HUGE) !== 0) moveDeposit(from, to, oldSlot, newSlot);
}

/** A deposited page table goes where its huge entry goes. */
function moveDeposit(from: UserPgd, to: UserPgd, oldSlot: number, newSlot: number): void {
  const {deposits} = from.pt;
  if (deposits[oldSlot >>> 9] === 0) return;
  deposits[oldSlot >>> 9]--;
  deposits[newSlot >>> 9]++;
  from.tables[0]--;
  to.tables[0]++;
}

/** Tells a moved table and those below where they are now. */
function rebase(from: UserPgd, to: UserPgd, table: number, slot: number): void {
  const {pt} = from;
  const level = pt.level[table];
  pt.parent[table] = slot;
  pt.base[table] = vpnOfSlot(pt, slot);
  pt.owner[table] = to.mmId;
  from.tables[level]--;
  to.tables[level]++;
  if (level === 0) return;
  from.tables[0] -= pt.deposits[table];
  to.tables[0] += pt.deposits[table];
  for (let at = table << 9; at < (table << 9) + 512; at++) {
    if (pt.entries[at] > 0) rebase(from, to, pt.entries[at], at);
  }
}
