// What one page-table entry says. An entry is two words: a 16-bit flags word (what kind of entry,
// and the bits the hardware or the kernel keep in it) and a 31-bit value (pfn, swap entry, marker
// bits, or the number of the table below).
//
// The bits are those that Linux 6.18 distinguishes on x86-64; hardware bits that never change in
// user mappings (user, PAT) are left out, and so is no-execute: the VMA says it. A shadow-stack
// page is write=0, dirty=1, as on hardware.

/** Mask of the kind of an entry within its flags word. A flags word of 0 is pte_none. */
export const PTE_KIND = 0xf;
/** Maps a page. */
export const PTE_PRESENT = 1;
/**
 * Maps a page that the CPU may not touch: PROT_NONE or NUMA hinting (_PAGE_PROTNONE). The kernel
 * calls it present.
 */
export const PTE_PROTNONE = 2;
/** Names the table below. */
export const PTE_TABLE = 3;
/** The value is a swap entry. */
export const PTE_SWAP = 4;
/** Migration entries: the value is the pfn that is on the move. */
export const PTE_MIGRATION_READ = 5;
export const PTE_MIGRATION_READ_EXCLUSIVE = 6;
export const PTE_MIGRATION_WRITE = 7;
/** The page behind it is poisoned memory. */
export const PTE_HWPOISON = 8;
/** The value is a set of MARKER_ bits. */
export const PTE_MARKER = 9;
/** Memory of a device: the value is the pfn of its device-private page. */
export const PTE_DEVICE_READ = 10;
export const PTE_DEVICE_WRITE = 11;
/** Exclusive to a device (make_device_exclusive): the value is the pfn. */
export const PTE_DEVICE_EXCLUSIVE = 12;

export const PTE_WRITE = 1 << 4;
export const PTE_DIRTY = 1 << 5;
/** Accessed. In a migration entry: the page was young. */
export const PTE_YOUNG = 1 << 6;
export const PTE_SOFT_DIRTY = 1 << 7;
export const PTE_UFFD_WP = 1 << 8;
/** Swap entries: the page was exclusive to this mm when it was swapped out (pte_swp_exclusive). */
export const PTE_SWP_EXCLUSIVE = 1 << 9;
/** No struct page is looked at: zero page or a pfn mapping. */
export const PTE_SPECIAL = 1 << 10;
/** A leaf above the PTE level: 2 MB at PMD level, 1 GB at PUD level. */
export const PTE_HUGE = 1 << 11;
/** Dirty although not writable and not shadow stack (_PAGE_SAVED_DIRTY). */
export const PTE_SAVED_DIRTY = 1 << 12;

/** Bits of a PTE_MARKER entry's value. */
export const MARKER_UFFD_WP = 1;
export const MARKER_POISONED = 2;
export const MARKER_GUARD = 4;

/** pte_present: mapped, as far as the kernel is concerned. `flags` is a flags word. */
export function pte_present(flags: number): boolean {
  const kind = flags & PTE_KIND;
  return kind === PTE_PRESENT || kind === PTE_PROTNONE;
}

/** pte_protnone. */
export function pte_protnone(flags: number): boolean {
  return (flags & PTE_KIND) === PTE_PROTNONE;
}

export function is_migration_entry(flags: number): boolean {
  const kind = flags & PTE_KIND;
  return kind >= PTE_MIGRATION_READ && kind <= PTE_MIGRATION_WRITE;
}

/**
 * True for a kind whose value is a pfn with a struct page: present, migration, poisoned or device
 * entries.
 */
export function hasPfn(flags: number): boolean {
  const kind = flags & PTE_KIND;
  return kind !== 0 && kind !== PTE_TABLE && kind !== PTE_SWAP && kind !== PTE_MARKER;
}

/** Shadow-stack encoding. */
export function pte_shstk(flags: number): boolean {
  return (flags & (PTE_WRITE | PTE_DIRTY)) === PTE_DIRTY;
}
