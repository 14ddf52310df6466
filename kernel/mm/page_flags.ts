// Page flags under Linux's names, as masks of the flags word of a struct page. Which page of a
// folio carries a flag is as in Linux 6.18: all in the head, but PG_anon_exclusive and PG_hwpoison,
// which every page has its own of. PG_tail, PG_buddy, PG_hugetlb and PG_table stand for Linux's
// compound_head bit and page types.

export const PG_locked = 1 << 0;
export const PG_writeback = 1 << 1;
export const PG_referenced = 1 << 2;
export const PG_uptodate = 1 << 3;
export const PG_dirty = 1 << 4;
export const PG_lru = 1 << 5;
export const PG_head = 1 << 6;
export const PG_waiters = 1 << 7;
export const PG_active = 1 << 8;
export const PG_workingset = 1 << 9;
export const PG_swapbacked = 1 << 10;
export const PG_reserved = 1 << 11;
export const PG_private = 1 << 12;
export const PG_reclaim = 1 << 13;
/**
 * The same bit, as in Linux: reading this page starts the next readahead. Fault-around passes over
 * such a page.
 */
export const PG_readahead = PG_reclaim;
export const PG_unevictable = 1 << 14;
export const PG_mlocked = 1 << 15;
export const PG_swapcache = 1 << 16;
export const PG_anon_exclusive = 1 << 17;
export const PG_hwpoison = 1 << 18;
export const PG_young = 1 << 19;
export const PG_idle = 1 << 20;
export const PG_tail = 1 << 21;
export const PG_buddy = 1 << 22;
export const PG_hugetlb = 1 << 23;
export const PG_table = 1 << 24;
/**
 * On a list of somebody who isolated it: migration, compaction (PG_movable_ops and PG_isolated
 * folded).
 */
export const PG_isolated = 1 << 25;
/** Memory of a device: never on the LRU, never in the buddy allocator. */
export const PG_device = 1 << 26;

/**
 * The order of a folio (in its head) or of a free block (in its first page) is kept in the top five
 * bits.
 */
export const ORDER_SHIFT = 27;
/** Mask of the flags without the order. */
export const FLAG_BITS = (1 << ORDER_SHIFT) - 1;

/** Flags that must be clear when a page is freed (PAGE_FLAGS_CHECK_AT_FREE); bad_page otherwise. */
export const PAGE_FLAGS_CHECK_AT_FREE =
  PG_lru |
  PG_locked |
  PG_writeback |
  PG_reserved |
  PG_swapcache |
  PG_active |
  PG_unevictable |
  PG_mlocked;
