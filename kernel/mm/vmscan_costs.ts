// Base costs of reclaim and swap in ticks, and the profile numbers of their functions. Nobody has
// published a split of a swap-in or of shrink_folio_list; the parts are assumptions, made so that
// the sums fit the sample recording of two processes in a 48 MB cgroup (6.18, EPYC guest): scanning
// a folio that is kept about 0.5 us, unmapping one and starting its write 2 to 3 us with its
// tracepoints, a swap-in 8 us of CPU around its sleep.

import {nsToTicks as ns} from '../../machine/time.ts';
import type {Kernel} from '../kernel.ts';

/** Base costs in ticks. */
export const COSTS_SWAP = {
  /** folio_alloc_swap: slot from the CPU's cluster, swap cache entry. Assumption. */
  swapSlotTicks: ns(180),
  /** swap_entry_free under the cluster's lock. Assumption. */
  swapFreeTicks: ns(60),
  /** A page entering the swap cache on the way in. Assumption. */
  swapCacheTicks: ns(250),
  /** Submitting a request, virtqueue kick included; a bio that a plug holds back. Assumptions. */
  swapIoTicks: ns(1_600),
  swapBioTicks: ns(250),
  /** do_swap_page without what is charged elsewhere. Assumption. */
  swapFaultTicks: ns(350),
  /** rmap walk: one VMA found, its page table walked. Assumption. */
  rmapVmaTicks: ns(90),
  /** try_to_unmap_one: one PTE. Assumption. */
  unmapPteTicks: ns(110),
  /** isolate_lru_folios and move_folios_to_lru: one folio. Assumption. */
  isolateTicks: ns(25),
  /** shrink_folio_list: one folio, without rmap, swap and I/O. Assumption. */
  scanFolioTicks: ns(120),
  /** __remove_mapping. Assumption. */
  removeMappingTicks: ns(150),
  /** One call of shrink_lruvec. Assumption. */
  shrinkLruvecTicks: ns(600),
  /** swapoff: one PTE looked at; one slot looked at. Assumption. */
  unusePteTicks: ns(2),
  unuseSlotTicks: ns(4),
  /** swapon and swapoff without the walks: reading the header, allocating the map. Assumption. */
  swaponTicks: ns(250_000),
  swapoffTicks: ns(60_000),
} as const;

export type SwapCosts = Readonly<Record<keyof typeof COSTS_SWAP, number>>;

const NAMES = [
  'folio_alloc_swap',
  'free_swap_and_cache',
  'read_swap_cache_async',
  'swap_read_folio',
  'swap_writepage',
  'do_swap_page',
  'folio_referenced',
  'try_to_unmap',
  'try_to_unmap_flush',
  'shrink_lruvec',
  'shrink_folio_list',
  'shrink_active_list',
  'isolate_lru_folios',
  'move_folios_to_lru',
  '__remove_mapping',
  'try_to_unuse',
  'unuse_mm',
  'sys_swapon',
  'sys_swapoff',
  'balance_pgdat',
] as const;

/** Profile ids by function name. */
export type SwapFns = Readonly<Record<(typeof NAMES)[number], number>>;

/** Interns every name. */
export function swapFns(kernel: Kernel): SwapFns {
  return Object.fromEntries(NAMES.map((name) => [name, kernel.fn(name)])) as SwapFns;
}
