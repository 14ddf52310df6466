// Page tables of user address spaces. All tables of all mms live in one growable arena of 512-entry
// tables: an Int32Array of values and a Uint16Array of flags words (pgtable_bits.ts), 6 bytes an
// entry. A *slot* is the index of an entry in both arrays, so a slot names a PTE machine-wide:
// `slot >>> 9` is its table, `pt.level[slot >>> 9]` the level.
//
// Levels count from the bottom: 0 PTE, 1 PMD, 2 PUD, 3 PGD (4-level) or P4D (5-level), 4 PGD
// (5-level). An mm with 3 levels (PAE) begins at PUD. A value above level 0 is the number of the
// table below, or, with the sign bit set, a leaf or another entry that ends the walk: a walk stops
// at a value <= 0 without looking at the flags.
//
// Virtual page numbers are doubles (below 2^45); `vpn | 0` keeps their low 32 bits and one
// multiplication gives the high ones, which V8 compiles to single instructions. Hot functions are
// plain functions over the arrays. Nothing here locks or takes time. Growth moves the arrays: never
// keep `entries` or `flags` across a call that allocates.

import {assert, bug} from '../../../../machine/assert.ts';
import {zeroed} from '../../../../machine/zeroed.ts';
import {
  PTE_DIRTY,
  PTE_HUGE,
  PTE_KIND,
  PTE_PRESENT,
  PTE_TABLE,
  PTE_WRITE,
  PTE_YOUNG,
} from './pgtable_bits.ts';

export const PTRS_PER_TABLE = 512;
/** Sign bit of a value above level 0: not the number of a table. */
export const LEAF = 0x8000_0000 | 0;
/** Mask of a value without LEAF. */
export const VALUE_MASK = 0x7fff_ffff;
/** Pages per PUD entry, and its reciprocal. */
const PUD_PAGES = 2 ** 18;
const PER_PUD = 2 ** -18;
const FIRST_TABLES = 64;
/** Slots must stay below 2^31. */
const MAX_TABLES = 2 ** 22;

/** Pages that one entry of a level spans: 512 to the power of the level. */
export const LEVEL_PAGES: readonly number[] = [1, 2 ** 9, PUD_PAGES, 2 ** 27, 2 ** 36, 2 ** 45];

/** The page tables of one mm. Counts are of table pages, as mm_pgtables_bytes has them. */
export class UserPgd {
  /** Number of the top table. */
  readonly top: number;
  /**
   * First slot of the top table when there are 4 levels, else 0: saves the hottest walk a
   * comparison.
   */
  readonly pgdSlot: number;
  /**
   * Tables in use by level, deposited ones (THP) included at index 0: nr_ptes, nr_pmds, nr_puds,
   * ...
   */
  readonly tables = new Int32Array(5);
  /** The PMD table of pteSlot's last walk, the 1 GB that it spans, and pt.walkEpoch then. */
  walkTable = 0;
  walkGb = -1;
  walkEpoch = 0;

  /** `levels`: 3 (PAE), 4 or 5. `mmId` is kept per table, to come from a PTE to its mm. */
  constructor(
    readonly pt: PageTables,
    readonly levels: number,
    readonly mmId: number,
  ) {
    assert(levels >= 3 && levels <= 5, `page tables of ${levels} levels`);
    this.top = pt.takeTable(levels - 1, mmId, -1, 0);
    this.pgdSlot = levels === 4 ? this.top << 9 : 0;
    this.tables[levels - 1] = 1;
  }

  /** mm_pgtables_bytes: PTE, PMD and PUD tables (the PGD itself is not counted). */
  get pgtablesBytes(): number {
    let pages = 0;
    for (let level = 0; level < this.levels - 1; level++) pages += this.tables[level];
    return pages * 4096;
  }
}

/** The arena. Table 0 is never used, so that 0 is "none". */
export class PageTables {
  entries: Int32Array;
  flags: Uint16Array;
  /** The flags words of four entries at a time: 0 when all four are none. */
  private fours: Float64Array;
  /** Per table: entries that are not none. */
  population: Uint16Array;
  level: Uint8Array;
  /** Per table: slot of the entry that names it, -1 for a top table or one not in use. */
  parent: Int32Array;
  /** Per table: first virtual page it spans. */
  base: Float64Array;
  /** Per table: mm it belongs to. */
  owner: Int32Array;
  /** Per table: page frame it occupies; 0 until the layer above says so. */
  pfn: Int32Array;
  /** Per PMD table: page tables deposited for its huge entries. */
  deposits: Uint16Array;
  /** Changes whenever an entry stops naming a table: what walks remember is void then. */
  walkEpoch = 0;
  private readonly freeTables: number[] = [];
  private next = 1;

  /**
   * `tables`: room at the start. It costs host memory only as it is used, while growing costs a
   * copy of everything.
   */
  constructor(tables = FIRST_TABLES) {
    const room = Math.min(Math.max(tables, FIRST_TABLES), MAX_TABLES);
    this.entries = zeroed(Int32Array, room * PTRS_PER_TABLE);
    this.flags = zeroed(Uint16Array, room * PTRS_PER_TABLE);
    this.fours = new Float64Array(this.flags.buffer);
    this.population = new Uint16Array(room);
    this.level = new Uint8Array(room);
    this.parent = new Int32Array(room);
    this.base = new Float64Array(room);
    this.owner = new Int32Array(room);
    this.pfn = new Int32Array(room);
    this.deposits = new Uint16Array(room);
  }

  /** Tables in use. */
  get used(): number {
    return this.next - 1 - this.freeTables.length;
  }

  /** Bytes of the arrays, whether touched or not. */
  get capacityBytes(): number {
    return this.entries.byteLength + this.flags.byteLength + this.population.length * 31;
  }

  /** A table without a place in a tree; all its entries are none. */
  takeTable(level: number, owner: number, parent: number, base: number): number {
    const table = this.freeTables.pop() ?? this.next++;
    if (table >= this.level.length) this.grow();
    this.level[table] = level;
    this.owner[table] = owner;
    this.parent[table] = parent;
    this.base[table] = base;
    return table;
  }

  /** Gives a table back; it must be empty. The entry that names it is the caller's business. */
  dropTable(table: number): void {
    if (this.population[table] !== 0) bug(`page table ${table} freed with entries`);
    if (this.deposits[table] !== 0) bug(`page table ${table} freed with deposited tables`);
    this.parent[table] = -1;
    this.pfn[table] = 0;
    this.freeTables.push(table);
  }

  /** First slot in [slot, end) whose entry is not none; `end` when all are. */
  skipNone(slot: number, end: number): number {
    const {flags, fours} = this;
    while (slot < end && flags[slot] === 0) {
      slot++;
      if ((slot & 3) !== 0) continue;
      // No flags word has its highest bit set, so no four of them are a zero with a sign.
      while (slot < end && fours[slot >>> 2] === 0) slot += 4;
    }
    return Math.min(slot, end);
  }

  private grow(): void {
    const tables = Math.min(this.level.length * 2, MAX_TABLES);
    assert(this.next <= tables, 'more than 2^22 page tables');
    this.entries = enlarged(Int32Array, this.entries, tables * PTRS_PER_TABLE);
    this.flags = enlarged(Uint16Array, this.flags, tables * PTRS_PER_TABLE);
    this.fours = new Float64Array(this.flags.buffer);
    this.population = enlarged(Uint16Array, this.population, tables);
    this.level = enlarged(Uint8Array, this.level, tables);
    this.parent = enlarged(Int32Array, this.parent, tables);
    this.base = enlarged(Float64Array, this.base, tables);
    this.owner = enlarged(Int32Array, this.owner, tables);
    this.pfn = enlarged(Int32Array, this.pfn, tables);
    this.deposits = enlarged(Uint16Array, this.deposits, tables);
  }
}

interface Words {
  readonly length: number;
  set(from: ArrayLike<number>): void;
}

function enlarged<T extends Words & ArrayLike<number>>(
  type: new (length: number) => T,
  old: T,
  length: number,
): T {
  const larger = new type(length);
  larger.set(old);
  return larger;
}

/** Index within its table of the entry for `vpn` at `level`. */
export function indexAt(vpn: number, level: number): number {
  if (level < 2) return ((vpn | 0) >>> (9 * level)) & 511;
  return ((vpn * PER_PUD) >>> (9 * (level - 2))) & 511;
}

/** First page after `vpn` that another entry of `level` spans. */
export function nextAt(vpn: number, level: number): number {
  const span = LEVEL_PAGES[level];
  if (level < 4) return vpn - ((vpn | 0) & (span - 1)) + span;
  return (Math.trunc(vpn / span) + 1) * span;
}

/** Virtual page that the first page of an entry maps. */
export function vpnOfSlot(pt: PageTables, slot: number): number {
  const table = slot >>> 9;
  return pt.base[table] + (slot & 511) * LEVEL_PAGES[pt.level[table]];
}

/**
 * Slot of the PTE of `vpn`, -1 when there is no page table or a huge entry is in the way. With 4
 * levels the upper half of the walk is remembered, as a CPU's paging-structure caches do.
 */
export function pteSlot(pgd: UserPgd, vpn: number): number {
  const {pgdSlot} = pgd;
  if (pgdSlot === 0) return slotAt(pgd, vpn, 0);
  const {pt} = pgd;
  const {entries} = pt;
  const high = (vpn * PER_PUD) | 0;
  let table = pgd.walkTable;
  if (pgd.walkGb !== high || pgd.walkEpoch !== pt.walkEpoch) {
    table = entries[pgdSlot | ((high >>> 9) & 511)];
    if (table <= 0) return -1;
    table = entries[(table << 9) | (high & 511)];
    if (table <= 0) return -1;
    pgd.walkTable = table;
    pgd.walkGb = high;
    pgd.walkEpoch = pt.walkEpoch;
  }
  const low = vpn | 0;
  table = entries[(table << 9) | ((low >>> 9) & 511)];
  return table <= 0 ? -1 : (table << 9) | (low & 511);
}

/** Slot of the entry of `vpn` at `level`, -1 when the walk ends above it. */
export function slotAt(pgd: UserPgd, vpn: number, level: number): number {
  const {entries} = pgd.pt;
  let table = pgd.top;
  for (let at = pgd.levels - 1; at > level; at--) {
    table = entries[(table << 9) | indexAt(vpn, at)];
    if (table <= 0) return -1;
  }
  return (table << 9) | indexAt(vpn, level);
}

/**
 * Slot of the entry where a walk for `vpn` ends: its PTE (none or not), a huge or other leaf, or a
 * none entry above. Its level is `pt.level[slot >>> 9]`.
 */
export function walkSlot(pgd: UserPgd, vpn: number): number {
  const {entries} = pgd.pt;
  let table = pgd.top;
  for (let at = pgd.levels - 1; ; at--) {
    const slot = (table << 9) | indexAt(vpn, at);
    if (at === 0 || entries[slot] <= 0) return slot;
    table = entries[slot];
  }
}

/**
 * pte_alloc and its kind: slot of the entry of `vpn` at `level`, with all tables above it
 * allocated. -1 when a huge entry is in the way. `pgd.tables` counts what was allocated.
 */
export function populateSlot(pgd: UserPgd, vpn: number, level: number): number {
  const {pt} = pgd;
  let table = pgd.top;
  for (let at = pgd.levels - 1; at > level; at--) {
    const slot = (table << 9) | indexAt(vpn, at);
    const value = pt.entries[slot];
    if (value < 0) return -1;
    table = value === 0 ? installTable(pgd, slot) : value;
  }
  return (table << 9) | indexAt(vpn, level);
}

/**
 * ptePopulate: the slot of the PTE of `vpn`, tables allocated on the way; -1 when a huge entry is
 * in the way.
 */
export function ptePopulate(pgd: UserPgd, vpn: number): number {
  const slot = pteSlot(pgd, vpn);
  return slot >= 0 ? slot : populateSlot(pgd, vpn, 0);
}

/** Allocates the table below a none entry above level 0 (pmd_populate, ...). Returns its number. */
export function installTable(pgd: UserPgd, slot: number): number {
  const {pt} = pgd;
  const above = slot >>> 9;
  const level = pt.level[above] - 1;
  const base = vpnOfSlot(pt, slot);
  const table = pt.takeTable(level, pgd.mmId, slot, base);
  assert(pt.flags[slot] === 0, 'page table installed over an entry');
  pt.entries[slot] = table;
  pt.flags[slot] = PTE_TABLE;
  pt.population[above]++;
  pgd.tables[level]++;
  return table;
}

/** Frees the (empty) table that an entry names and makes the entry none. */
export function removeTable(pgd: UserPgd, slot: number): void {
  const {pt} = pgd;
  const table = pt.entries[slot];
  if ((pt.flags[slot] & PTE_KIND) !== PTE_TABLE) bug(`entry ${slot} names no page table`);
  pgd.tables[pt.level[table]]--;
  pt.dropTable(table);
  pteClear(pt, slot);
}

/** set_pte: writes an entry of level 0; `flags` must not be 0. */
export function setPte(pt: PageTables, slot: number, value: number, flags: number): void {
  if (pt.flags[slot] === 0) pt.population[slot >>> 9]++;
  pt.entries[slot] = value;
  pt.flags[slot] = flags;
}

/** set_pmd_at, set_pud_at: writes a leaf (PTE_HUGE is added) above level 0. */
export function setHuge(pt: PageTables, slot: number, value: number, flags: number): void {
  if (pt.flags[slot] === 0) pt.population[slot >>> 9]++;
  pt.entries[slot] = value | LEAF;
  pt.flags[slot] = flags | PTE_HUGE;
}

/** Value of an entry at any level: pfn, swap entry, marker or table. */
export function pteValue(pt: PageTables, slot: number): number {
  return pt.entries[slot] & VALUE_MASK;
}

/** pte_clear: makes an entry of any level none (an entry that names a table: see removeTable). */
export function pteClear(pt: PageTables, slot: number): void {
  const word = pt.flags[slot];
  if (word === 0) return;
  if ((word & PTE_KIND) === PTE_TABLE) pt.walkEpoch++;
  pt.population[slot >>> 9]--;
  pt.entries[slot] = 0;
  pt.flags[slot] = 0;
}

/** Frees the top table; everything below must be gone (pgd_free). */
export function pgdFree(pgd: UserPgd): void {
  pgd.pt.dropTable(pgd.top);
  pgd.tables[pgd.levels - 1]--;
}

/** Results of hardwareWalk that are not a slot. */
export const WALK_NOT_PRESENT = -1;
export const WALK_NOT_WRITABLE = -2;

/** Flags words that need no change, under the mask of the same bits and the kind. */
const READ_HIT = PTE_PRESENT | PTE_YOUNG;
const WRITE_HIT = PTE_PRESENT | PTE_YOUNG | PTE_WRITE | PTE_DIRTY;

/**
 * What the MMU does on a TLB miss: finds the entry, sets accessed and, for a write, dirty. Returns
 * the leaf's slot (2 MB and 1 GB leaves included), or WALK_NOT_PRESENT or WALK_NOT_WRITABLE, which
 * are the page faults.
 */
export function hardwareWalk(pgd: UserPgd, vpn: number, write: boolean): number {
  const slot = pteSlot(pgd, vpn);
  if (slot < 0) return walkHuge(pgd, vpn, write);
  const word = pgd.pt.flags[slot];
  const hit = write ? WRITE_HIT : READ_HIT;
  return (word & (hit | PTE_KIND)) === hit ? slot : setAccessed(pgd.pt, slot, write);
}

function walkHuge(pgd: UserPgd, vpn: number, write: boolean): number {
  const slot = walkSlot(pgd, vpn);
  if ((pgd.pt.flags[slot] & PTE_HUGE) === 0) return WALK_NOT_PRESENT;
  return setAccessed(pgd.pt, slot, write);
}

function setAccessed(pt: PageTables, slot: number, write: boolean): number {
  const word = pt.flags[slot];
  if ((word & PTE_KIND) !== PTE_PRESENT) return WALK_NOT_PRESENT;
  if (write && (word & PTE_WRITE) === 0) return WALK_NOT_WRITABLE;
  pt.flags[slot] = word | (write ? PTE_YOUNG | PTE_DIRTY : PTE_YOUNG);
  return slot;
}
