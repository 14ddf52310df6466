// mm/huge_memory.c: move_pages_huge_pmd, UFFDIO_MOVE of a whole huge page (6.8+), 6.18: S, both PMD
// locks, the entry and its deposited page table go to the new place, flush, E. The huge page of
// zeros moves as well.

import type {Code} from '../../machine/process.ts';
import {LEAF} from '../arch/x86/mm/pgtable.ts';
import {
  is_migration_entry,
  PTE_DIRTY,
  PTE_HUGE,
  PTE_SOFT_DIRTY,
  PTE_SPECIAL,
  PTE_UFFD_WP,
  PTE_WRITE,
} from '../arch/x86/mm/pgtable_bits.ts';
import {moveEntry} from '../arch/x86/mm/pgtable_range.ts';
import {EAGAIN, EBUSY} from '../errno.ts';
import {uffdWork} from '../fs/userfaultfd_costs.ts';
import type {Kernel} from '../kernel.ts';
import type {Task} from '../task.ts';
import {folio_get, folio_maybe_dma_pinned} from './folio_counts.ts';
import {mappedPte} from './memory_pte.ts';
import {
  mmu_notifier_invalidate_range_end,
  mmu_notifier_invalidate_range_start,
} from './mmu_notifier.ts';
import {MMU_NOTIFY_CLEAR, MmuNotifierRange} from './mmu_notifier_types.ts';
import {HPAGE_PMD_NR, MAPPING_ANON, setMapping} from './page.ts';
import {folio_put} from './page_alloc.ts';
import {PG_anon_exclusive} from './page_flags.ts';
import {folio_lock, folio_unlock} from './page_io.ts';
import {
  double_pt_lock,
  double_pt_unlock,
  type MoveStep,
  waitForMigration,
} from './userfaultfd_move_step.ts';
import {linear_page_index} from './vma.ts';

/** 512 (moved), -EAGAIN or -EBUSY. */
export function* move_pages_huge_pmd(
  k: Kernel,
  t: Task,
  step: MoveStep,
  src: number,
  dst: number,
): Code<number> {
  const {mm} = k;
  const {from, call, srcVpn} = step;
  const {user} = call.ctx;
  const word = mm.pt.flags[src];
  if (is_migration_entry(word)) {
    yield* waitForMigration(k, t, step, src);
    return -EAGAIN;
  }
  const head = mm.pt.entries[src] & ~LEAF;
  const zero = (word & PTE_SPECIAL) !== 0;
  if (!zero && (mm.pages.flags[head] & PG_anon_exclusive) === 0) return -EBUSY;
  if (!zero) folio_get(mm.pages, head);
  const site = 'move_pages_huge_pmd';
  const end = srcVpn + HPAGE_PMD_NR;
  const range = new MmuNotifierRange(MMU_NOTIFY_CLEAR, user.mm, from, srcVpn, end, site);
  yield* mmu_notifier_invalidate_range_start(k, t, range);
  if (!zero) yield* folio_lock(k, t, head);
  const result = yield* moveLocked(k, t, step, src, dst, word);
  if (!zero) {
    folio_unlock(k, head);
    folio_put(k, t, head);
  }
  yield* mmu_notifier_invalidate_range_end(k, t, range);
  return result;
}

function* moveLocked(
  k: Kernel,
  t: Task,
  {call, to, srcVpn, dstVpn}: MoveStep,
  src: number,
  dst: number,
  word: number,
): Code<number> {
  const {mm} = k;
  const {pt, pages} = mm;
  const {user} = call.ctx;
  const fn = uffdWork(k).fns.move_pages;
  if (t.cpu.settle()) yield;
  yield* double_pt_lock(mm, t, src, dst, fn);
  const head = pt.entries[src] & ~LEAF;
  const zero = (word & PTE_SPECIAL) !== 0;
  const ours = zero || (pages.flags[head] & PG_anon_exclusive) !== 0;
  let result = HPAGE_PMD_NR;
  if ((pt.flags[src] & PTE_HUGE) === 0 || pt.flags[dst] !== 0) result = -EAGAIN;
  else if (!zero && (!ours || folio_maybe_dma_pinned(pages, head))) result = -EBUSY;
  else {
    moveEntry(user.pgd, src, user.pgd, dst);
    if (zero) pt.flags[dst] &= ~PTE_UFFD_WP;
    else {
      const kept = pt.flags[dst] & (PTE_DIRTY | PTE_HUGE);
      pt.flags[dst] = mappedPte(to) | PTE_WRITE | PTE_SOFT_DIRTY | kept;
      setMapping(pages, head, MAPPING_ANON, to.anonVma!.id, linear_page_index(to, dstVpn));
    }
    t.cpu.charge(2 * mm.costs.setPteTicks, fn);
    mm.ptl.hold(src >>> 9);
    yield* k.tlb.flush_tlb_mm_range(t, user.mm, srcVpn, srcVpn + HPAGE_PMD_NR, false);
    mm.ptl.unhold(src >>> 9);
  }
  double_pt_unlock(mm, t, src, dst);
  return result;
}
