// mm/migrate.c and mm/mempolicy.c: moving ranges of a process's memory to a node (move_pages,
// mbind with MPOL_MF_MOVE, migrate_pages), 6.18.
//
// All CPUs' LRU batches are drained first (lru_cache_disable), for a folio in a batch cannot be
// isolated. Folios are looked up and isolated under mmap_lock for read, and moved without it.
// Without MPOL_MF_MOVE_ALL folios that other processes map, too, stay (-EACCES). The target node
// alone may give the memory (__GFP_THISNODE).

import type {Code} from '../../machine/process.ts';
import {PTE_HUGE, PTE_SPECIAL, pte_present} from '../arch/x86/mm/pgtable_bits.ts';
import {nextRange, PgtableCursor, startRange} from '../arch/x86/mm/pgtable_range.ts';
import {EAGAIN} from '../errno.ts';
import type {Kernel} from '../kernel.ts';
import type {Task} from '../task.ts';
import {isBefore} from '../version.ts';
import {entire_mapcount, folio_mapcount} from './folio_counts.ts';
import {lru_add_drain_all} from './folio_lru.ts';
import {isolate_hugetlb, unmap_and_move_huge_page} from './hugetlb_migrate.ts';
import {migrate_pages, type NewFolio} from './migrate.ts';
import {folio_isolate_lru, putback_movable_pages} from './migrate_folio.ts';
import {enterSystemCall, mmap_read_lock, mmap_read_unlock} from './mmap_lock.ts';
import {compound_head, folio_nr_pages, folio_order, folio_test_large} from './page.ts';
import {alloc_folio, folio_put} from './page_alloc.ts';
import {PG_device, PG_hugetlb} from './page_flags.ts';
import type {UserMm} from './user_mm.ts';
import {VM_IO, VM_PFNMAP} from './vma_flags.ts';

/** What became of a range; in pages. */
export interface MoveResult {
  moved: number;
  /** On the target node already. */
  there: number;
  /** Nothing mapped (-ENOENT). */
  absent: number;
  /** Mapped by other processes as well (-EACCES). */
  shared: number;
  /** Could not be isolated or moved (-EBUSY, -ENOMEM). */
  failed: number;
}

/**
 * A folio of this node and no other, as __GFP_THISNODE has it; 0 when the node is below `watermark`
 * or has no block of that size.
 */
export function alloc_on_node(
  k: Kernel,
  t: Task,
  order: number,
  node: number,
  watermark: 'min' | 'high',
): number {
  const zone = k.mm.zones[node];
  if (zone.buddy.freePages - 2 ** order < zone.watermarks[watermark]) return 0;
  const pfn = alloc_folio(k, t, order, node, 0, true);
  if (pfn <= 0) return 0;
  if (k.mm.pages.nodeOf(pfn) === node) return pfn;
  folio_put(k, t, pfn);
  return 0;
}

/** alloc_migration_target for one node. */
export function targetOn(k: Kernel, t: Task, node: number): NewFolio {
  return (src) => alloc_on_node(k, t, folio_order(k.mm.pages, src), node, 'min');
}

/** folio_maybe_mapped_shared: more than one mapping; exact for small folios and huge entries. */
export function folio_maybe_mapped_shared(k: Kernel, head: number): boolean {
  const {pages} = k.mm;
  const maps = folio_mapcount(pages, head);
  if (!folio_test_large(pages, head)) return maps > 1;
  return entire_mapcount(pages, head) > 1 || maps > folio_nr_pages(pages, head);
}

/**
 * lru_cache_disable: work on every CPU, before 5.13 (migrate_prep) on every one that has something
 * in its batch.
 */
export function* lru_cache_disable(k: Kernel, t: Task): Code {
  const {costs, fns} = k.mm.migration;
  if (!isBefore(k.facts.version, '5.13')) t.cpu.charge(costs.drainAllTicks, fns.lru_add_drain_all);
  let cpus = 0;
  k.mm.lruAdd.forEach((batch) => {
    if (batch.count > 0) cpus++;
  });
  t.cpu.charge(cpus * costs.drainCpuTicks, fns.lru_add_drain_all);
  if (t.cpu.settle()) yield;
  lru_add_drain_all(k, t);
}

/**
 * move_pages (and mbind with MPOL_MF_MOVE) of `pages` pages from `startVpn` on of `user` to `node`;
 * `all`: MPOL_MF_MOVE_ALL. -EINVAL is the caller's to find.
 */
export function* do_pages_move(
  k: Kernel,
  t: Task,
  user: UserMm,
  startVpn: number,
  pages: number,
  node: number,
  all: boolean,
): Code<MoveResult> {
  const {mm} = k;
  enterSystemCall(k, t);
  const result: MoveResult = {moved: 0, there: 0, absent: pages, shared: 0, failed: 0};
  yield* lru_cache_disable(k, t);
  yield* mmap_read_lock(t, user, mm.migration.fns.do_pages_move);
  const folios = collect(k, t, user, startVpn, startVpn + pages, node, all, result);
  yield* mmap_read_unlock(t, user);
  if (mm.hugetlb.inUse) yield* migrate_hugetlbs(k, t, folios, node, result);
  if (folios.length === 0) return result;
  const {succeeded, remaining} = yield* migrate_pages(k, t, folios, targetOn(k, t, node), 'sync');
  result.moved += succeeded;
  for (const head of remaining) result.failed += folio_nr_pages(mm.pages, head);
  putback_movable_pages(k, t, remaining);
  return result;
}

/** migrate_hugetlbs: huge pages of a pool move one by one; they leave the list. Ten tries each. */
function* migrate_hugetlbs(
  k: Kernel,
  t: Task,
  folios: number[],
  node: number,
  result: MoveResult,
): Code {
  const {pages} = k.mm;
  const huge = folios.filter((head) => (pages.flags[head] & PG_hugetlb) !== 0);
  if (huge.length === 0) return;
  const others = folios.filter((head) => (pages.flags[head] & PG_hugetlb) === 0);
  folios.splice(0, folios.length, ...others);
  for (const head of huge) {
    const n = folio_nr_pages(pages, head);
    let rc = -EAGAIN;
    for (let tries = 0; rc === -EAGAIN && tries < 10; tries++) {
      if (tries > 0 && !isolate_hugetlb(k, head)) break;
      rc = yield* unmap_and_move_huge_page(k, t, head, node);
      if (k.sched.needsResched(t)) yield* k.sched.condResched(t);
    }
    if (rc === 0) result.moved += n;
    else result.failed += n;
  }
}

/** do_migrate_pages: all memory of the process that is on another node. */
export function* do_migrate_pages(
  k: Kernel,
  t: Task,
  user: UserMm,
  node: number,
): Code<MoveResult> {
  const sum: MoveResult = {moved: 0, there: 0, absent: 0, shared: 0, failed: 0};
  const ranges: [number, number][] = [];
  for (let vma = user.space.tree.first; vma !== null; vma = vma.next) {
    ranges.push([vma.start, vma.pages]);
  }
  for (const [start, pages] of ranges) {
    const one = yield* do_pages_move(k, t, user, start, pages, node, false);
    for (const name of Object.keys(sum) as (keyof MoveResult)[]) sum[name] += one[name];
  }
  return sum;
}

/** add_folio_for_migration over a range. Plain: mmap_lock is held. Counts what is not collected. */
function collect(
  k: Kernel,
  t: Task,
  user: UserMm,
  start: number,
  end: number,
  node: number,
  all: boolean,
  result: MoveResult,
): number[] {
  const {mm} = k;
  const folios: number[] = [];
  const seen = new Set<number>();
  const cursor = new PgtableCursor();
  startRange(cursor, start, end);
  while (nextRange(user.pgd, cursor)) {
    const vma = user.space.tree.lookup(cursor.vpn);
    if (vma !== null && (vma.flags & (VM_IO | VM_PFNMAP)) !== 0) continue;
    for (let i = 0; i < cursor.count; i++) {
      const slot = cursor.slot + i;
      const word = mm.pt.flags[slot];
      if (!pte_present(word) || (word & PTE_SPECIAL) !== 0) continue;
      const span = (word & PTE_HUGE) === 0 ? 1 : cursor.next - cursor.vpn;
      const head = compound_head(mm.pages, mm.pt.entries[slot] & 0x7fff_ffff);
      t.cpu.charge(mm.migration.costs.lookupTicks, mm.migration.fns.do_pages_move);
      result.absent -= span;
      if (mm.pages.nodeOf(head) === node) result.there += span;
      else if (!all && folio_maybe_mapped_shared(k, head)) result.shared += span;
      else if (!seen.has(head)) {
        seen.add(head);
        if (isolate(k, t, head)) folios.push(head);
        else result.failed += span;
      }
    }
  }
  return folios;
}

function isolate(k: Kernel, t: Task, head: number): boolean {
  const word = k.mm.pages.flags[head];
  if ((word & PG_device) !== 0) return false;
  if ((word & PG_hugetlb) !== 0) return isolate_hugetlb(k, head);
  return folio_isolate_lru(k, t, head);
}
