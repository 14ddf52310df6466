// What mmap(2)'s arguments say of the new VMA: PROT_ and MAP_ bits to VM_ flags (do_mmap, 6.18).

import type {Kernel} from '../kernel.ts';
import {isBefore} from '../version.ts';
import type {AddressSpace} from './address_space.ts';
import type {VmaProps, VmOps} from './vma.ts';
import {
  VM_ACCOUNT,
  VM_DONTEXPAND,
  VM_EXEC,
  VM_GROWSDOWN,
  VM_HUGETLB,
  VM_IO,
  VM_LOCKED,
  VM_MAYEXEC,
  VM_MAYREAD,
  VM_MAYSHARE,
  VM_MAYWRITE,
  VM_NOHUGEPAGE,
  VM_NORESERVE,
  VM_PFNMAP,
  VM_READ,
  VM_SHARED,
  VM_SOFTDIRTY,
  VM_WRITE,
} from './vma_flags.ts';

export const PROT_READ = 1;
export const PROT_WRITE = 2;
export const PROT_EXEC = 4;
export const MAP_SHARED = 0x1;
export const MAP_PRIVATE = 0x2;
export const MAP_FIXED = 0x10;
export const MAP_ANONYMOUS = 0x20;
export const MAP_GROWSDOWN = 0x100;
export const MAP_LOCKED = 0x2000;
export const MAP_NORESERVE = 0x4000;
export const MAP_POPULATE = 0x8000;
export const MAP_NONBLOCK = 0x10000;
export const MAP_STACK = 0x20000;
export const MAP_HUGETLB = 0x40000;

const MAP_TYPE = 0xf;
const MAY_ALL = VM_MAYREAD | VM_MAYWRITE | VM_MAYEXEC;

/** calc_vm_prot_bits and calc_vm_flag_bits, with accounting (accountable_mapping). */
export function vmFlags(k: Kernel, prot: number, flags: number): number {
  // New mappings are soft-dirty as a whole, until clear_refs says otherwise (3.12+; before, for
  // good).
  let vm = MAY_ALL | VM_SOFTDIRTY;
  if ((prot & PROT_READ) !== 0) vm |= VM_READ;
  if ((prot & PROT_WRITE) !== 0) vm |= VM_WRITE;
  if ((prot & PROT_EXEC) !== 0) vm |= VM_EXEC;
  if ((flags & MAP_TYPE) !== MAP_PRIVATE) vm |= VM_SHARED | VM_MAYSHARE;
  if ((flags & MAP_GROWSDOWN) !== 0) vm |= VM_GROWSDOWN;
  if ((flags & MAP_LOCKED) !== 0) vm |= VM_LOCKED;
  if ((flags & MAP_NORESERVE) !== 0) vm |= VM_NORESERVE;
  if ((flags & MAP_HUGETLB) !== 0) vm |= VM_HUGETLB;
  if ((flags & MAP_STACK) !== 0 && !isBefore(k.facts.version, '6.7')) vm |= VM_NOHUGEPAGE;
  const accountable = (vm & (VM_NORESERVE | VM_SHARED | VM_WRITE)) === VM_WRITE;
  return accountable ? vm | VM_ACCOUNT : vm;
}

/** Properties of a mapping with these flags; `mapping` null for private anonymous memory. */
export function propsFor(flags: number, mapping: AddressSpace | null): VmaProps {
  return {
    flags,
    flagsHigh: 0,
    file: mapping === null ? 0 : mapping.id,
    mapping,
    ops: opsOf(mapping),
    uffd: 0,
    anonName: 0,
    policy: 0,
  };
}

function opsOf(mapping: AddressSpace | null): VmOps {
  if (mapping === null) return 'anon';
  if (mapping.host === 'device') return 'pfnmap';
  return mapping.host;
}

/** _install_special_mapping of the vdso's code: pages of the kernel, shared by all processes. */
export function vdsoProps(): VmaProps {
  const flags = VM_READ | VM_EXEC | MAY_ALL | VM_DONTEXPAND;
  return {...propsFor(flags, null), ops: 'special'};
}

/** vvar: mapped by page frame number, without struct pages. */
export function vvarProps(): VmaProps {
  const flags = VM_READ | VM_MAYREAD | VM_IO | VM_DONTEXPAND | VM_PFNMAP;
  return {...propsFor(flags, null), ops: 'pfnmap'};
}
