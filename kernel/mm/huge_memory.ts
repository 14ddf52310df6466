// mm/huge_memory.c, 6.18: transparent huge pages. This file owns what is global: the policy
// (/sys/kernel/mm/transparent_hugepage/enabled and defrag, 'madvise' by default), the huge zero
// folio, the page frames of deposited page tables, the queue of partly mapped folios.
//
// A huge anonymous mapping is one PMD entry, one entire mapping of a folio of order 9, and one page
// table set aside (deposited), so that its split cannot fail. PG_anon_exclusive of such a mapping
// is in the folio's head. Faults are in huge_memory_fault.ts, splits in huge_memory_split.ts, fork
// and unmapping in huge_memory_copy.ts; khugepaged in khugepaged.ts. Not modelled: THP in page
// caches, and the order in which defrag modes wake kcompactd; a huge page is taken if the buddy
// lists have one.

import {depositTable, withdrawTable} from '../arch/x86/mm/pgtable_huge.ts';
import type {Kernel} from '../kernel.ts';
import type {Task} from '../task.ts';
import {isBefore} from '../version.ts';
import {copy_huge_pmd, zap_huge_pmd} from './huge_memory_copy.ts';
import {create_huge_pmd, wp_huge_pmd} from './huge_memory_fault.ts';
import {move_huge_pmd} from './huge_memory_move.ts';
import {change_huge_pmd} from './huge_memory_protect.ts';
import {copy_huge_pud, isPudSlot, zap_huge_pud} from './huge_memory_pud.ts';
import {can_reuse_large_anon_folio} from './huge_memory_reuse.ts';
import {__split_huge_pmd, split_folio} from './huge_memory_split.ts';
import {Khugepaged, khugepaged_enter_vma, khugepaged_exit, khugepaged_fork} from './khugepaged.ts';
import {madvise_collapse} from './khugepaged_collapse.ts';
import {pageWorkTicks} from './memory_pte.ts';
import type {Mm} from './mm_state.ts';
import {alloc_folio, folio_put, free_pages} from './page_alloc.ts';
import {PG_table} from './page_flags.ts';
import {MMF_DISABLE_THP, MMF_HUGE_ZERO_FOLIO, type UserMm} from './user_mm.ts';
import {type VmArea, vma_is_anonymous} from './vma.ts';
import {VM_HUGEPAGE, VM_NOHUGEPAGE} from './vma_flags.ts';

export const HPAGE_PMD_ORDER = 9;
export const HPAGE_PMD_NR = 512;
export const HPAGE_PUD_NR = 2 ** 18;

/** transparent_hugepage/enabled. */
export type ThpPolicy = 'always' | 'madvise' | 'never';

/** What sysfs sets. */
export interface ThpSettings {
  readonly enabled: ThpPolicy;
  /** use_zero_page: reads map one folio of zeros. */
  readonly useZeroPage: boolean;
  /** Order of mTHP that anonymous faults try when no PMD fits, 0 for none (the default). */
  readonly anonOrder: number;
}

/** Distribution kernels: madvise, zero page on, no mTHP. */
export const THP_DEFAULTS: ThpSettings = {enabled: 'madvise', useZeroPage: true, anonOrder: 0};

/** Numbers of /proc/vmstat, thp_*. */
export interface ThpCounts {
  faultAlloc: number;
  faultFallback: number;
  splitPmd: number;
  splitPage: number;
  zeroPageAlloc: number;
  collapseAlloc: number;
  collapsed: number;
}

/** State of THP. */
export class HugeMemory {
  readonly counts: ThpCounts = {
    faultAlloc: 0,
    faultFallback: 0,
    splitPmd: 0,
    splitPage: 0,
    zeroPageAlloc: 0,
    collapseAlloc: 0,
    collapsed: 0,
  };
  /** Folios of which pages are no longer mapped (deferred_split_queue), oldest first. */
  readonly deferredSplit = new Set<number>();
  readonly khugepaged: Khugepaged;
  readonly fnFault: number;
  readonly fnSplit: number;
  readonly fnZap: number;
  readonly fnCopy: number;
  /** Head of the huge zero folio, 0 while there is none; mms that use it. */
  hugeZeroPfn = 0;
  hugeZeroUsers = 0;
  private readonly frames: number[] = [];

  settings: ThpSettings = THP_DEFAULTS;

  constructor(readonly k: Kernel) {
    this.khugepaged = new Khugepaged(this);
    // The huge page of zeros came with 3.8.
    if (isBefore(k.facts.version, '3.8')) this.settings = {...THP_DEFAULTS, useZeroPage: false};
    this.fnFault = k.fn('do_huge_pmd_anonymous_page');
    this.fnSplit = k.fn('__split_huge_pmd');
    this.fnZap = k.fn('zap_huge_pmd');
    this.fnCopy = k.fn('copy_huge_pmd');
  }

  /** pgtable_trans_huge_deposit of a new page table for the huge entry at `slot`. */
  deposit(t: Task, user: UserMm, slot: number): void {
    const {mm, machine} = this.k;
    const pfn = alloc_folio(this.k, t, 0, machine.topology.nodeOf[t.cpu.id], 0, true);
    t.cpu.charge(mm.costs.pteAllocTicks, mm.fns.__pte_alloc);
    if (pfn > 0) mm.pages.flags[pfn] = PG_table;
    this.frames.push(Math.max(pfn, 0));
    depositTable(user.pgd, slot);
  }

  /** As deposit, of a table (its frame) that was in use until now. */
  depositFrame(user: UserMm, slot: number, frame: number): void {
    this.frames.push(frame);
    depositTable(user.pgd, slot);
  }

  /** pgtable_trans_huge_withdraw: frame of the table, 0 for one that has none. */
  withdraw(user: UserMm, slot: number): number {
    withdrawTable(user.pgd, slot);
    return this.frames.pop() ?? 0;
  }

  /** zap_deposited_table. */
  zapDeposited(t: Task, user: UserMm, slot: number): void {
    const pfn = this.withdraw(user, slot);
    if (pfn === 0) return;
    const {mm} = this.k;
    mm.pages.refcount.set(pfn, 0);
    free_pages(this.k, t, mm.zones[mm.pages.nodeOf(pfn)], pfn, 0);
  }

  /** Page tables set aside, of all mms. */
  get depositedFrames(): number {
    return this.frames.length;
  }

  /** mm_get_huge_zero_folio: its head, 0 when there is no memory for it. */
  hugeZero(t: Task, user: UserMm): number {
    if (this.hugeZeroPfn === 0) {
      const {mm, machine} = this.k;
      const node = machine.topology.nodeOf[t.cpu.id];
      const head = alloc_folio(this.k, t, HPAGE_PMD_ORDER, node, 0, true);
      if (head <= 0) return 0;
      const ticks = pageWorkTicks(this.k, t, mm.costs.clearPageTicks, node, HPAGE_PMD_NR);
      t.cpu.charge(ticks, mm.fns.clear_page_erms);
      this.hugeZeroPfn = head;
      this.counts.zeroPageAlloc++;
    }
    if ((user.flags & MMF_HUGE_ZERO_FOLIO) === 0) {
      user.flags |= MMF_HUGE_ZERO_FOLIO;
      this.hugeZeroUsers++;
    }
    return this.hugeZeroPfn;
  }

  /** mm_put_huge_zero_folio: the mm is gone. */
  putHugeZero(user: UserMm): void {
    if ((user.flags & MMF_HUGE_ZERO_FOLIO) === 0) return;
    user.flags &= ~MMF_HUGE_ZERO_FOLIO;
    this.hugeZeroUsers--;
  }

  /** The shrinker of the huge zero folio: frees it when no mm uses it. */
  shrinkHugeZero(t: Task): boolean {
    if (this.hugeZeroPfn === 0 || this.hugeZeroUsers > 0) return false;
    const head = this.hugeZeroPfn;
    this.hugeZeroPfn = 0;
    folio_put(this.k, t, head);
    return true;
  }

  /** The policy for a VMA with these flags, whatever its size. */
  allowed(vma: VmArea, flags = vma.flags): boolean {
    const {enabled} = this.settings;
    if (enabled === 'never' || (flags & VM_NOHUGEPAGE) !== 0) return false;
    if (enabled === 'madvise' && (flags & VM_HUGEPAGE) === 0) return false;
    const user = this.k.mm.byId(vma.space.mmId);
    return user !== null && (user.flags & MMF_DISABLE_THP) === 0;
  }
}

/** thp_vma_suitable_order: the aligned 2^order pages around `vpn` lie in the VMA. */
export function suitable(vma: VmArea, vpn: number, pages: number): boolean {
  const first = vpn - (vpn % pages);
  return first >= vma.start && first + pages <= vma.end;
}

/** Makes THP part of a kernel: installs its hooks. khugepaged is started apart. */
export function install_huge_memory(k: Kernel, mm: Mm): HugeMemory {
  const huge = new HugeMemory(k);
  const {hooks} = mm;
  hooks.wantsHugePmd = (vma, vpn) => {
    if (vma_is_anonymous(vma)) return suitable(vma, vpn, HPAGE_PMD_NR) && huge.allowed(vma);
    return vma.ops === 'dax' && suitable(vma, vpn, HPAGE_PMD_NR);
  };
  hooks.anonOrder = (vma) => {
    const {anonOrder} = huge.settings;
    return anonOrder > 0 && huge.allowed(vma) ? anonOrder : 0;
  };
  hooks.create_huge_pmd = (t, f) => create_huge_pmd(huge, t, f);
  hooks.wp_huge_pmd = (t, f) => wp_huge_pmd(huge, t, f);
  hooks.copy_huge_pmd = (t, dst, _src, dstVma, srcVma, slot, vpn) =>
    isPudSlot(k, slot)
      ? copy_huge_pud(k, t, dst, srcVma, slot, vpn)
      : copy_huge_pmd(huge, t, dst, dstVma, srcVma, slot, vpn);
  hooks.zap_huge = (t, tlb, vma, slot, vpn) =>
    isPudSlot(k, slot)
      ? zap_huge_pud(k, t, tlb, vma, slot, vpn)
      : zap_huge_pmd(huge, t, tlb, vma, slot, vpn);
  hooks.split_huge = (t, vma, slot, vpn) => __split_huge_pmd(huge, t, vma, slot, vpn);
  hooks.change_huge_pmd = (t, tlb, vma, slot, vpn, protNone, tryWritable) =>
    change_huge_pmd(huge, t, tlb, vma, slot, vpn, protNone, tryWritable);
  hooks.move_huge_pmd = (t, oldVma, _newVma, oldVpn, newVpn) =>
    move_huge_pmd(huge, t, oldVma, oldVpn, newVpn);
  hooks.wp_can_reuse_large = (_t, f, head) => can_reuse_large_anon_folio(k, f, head);
  hooks.deferred_split_folio = (_t, head, partiallyMapped) => {
    if (partiallyMapped) huge.deferredSplit.add(head);
  };
  hooks.split_folio = (t, head, keep) => split_folio(huge, t, head, keep);
  hooks.undo_large_folio = (_t, head) => {
    huge.deferredSplit.delete(head);
  };
  hooks.khugepaged_enter_vma = (t, vma, flags) => khugepaged_enter_vma(huge, t, vma, flags);
  hooks.khugepaged_fork = (t, child, parent) => khugepaged_fork(huge, t, child, parent);
  hooks.khugepaged_exit = (t, mm) => khugepaged_exit(huge, t, mm);
  hooks.madvise_collapse = (t, vma, start, end) => madvise_collapse(huge, t, vma, start, end);
  return huge;
}
