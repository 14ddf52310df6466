// What faults, fork and unmap have in common at one PTE: page-table pages, page-table locks, the
// flags of a new entry.

import type {Code} from '../../machine/process.ts';
import {type PageTables, populateSlot, pteSlot} from '../arch/x86/mm/pgtable.ts';
import {
  PTE_DIRTY,
  PTE_PRESENT,
  PTE_PROTNONE,
  PTE_SOFT_DIRTY,
  PTE_SPECIAL,
  PTE_WRITE,
  PTE_YOUNG,
} from '../arch/x86/mm/pgtable_bits.ts';
import {nextRange, type PgtableCursor} from '../arch/x86/mm/pgtable_range.ts';
import type {Kernel} from '../kernel.ts';
import type {Task} from '../task.ts';
import type {Mm} from './mm_state.ts';
import {alloc_folio, free_pages} from './page_alloc.ts';
import {PG_table} from './page_flags.ts';
import type {UserMm} from './user_mm.ts';
import type {VmArea} from './vma.ts';
import {VM_ACCESS, VM_WRITE} from './vma_flags.ts';

/** A mapped page as x86's vm_page_prot makes it: accessed from the start. */
export const PTE_MAPPED = PTE_PRESENT | PTE_YOUNG;
/** pte_mkdirty sets soft-dirty with it. */
export const PTE_DIRTIED = PTE_DIRTY | PTE_SOFT_DIRTY;
/** maybe_mkwrite(pte_mkdirty()). */
export const PTE_WRITTEN = PTE_WRITE | PTE_DIRTIED;
/** The page of zeros. */
export const PTE_ZERO_PAGE = PTE_PRESENT | PTE_YOUNG | PTE_SPECIAL;

/** vm_page_prot, without write access: memory that nobody may touch is mapped PROT_NONE. */
export function mappedPte(vma: VmArea): number {
  return (vma.flags & VM_ACCESS) === 0 ? PTE_PROTNONE | PTE_YOUNG : PTE_MAPPED;
}

/** Flags of a new private page that is written: maybe_mkwrite(pte_mkdirty(mk_pte())). */
export function dirtyPte(vma: VmArea): number {
  return (vma.flags & VM_WRITE) === 0 ? mappedPte(vma) : PTE_MAPPED | PTE_WRITTEN;
}

/**
 * __pte_alloc and the levels above: slot of the PTE with all tables in place, -1 when a huge entry
 * is in the way.
 */
export function pte_alloc(k: Kernel, t: Task, user: UserMm, vpn: number): number {
  const slot = pteSlot(user.pgd, vpn);
  return slot >= 0 ? slot : tables_alloc(k, t, user, vpn, 0);
}

/** As pte_alloc for the entry at `level`: 1 for pmd_alloc, 2 for pud_alloc. */
export function tables_alloc(k: Kernel, t: Task, user: UserMm, vpn: number, level: number): number {
  const slot = populateSlot(user.pgd, vpn, level);
  if (slot < 0) return -1;
  const {mm} = k;
  const {pt} = mm;
  let table = slot >>> 9;
  while (pt.pfn[table] === 0 && pt.parent[table] >= 0) {
    if (!backTable(k, t, mm, table)) break;
    table = pt.parent[table] >>> 9;
  }
  return slot;
}

/**
 * Gives a new table its page frame. Page tables may use the reserves: they are not made to wait for
 * reclaim.
 */
function backTable(k: Kernel, t: Task, mm: Mm, table: number): boolean {
  const pfn = alloc_folio(k, t, 0, k.machine.topology.nodeOf[t.cpu.id], 0, true);
  t.cpu.charge(mm.costs.pteAllocTicks, mm.fns.__pte_alloc);
  if (pfn <= 0) return false;
  mm.pages.flags[pfn] = PG_table;
  mm.pt.pfn[table] = pfn;
  return true;
}

/** Gives the frame of a table back; `pfn` is what pt.pfn had before the table was dropped. */
export function free_table_page(k: Kernel, t: Task, pfn: number): void {
  if (pfn === 0) return;
  const {mm} = k;
  mm.pages.refcount.set(pfn, 0);
  free_pages(k, t, mm.zones[mm.pages.nodeOf(pfn)], pfn, 0);
}

/**
 * pte_lockptr's lock. False: somebody holds it across waiting; spin (mm.ptl.spin) and look again.
 */
export function pte_lock(mm: Mm, t: Task, slot: number, fn: number): boolean {
  const table = slot >>> 9;
  if (mm.ptl.busy(table)) return false;
  mm.ptl.lock(t.cpu, table, tableNode(mm, mm.pt, table), fn);
  return true;
}

export function pte_unlock(mm: Mm, t: Task, slot: number): void {
  mm.ptl.unlock(t.cpu, slot >>> 9);
}

function tableNode(mm: Mm, pt: PageTables, table: number): number {
  const pfn = pt.pfn[table];
  return pfn === 0 ? 0 : mm.pages.nodeOf(pfn);
}

/**
 * nextRange with the CPU settled: the next run of entries in the cursor's range as it is at the
 * present, for what others may look at. False at the end.
 */
export function* next_settled(t: Task, user: UserMm, cursor: PgtableCursor): Code<boolean> {
  while (nextRange(user.pgd, cursor)) {
    if (!t.cpu.settle()) return true;
    yield;
    // The table may be gone after that.
    cursor.next = cursor.vpn;
  }
  return false;
}

/**
 * Ticks to clear or copy pages of 4 KiB on `node`: the base cost, and more for a remote node's
 * memory.
 */
export function pageWorkTicks(
  k: Kernel,
  t: Task,
  baseTicks: number,
  node: number,
  n: number,
): number {
  const {topology} = k.machine;
  const own = topology.nodeOf[t.cpu.id];
  if (own === node) return baseTicks * n;
  const excess = topology.memoryTicks(t.cpu.id, node) - topology.memoryTicks(t.cpu.id, own);
  return (baseTicks + Math.round(excess * LINES_PER_PAGE * REMOTE_SHARE)) * n;
}
const LINES_PER_PAGE = 64;
/** Ten lines are in flight at a time (fill buffers). Assumption. */
const REMOTE_SHARE = 0.1;
