// struct mmu_gather (mm/mmu_gather.c, asm-generic/tlb.h, 6.18): collects pages and page tables
// while PTEs are cleared, so that one TLB flush serves many pages and nothing is reused before the
// flush.
//
// Room: a bundle of 8 in the struct and up to 19 batch pages of 510 entries, of each of which one
// stays free; a run of pages of one large folio takes two entries. When it is full the zap loop
// stops, flushes and frees. While removals from the rmap are delayed (dirty file pages) only the
// bundle and one batch page are used.

import type {Code} from '../../machine/process.ts';
import type {Kernel} from '../kernel.ts';
import type {MmStruct} from '../mm_types.ts';
import type {Task} from '../task.ts';
import {folios_put} from './folio_lru.ts';
import {free_table_page} from './memory_pte.ts';
import {invalidate_secondary_tlbs} from './mmu_notifier.ts';
import {PG_swapcache} from './page_flags.ts';

const FIRST_ROOM = 32;
const BUNDLE_ROOM = 7;
const BATCH_ROOM = 509;
const MAX_GATHER_BATCH_COUNT = 19;
/** MAX_NR_FOLIOS_PER_FREE: pages freed between two cond_resched. */
const FREE_CHUNK = 512;

/** Arrays of gathers that are over, for the next ones. */
const spare: Int32Array[] = [];
const MAX_SPARE = 64;

export class MmuGather {
  /** Range to flush, in pages; empty when end <= start. */
  start = Infinity;
  end = 0;
  fullmm = false;
  /** Somebody else gathers, too: flush everything (mm_tlb_flush_nested). */
  needFlushAll = false;
  /** Page tables were freed: paging-structure caches must go too. */
  freedTables = false;
  /** PTEs or PMDs were cleared since the last flush. */
  cleared = false;
  /** A huge entry was cleared, and no PTE: the flush's stride is 2 MB. */
  clearedPmds = false;
  clearedPtes = false;
  delayedRmap = false;
  /** Heads of folios, one for each reference that a removed mapping had; `count` of them. */
  pages = spare.pop() ?? new Int32Array(FIRST_ROOM);
  count = 0;
  /** Frames of page tables. */
  readonly tables: number[] = [];
  /** Entries of the batches in use. */
  private used = 0;

  constructor(readonly mm: MmStruct) {}

  /** tlb_remove_tlb_entry and its kind for [vpn, vpn + n) pages. */
  adjust(vpn: number, n: number): void {
    if (vpn < this.start) this.start = vpn;
    if (vpn + n > this.end) this.end = vpn + n;
    this.cleared = true;
  }

  /**
   * __tlb_remove_folio_pages: `refs` references of a folio go with the next flush. True: the gather
   * is full, flush.
   */
  addFolio(head: number, refs: number): boolean {
    if (this.count + refs > this.pages.length) this.grow(refs);
    const {pages} = this;
    for (let i = 0; i < refs; i++) pages[this.count++] = head;
    this.used += refs > 1 ? 2 : 1;
    if (this.used < BUNDLE_ROOM + BATCH_ROOM) return false;
    return this.delayedRmap || this.used >= BUNDLE_ROOM + MAX_GATHER_BATCH_COUNT * BATCH_ROOM;
  }

  private grow(refs: number): void {
    const larger = new Int32Array(Math.max(this.pages.length * 4, this.count + refs));
    larger.set(this.pages);
    this.pages = larger;
  }

  /** Forgets what was flushed. */
  reset(): void {
    this.start = Infinity;
    this.end = 0;
    this.cleared = false;
    this.clearedPmds = false;
    this.clearedPtes = false;
    this.freedTables = false;
  }

  emptied(): void {
    this.count = 0;
    this.tables.length = 0;
    this.used = 0;
    this.delayedRmap = false;
  }
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

/** tlb_flush_mmu_tlbonly: flushes what was cleared since the last time. */
export function* tlb_flush_mmu_tlbonly(k: Kernel, t: Task, tlb: MmuGather): Code {
  if (!tlb.cleared && !tlb.freedTables) return;
  const {freedTables} = tlb;
  const stride = tlb.clearedPmds && !tlb.clearedPtes ? 512 : 1;
  const all = tlb.fullmm || tlb.needFlushAll;
  const start = all ? 0 : tlb.start;
  const end = all ? Infinity : tlb.end;
  tlb.reset();
  if (k.tlb.isLocal(t.cpu, tlb.mm)) k.tlb.flushLocal(t, tlb.mm, start, end, freedTables, stride);
  else yield* k.tlb.flush_tlb_mm_range(t, tlb.mm, start, end, freedTables, stride);
  // 3.19 to 6.5: invalidate_range after the CPUs' flush, before pages are freed.
  if (k.mm.notifierFacts.secondaryTlb === 'range')
    invalidate_secondary_tlbs(k, t, tlb.mm, start, end);
}

/** tlb_flush_mmu: flush, then free the pages and page tables. */
export function* tlb_flush_mmu(k: Kernel, t: Task, tlb: MmuGather): Code {
  yield* tlb_flush_mmu_tlbonly(k, t, tlb);
  const {tables, pages, count} = tlb;
  for (const pfn of tables) free_table_page(k, t, pfn);
  const {mm} = k;
  const {free_swap_cache} = mm.hooks;
  if (free_swap_cache !== null) {
    for (let i = 0; i < count; i++) {
      if ((mm.pages.flags[pages[i]] & PG_swapcache) !== 0) free_swap_cache(t, pages[i]);
    }
  }
  const size = mm.lruAdd.size;
  let sinceResched = 0;
  for (let at = 0; at < count; at += size) {
    folios_put(k, t, pages, at, Math.min(at + size, count));
    sinceResched += size;
    if (sinceResched < FREE_CHUNK) continue;
    sinceResched = 0;
    if (t.cpu.settle()) yield;
    if (k.sched.needsResched(t)) yield* k.sched.condResched(t);
  }
  tlb.emptied();
}

/** tlb_finish_mmu: flushes and frees what is gathered, and ends the gather. */
export function* tlb_finish_mmu(k: Kernel, t: Task, tlb: MmuGather): Code {
  const user = tlb.mm.user!;
  t.cpu.charge(k.mm.costs.gatherTicks, k.mm.fns.tlb_finish_mmu);
  if (user.tlbFlushPending > 1) {
    // mm_tlb_flush_nested: what the others have cleared and not flushed yet may be looked at;
    // everything goes.
    tlb.fullmm = true;
    tlb.freedTables = true;
  }
  yield* tlb_flush_mmu(k, t, tlb);
  user.tlbFlushPending--;
  if (spare.length < MAX_SPARE) spare.push(tlb.pages);
}
