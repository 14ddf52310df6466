// mm/hugetlb.c: page tables that mappings of the same 1 GB of a file share (huge_pmd_share, x86
// since 2.6.20). The PUD entries of several mms name one PMD table; its entries and its lock are
// common, its pages are counted as mapped once. A range that may be shared is told to notifiers up
// to its 1 GB bounds, since an unsharing takes all of it away. i_mmap_rwsem keeps sharers apart:
// read to join, write to leave.

import type {Code} from '../../machine/process.ts';
import {type PageTables, pteClear, slotAt, vpnOfSlot} from '../arch/x86/mm/pgtable.ts';
import {PTE_TABLE} from '../arch/x86/mm/pgtable_bits.ts';
import {HPAGE_PUD_NR} from '../arch/x86/mm/pud.ts';
import type {Kernel} from '../kernel.ts';
import type {Task} from '../task.ts';
import {hugetlbWork} from './costs_hugetlb.ts';
import type {HState} from './hugetlb_pool.ts';
import {tables_alloc} from './memory_pte.ts';
import {
  mmu_notifier_invalidate_range_end,
  mmu_notifier_invalidate_range_start,
} from './mmu_notifier.ts';
import {MMU_NOTIFY_CLEAR, MmuNotifierRange} from './mmu_notifier_types.ts';
import type {UserMm} from './user_mm.ts';
import {linear_page_index, type VmArea} from './vma.ts';
import {VM_LOCKED, VM_LOCKONFAULT, VM_MAYSHARE} from './vma_flags.ts';

const alignDown = (vpn: number): number => vpn - (vpn % HPAGE_PUD_NR);
const alignUp = (vpn: number): number => Math.ceil(vpn / HPAGE_PUD_NR) * HPAGE_PUD_NR;

/** Which PUD entries name a table that is shared: two or more slots. */
export class SharedTables {
  /** How often a table was joined. */
  joined = 0;
  private readonly slots = new Map<number, number[]>();

  /** Another PUD entry names `table`. */
  join(pt: PageTables, table: number, slot: number): void {
    this.joined++;
    const sharers = this.slots.get(table);
    if (sharers === undefined) this.slots.set(table, [pt.parent[table], slot]);
    else sharers.push(slot);
  }

  isShared(table: number): boolean {
    return this.slots.has(table);
  }

  /** The PUD entry at `slot` no longer names `table`, which somebody else still has. */
  leave(pt: PageTables, table: number, slot: number): void {
    const sharers = this.slots.get(table)!;
    sharers.splice(sharers.indexOf(slot), 1);
    const [first] = sharers;
    pt.parent[table] = first;
    pt.base[table] = vpnOfSlot(pt, first);
    pt.owner[table] = pt.owner[first >>> 9];
    if (sharers.length === 1) this.slots.delete(table);
  }
}

/** hugetlb_walk: slot of the entry for `vpn`, -1 when there is no table. */
export function hugetlb_walk(user: UserMm, h: HState, vpn: number): number {
  return slotAt(user.pgd, vpn, h.level);
}

/** hugetlb_mask_last_page: first page of the next table when there is none here. */
export function afterTable(h: HState, vpn: number): number {
  const span = h.level === 1 ? HPAGE_PUD_NR : HPAGE_PUD_NR * 512;
  return vpn - (vpn % span) + span;
}

/** adjust_range_if_pmd_sharing_possible: [start, end] widened to 1 GB bounds inside the VMA. */
export function adjust_range_if_pmd_sharing_possible(
  vma: VmArea,
  start: number,
  end: number,
): [number, number] {
  const first = alignUp(vma.start);
  const last = alignDown(vma.end);
  if ((vma.flags & VM_MAYSHARE) === 0 || last <= first || end <= first || start >= last) {
    return [start, end];
  }
  return [start > first ? alignDown(start) : start, end < last ? alignUp(end) : end];
}

/** want_pmd_share: the 1 GB around `vpn` lies in the VMA, which is shared. */
function want_pmd_share(k: Kernel, vma: VmArea, vpn: number): boolean {
  const first = alignDown(vpn);
  if ((vma.flags & VM_MAYSHARE) === 0 || vma.uffd !== 0) return false;
  const fits = vma.start <= first && vma.end >= first + HPAGE_PUD_NR;
  return fits && k.mm.hugetlb.locks.mayShare(vma);
}

/** huge_pte_alloc: slot of the entry for `vpn`, its table shared where that can be. */
export function* huge_pte_alloc(
  k: Kernel,
  t: Task,
  user: UserMm,
  h: HState,
  vma: VmArea,
  vpn: number,
): Code<number> {
  if (h.level === 1 && want_pmd_share(k, vma, vpn)) {
    const pud = tables_alloc(k, t, user, vpn, 2);
    if (pud < 0) return -1;
    if (k.mm.pt.flags[pud] === 0) yield* huge_pmd_share(k, t, user, h, vma, vpn);
  }
  return tables_alloc(k, t, user, vpn, h.level);
}

/** huge_pmd_share: joins the table that another mapping has for the same part of the file. */
function* huge_pmd_share(
  k: Kernel,
  t: Task,
  user: UserMm,
  h: HState,
  vma: VmArea,
  vpn: number,
): Code {
  const {mm} = k;
  const {pt} = mm;
  const {fns, costs} = hugetlbWork(k);
  const lock = mm.iMmapLock(vma.mapping!);
  if (!lock.readAcquire(t, fns.huge_pmd_share)) yield* lock.readAcquireSlow(t, fns.huge_pmd_share);
  t.cpu.charge(costs.shareTicks, fns.huge_pmd_share);
  const pud = slotAt(user.pgd, vpn, 2);
  const table = pt.flags[pud] === 0 ? shareable_table(k, h, vma, vpn) : 0;
  if (table !== 0) {
    pt.entries[pud] = table;
    pt.flags[pud] = PTE_TABLE;
    pt.population[pud >>> 9]++;
    user.pgd.tables[1]++;
    mm.hugetlb.shared.join(pt, table, pud);
  }
  if (!lock.readRelease(t)) yield* lock.readReleaseSlow(t);
}

/** page_table_shareable for every mapping of that part of the file: a table to join, 0 for none. */
function shareable_table(k: Kernel, h: HState, vma: VmArea, vpn: number): number {
  const {mm} = k;
  const index = linear_page_index(vma, vpn);
  const {forest} = mm.files;
  const wanted = vma.flags & ~(VM_LOCKED | VM_LOCKONFAULT);
  for (let node = forest.iterFirst(vma.mapping!, index, index); node !== 0; ) {
    const other = forest.item[node]!;
    node = forest.iterNext(node, index, index);
    if (other === vma) continue;
    const at = other.start + (index - other.pgoff);
    const first = alignDown(at);
    const same =
      at % HPAGE_PUD_NR === vpn % HPAGE_PUD_NR &&
      (other.flags & ~(VM_LOCKED | VM_LOCKONFAULT)) === wanted &&
      first >= other.start &&
      first + HPAGE_PUD_NR <= other.end;
    const user = mm.byId(other.space.mmId);
    if (!same || user === null || !mm.hugetlb.locks.mayShare(other)) continue;
    const slot = hugetlb_walk(user, h, at);
    if (slot >= 0) return slot >>> 9;
  }
  return 0;
}

/**
 * huge_pmd_unshare, with the locks for writing held: the mm leaves a table that others have, and
 * all of its 1 GB is unmapped here. False: the table is its own. The caller flushes.
 */
export function huge_pmd_unshare(
  k: Kernel,
  t: Task,
  user: UserMm,
  h: HState,
  slot: number,
  vpn: number,
): boolean {
  const {mm} = k;
  const table = slot >>> 9;
  if (h.level !== 1 || !mm.hugetlb.shared.isShared(table)) return false;
  const pud = slotAt(user.pgd, vpn, 2);
  const {fns, costs} = hugetlbWork(k);
  t.cpu.charge(costs.shareTicks, fns.huge_pmd_unshare);
  pteClear(mm.pt, pud);
  user.pgd.tables[1]--;
  mm.hugetlb.shared.leave(mm.pt, table, pud);
  return true;
}

/**
 * hugetlb_unshare_pmds (5.13+) of whole GBs [start, end): S and E around all of it, the flush
 * inside.
 */
export function* hugetlb_unshare_pmds(
  k: Kernel,
  t: Task,
  vma: VmArea,
  start: number,
  end: number,
): Code {
  if ((vma.flags & VM_MAYSHARE) === 0) return;
  const from = alignUp(start);
  const to = alignDown(end);
  if (from >= to) return;
  const {mm} = k;
  const {h} = vma.mapping!.hugetlb!;
  const user = mm.byId(vma.space.mmId)!;
  const {fns} = hugetlbWork(k);
  const site = 'hugetlb_unshare_pmds';
  const range = new MmuNotifierRange(MMU_NOTIFY_CLEAR, user.mm, vma, from, to, site);
  yield* mmu_notifier_invalidate_range_start(k, t, range);
  const locks = yield* mm.hugetlb.locks.lock_write(t, vma, fns.huge_pmd_unshare);
  for (let vpn = from; vpn < to; vpn += HPAGE_PUD_NR) {
    const slot = hugetlb_walk(user, h, vpn);
    if (slot >= 0) huge_pmd_unshare(k, t, user, h, slot, vpn);
  }
  yield* k.tlb.flush_tlb_mm_range(t, user.mm, from, to, true);
  yield* mm.hugetlb.locks.unlock_write(t, vma, locks, false);
  yield* mmu_notifier_invalidate_range_end(k, t, range);
}

/** hugetlb_split: a VMA that is split inside a GB cannot share that GB's table any longer. */
export function* hugetlb_split(k: Kernel, t: Task, vma: VmArea, at: number): Code {
  if (at % HPAGE_PUD_NR === 0) return;
  const floor = alignDown(at);
  const ceiling = floor + HPAGE_PUD_NR;
  if (floor < vma.start || ceiling > vma.end) return;
  yield* hugetlb_unshare_pmds(k, t, vma, floor, ceiling);
}
