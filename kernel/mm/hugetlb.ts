// Hugetlb's global state (kernel.mm.hugetlb): the pools, the locks, who shares page tables, and
// which pages still carry a reservation. hugetlb_pool.ts counts, hugetlb_resv.ts maps reservations,
// hugetlb_fault.ts maps pages, hugetlb_unmap.ts and hugetlb_vma.ts are munmap, fork, mprotect and
// mremap, hugetlb_file.ts is mmap and the files. Pages of a pool are in no rss counter, on no LRU
// list and never swapped.
//
// Not modelled: hugetlbfs mounts with a size (subpools), the hugetlb cgroup, HVO (the freeing of
// struct pages), memory policies of the pool itself, userfaultfd on hugetlb.

import type {Kernel} from '../kernel.ts';
import {copy_hugetlb_page_range} from './hugetlb_copy.ts';
import {hugetlb_fault} from './hugetlb_fault.ts';
import {hugetlb_vm_op_close} from './hugetlb_inode.ts';
import {HugetlbLocks} from './hugetlb_locks.ts';
import {free_huge_folio, HState} from './hugetlb_pool.ts';
import {SharedTables} from './hugetlb_share.ts';
import {unmap_hugetlb_vma, zap_hugetlb_range_single} from './hugetlb_unmap.ts';
import {hugetlb_change_protection, move_hugetlb_page_tables} from './hugetlb_vma.ts';
import {LeafLocks} from './leaf_lock.ts';
import type {Mm} from './mm_state.ts';
import type {VmArea} from './vma.ts';

const ORDER_2M = 9;
const ORDER_1G = 18;

/** hstates[] and what goes with them. */
export class Hugetlb {
  readonly hstates: readonly HState[];
  readonly locks: HugetlbLocks;
  /** hugetlb_lock. */
  readonly lock: LeafLocks;
  readonly shared = new SharedTables();
  /** HPageRestoreReserve: pages whose reservation comes back when they are freed. */
  readonly restoreReserve = new Set<number>();
  /** HPageTemporary: pages that a migration has made; they go with their last reference. */
  readonly temporary = new Set<number>();
  /** HPAGE_RESV_UNMAPPED: mappings from which the owner has taken a page. */
  readonly lostPages = new WeakSet<VmArea>();

  constructor(k: Kernel) {
    const nodes = k.machine.topology.nodeCount;
    this.hstates = [new HState(ORDER_2M, nodes), new HState(ORDER_1G, nodes)];
    this.locks = new HugetlbLocks(k);
    this.lock = new LeafLocks(k, 'hugetlb_lock', 1);
  }

  /** The pool of folios of this order, null when there is none. */
  byOrder(order: number): HState | null {
    return this.hstates.find((h) => h.order === order) ?? null;
  }

  /** Is there any page in a pool? */
  get inUse(): boolean {
    return this.hstates.some((h) => h.nrHugePages > 0);
  }

  /** The pool of 2 MB, which mappings get that do not say a size. */
  get default(): HState {
    return this.hstates[0];
  }
}

/** Makes hugetlb part of a kernel: installs its hooks. */
export function install_hugetlb(k: Kernel, mm: Mm): Hugetlb {
  const {hooks} = mm;
  hooks.free_huge_folio = (t, head) => free_huge_folio(k, t, head);
  hooks.hugetlb_fault = (t, f) => hugetlb_fault(k, t, f);
  hooks.copy_hugetlb_page_range = (t, dst, src, dstVma, srcVma) =>
    copy_hugetlb_page_range(k, t, dst, src, dstVma, srcVma);
  hooks.unmap_hugepage_range = (t, tlb, vma, start, end, details) =>
    unmap_hugetlb_vma(k, t, tlb, vma, start, end, details);
  hooks.zap_hugetlb_range = (t, tlb, vma, start, end) =>
    zap_hugetlb_range_single(k, t, tlb, vma, start, end);
  hooks.hugetlb_change_protection = (t, vma, start, end, cpFlags) =>
    hugetlb_change_protection(k, t, vma, start, end, cpFlags);
  hooks.move_hugetlb_page_tables = (t, from, to, start, newStart, n) =>
    move_hugetlb_page_tables(k, t, from, to, start, newStart, n);
  hooks.hugetlb_vm_op_close = (t, vma) => hugetlb_vm_op_close(k, t, vma);
  return new Hugetlb(k);
}
