// vm_area_struct: one mapping of an address space. Addresses are virtual page numbers, ends
// exclusive.

import type {AddressSpace} from './address_space.ts';
import type {AnonVma} from './anon_vma.ts';
import {VM_GROWSDOWN, VM_HIGH_UFFD_MINOR, VM_UFFD_MISSING, VM_UFFD_WP} from './vma_flags.ts';
import type {VmaSpace} from './vma_space.ts';

/** What fills a page of the mapping: which vm_ops it has. */
export type VmOps = 'anon' | 'file' | 'shmem' | 'hugetlb' | 'dax' | 'pfnmap' | 'special';

/** Everything that says what a mapping is, apart from where. */
export interface VmaProps {
  /** VM_ bits. */
  flags: number;
  /** VM_HIGH_ bits. */
  flagsHigh: number;
  /**
   * Number of the struct file, 0 for none. Only for telling files apart; pages belong to `mapping`.
   */
  file: number;
  /** The file's pages; null for private anonymous memory. */
  mapping: AddressSpace | null;
  ops: VmOps;
  /** Number of the userfaultfd context, 0 for none. */
  uffd: number;
  /** Number of the name that prctl(PR_SET_VMA_ANON_NAME) gave, 0 for none. */
  anonName: number;
  /** Number of the NUMA policy, 0 for the default. */
  policy: number;
  /**
   * vm_private_data: what the owner of the mapping keeps with it, its parts and copies (hugetlb's
   * reserve map).
   */
  privateData?: object | null;
}

/** Properties of plain private anonymous memory with these flags. */
export function anonProps(flags: number): VmaProps {
  return {
    flags,
    flagsHigh: 0,
    file: 0,
    mapping: null,
    ops: 'anon',
    uffd: 0,
    anonName: 0,
    policy: 0,
  };
}

/** Where a cache line is, and the tick from which on it can travel again. */
export interface VmaLockLine {
  cpu: number;
  tick: number;
}

/** A mapping. Change start, end and pgoff only through vma_ops.ts, which keeps the trees right. */
export class VmArea implements VmaProps {
  flags: number;
  flagsHigh: number;
  file: number;
  mapping: AddressSpace | null;
  ops: VmOps;
  uffd: number;
  anonName: number;
  policy: number;
  privateData: object | null;
  anonVma: AnonVma | null = null;
  /**
   * anon_vma_chain: first and last node of the anon_vma trees this VMA is in, oldest ancestor
   * first, and how many there are (AnonVmas.chainOf).
   */
  anonChain = 0;
  anonChainTail = 0;
  anonChainLength = 0;
  /** Node in the file's i_mmap tree, 0 when it is in none. */
  iMmapNode = 0;
  /** Neighbours by address; null at the ends and when detached. */
  next: VmArea | null = null;
  prev: VmArea | null = null;
  /** vm_lock_seq: equal to the mm's sequence while write-locked. */
  lockSeq = -1;
  /** Page faults that hold the VMA for read and may sleep meanwhile (vm_refcnt). */
  lockReaders = 0;
  /** The line of vm_refcnt; null before the first fault. */
  lockLine: VmaLockLine | null = null;
  /** In the tree of its space; false once unmapped. */
  attached = false;

  constructor(
    readonly space: VmaSpace,
    public start: number,
    public end: number,
    public pgoff: number,
    props: VmaProps,
  ) {
    this.flags = props.flags;
    this.flagsHigh = props.flagsHigh;
    this.file = props.file;
    this.mapping = props.mapping;
    this.ops = props.ops;
    this.uffd = props.uffd;
    this.anonName = props.anonName;
    this.policy = props.policy;
    this.privateData = props.privateData ?? null;
  }

  /** Size in pages. */
  get pages(): number {
    return this.end - this.start;
  }
}

/** linear_page_index: page offset of an address in the VMA's file or anon_vma. */
export function linear_page_index(vma: VmArea, vpn: number): number {
  return vma.pgoff + (vpn - vma.start);
}

/** vma_address: where the VMA maps page offset `pgoff`; -1 when it does not. */
export function vma_address(vma: VmArea, pgoff: number): number {
  const vpn = vma.start + (pgoff - vma.pgoff);
  return vpn >= vma.start && vpn < vma.end ? vpn : -1;
}

/**
 * vma_is_anonymous: no vm_ops; true for memory that mmap(MAP_PRIVATE | MAP_ANONYMOUS), brk or the
 * stack gives.
 */
export function vma_is_anonymous(vma: VmArea): boolean {
  return vma.ops === 'anon';
}

/** stack_guard_gap: pages kept free below a growing stack. */
export const STACK_GUARD_GAP = 256;

/** vm_start_gap: first page that others must keep away from. */
export function vm_start_gap(vma: VmArea): number {
  if ((vma.flags & VM_GROWSDOWN) === 0) return vma.start;
  return Math.max(vma.start - STACK_GUARD_GAP, 0);
}

/** userfaultfd_armed. */
export function userfaultfd_armed(vma: VmArea): boolean {
  if (vma.uffd === 0) return false;
  const minor = (vma.flagsHigh & VM_HIGH_UFFD_MINOR) !== 0;
  return minor || (vma.flags & (VM_UFFD_MISSING | VM_UFFD_WP)) !== 0;
}
