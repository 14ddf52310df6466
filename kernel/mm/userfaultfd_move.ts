// mm/userfaultfd.c: UFFDIO_MOVE (6.8+), 6.18. Pages of one private anonymous range become those of
// another of the same mm, which is registered; only what is nobody else's may move (exclusive, not
// pinned), since only then the entry alone says where the page is. Present pages move in runs
// within one page table on each side since 6.18 (one flush for a run), before that one by one. The
// notifier hears CLEAR of the source: of all that is left to move (6.18), of one page, or of a huge
// page.
//
// Order at a run: S, both PTLs, clear, rmap and index, set, flush, PTLs, E.

import type {Code} from '../../machine/process.ts';
import {LEAF, pteClear, pteSlot, setPte, slotAt} from '../arch/x86/mm/pgtable.ts';
import {
  is_migration_entry,
  PTE_DIRTY,
  PTE_HUGE,
  PTE_KIND,
  PTE_SOFT_DIRTY,
  PTE_SPECIAL,
  PTE_SWAP,
  PTE_SWP_EXCLUSIVE,
  PTE_TABLE,
  PTE_WRITE,
  pte_present,
} from '../arch/x86/mm/pgtable_bits.ts';
import {EAGAIN, EBUSY, EEXIST, EFAULT, EINTR, EINVAL, ENOENT, ENOMEM} from '../errno.ts';
import {uffdWork} from '../fs/userfaultfd_costs.ts';
import type {Kernel} from '../kernel.ts';
import type {Task} from '../task.ts';
import {isBefore} from '../version.ts';
import {folio_get, folio_maybe_dma_pinned} from './folio_counts.ts';
import {anon_vma_prepare} from './memory_anon.ts';
import {mappedPte, PTE_ZERO_PAGE, pte_alloc, tables_alloc} from './memory_pte.ts';
import {mmap_read_lock, mmap_read_unlock} from './mmap_lock.ts';
import {
  mmu_notifier_invalidate_range_end,
  mmu_notifier_invalidate_range_start,
} from './mmu_notifier.ts';
import {MMU_NOTIFY_CLEAR, MmuNotifierRange} from './mmu_notifier_types.ts';
import {
  compound_head,
  folio_test_large,
  HPAGE_PMD_NR,
  MAPPING_ANON,
  mappingId,
  setMapping,
} from './page.ts';
import {folio_put} from './page_alloc.ts';
import {PG_anon_exclusive, PG_locked} from './page_flags.ts';
import {folio_lock, folio_unlock} from './page_io.ts';
import {swap_cache_page} from './swap_state.ts';
import {move_pages_huge_pmd} from './userfaultfd_move_huge.ts';
import {
  double_pt_lock,
  double_pt_unlock,
  type MoveCall,
  type MoveStep,
  waitForMigration,
} from './userfaultfd_move_step.ts';
import {linear_page_index, type VmArea, vma_is_anonymous} from './vma.ts';
import {
  VM_ACCESS,
  VM_HIGH_SHADOW_STACK,
  VM_HUGETLB,
  VM_IO,
  VM_LOCKED,
  VM_MIXEDMAP,
  VM_PFNMAP,
  VM_SHARED,
  VM_WRITE,
} from './vma_flags.ts';

/** move_pages: pages moved, or the error before the first. */
export function* move_pages(k: Kernel, t: Task, call: MoveCall): Code<number> {
  const {ctx, start, src, pages} = call;
  const {user} = ctx;
  yield* mmap_read_lock(t, user, uffdWork(k).fns.move_pages);
  const {tree} = user.space;
  const from = tree.lookup(src);
  const to = tree.lookup(start);
  let error = ctx.mmapChanging > 0 ? -EAGAIN : 0;
  if (error === 0 && (from === null || to === null)) error = -ENOENT;
  if (error === 0) error = validate_move_areas(call, from!, to!);
  let moved = 0;
  if (error === 0) anon_vma_prepare(k, t, to!, 0);
  while (error === 0 && moved < pages) {
    const left = pages - moved;
    const step = {call, from: from!, to: to!, srcVpn: src + moved, dstVpn: start + moved, left};
    const done = yield* moveStep(k, t, step);
    if (k.sched.needsResched(t)) yield* k.sched.condResched(t);
    if (done > 0) moved += done;
    else if (done !== -EAGAIN) error = done;
    if (t.sigkill && (error === 0 || done === -EAGAIN)) error = -EINTR;
  }
  yield* mmap_read_unlock(t, user);
  return moved > 0 ? moved : error;
}

/** validate_move_areas: 0, -EINVAL or -ENOENT. */
function validate_move_areas({ctx, start, src, pages}: MoveCall, from: VmArea, to: VmArea): number {
  if ((from.flags & VM_SHARED) !== 0 || src + pages > from.end) return -EINVAL;
  if ((to.flags & VM_SHARED) !== 0 || start + pages > to.end) return -EINVAL;
  if (((from.flags ^ to.flags) & (VM_ACCESS | VM_LOCKED)) !== 0) return -EINVAL;
  if ((from.flags & VM_WRITE) === 0) return -EINVAL;
  const never = VM_PFNMAP | VM_IO | VM_HUGETLB | VM_MIXEDMAP;
  if (((from.flags | to.flags) & never) !== 0) return -EINVAL;
  if (((from.flagsHigh | to.flagsHigh) & VM_HIGH_SHADOW_STACK) !== 0) return -EINVAL;
  if (to.uffd === 0 || to.uffd !== ctx.id) return -EINVAL;
  return vma_is_anonymous(from) && vma_is_anonymous(to) ? 0 : -EINVAL;
}

/** One turn of the loop: pages moved, -EAGAIN to look again, or an error. */
function* moveStep(k: Kernel, t: Task, step: MoveStep): Code<number> {
  const {mm} = k;
  const {call, from, srcVpn, dstVpn, left} = step;
  const {user} = call.ctx;
  const {pt} = mm;
  if (t.cpu.settle()) yield;
  const srcPmd = slotAt(user.pgd, srcVpn, 1);
  const none = srcPmd < 0 || pt.flags[srcPmd] === 0;
  if (none && !call.holes) return -ENOENT;
  const dstPmd = tables_alloc(k, t, user, dstVpn, 1);
  if (dstPmd < 0) return -ENOMEM;
  if ((pt.flags[dstPmd] & PTE_HUGE) !== 0) return -EEXIST;
  if (!none && (pt.flags[srcPmd] & PTE_KIND) !== PTE_TABLE) {
    const aligned = srcVpn % HPAGE_PMD_NR === 0 && dstVpn % HPAGE_PMD_NR === 0;
    const whole = aligned && left >= HPAGE_PMD_NR;
    if (whole && pt.flags[dstPmd] === 0)
      return yield* move_pages_huge_pmd(k, t, step, srcPmd, dstPmd);
    const word = pt.flags[srcPmd];
    const head = pt.entries[srcPmd] & ~LEAF;
    const shared = (mm.pages.flags[head] & PG_anon_exclusive) === 0;
    if (pte_present(word) && (word & PTE_SPECIAL) === 0 && shared) return -EBUSY;
    yield* mm.hooks.split_huge!(t, from, srcPmd, srcVpn - (srcVpn % HPAGE_PMD_NR));
    return -EAGAIN;
  }
  if (pte_alloc(k, t, user, srcVpn) < 0 || pte_alloc(k, t, user, dstVpn) < 0) return -EAGAIN;
  const batches = !isBefore(k.facts.version, '6.18');
  const end = srcVpn + (batches ? left : 1);
  const site = batches ? 'move_pages_ptes' : 'move_pages_pte';
  const range = new MmuNotifierRange(MMU_NOTIFY_CLEAR, user.mm, from, srcVpn, end, site);
  yield* mmu_notifier_invalidate_range_start(k, t, range);
  const done = yield* move_pages_ptes(k, t, step, batches ? left : 1);
  yield* mmu_notifier_invalidate_range_end(k, t, range);
  return done;
}

/** move_pages_ptes between S and E. */
function* move_pages_ptes(k: Kernel, t: Task, step: MoveStep, most: number): Code<number> {
  const {mm} = k;
  const {pt, pages} = mm;
  const {call, from, srcVpn, dstVpn} = step;
  const {user} = call.ctx;
  const {costs, fns} = uffdWork(k);
  t.cpu.charge(costs.moveRunTicks, fns.move_pages);
  if (t.cpu.settle()) yield;
  const src = pteSlot(user.pgd, srcVpn);
  const dst = pteSlot(user.pgd, dstVpn);
  if (src < 0 || dst < 0) return -EAGAIN;
  if (pt.flags[dst] !== 0) return -EEXIST;
  const word = pt.flags[src];
  if (word === 0) return call.holes ? 1 : -ENOENT;
  if (!pte_present(word)) return yield* moveNonpresent(k, t, step, src, dst);
  if ((word & PTE_SPECIAL) !== 0) return yield* moveLocked(k, t, step, src, dst, moveZero, 1);
  const pfn = pt.entries[src];
  const head = compound_head(pages, pfn);
  if ((pages.flags[pfn] & PG_anon_exclusive) === 0) return -EBUSY;
  if ((pages.flags[head] & PG_locked) !== 0 || folio_test_large(pages, head)) {
    folio_get(pages, head);
    let split = true;
    if (!folio_test_large(pages, head)) {
      yield* folio_lock(k, t, head);
      folio_unlock(k, head);
    } else split = yield* mm.hooks.split_folio!(t, head, head);
    folio_put(k, t, head);
    return split ? -EAGAIN : -EBUSY;
  }
  const anon = mm.anon.find(mappingId(pages, head)) ?? from.anonVma!;
  const lock = mm.anonVmaLock(anon);
  if (!lock.writeAcquire(t, fns.move_pages)) yield* lock.writeAcquireSlow(t, fns.move_pages);
  const run = Math.min(most, 512 - (src & 511), 512 - (dst & 511));
  const done = yield* moveLocked(k, t, step, src, dst, movePresent, run);
  if (!lock.writeRelease(t)) yield* lock.writeReleaseSlow(t);
  return done;
}

type Mover = (k: Kernel, step: MoveStep, src: number, dst: number, at: number) => number;

/** double_pt_lock; `mover` for up to `most` pages; a flush of what went. */
function* moveLocked(
  k: Kernel,
  t: Task,
  step: MoveStep,
  src: number,
  dst: number,
  mover: Mover,
  most: number,
): Code<number> {
  const {mm} = k;
  const {srcVpn, dstVpn} = step;
  const {user} = step.call.ctx;
  const {fns, costs} = uffdWork(k);
  const fn = fns.move_pages;
  if (t.cpu.settle()) yield;
  yield* double_pt_lock(mm, t, src, dst, fn);
  // is_pte_pages_stable: the walk may have waited for a lock.
  const same = pteSlot(user.pgd, srcVpn) === src && pteSlot(user.pgd, dstVpn) === dst;
  let done = 0;
  let error = same ? 0 : -EAGAIN;
  const flushes = same && pte_present(mm.pt.flags[src]);
  while (error === 0 && done < most) {
    error = mover(k, step, src + done, dst + done, done);
    if (error === 0) done++;
  }
  t.cpu.charge(done * (costs.movePageTicks + mm.costs.movePteTicks), fn);
  if (done > 0 && flushes) {
    mm.ptl.hold(src >>> 9);
    yield* k.tlb.flush_tlb_mm_range(t, user.mm, srcVpn, srcVpn + done, false);
    mm.ptl.unhold(src >>> 9);
  }
  double_pt_unlock(mm, t, src, dst);
  return done > 0 ? done : error;
}

/** move_present_ptes for one page, under both locks. 0 or the reason why not. */
function movePresent(
  k: Kernel,
  {call, dstVpn}: MoveStep,
  src: number,
  dst: number,
  at: number,
): number {
  const {pt, pages} = k.mm;
  const word = pt.flags[src];
  if (pt.flags[dst] !== 0 || !pte_present(word) || (word & PTE_SPECIAL) !== 0) return -EAGAIN;
  const pfn = pt.entries[src];
  const head = compound_head(pages, pfn);
  const large = folio_test_large(pages, head);
  const exclusive = (pages.flags[pfn] & PG_anon_exclusive) !== 0;
  if (at > 0 && (large || !exclusive || (pages.flags[head] & PG_locked) !== 0)) return -EAGAIN;
  if (large || !exclusive || folio_maybe_dma_pinned(pages, head)) return -EBUSY;
  const to = call.ctx.user.space.tree.lookup(dstVpn)!;
  pteClear(pt, src);
  setMapping(pages, pfn, MAPPING_ANON, to.anonVma!.id, linear_page_index(to, dstVpn + at));
  setPte(pt, dst, pfn, mappedPte(to) | PTE_SOFT_DIRTY | (word & PTE_DIRTY) | PTE_WRITE);
  return 0;
}

function moveZero(k: Kernel, _step: MoveStep, src: number, dst: number): number {
  const {pt} = k.mm;
  if (pt.flags[dst] !== 0 || (pt.flags[src] & PTE_SPECIAL) === 0) return -EAGAIN;
  const pfn = pt.entries[src];
  pteClear(pt, src);
  setPte(pt, dst, pfn, PTE_ZERO_PAGE);
  return 0;
}

/** move_swap_pte, under both locks. */
function moveSwap(k: Kernel, {call, dstVpn}: MoveStep, src: number, dst: number): number {
  const {pt, pages} = k.mm;
  const word = pt.flags[src];
  if (pt.flags[dst] !== 0 || (word & PTE_KIND) !== PTE_SWAP) return -EAGAIN;
  const entry = pt.entries[src];
  const head = swap_cache_page(k, entry);
  if (head !== 0) {
    // The cached page goes along: its place is that of the entry.
    if (folio_test_large(pages, head) || (pages.flags[head] & PG_locked) !== 0) return -EBUSY;
    const to = call.ctx.user.space.tree.lookup(dstVpn)!;
    setMapping(pages, head, MAPPING_ANON, to.anonVma!.id, linear_page_index(to, dstVpn));
  }
  pteClear(pt, src);
  setPte(pt, dst, entry, word | PTE_SOFT_DIRTY);
  return 0;
}

function* moveNonpresent(
  k: Kernel,
  t: Task,
  step: MoveStep,
  src: number,
  dst: number,
): Code<number> {
  const {mm} = k;
  const word = mm.pt.flags[src];
  if (is_migration_entry(word)) {
    yield* waitForMigration(k, t, step, src);
    return -EAGAIN;
  }
  if ((word & PTE_KIND) !== PTE_SWAP) return -EFAULT;
  if ((word & PTE_SWP_EXCLUSIVE) === 0) return -EBUSY;
  return yield* moveLocked(k, t, step, src, dst, moveSwap, 1);
}
