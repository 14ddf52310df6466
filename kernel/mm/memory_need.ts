// What a fault that cannot be finished in one go must wait for. The plain half of the fault code
// returns these instead of VM_FAULT_ bits; handle_mm_fault waits and tries again, as the kernel
// re-checks pte_same after everything that may sleep.

/** Reclaim: allocate into f.prealloc. */
export const NEED_MEMORY = -1;
/** f.hook (or, with f.uffdReason, handle_userfault) finishes the fault. */
export const NEED_HOOK = -2;
/** The page cache has not got the page: read it. */
export const NEED_READ = -3;
/** COW with notifiers or remote TLBs: wp_page_copy as a generator. */
export const NEED_COW = -4;
/** The page-table lock is held across waiting. */
export const NEED_PTL = -5;
/** create_huge_pmd: 0 or VM_FAULT_FALLBACK, after which PTEs are tried. */
export const NEED_HUGE = -6;
/** A swapped-out shmem page. */
export const NEED_SHMEM = -7;
