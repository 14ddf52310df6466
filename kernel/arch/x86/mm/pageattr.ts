// arch/x86/mm/pageattr.c: change_page_attr (set_memory_*), and the mapping of EFI regions in a PGD
// given [4.1].
//
// CPA works on the reference tables under cpa_lock, and under pgd_lock where it replaces a large
// page. A large page that the range covers in part is split: cpa_lock is dropped for the
// allocation, pgd_lock taken for the surgery. On 32 bits without SHARED_KERNEL_PMD the entry that
// changes is one that every PGD has a copy of, so __set_pmd_pte walks all PGDs and writes it in
// each (no page_table_lock: pgd_lock is held); on 64 bits it is below the synchronised level.
// cpa_lock is taken as with debug_pagealloc off, the normal case.

import type {Cpu} from '../../../../machine/cpu.ts';
import type {Code} from '../../../../machine/process.ts';
import type {Kernel} from '../../../kernel.ts';
import type {PgdVisitor} from '../../../pgd_design.ts';
import type {Task} from '../../../task.ts';
import type {KernelPageTables} from './page_tables.ts';
import type {KernelPgd} from './pgd_pool.ts';
import {LARGE, type Table} from './tables.ts';

/** Writes one entry into every PGD: the 32-bit half of __set_pmd_pte. */
class SetPmdPte implements PgdVisitor {
  readonly locksPageTable = false;
  constructor(
    readonly tables: KernelPageTables,
    readonly index: number,
    readonly value: number,
    readonly walk: number,
  ) {}

  visit(cpu: Cpu, pgd: KernelPgd): boolean {
    pgd.lastWalk = this.walk;
    this.tables.set_pgd(cpu, pgd, this.index, this.value);
    return true;
  }
}

/** What maps a page: a cell that holds a large page, or a PTE table. */
interface Mapping {
  /** Level of the cell's table; -1 for a synchronised entry, which is in swapper_pg_dir. */
  readonly level: number;
  readonly table: Table | null;
  readonly index: number;
  /** First page and number of pages that the cell spans; 1 page at PTE level. */
  readonly start: number;
  readonly span: number;
  readonly large: boolean;
}

/** lookup_address: null when nothing is mapped there. */
function lookup(kernel: Kernel, t: Task, vpn: number): Mapping | null {
  const {pageTables: tables} = kernel;
  const {entryShift, lowerShifts} = tables.layout;
  const index = tables.pgd_index(vpn);
  const entry = tables.reference(t.cpu, index);
  if (entry === 0) return null;
  const start = tables.entryStart(index);
  if (entry >= LARGE) {
    return {level: -1, table: null, index, start, span: 2 ** entryShift, large: true};
  }
  const top = tables.tables.find(entry);
  if (top === null) return null;
  const {table, offset} = tables.tables.deepest(top, vpn - start);
  if (table.cells === null) {
    const at = Math.floor(offset);
    return {level: table.level, table, index: at, start: vpn, span: 1, large: false};
  }
  const span = 2 ** lowerShifts[table.level];
  const cell = Math.floor(offset / span);
  if (table.cells[cell] === 0) return null;
  const first = vpn - (offset - cell * span);
  return {level: table.level, table, index: cell, start: first, span, large: true};
}

/**
 * change_page_attr_set_clr on [startVpn, startVpn + pages). `attr` is the protection asked for
 * (formats/kinds.ts); which one it is does not matter for the tables. Ends with a flush of the
 * kernel range on all CPUs.
 */
export function* change_page_attr(
  kernel: Kernel,
  t: Task,
  startVpn: number,
  pages: number,
  attr: number,
): Code {
  const {cpa_lock} = kernel.pageTables;
  const fn = kernel.fn('change_page_attr');
  kernel.checks.count(`set_memory_attr_${attr}`);
  for (let at = startVpn; at < startVpn + pages; ) {
    if (!cpa_lock.acquire(t, fn)) yield* cpa_lock.acquireSlow(t, fn);
    const mapping = lookup(kernel, t, at);
    let next = at + 1;
    if (mapping === null) {
      kernel.checks.count('set_memory_unmapped');
    } else if (!mapping.large) {
      t.cpu.charge(kernel.costs.kernelPteTicks, fn);
    } else if (mapping.start === at && mapping.span <= startVpn + pages - at) {
      yield* try_preserve_large_page(kernel, t, mapping);
      next = at + mapping.span;
    } else {
      if (!cpa_lock.release(t)) yield* cpa_lock.releaseSlow(t);
      yield* split_large_page(kernel, t, at);
      if (!cpa_lock.acquire(t, fn)) yield* cpa_lock.acquireSlow(t, fn);
      next = at;
    }
    if (!cpa_lock.release(t)) yield* cpa_lock.releaseSlow(t);
    at = next;
  }
  yield* kernel.tlb.flush_tlb_kernel_range(t, startVpn, startVpn + pages);
}

/** The whole large page changes: its entry gets a new value under pgd_lock. */
function* try_preserve_large_page(kernel: Kernel, t: Task, mapping: Mapping): Code {
  const {pgd_lock} = kernel.pgd;
  const fn = kernel.fn('try_preserve_large_page');
  if (!pgd_lock.acquire(t, fn)) yield* pgd_lock.acquireSlow(t, fn);
  yield* __set_pmd_pte(kernel, t, mapping, kernel.pageTables.tables.largeEntry());
  if (!pgd_lock.release(t)) yield* pgd_lock.releaseSlow(t);
  kernel.checks.count('cpa_large_pages_preserved');
}

/**
 * split_large_page: a page table of smaller pages takes the place of the large page that maps
 * `vpn`.
 */
function* split_large_page(kernel: Kernel, t: Task, vpn: number): Code {
  const {pgd_lock} = kernel.pgd;
  const {tables} = kernel.pageTables;
  const fn = kernel.fn('split_large_page');
  const {allocPageTicks, zeroPageTicks} = kernel.costs;
  t.cpu.charge(allocPageTicks + zeroPageTicks, fn);
  if (!pgd_lock.acquire(t, fn)) yield* pgd_lock.acquireSlow(t, fn);
  const mapping = lookup(kernel, t, vpn);
  if (mapping?.large === true) {
    const base = tables.splitLarge(mapping.level + 1, 0);
    kernel.pageTables.chargeWork(t, {...tables.takeWork(), tablesAllocated: 0}, fn);
    yield* __set_pmd_pte(kernel, t, mapping, base.number);
    t.cpu.charge(kernel.machine.topology.fullTlbFlushTicks, fn);
    kernel.checks.count('cpa_large_pages_split');
  }
  if (!pgd_lock.release(t)) yield* pgd_lock.releaseSlow(t);
}

/**
 * Replaces the entry of a large page in the reference, and on 32 bits in every PGD. The caller
 * holds pgd_lock.
 */
function* __set_pmd_pte(kernel: Kernel, t: Task, mapping: Mapping, value: number): Code {
  const {pageTables: tables, pgd} = kernel;
  const fn = kernel.fn('__set_pmd_pte');
  t.cpu.charge(kernel.costs.kernelPteTicks, fn);
  if (t.cpu.settle()) yield;
  if (mapping.table !== null) {
    mapping.table.cells![mapping.index] = value;
    return;
  }
  tables.setReference(t.cpu, mapping.index, value);
  if (tables.layout.sharedKernelPmd) return;
  const walk = tables.checks.beginWalk();
  yield* pgd.walkAll(t, new SetPmdPte(tables, mapping.index, value, walk), fn);
  tables.checks.endWalk(walk, mapping.index);
}

/**
 * kernel_map_pages_in_pgd: maps pages in `root` alone, making what is missing there (populate_pgd).
 */
export function* kernel_map_pages_in_pgd(
  kernel: Kernel,
  t: Task,
  root: KernelPgd,
  startVpn: number,
  pages: number,
): Code {
  const {pageTables: tables} = kernel;
  const fn = kernel.fn('populate_pgd');
  for (let at = startVpn; at < startVpn + pages; ) {
    const index = tables.pgd_index(at);
    const end = Math.min(tables.entryStart(index + 1), startVpn + pages);
    if (t.cpu.settle()) yield;
    const entry = tables.entry(t.cpu, root, index);
    if (tables.tables.isDangling(entry)) reportFreed(kernel, root, index);
    let table = tables.tables.find(entry);
    if (table === null) {
      table = tables.tables.allocate(0, 0);
      tables.set_pgd(t.cpu, root, index, table.number);
    }
    tables.tables.populate(table, at - tables.entryStart(index), end - at, 0);
    tables.chargeWork(t, tables.tables.takeWork(), fn);
    at = end;
  }
}

/**
 * unmap_pgd_range: unmaps pages in `root` and frees tables that have become empty. Kernels that
 * have it (3.14 to 4.7) also free an empty PUD page and clear the entry of `root`, and of no other
 * PGD that has a copy of it: patch 01 of the lockless series.
 */
export function* unmap_pgd_range(
  kernel: Kernel,
  t: Task,
  root: KernelPgd,
  startVpn: number,
  pages: number,
): Code {
  const {pageTables: tables} = kernel;
  const fn = kernel.fn('unmap_pgd_range');
  for (let at = startVpn; at < startVpn + pages; ) {
    const index = tables.pgd_index(at);
    const end = Math.min(tables.entryStart(index + 1), startVpn + pages);
    if (t.cpu.settle()) yield;
    const entry = tables.entry(t.cpu, root, index);
    const table = tables.tables.find(entry);
    if (tables.tables.isDangling(entry)) reportFreed(kernel, root, index);
    if (table !== null) {
      tables.tables.clear(table, at - tables.entryStart(index), end - at, true);
      if (table.populated === 0 && tables.features.unmapFreesPud) {
        tables.tables.free(table);
        tables.set_pgd(t.cpu, root, index, 0);
        reportShared(kernel, t, root, index, entry);
      }
      tables.chargeWork(t, tables.tables.takeWork(), fn);
    }
    at = end;
  }
}

function reportFreed(kernel: Kernel, root: KernelPgd, index: number): void {
  kernel.checks.count('pgd_use_after_free');
  kernel.checks.finding(`use-after-free: entry ${index} of ${root.special ?? 'a PGD'} is freed`);
}

/** Who still names the PUD page that has just been freed? */
function reportShared(
  kernel: Kernel,
  t: Task,
  root: KernelPgd,
  index: number,
  entry: number,
): void {
  const {pageTables: tables} = kernel;
  if (tables.reference(t.cpu, index) !== entry) return;
  let users = 1;
  tables.pool.forEach((pgd) => {
    if (tables.entry(t.cpu, pgd, index) === entry) users++;
  });
  kernel.checks.count('pgd_freed_in_use', users);
  kernel.checks.finding(
    `unmap_pgd_range frees the PUD page of entry ${index} of ${root.special ?? 'a PGD'}, which swapper_pg_dir and ${users - 1} PGDs still name`,
  );
}
