// mm/memory.c: freeing page tables of VMAs that are gone (free_pgtables, free_pgd_range), 6.18.
//
// Neighbouring VMAs are taken together as long as the gap is at most 2 MB; a table goes when
// everything it spans lies between the mappings that stay. Its frame is freed with the gather's
// next flush.

import type {Code} from '../../machine/engine.ts';
import {indexAt, LEVEL_PAGES, pteClear, type UserPgd, vpnOfSlot} from '../arch/x86/mm/pgtable.ts';
import type {Kernel} from '../kernel.ts';
import type {MmStruct} from '../mm_types.ts';
import type {Task} from '../task.ts';
import type {MmuGather} from './mmu_gather.ts';
import type {VmArea} from './vma.ts';
import {unlinkVma} from './vma_ops.ts';

const PMD_PAGES = 512;

/**
 * free_pgtables for VMAs whose pages are gone, in ascending order: unlinks each from its rmap trees
 * (under their locks) and frees the tables that lie within [floor, ceiling), the hole between the
 * mappings that stay.
 */
export function* free_pgtables(
  k: Kernel,
  t: Task,
  tlb: MmuGather,
  mm: MmStruct,
  vmas: readonly VmArea[],
  floor: number,
  ceiling: number,
): Code {
  const pgd = mm.user!.pgd;
  for (let i = 0; i < vmas.length; ) {
    const {start} = vmas[i];
    let {end} = vmas[i];
    yield* unlinkLocked(k, t, vmas[i]);
    let next = i + 1;
    while (next < vmas.length && vmas[next].start <= end + PMD_PAGES) {
      end = vmas[next].end;
      yield* unlinkLocked(k, t, vmas[next]);
      next++;
    }
    const high = next < vmas.length ? vmas[next].start : ceiling;
    free_pgd_range(k, t, tlb, pgd, start, end, floor, high);
    i = next;
  }
}

/** unlink_anon_vmas and unlink_file_vma, each under its tree's lock. */
function* unlinkLocked(k: Kernel, t: Task, vma: VmArea): Code {
  const {mm} = k;
  const {costs, fns} = mm;
  if (vma.anonVma !== null) {
    const lock = mm.anonVmaLock(vma.anonVma);
    const fn = fns.unlink_anon_vmas;
    if (!lock.writeAcquire(t, fn)) yield* lock.writeAcquireSlow(t, fn);
    t.cpu.charge(vma.anonVmaChain.length * costs.unlinkAnonNodeTicks, fn);
    mm.anon.unlink(vma);
    if (!lock.writeRelease(t)) yield* lock.writeReleaseSlow(t);
  }
  if (vma.mapping === null || vma.iMmapNode === 0) {
    unlinkVma(vma);
    return;
  }
  const lock = mm.iMmapLock(vma.mapping);
  if (!lock.writeAcquire(t, fns.unlink_file_vma))
    yield* lock.writeAcquireSlow(t, fns.unlink_file_vma);
  t.cpu.charge(costs.unlinkVmaTicks, fns.unlink_file_vma);
  unlinkVma(vma);
  if (!lock.writeRelease(t)) yield* lock.writeReleaseSlow(t);
}

/** free_pgd_range: frees the (empty) tables of [start, end) that lie within [floor, ceiling). */
export function free_pgd_range(
  k: Kernel,
  t: Task,
  tlb: MmuGather,
  pgd: UserPgd,
  start: number,
  end: number,
  floor: number,
  ceiling: number,
): void {
  const from = start - (start % PMD_PAGES);
  const to = Math.ceil(end / PMD_PAGES) * PMD_PAGES;
  const freed = freeBelow(k, tlb, pgd, pgd.top, pgd.levels - 1, from, to, floor, ceiling);
  t.cpu.charge(freed * k.mm.costs.freeTableTicks, k.mm.fns.free_pgd_range);
}

function freeBelow(
  k: Kernel,
  tlb: MmuGather,
  pgd: UserPgd,
  table: number,
  level: number,
  start: number,
  end: number,
  floor: number,
  ceiling: number,
): number {
  const {pt} = pgd;
  const span = LEVEL_PAGES[level];
  let freed = 0;
  let slot = (table << 9) | indexAt(start, level);
  for (let at = vpnOfSlot(pt, slot); at < end && pt.population[table] > 0; at += span, slot++) {
    const below = pt.entries[slot];
    if (below <= 0) continue;
    const from = Math.max(at, start);
    if (level > 1) {
      const to = Math.min(at + span, end);
      freed += freeBelow(k, tlb, pgd, below, level - 1, from, to, floor, ceiling);
    }
    if (at < floor || at + span > ceiling || pt.population[below] > 0) continue;
    pgd.tables[level - 1]--;
    if (pt.pfn[below] !== 0) tlb.tables.push(pt.pfn[below]);
    k.mm.ptl.forget(below);
    pt.dropTable(below);
    pteClear(pt, slot);
    tlb.adjust(from, 1);
    tlb.freedTables = true;
    freed++;
  }
  return freed;
}
