// mm/hugetlb.c, 6.18: copy_hugetlb_page_range, fork's copy of a hugetlb mapping. A private mapping
// is made read-only on both sides inside one CLEAR pair over the whole VMA; a page that the parent
// has pinned is copied at once, from what the pool has beyond its reservations. A shared mapping is
// not copied at all since 6.0; before, under the vma lock and without a pair.

import type {Code} from '../../machine/process.ts';
import {pteValue, setHuge} from '../arch/x86/mm/pgtable.ts';
import {
  is_migration_entry,
  PTE_DIRTY,
  PTE_KIND,
  PTE_MARKER,
  PTE_MIGRATION_READ,
  PTE_PROTNONE,
  PTE_UFFD_WP,
  PTE_WRITE,
} from '../arch/x86/mm/pgtable_bits.ts';
import {ENOMEM} from '../errno.ts';
import type {Kernel} from '../kernel.ts';
import type {MmStruct} from '../mm_types.ts';
import type {Task} from '../task.ts';
import {hugetlbWork} from './costs_hugetlb.ts';
import {addEntireMapping, folio_maybe_dma_pinned} from './folio_counts.ts';
import {alloc_hugetlb_folio, copy_huge_page, put_unused_folio} from './hugetlb_alloc.ts';
import {hugetlb_add_new_anon_rmap, make_huge_pte} from './hugetlb_fault.ts';
import type {HState} from './hugetlb_pool.ts';
import {afterTable, huge_pte_alloc, hugetlb_walk} from './hugetlb_share.ts';
import {anon_vma_prepare} from './memory_anon.ts';
import {pte_lock, pte_unlock} from './memory_pte.ts';
import {
  mmu_notifier_invalidate_range_end,
  mmu_notifier_invalidate_range_start,
} from './mmu_notifier.ts';
import {MMU_NOTIFY_CLEAR, MmuNotifierRange} from './mmu_notifier_types.ts';
import {folio_test_anon} from './page.ts';
import {folio_put} from './page_alloc.ts';
import {PG_anon_exclusive} from './page_flags.ts';
import {is_uffd_wp_marker, userfaultfd_wp} from './userfaultfd_markers.ts';
import type {VmArea} from './vma.ts';
import {is_cow_mapping, VM_MAYSHARE} from './vma_flags.ts';

/** One mapping being copied. */
interface Copy {
  readonly h: HState;
  readonly src: MmStruct;
  readonly dst: MmStruct;
  readonly srcVma: VmArea;
  readonly dstVma: VmArea;
  readonly cow: boolean;
}

/** 0, or -ENOMEM. mmap_lock of both for writing. */
export function* copy_hugetlb_page_range(
  k: Kernel,
  t: Task,
  dst: MmStruct,
  src: MmStruct,
  dstVma: VmArea,
  srcVma: VmArea,
): Code<number> {
  const {h} = srcVma.mapping!.hugetlb!;
  const copy = {h, src, dst, srcVma, dstVma, cow: is_cow_mapping(srcVma.flags)};
  if (!copy.cow) {
    const {locks} = k.mm.hugetlb;
    const fn = hugetlbWork(k).fns.copy_hugetlb_page_range;
    const lock = (srcVma.flags & VM_MAYSHARE) === 0 ? null : yield* locks.lock_read(t, srcVma, fn);
    const result = yield* copyAll(k, t, copy);
    yield* locks.unlock_read(t, lock);
    return result;
  }
  const {start, end} = srcVma;
  const site = 'copy_hugetlb_page_range';
  const range = new MmuNotifierRange(MMU_NOTIFY_CLEAR, src, srcVma, start, end, site);
  yield* mmu_notifier_invalidate_range_start(k, t, range);
  src.user!.writeProtectSeq++;
  const result = yield* copyAll(k, t, copy);
  src.user!.writeProtectSeq++;
  yield* mmu_notifier_invalidate_range_end(k, t, range);
  return result;
}

function* copyAll(k: Kernel, t: Task, copy: Copy): Code<number> {
  const {mm} = k;
  const {h, srcVma, dstVma} = copy;
  const fn = hugetlbWork(k).fns.copy_hugetlb_page_range;
  const from = copy.src.user!;
  const to = copy.dst.user!;
  for (let vpn = srcVma.start; vpn < srcVma.end; ) {
    const slot = hugetlb_walk(from, h, vpn);
    if (slot < 0) {
      vpn = afterTable(h, vpn);
      continue;
    }
    const target = yield* huge_pte_alloc(k, t, to, h, dstVma, vpn);
    if (target < 0) return -ENOMEM;
    if (target >>> 9 === slot >>> 9 || mm.hugetlb.shared.isShared(target >>> 9)) {
      vpn = afterTable(h, vpn);
      continue;
    }
    if (t.cpu.settle()) yield;
    while (!pte_lock(mm, t, slot, fn)) yield* mm.ptl.spin(t, slot >>> 9, fn);
    const pinned = mm.pt.flags[slot] !== 0 && !copyEntry(k, t, copy, slot, target);
    pte_unlock(mm, t, slot);
    if (pinned && !(yield* copyPinned(k, t, copy, slot, target, vpn))) return -ENOMEM;
    if (k.sched.needsResched(t)) yield* k.sched.condResched(t);
    vpn += h.pages;
  }
  return 0;
}

/** One entry under both locks. False: its page is pinned and must be copied. */
function copyEntry(k: Kernel, t: Task, copy: Copy, slot: number, target: number): boolean {
  const {mm} = k;
  const {pt, pages} = mm;
  const {h, cow} = copy;
  const wp = userfaultfd_wp(copy.dstVma);
  let word = pt.flags[slot];
  const head = pteValue(pt, slot);
  t.cpu.charge(mm.costs.copyPteTicks, hugetlbWork(k).fns.copy_hugetlb_page_range);
  if ((word & PTE_KIND) > PTE_PROTNONE) {
    if (is_migration_entry(word)) {
      if (cow) word = (word & ~PTE_KIND) | PTE_MIGRATION_READ;
      pt.flags[slot] = word;
      copy.dst.user!.hugetlbUsage += h.pages;
    }
    if ((word & PTE_KIND) === PTE_MARKER && !is_uffd_wp_marker(word, head)) {
      setHuge(pt, target, head, word);
    } else if ((word & PTE_KIND) !== PTE_MARKER || wp) {
      setHuge(pt, target, head, wp ? word : word & ~PTE_UFFD_WP);
    }
    return true;
  }
  if (folio_test_anon(pages, head)) {
    const exclusive = (pages.flags[head] & PG_anon_exclusive) !== 0;
    if (exclusive && folio_maybe_dma_pinned(pages, head)) return false;
    pages.flags[head] &= ~PG_anon_exclusive;
  }
  pages.refcount.increment(head);
  addEntireMapping(pages, head);
  if (cow) {
    word &= ~PTE_WRITE;
    pt.flags[slot] = word;
  }
  const shared = cow ? 0 : PTE_DIRTY;
  setHuge(pt, target, head, word & ~((wp ? 0 : PTE_UFFD_WP) | shared));
  copy.dst.user!.hugetlbUsage += h.pages;
  return true;
}

/**
 * The child gets a copy of a page that the parent has pinned (hugetlb_install_folio). False: no
 * page for it.
 */
function* copyPinned(
  k: Kernel,
  t: Task,
  copy: Copy,
  slot: number,
  target: number,
  vpn: number,
): Code<boolean> {
  const {mm} = k;
  const {h, dstVma} = copy;
  const word = mm.pt.flags[slot];
  const head = pteValue(mm.pt, slot);
  const fn = hugetlbWork(k).fns.copy_hugetlb_page_range;
  mm.pages.refcount.increment(head);
  const fresh = alloc_hugetlb_folio(k, t, h, dstVma, vpn, false);
  if (fresh !== 0) copy_huge_page(k, t, h, fresh, head);
  folio_put(k, t, head);
  if (fresh === 0) return false;
  if (t.cpu.settle()) yield;
  while (!pte_lock(mm, t, slot, fn)) yield* mm.ptl.spin(t, slot >>> 9, fn);
  const same = mm.pt.flags[slot] === word && pteValue(mm.pt, slot) === head;
  if (same) {
    anon_vma_prepare(k, t, dstVma, 0);
    hugetlb_add_new_anon_rmap(k, fresh, dstVma, vpn);
    const protects = (word & PTE_UFFD_WP) !== 0 && userfaultfd_wp(dstVma);
    setHuge(mm.pt, target, fresh, make_huge_pte(dstVma, !protects) | (protects ? PTE_UFFD_WP : 0));
    copy.dst.user!.hugetlbUsage += h.pages;
  }
  pte_unlock(mm, t, slot);
  if (!same) put_unused_folio(k, t, h, dstVma, vpn, fresh);
  return true;
}
