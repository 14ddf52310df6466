// arch/x86/mm/init_64.c: growing and shrinking the direct map and vmemmap, and telling all PGDs
// [3.9 to 6.18].
//
// Growing: kernel_physical_mapping_init builds the lower tables, stores the reference entry under
// init_mm.page_table_lock and then, outside it, calls sync_global_pgds, but only if a top-level
// entry is new; vmemmap_populate calls it every time. Shrinking: up to 4.7 remove_pagetable freed
// an emptied PUD table, cleared the reference entry under the lock and then cleared the copies
// (sync_global_pgds with `removed`, from 3.19 on; before that nobody cleared them). Between the
// two, every PGD names a freed page. Since af2cf278ef4f (4.8) top-level entries stay and the PUD
// table with them. Direct map: 1 GB pages where aligned, else 2 MB; vmemmap: 2 MB, 64 bytes a page.

import type {Code} from '../../../../machine/process.ts';
import type {Kernel} from '../../../kernel.ts';
import type {Task} from '../../../task.ts';

const GB_SHIFT = 18;
const PMD_SHIFT = 9;

/** Pages of memory whose struct pages fill one page of vmemmap. */
export const PAGES_PER_VMEMMAP_PAGE = 64;

/** Page of vmemmap that holds the struct page of `pfn`. */
export function vmemmapVpn(kernel: Kernel, pfn: number): number {
  return kernel.pageTables.layout.vmemmap + Math.floor(pfn / PAGES_PER_VMEMMAP_PAGE);
}

/** Maps direct-map pages [startVpn, startVpn + pages). */
export function* kernel_physical_mapping_init(
  kernel: Kernel,
  t: Task,
  startVpn: number,
  pages: number,
  node: number,
): Code {
  const tables = kernel.pageTables;
  const fn = kernel.fn('kernel_physical_mapping_init');
  const gigabyte = 2 ** GB_SHIFT;
  const aligned = startVpn % gigabyte === 0 && pages % gigabyte === 0;
  const leaf = aligned ? GB_SHIFT : PMD_SHIFT;
  let changed = false;
  for (let at = startVpn; at < startVpn + pages; ) {
    const index = tables.pgd_index(at);
    const end = Math.min(tables.entryStart(index + 1), startVpn + pages);
    const offset = at - tables.entryStart(index);
    if (yield* tables.buildEntry(t, index, offset, end - at, leaf, node)) changed = true;
    else yield* tables.mapRange(t, at, end - at, leaf, node, fn);
    at = end;
  }
  if (changed) yield* announce(kernel, t, startVpn, startVpn + pages - 1);
  t.cpu.charge(kernel.machine.topology.fullTlbFlushTicks, fn);
}

/** vmemmap_populate: struct pages of new memory get memory themselves. */
export function* vmemmap_populate(
  kernel: Kernel,
  t: Task,
  startVpn: number,
  pages: number,
  node: number,
): Code {
  const fn = kernel.fn('vmemmap_populate');
  yield* kernel.pageTables.mapRange(t, startVpn, pages, PMD_SHIFT, node, fn);
  yield* announce(kernel, t, startVpn, startVpn + pages - 1);
}

/** sync_global_pgds; before 2.6.37 nobody told the other PGDs, which therefore miss the entry. */
function* announce(kernel: Kernel, t: Task, startVpn: number, lastVpn: number): Code {
  const tables = kernel.pageTables;
  if (tables.features.syncsDirectMap) {
    yield* kernel.pgd.sync_global_pgds(t, startVpn, lastVpn, false);
    return;
  }
  for (let index = tables.pgd_index(startVpn); index <= tables.pgd_index(lastVpn); index++) {
    tables.checks.endWalk(tables.checks.beginWalk(), index);
  }
}

/**
 * remove_pagetable (3.9 on): unmaps pages of the direct map or vmemmap and frees what has become
 * empty.
 */
export function* remove_pagetable(kernel: Kernel, t: Task, startVpn: number, pages: number): Code {
  const tables = kernel.pageTables;
  const fn = kernel.fn('remove_pagetable');
  let changed = false;
  for (let at = startVpn; at < startVpn + pages; ) {
    const index = tables.pgd_index(at);
    const end = Math.min(tables.entryStart(index + 1), startVpn + pages);
    if (t.cpu.settle()) yield;
    const table = tables.tables.find(tables.reference(t.cpu, index));
    if (table !== null) {
      tables.tables.clear(table, at - tables.entryStart(index), end - at, true);
      tables.chargeWork(t, tables.tables.takeWork(), fn);
      if (table.populated === 0 && tables.features.freesPudTables) {
        yield* free_pud_table(kernel, t, index);
        changed = true;
      }
    }
    at = end;
  }
  if (changed) yield* kernel.pgd.sync_global_pgds(t, startVpn, startVpn + pages - 1, true);
  yield* kernel.tlb.flush_tlb_all(t);
}

/**
 * free_pud_table: the page goes first, the reference entry right after; the copies in the PGDs are
 * left behind.
 */
function* free_pud_table(kernel: Kernel, t: Task, index: number): Code {
  const {tables: lower, page_table_lock: lock} = kernel.pageTables;
  const fn = kernel.fn('free_pud_table');
  const table = lower.find(kernel.pageTables.reference(t.cpu, index));
  if (table !== null) {
    lower.free(table);
    countHolders(kernel, t, index, table.number);
  }
  kernel.pageTables.chargeWork(t, lower.takeWork(), fn);
  if (!lock.acquire(t, fn)) yield* lock.acquireSlow(t, fn);
  kernel.pageTables.setReference(t.cpu, index, 0);
  if (!lock.release(t)) yield* lock.releaseSlow(t);
  kernel.checks.count('pgd_reference_entries_removed');
}

/**
 * How many PGDs name the PUD page that has just been freed: the window that af2cf278ef4f closed.
 */
function countHolders(kernel: Kernel, t: Task, index: number, entry: number): void {
  const {pageTables: tables, checks} = kernel;
  let holders = 0;
  tables.pool.forEach((pgd) => {
    if (tables.entry(t.cpu, pgd, index) === entry) holders++;
  });
  if (holders === 0) return;
  checks.count('pgd_freed_in_use', holders);
  checks.finding(
    `remove_pagetable frees the PUD page of entry ${index}, which ${holders} PGDs name`,
  );
}
