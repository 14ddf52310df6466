// mm/migrate.c: migrate_misplaced_folio: a hinting fault brings its page to the node that uses it,
// 6.18. Asynchronous, one folio, nothing waits; a node that is nearly full (high watermark) gets
// nothing, dirty file pages and executable pages of several processes stay.

import type {Code} from '../../machine/process.ts';
import {pteValue, setHuge} from '../arch/x86/mm/pgtable.ts';
import {
  PTE_DIRTY,
  PTE_PRESENT,
  PTE_SOFT_DIRTY,
  PTE_WRITE,
  PTE_YOUNG,
} from '../arch/x86/mm/pgtable_bits.ts';
import type {Kernel} from '../kernel.ts';
import type {Task} from '../task.ts';
import {isBefore} from '../version.ts';
import {addEntireMapping, removeEntireMapping} from './folio_counts.ts';
import {pte_lock, pte_unlock} from './memory_pte.ts';
import {migrate_pages} from './migrate.ts';
import {
  copyTicks,
  folio_isolate_lru,
  putback_movable_pages,
  replace_folio,
} from './migrate_folio.ts';
import {alloc_on_node, folio_maybe_mapped_shared} from './migrate_move.ts';
import {
  invalidate_secondary_tlbs,
  mmu_notifier_invalidate_range_end,
  mmu_notifier_invalidate_range_start,
} from './mmu_notifier.ts';
import {MMU_NOTIFY_CLEAR, MmuNotifierRange} from './mmu_notifier_types.ts';
import {flush_tlb_range} from './mprotect_walk.ts';
import {folio_nr_pages, folio_order, HPAGE_PMD_NR, HPAGE_PMD_ORDER} from './page.ts';
import {folio_put} from './page_alloc.ts';
import {PG_dirty, PG_swapbacked} from './page_flags.ts';
import type {VmFault} from './vm_fault.ts';
import type {VmArea} from './vma.ts';
import {VM_EXEC, VM_WRITE} from './vma_flags.ts';

/** migrate_misplaced_folio_prepare, under the PTL: true when the folio is isolated. Plain. */
export function migrate_misplaced_folio_prepare(
  k: Kernel,
  t: Task,
  head: number,
  vma: VmArea,
  node: number,
): boolean {
  const {pages, zones, hooks} = k.mm;
  const {flags} = pages;
  if ((flags[head] & PG_swapbacked) === 0) {
    if ((vma.flags & VM_EXEC) !== 0 && folio_maybe_mapped_shared(k, head)) return false;
    if ((flags[head] & PG_dirty) !== 0) return false;
  }
  const {buddy, watermarks} = zones[node];
  if (buddy.freePages - folio_nr_pages(pages, head) < watermarks.high) {
    hooks.wakeup_kswapd?.(t, node, 0);
    return false;
  }
  return folio_isolate_lru(k, t, head);
}

/** migrate_misplaced_folio of an isolated folio: true when it is on `node` now. */
export function* migrate_misplaced_folio(
  k: Kernel,
  t: Task,
  head: number,
  node: number,
): Code<boolean> {
  const order = folio_order(k.mm.pages, head);
  const target = (): number => alloc_on_node(k, t, order, node, 'high');
  const {succeeded, remaining, failed} = yield* migrate_pages(k, t, [head], target, 'async');
  putback_movable_pages(k, t, remaining);
  k.mm.migration.count('numa_pages_migrated', succeeded);
  return failed === 0;
}

/**
 * migrate_misplaced_transhuge_page (3.8 to 5.13): a huge page that only this entry maps, isolated,
 * moves without migration entries: copied first, then the entry is exchanged and flushed under its
 * lock, inside a pair up to 4.20 (RECALLED), with invalidate_range alone after. True: it is on
 * `node`. The isolation's reference is gone either way.
 */
export function* migrate_misplaced_transhuge_page(
  k: Kernel,
  t: Task,
  f: VmFault,
  head: number,
  node: number,
): Code<boolean> {
  const {mm} = k;
  const {pages, migration} = mm;
  const fn = migration.fns.migrate_pages_batch;
  const fresh = alloc_on_node(k, t, HPAGE_PMD_ORDER, node, 'high');
  if (fresh === 0) {
    migration.count('pgmigrate_fail', HPAGE_PMD_NR);
    putback_movable_pages(k, t, [head]);
    return false;
  }
  t.cpu.charge(copyTicks(k, t, head, fresh), migration.fns.folio_mc_copy);
  const first = f.vpn - (f.vpn % HPAGE_PMD_NR);
  const end = first + HPAGE_PMD_NR;
  const site = 'migrate_misplaced_transhuge_page';
  const range = new MmuNotifierRange(MMU_NOTIFY_CLEAR, f.mm, f.vma, first, end, site);
  const pair = isBefore(k.facts.version, '5.0');
  if (pair) yield* mmu_notifier_invalidate_range_start(k, t, range);
  if (t.cpu.settle()) yield;
  while (!pte_lock(mm, t, f.slot, fn)) yield* mm.ptl.spin(t, f.slot >>> 9, fn);
  const same = mm.pt.flags[f.slot] === f.word && pteValue(mm.pt, f.slot) === head;
  // The mapping's reference and the isolation's.
  const moves = same && pages.refcount.get(head) === 2;
  if (moves) {
    exchange(k, t, f, head, fresh);
    mm.ptl.hold(f.slot >>> 9);
    yield* flush_tlb_range(k, t, f.user, first, end);
    mm.ptl.unhold(f.slot >>> 9);
    if (mm.notifierFacts.secondaryTlb === 'range') {
      invalidate_secondary_tlbs(k, t, f.mm, first, end);
    }
  }
  pte_unlock(mm, t, f.slot);
  if (pair) yield* mmu_notifier_invalidate_range_end(k, t, range);
  putback_movable_pages(k, t, [moves ? fresh : head]);
  if (moves) folio_put(k, t, head);
  else folio_put(k, t, fresh);
  migration.count(moves ? 'pgmigrate_success' : 'pgmigrate_fail', HPAGE_PMD_NR);
  if (moves) migration.count('numa_pages_migrated', HPAGE_PMD_NR);
  return moves;
}

/** The new page in the old one's place: owner, state, entry, mapping and reference. */
function exchange(k: Kernel, t: Task, f: VmFault, head: number, fresh: number): void {
  const {pages, pt} = k.mm;
  replace_folio(k, t, fresh, head);
  const write = (f.vma.flags & VM_WRITE) === 0 ? 0 : PTE_WRITE;
  setHuge(pt, f.slot, fresh, PTE_PRESENT | PTE_YOUNG | PTE_DIRTY | PTE_SOFT_DIRTY | write);
  addEntireMapping(pages, fresh);
  pages.refcount.increment(fresh);
  removeEntireMapping(pages, head);
  pages.refcount.decrement(head);
}
