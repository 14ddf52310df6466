// struct mmu_gather (6.18): collects pages and page tables while PTEs are cleared, so that one TLB flush serves many pages and
// no page is reused before the flush (mm/mmu_gather.c, asm-generic/tlb.h).

import type {Code} from '../../machine/engine.ts';
import type {Kernel} from '../kernel.ts';
import type {MmStruct} from '../mm_types.ts';
import type {Task} from '../task.ts';

export class MmuGather {
  /** Range to flush, in pages; empty when end <= start. */
  start = Infinity;
  end = 0;
  fullmm = false;
  /** More than this one gathers: flush everything (mm_tlb_flush_nested). */
  needFlushAll = false;
  /** Page tables were freed: paging-structure caches must go too. */
  freedTables = false;
  clearedPtes = false;
  clearedPmds = false;
  /** Pages that wait for the flush: heads of folios, one entry per mapping removed; all have a reference to drop. */
  readonly pages: number[] = [];
  readonly tables: number[] = [];

  constructor(readonly mm: MmStruct) {}
}

/** tlb_gather_mmu. */
export function tlb_gather_mmu(mm: MmStruct): MmuGather {
  mm.user!.tlbFlushPending++;
  return new MmuGather(mm);
}

/** tlb_gather_mmu_fullmm: the whole mm goes. */
export function tlb_gather_mmu_fullmm(mm: MmStruct): MmuGather {
  const tlb = tlb_gather_mmu(mm);
  tlb.fullmm = true;
  return tlb;
}

/** tlb_finish_mmu: flushes what is gathered, frees it, and ends the gather. */
export declare function tlb_finish_mmu(k: Kernel, t: Task, tlb: MmuGather): Code;
