// mm/memory.c: taking mappings away (unmap_vmas, zap_page_range_single), 6.18.
//
// Page by page under the PTE table's lock: clear, remove from the rmap, hand the page to the
// mmu_gather; counters once per table, before its lock is dropped. Dirty pages of files force a
// flush before the lock is dropped; a full gather stops the loop. Pages are freed in tlb_flush_mmu,
// never before the flush.

import type {Code} from '../../machine/engine.ts';
import {LEVEL_PAGES} from '../arch/x86/mm/pgtable.ts';
import {nextRange, PgtableCursor, startRange} from '../arch/x86/mm/pgtable_range.ts';
import type {Kernel} from '../kernel.ts';
import type {Task} from '../task.ts';
import {pte_lock, pte_unlock} from './memory_pte.ts';
import {ZapLoop} from './memory_zap_ptes.ts';
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
import {compound_head, folio_test_anon} from './page.ts';
import {add_mm_rss_vec} from './rss_stat.ts';
import type {VmArea} from './vma.ts';
import {VM_HUGETLB} from './vma_flags.ts';

/** struct zap_details. */
export interface ZapDetails {
  /** Only this folio (head pfn), 0 for any: truncation of one folio. */
  readonly singleFolio: number;
  /**
   * Private COW copies go, too; false for unmap_mapping_range that keeps them. No details at all
   * means true.
   */
  readonly evenCows: boolean;
  /** Markers go, too (unmap); without details they stay. */
  readonly dropMarkers: boolean;
}

const UNMAP_DETAILS: ZapDetails = {singleFolio: 0, evenCows: true, dropMarkers: true};

/**
 * unmap_vmas: zaps [start, end) in `vmas`, ascending and possibly detached. One UNMAP pair around
 * all.
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

/**
 * zap_page_range_single: gather, CLEAR pair, zap, finish. Caller holds mmap_lock (either way), a
 * VMA lock or i_mmap_rwsem.
 */
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

/**
 * zap_page_range_single_batched: with a gather of the caller's (MADV_DONTNEED over many ranges).
 */
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
