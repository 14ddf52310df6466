// mm/pt_reclaim.c, and its callers in zap_pte_range: page tables of PTEs that MADV_DONTNEED has
// emptied are freed at once (CONFIG_PT_RECLAIM, 6.14+ on x86-64). Only tables of which all 2 MB
// were in the range count; one that keeps an entry (a marker), or got one meanwhile, stays, and so
// do the tables above. The frame goes with the gather's flush, which is then one of page tables,
// too.
//
// mmap_lock is held for read, or only the VMA's lock is: faults in the same table may be under way.
// One that was asleep meanwhile finds that its entry is no longer where it was, and is taken again.

import type {Code} from '../../machine/process.ts';
import {LEVEL_PAGES, slotAt} from '../arch/x86/mm/pgtable.ts';
import {PTE_KIND, PTE_TABLE} from '../arch/x86/mm/pgtable_bits.ts';
import type {Kernel} from '../kernel.ts';
import type {Task} from '../task.ts';
import {isBefore} from '../version.ts';
import {freeTable} from './memory_free.ts';
import type {MmuGather} from './mmu_gather.ts';

/** CONFIG_PT_RECLAIM. */
export function reclaimsTables(k: Kernel): boolean {
  return !isBefore(k.facts.version, '6.14');
}

/**
 * try_to_free_pte for every whole 2 MB of [start, end), whose pages are gone. Cost: one step for
 * each table.
 */
export function* reclaim_ptes(
  k: Kernel,
  t: Task,
  tlb: MmuGather,
  start: number,
  end: number,
): Code {
  const {pgd} = tlb.mm.user!;
  const span = LEVEL_PAGES[1];
  for (let at = Math.ceil(start / span) * span; at + span <= end; ) {
    const slot = slotAt(pgd, at, 1);
    if (slot >= 0) {
      if (isEmptyTable(k, slot)) yield* free_pte(k, t, tlb, at);
      at += span;
    } else {
      // No table of PMD entries: none of PTEs in all that it would span.
      const level = slotAt(pgd, at, 2) >= 0 ? 2 : 3;
      at = (Math.floor(at / LEVEL_PAGES[level]) + 1) * LEVEL_PAGES[level];
    }
  }
}

function isEmptyTable(k: Kernel, slot: number): boolean {
  const {pt} = k.mm;
  return (pt.flags[slot] & PTE_KIND) === PTE_TABLE && pt.population[pt.entries[slot]] === 0;
}

/** free_pte: under both locks, if there is still nothing in the table. */
function* free_pte(k: Kernel, t: Task, tlb: MmuGather, at: number): Code {
  const {mm} = k;
  const {pt} = mm;
  const {pgd} = tlb.mm.user!;
  const fn = mm.fns.free_pgd_range;
  if (t.cpu.settle()) yield;
  const slot = slotAt(pgd, at, 1);
  if (slot < 0) return;
  while (isEmptyTable(k, slot) && mm.ptl.busy(pt.entries[slot])) {
    yield* mm.ptl.spin(t, pt.entries[slot], fn);
  }
  if (slotAt(pgd, at, 1) !== slot || !isEmptyTable(k, slot)) return;
  t.cpu.charge(2 * k.machine.topology.atomicLocalTicks + mm.costs.freeTableTicks, fn);
  freeTable(k, tlb, pgd, slot, at);
  k.checks.count('reclaimed_tables');
}
