// Flags of a VMA under Linux's names and values. vm_flags is a 32-bit integer here (VM_MERGEABLE is
// its sign bit); flags that Linux has above bit 31 are in a second word, vm_flags_high, under
// VM_HIGH_ names. 6.18; older kernels use a subset.

export const VM_READ = 0x1;
export const VM_WRITE = 0x2;
export const VM_EXEC = 0x4;
export const VM_SHARED = 0x8;
export const VM_MAYREAD = 0x10;
export const VM_MAYWRITE = 0x20;
export const VM_MAYEXEC = 0x40;
export const VM_MAYSHARE = 0x80;
export const VM_GROWSDOWN = 0x100;
export const VM_UFFD_MISSING = 0x200;
export const VM_PFNMAP = 0x400;
export const VM_UFFD_WP = 0x1000;
export const VM_LOCKED = 0x2000;
export const VM_IO = 0x4000;
export const VM_SEQ_READ = 0x8000;
export const VM_RAND_READ = 0x10000;
export const VM_DONTCOPY = 0x20000;
export const VM_DONTEXPAND = 0x40000;
export const VM_LOCKONFAULT = 0x80000;
export const VM_ACCOUNT = 0x100000;
export const VM_NORESERVE = 0x200000;
export const VM_HUGETLB = 0x400000;
export const VM_SYNC = 0x800000;
export const VM_WIPEONFORK = 0x2000000;
export const VM_DONTDUMP = 0x4000000;
export const VM_SOFTDIRTY = 0x8000000;
export const VM_MIXEDMAP = 0x10000000;
export const VM_HUGEPAGE = 0x20000000;
export const VM_NOHUGEPAGE = 0x40000000;
export const VM_MERGEABLE = 0x80000000 | 0;

/** VM_ACCESS_FLAGS. */
export const VM_ACCESS = VM_READ | VM_WRITE | VM_EXEC;
/** VM_SPECIAL: mappings that KSM, THP and mlock leave alone. */
export const VM_SPECIAL = VM_IO | VM_DONTEXPAND | VM_PFNMAP | VM_MIXEDMAP;
/** Flags that two VMAs may differ in and still merge. */
export const VM_IGNORE_MERGE = VM_SOFTDIRTY;
/** What mmap gives a private anonymous writable mapping, accounting included. */
export const VM_DATA_DEFAULT = VM_READ | VM_WRITE | VM_MAYREAD | VM_MAYWRITE | VM_MAYEXEC;

/** Protection key, bits 32 to 35 in Linux. */
export const VM_HIGH_PKEY = 0xf;
export const VM_HIGH_SHADOW_STACK = 0x20;
export const VM_HIGH_UFFD_MINOR = 0x40;
export const VM_HIGH_DROPPABLE = 0x100;
export const VM_HIGH_MAYBE_GUARD = 0x200;
export const VM_HIGH_SEALED = 0x8000;

/** is_cow_mapping: private and may be written. */
export function is_cow_mapping(flags: number): boolean {
  return (flags & (VM_SHARED | VM_MAYWRITE)) === VM_MAYWRITE;
}
