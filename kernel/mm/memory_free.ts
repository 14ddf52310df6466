// mm/memory.c: freeing page tables of VMAs that are gone (free_pgtables, free_pgd_range), 6.18.
//
// Neighbouring VMAs are taken together as long as the gap is at most 2 MB; a table goes when
// everything it spans lies between the mappings that stay. Its frame is freed with the gather's
// next flush.

import type {Code} from '../../machine/process.ts';
import {indexAt, LEVEL_PAGES, pteClear, type UserPgd, vpnOfSlot} from '../arch/x86/mm/pgtable.ts';
import type {Kernel} from '../kernel.ts';
import type {MmStruct} from '../mm_types.ts';
import type {Task} from '../task.ts';
import type {MmuGather} from './mmu_gather.ts';
import type {VmArea} from './vma.ts';
import {unlinkFile} from './vma_ops.ts';

const PMD_PAGES = 512;
/** struct unlink_vma_file_batch holds that many VMAs (6.10+). */
const UNLINK_BATCH = 8;

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
  const {pgd} = mm.user!;
  for (let i = 0; i < vmas.length; ) {
    let {end} = vmas[i];
    let next = i + 1;
    while (next < vmas.length && vmas[next].start <= end + PMD_PAGES) ({end} = vmas[next++]);
    yield* unlinkVmas(k, t, vmas, i, next);
    const high = next < vmas.length ? vmas[next].start : ceiling;
    free_pgd_range(k, t, tlb, pgd, vmas[i].start, end, floor, high);
    i = next;
  }
}

/**
 * unlink_anon_vmas and unlink_file_vma_batch for vmas[from, to): each under its tree's lock, in
 * sections that are given up ahead (rwsem_state.ts). A batch are the mapped ones of vmas[first, i),
 * all of one file.
 */
function* unlinkVmas(k: Kernel, t: Task, vmas: readonly VmArea[], from: number, to: number): Code {
  const {mm} = k;
  const {costs, fns} = mm;
  const most = mm.batchesFileUnlink ? UNLINK_BATCH : 1;
  let first = from;
  let batched = 0;
  for (let i = from; i <= to; i++) {
    const vma = i < to ? vmas[i] : null;
    if (vma !== null) {
      if (vma.anonVma !== null) {
        const lock = mm.anonVmaLock(vma.anonVma);
        const fn = fns.unlink_anon_vmas;
        if (t.cpu.settle()) yield;
        if (!lock.writeAcquire(t, fn)) yield* lock.writeAcquireSlow(t, fn);
        t.cpu.charge(vma.anonChainLength * costs.unlinkAnonNodeTicks, fn);
        mm.anon.unlink(vma);
        if (!lock.writeReleaseAhead(t)) yield* lock.writeReleaseSlow(t);
      } else mm.anon.unlink(vma);
      if (vma.iMmapNode === 0) continue;
    }
    if (batched === most || (batched > 0 && (vma === null || vmas[first].file !== vma.file))) {
      const fn = fns.unlink_file_vma;
      const lock = mm.iMmapLock(vmas[first].mapping!);
      if (t.cpu.settle()) yield;
      if (!lock.writeAcquire(t, fn)) yield* lock.writeAcquireSlow(t, fn);
      t.cpu.charge(batched * costs.unlinkVmaTicks, fn);
      for (let at = first; at < i; at++) unlinkFile(vmas[at]);
      if (!lock.writeReleaseAhead(t)) yield* lock.writeReleaseSlow(t);
      batched = 0;
    }
    if (batched++ === 0) first = i;
  }
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
    freeTable(k, tlb, pgd, slot, from);
    freed++;
  }
  return freed;
}

/** pte_free_tlb and its kind: the empty table at `slot` goes, its frame with the gather's flush. */
export function freeTable(
  k: Kernel,
  tlb: MmuGather,
  pgd: UserPgd,
  slot: number,
  vpn: number,
): void {
  const {pt} = pgd;
  const table = pt.entries[slot];
  pgd.tables[pt.level[table]]--;
  if (pt.pfn[table] !== 0) tlb.tables.push(pt.pfn[table]);
  k.mm.ptl.forget(table);
  pt.dropTable(table);
  pteClear(pt, slot);
  tlb.adjust(vpn, 1);
  tlb.freedTables = true;
}
