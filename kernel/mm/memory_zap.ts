// mm/memory.c: taking mappings away (unmap_vmas, zap_page_range_single), 6.18.
//
// Page by page under the PTE table's lock: clear, remove from the rmap, hand the page to the mmu_gather; counters once per table,
// before its lock is dropped. Dirty pages of files force a flush before the lock is dropped; a full gather stops the loop.
// Pages are freed in tlb_flush_mmu, never before the flush.

import type {Code} from '../../machine/engine.ts';
import {
  is_migration_entry,
  MARKER_GUARD,
  PTE_DEVICE_EXCLUSIVE,
  PTE_DEVICE_READ,
  PTE_DIRTY,
  PTE_KIND,
  PTE_MARKER,
  PTE_PROTNONE,
  PTE_SOFT_DIRTY,
  PTE_SPECIAL,
  PTE_SWAP,
  PTE_YOUNG,
} from '../arch/x86/mm/pgtable_bits.ts';
import {LEVEL_PAGES} from '../arch/x86/mm/pgtable.ts';
import {nextRange, PgtableCursor, startRange} from '../arch/x86/mm/pgtable_range.ts';
import type {Kernel} from '../kernel.ts';
import type {Task} from '../task.ts';
import {pte_lock, pte_unlock} from './memory_pte.ts';
import {
  type MmuGather,
  tlb_finish_mmu,
  tlb_flush_mmu,
  tlb_flush_mmu_tlbonly,
  tlb_gather_mmu,
} from './mmu_gather.ts';
import {
  mmu_notifier_invalidate_range_end,
  mmu_notifier_invalidate_range_start,
} from './mmu_notifier.ts';
import {MMU_NOTIFY_CLEAR, MMU_NOTIFY_UNMAP, MmuNotifierRange} from './mmu_notifier_types.ts';
import {compound_head, folio_nr_pages, folio_test_anon} from './page.ts';
import {PG_dirty, PG_head, PG_referenced, PG_swapbacked, PG_tail} from './page_flags.ts';
import {folio_remove_rmap_pte} from './rmap.ts';
import {MM_ANONPAGES, MM_FILEPAGES, MM_SHMEMPAGES, MM_SWAPENTS} from './rss.ts';
import {add_mm_rss_vec} from './rss_stat.ts';
import {VM_HUGETLB} from './vma_flags.ts';
import type {VmArea} from './vma.ts';

/** struct zap_details. */
export interface ZapDetails {
  /** Only this folio (head pfn), 0 for any: truncation of one folio. */
  readonly singleFolio: number;
  /** Private COW copies go, too; false for unmap_mapping_range that keeps them. No details at all means true. */
  readonly evenCows: boolean;
  /** Markers go, too (unmap); without details they stay. */
  readonly dropMarkers: boolean;
}

const UNMAP_DETAILS: ZapDetails = {singleFolio: 0, evenCows: true, dropMarkers: true};

/**
 * unmap_vmas: zaps [start, end) in `vmas`, ascending and possibly detached. One UNMAP pair around all.
 */
export function* unmap_vmas(
  k: Kernel,
  t: Task,
  tlb: MmuGather,
  vmas: readonly VmArea[],
  start: number,
  end: number,
): Code {
  const range = new MmuNotifierRange(
    MMU_NOTIFY_UNMAP,
    tlb.mm,
    vmas[0] ?? null,
    start,
    end,
    'unmap_vmas',
  );
  yield* mmu_notifier_invalidate_range_start(k, t, range);
  for (const vma of vmas) {
    if (vma.end <= start || vma.start >= end) continue;
    const from = Math.max(vma.start, start);
    yield* unmap_single_vma(k, t, tlb, vma, from, Math.min(vma.end, end), UNMAP_DETAILS);
  }
  yield* mmu_notifier_invalidate_range_end(k, t, range);
}

/** unmap_single_vma: [start, end) of one VMA, without a notification. */
export function* unmap_single_vma(
  k: Kernel,
  t: Task,
  tlb: MmuGather,
  vma: VmArea,
  start: number,
  end: number,
  details: ZapDetails | null,
): Code {
  const {mm} = k;
  t.cpu.charge(mm.costs.unmapVmaTicks, mm.fns.unmap_vmas);
  if (start >= end) return;
  if ((vma.flags & VM_HUGETLB) !== 0) {
    const {unmap_hugepage_range} = mm.hooks;
    if (unmap_hugepage_range !== null)
      yield* unmap_hugepage_range(t, tlb, vma, start, end, details);
    return;
  }
  yield* unmap_page_range(k, t, tlb, vma, start, end, details);
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
  const user = k.mm.byId(vma.space.mmId)!;
  const tlb = tlb_gather_mmu(user.mm);
  yield* zap_page_range_single_batched(k, t, tlb, vma, start, end, details);
  yield* tlb_finish_mmu(k, t, tlb);
}

/** zap_page_range_single_batched: with a gather of the caller's (MADV_DONTNEED over many ranges). */
export function* zap_page_range_single_batched(
  k: Kernel,
  t: Task,
  tlb: MmuGather,
  vma: VmArea,
  start: number,
  end: number,
  details: ZapDetails | null,
): Code {
  const range = new MmuNotifierRange(
    MMU_NOTIFY_CLEAR,
    tlb.mm,
    vma,
    start,
    end,
    'zap_page_range_single',
  );
  yield* mmu_notifier_invalidate_range_start(k, t, range);
  yield* unmap_single_vma(k, t, tlb, vma, start, end, details);
  yield* mmu_notifier_invalidate_range_end(k, t, range);
}

/** unmap_page_range: the walk. */
function* unmap_page_range(
  k: Kernel,
  t: Task,
  tlb: MmuGather,
  vma: VmArea,
  start: number,
  end: number,
  details: ZapDetails | null,
): Code {
  const {mm} = k;
  const user = tlb.mm.user!;
  const cursor = new PgtableCursor();
  const zap = new ZapLoop();
  startRange(cursor, start, end);
  while (nextRange(user.pgd, cursor)) {
    if (t.cpu.settle()) {
      // The table may be gone after that.
      yield;
      cursor.next = cursor.vpn;
      continue;
    }
    if (cursor.level > 0) {
      yield* zapHuge(k, t, tlb, vma, cursor, end, details);
      continue;
    }
    const {slot} = cursor;
    while (mm.ptl.busy(slot >>> 9)) yield* mm.ptl.spin(t, slot >>> 9, mm.fns.zap_pte_range);
    pte_lock(mm, t, slot, mm.fns.zap_pte_range);
    const done = zap.run(k, t, tlb, cursor, details);
    add_mm_rss_vec(k, t, tlb.mm, zap.vec);
    if (zap.forceFlush) yield* flushLocked(k, t, tlb, slot);
    pte_unlock(mm, t, slot);
    if (zap.forceFlush) yield* tlb_flush_mmu(k, t, tlb);
    if (done < cursor.count) cursor.next = cursor.vpn + done;
    if (k.sched.needsResched(t)) yield* k.sched.condResched(t);
  }
}

/** The flush that must come before the page-table lock is dropped. */
function* flushLocked(k: Kernel, t: Task, tlb: MmuGather, slot: number): Code {
  const {ptl} = k.mm;
  ptl.hold(slot >>> 9);
  yield* tlb_flush_mmu_tlbonly(k, t, tlb);
  ptl.unhold(slot >>> 9);
}

/** zap_pmd_range's case of a huge entry: zapped when it goes as a whole, else split. */
function* zapHuge(
  k: Kernel,
  t: Task,
  tlb: MmuGather,
  vma: VmArea,
  cursor: PgtableCursor,
  end: number,
  details: ZapDetails | null,
): Code {
  const {hooks, pt, pages} = k.mm;
  const {slot, vpn, level} = cursor;
  const span = LEVEL_PAGES[level];
  const whole = vpn % span === 0 && vpn + span <= end;
  if (whole) {
    const cow = details !== null && !details.evenCows;
    const pfn = pt.entries[slot] & 0x7fff_ffff;
    if (cow && folio_test_anon(pages, compound_head(pages, pfn))) return;
    hooks.zap_huge?.(t, tlb, vma, slot, vpn);
    return;
  }
  if (hooks.split_huge === null) return;
  yield* hooks.split_huge(t, vma, slot, vpn);
  cursor.next = vpn;
}

const LARGE = PG_head | PG_tail;

/** zap_pte_range's loop and what it leaves behind. */
class ZapLoop {
  readonly vec = new Int32Array(4);
  /** Flush before the lock is dropped, then free. */
  forceFlush = false;
  /** PTEs of this run that were cleared; PTEs of the page at hand. */
  private cleared = 0;
  private refs = 1;

  /** Zaps a run under its lock. Returns how many entries it got through. */
  run(
    k: Kernel,
    t: Task,
    tlb: MmuGather,
    cursor: PgtableCursor,
    details: ZapDetails | null,
  ): number {
    const {mm} = k;
    const {pt, costs} = mm;
    const {slot, count, vpn} = cursor;
    const {entries, flags} = pt;
    let others = 0;
    let lowest = -1;
    let highest = -1;
    this.forceFlush = false;
    this.cleared = 0;
    let i = 0;
    while (i < count) {
      const word = flags[slot + i];
      if (word === 0) {
        i++;
        continue;
      }
      if ((word & PTE_KIND) > PTE_PROTNONE) {
        others++;
        if (this.zapNonpresent(k, slot + i, details)) this.cleared++;
        i++;
        continue;
      }
      this.refs = 1;
      let full = false;
      if ((word & PTE_SPECIAL) === 0) {
        const head = this.zapPage(k, t, tlb, slot + i, count - i, details);
        if (head < 0) {
          i++;
          continue;
        }
        full = tlb.addFolio(head, this.refs);
      }
      flags[slot + i] = 0;
      entries[slot + i] = 0;
      this.cleared += this.refs;
      if (lowest < 0) lowest = i;
      i += this.refs;
      highest = i;
      if (full) {
        this.forceFlush = true;
        break;
      }
    }
    pt.population[slot >>> 9] -= this.cleared;
    if (lowest >= 0) {
      tlb.adjust(vpn + lowest, highest - lowest);
      tlb.clearedPtes = true;
    }
    const ticks = this.cleared * costs.zapPteTicks + others * costs.zapOtherPteTicks;
    const scan = Math.round(count * costs.scanPteTicks);
    t.cpu.charge(ticks + scan + costs.zapTableTicks, mm.fns.zap_pte_range);
    return i;
  }

  /** zap_present_ptes for a page with a struct page: head of its folio, -1 when it stays. `refs` PTEs are of one large folio. */
  private zapPage(
    k: Kernel,
    t: Task,
    tlb: MmuGather,
    slot: number,
    most: number,
    details: ZapDetails | null,
  ): number {
    const {pt, pages} = k.mm;
    const {flags} = pages;
    const pfn = pt.entries[slot];
    const small = (flags[pfn] & LARGE) === 0;
    const head = small ? pfn : compound_head(pages, pfn);
    const anon = folio_test_anon(pages, head);
    if (details !== null) {
      if (anon && !details.evenCows) return -1;
      if (details.singleFolio !== 0 && head !== details.singleFolio) return -1;
    }
    const word = pt.flags[slot];
    if (anon) this.vec[MM_ANONPAGES]--;
    else this.noteFile(tlb, flags, head, word);
    if (small) {
      pages.mapcount.decrement(pfn);
      return head;
    }
    folio_remove_rmap_pte(k, t, head, pfn);
    const left = Math.min(most, head + folio_nr_pages(pages, head) - pfn);
    this.refs = this.zapRest(k, t, slot, left, head, anon, word);
    return head;
  }

  /** folio_pte_batch: the PTEs after this one that map the following pages of the same folio alike. Returns the run's length. */
  private zapRest(
    k: Kernel,
    t: Task,
    slot: number,
    most: number,
    head: number,
    anon: boolean,
    word: number,
  ): number {
    const {pt, pages} = k.mm;
    const {entries, flags} = pt;
    const pfn = entries[slot];
    const mask = ~(PTE_DIRTY | PTE_YOUNG | PTE_SOFT_DIRTY);
    let n = 1;
    while (n < most && entries[slot + n] === pfn + n && ((flags[slot + n] ^ word) & mask) === 0) {
      if (!anon && (flags[slot + n] & PTE_DIRTY) !== 0) pages.flags[head] |= PG_dirty;
      folio_remove_rmap_pte(k, t, head, pfn + n);
      flags[slot + n] = 0;
      entries[slot + n] = 0;
      n++;
    }
    const shmem = (pages.flags[head] & PG_swapbacked) !== 0;
    this.vec[anon ? MM_ANONPAGES : shmem ? MM_SHMEMPAGES : MM_FILEPAGES] -= n - 1;
    return n;
  }

  /** A page of a file or of shared memory: its dirty and accessed bits go to the folio. */
  private noteFile(tlb: MmuGather, pageFlags: Int32Array, head: number, word: number): void {
    const shmem = (pageFlags[head] & PG_swapbacked) !== 0;
    this.vec[shmem ? MM_SHMEMPAGES : MM_FILEPAGES]--;
    if ((word & PTE_DIRTY) !== 0) {
      pageFlags[head] |= PG_dirty;
      tlb.delayedRmap = true;
      this.forceFlush = true;
    }
    if ((word & PTE_YOUNG) !== 0) pageFlags[head] |= PG_referenced;
  }

  /** zap_nonpresent_ptes. True when the entry is gone. */
  private zapNonpresent(k: Kernel, slot: number, details: ZapDetails | null): boolean {
    const evenCows = details === null || details.evenCows;
    const dropMarkers = details?.dropMarkers === true;
    const {pt, pages, hooks} = k.mm;
    const word = pt.flags[slot];
    const value = pt.entries[slot];
    const kind = word & PTE_KIND;
    if (kind === PTE_SWAP) {
      if (!evenCows) return false;
      this.vec[MM_SWAPENTS]--;
      hooks.free_swap_and_cache?.(value, 1);
    } else if (kind === PTE_MARKER) {
      if ((value & MARKER_GUARD) !== 0 && !dropMarkers) return false;
    } else if (is_migration_entry(word)) {
      const head = compound_head(pages, value);
      const anon = folio_test_anon(pages, head);
      if (anon && !evenCows) return false;
      const file = (pages.flags[head] & PG_swapbacked) === 0 ? MM_FILEPAGES : MM_SHMEMPAGES;
      this.vec[anon ? MM_ANONPAGES : file]--;
    } else if (kind >= PTE_DEVICE_READ && kind <= PTE_DEVICE_EXCLUSIVE) {
      this.vec[MM_ANONPAGES]--;
      this.dropDevicePage(k, value);
    }
    pt.flags[slot] = 0;
    pt.entries[slot] = 0;
    return true;
  }

  private dropDevicePage(k: Kernel, pfn: number): void {
    const {pages} = k.mm;
    const head = compound_head(pages, pfn);
    pages.mapcount.decrement(pfn);
    pages.refcount.decrement(head);
  }
}
