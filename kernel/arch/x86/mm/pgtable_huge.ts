// Huge entries and copies: splitting a 2 MB or 1 GB leaf, page tables deposited for huge pages, and
// fork's copy of a run.

import {assert} from '../../../../machine/assert.ts';
import {
  installTable,
  LEAF,
  LEVEL_PAGES,
  type PageTables,
  pteClear,
  pteValue,
  type UserPgd,
} from './pgtable.ts';
import {hasPfn, PTE_HUGE, PTE_KIND, PTE_PRESENT, PTE_SWAP, PTE_WRITE} from './pgtable_bits.ts';

/**
 * pgtable_trans_huge_deposit: a page table is set aside for the huge entry at `slot`, so that its
 * split cannot fail.
 */
export function depositTable(pgd: UserPgd, slot: number): void {
  pgd.pt.deposits[slot >>> 9]++;
  pgd.tables[0]++;
}

/** pgtable_trans_huge_withdraw: gives a deposited table back to the caller. */
export function withdrawTable(pgd: UserPgd, slot: number): void {
  assert(pgd.pt.deposits[slot >>> 9] > 0, 'no page table deposited');
  pgd.pt.deposits[slot >>> 9]--;
  pgd.tables[0]--;
}

/**
 * __split_huge_pmd_locked and its PUD sibling: replaces a leaf by a full table of entries one level
 * below, with the same flags and, where the value is a pfn or a swap entry, ascending values. A
 * deposited table is not used up: withdraw it. Returns the new table.
 */
export function splitHuge(pgd: UserPgd, slot: number): number {
  const {pt} = pgd;
  const word = pt.flags[slot];
  assert((word & PTE_HUGE) !== 0, `split of entry ${slot}, which is not huge`);
  const value = pteValue(pt, slot);
  pteClear(pt, slot);
  const table = installTable(pgd, slot);
  const level = pt.level[table];
  const leafBits = level === 0 ? 0 : LEAF;
  const ascending = hasPfn(word) || (word & PTE_KIND) === PTE_SWAP;
  const step = ascending ? LEVEL_PAGES[level] : 0;
  const first = table << 9;
  const {entries} = pt;
  for (let i = 0; i < 512; i++) entries[first + i] = (value + i * step) | leafBits;
  pt.flags.fill(level === 0 ? word & ~PTE_HUGE : word, first, first + 512);
  pt.population[table] = 512;
  return table;
}

/**
 * Fork's copy of a run of PTEs as far as entries go: copies all that are not none, write-protecting
 * present ones on both sides when `cow`. Both runs lie in one table each and the destination is
 * none throughout. Returns how many were copied.
 */
export function copyPtes(
  pt: PageTables,
  from: number,
  to: number,
  count: number,
  cow: boolean,
): number {
  const {entries, flags} = pt;
  const keep = cow ? ~PTE_WRITE : -1;
  let copied = 0;
  for (let i = 0; i < count; i++) {
    let word = flags[from + i];
    if (word === 0) continue;
    if ((word & PTE_KIND) <= PTE_PRESENT + 1) {
      word &= keep;
      flags[from + i] = word;
    }
    flags[to + i] = word;
    entries[to + i] = entries[from + i];
    copied++;
  }
  pt.population[to >>> 9] += copied;
  return copied;
}
