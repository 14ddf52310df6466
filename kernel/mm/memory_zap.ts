// mm/memory.c: taking mappings away.
import {bug} from '../../machine/assert.ts';
import type {Code} from '../../machine/engine.ts';
import type {Kernel} from '../kernel.ts';
import type {MmStruct} from '../mm_types.ts';
import type {Task} from '../task.ts';
import type {MmuGather} from './mmu_gather.ts';
import type {VmArea} from './vma.ts';

/** struct zap_details. */
export interface ZapDetails {
  /** Only this folio (head pfn), 0 for any: truncation of one folio. */
  readonly singleFolio: number;
  /** Private COW copies go, too (unmap_mapping_range with even_cows, hole punch); DONTNEED and munmap have no details. */
  readonly evenCows: boolean;
  /** Take markers away as well (unmap, not DONTNEED). */
  readonly dropMarkers: boolean;
}

/**
 * unmap_vmas: zaps [start, end) from `vma` on through its successors by `next` (detached lists too: pass them in `vmas`).
 * One UNMAP notification pair around all. Costs and rss as Linux: one rss batch per PTE table.
 */
export function* unmap_vmas(
  k: Kernel,
  t: Task,
  tlb: MmuGather,
  vmas: readonly VmArea[],
  start: number,
  end: number,
): Code {
  bug(`not there yet ${k} ${t} ${tlb} ${vmas} ${start} ${end}`);
}

/** unmap_single_vma without a notification. */
export function* unmap_single_vma(
  k: Kernel,
  t: Task,
  tlb: MmuGather,
  vma: VmArea,
  start: number,
  end: number,
  details: ZapDetails | null,
): Code {
  bug(`not there yet ${k} ${t} ${tlb} ${vma} ${start} ${end} ${details}`);
}

/** zap_page_range_single: gather, CLEAR pair, zap, finish. Caller holds mmap_lock (either way), a VMA lock or i_mmap_rwsem. */
export function* zap_page_range_single(
  k: Kernel,
  t: Task,
  vma: VmArea,
  start: number,
  end: number,
  details: ZapDetails | null,
): Code {
  bug(`not there yet ${k} ${t} ${vma} ${start} ${end} ${details}`);
}

/** unmap_region's free_pgtables for VMAs that are detached: unlinks them from rmap trees, frees tables within [floor, ceiling). */
export function* free_pgtables(
  k: Kernel,
  t: Task,
  tlb: MmuGather,
  mm: MmStruct,
  vmas: readonly VmArea[],
  floor: number,
  ceiling: number,
): Code {
  bug(`not there yet ${k} ${t} ${tlb} ${mm} ${vmas} ${floor} ${ceiling}`);
}
