// mm/swapfile.c: swapon and swapoff, and what swap installs in kernel.mm.hooks.
//
// swapoff takes the area away from allocators, brings everything in (swapfile_unuse.ts) and frees
// it. A signal makes it give up (EINTR), missing memory too (ENOMEM): then the area is in use
// again.

import {assert} from '../../machine/assert.ts';
import type {Code} from '../../machine/process.ts';
import {zeroed} from '../../machine/zeroed.ts';
import {EINVAL, EPERM} from '../errno.ts';
import type {Kernel} from '../kernel.ts';
import type {Task} from '../task.ts';
import {Kswapd} from './kswapd.ts';
import {do_swap_page} from './memory_swap.ts';
import type {Mm} from './mm_state.ts';
import {SwapDevice, type SwapDeviceOptions} from './page_io.ts';
import {install_shmem_swap} from './shmem.ts';
import {MAX_SWAPFILES, type SwapArea, swp_offset} from './swap_map.ts';
import {
  folio_free_swap,
  folio_swapped,
  free_swap_and_cache,
  free_swap_cache,
} from './swap_state.ts';
import {try_to_unuse} from './swapfile_unuse.ts';
import {memcg_reclaim, try_to_free_pages} from './vmscan.ts';
import {workingset_refault} from './vmscan_workingset.ts';

/** What swapon may say about the area. */
export interface SwapOptions extends SwapDeviceOptions {
  /** Areas of higher priority are used first; default: below all others. */
  readonly priority?: number;
}

/**
 * Installs reclaim: watermarks wake kswapd, allocations below min reclaim, refaults are noticed.
 * Idempotent; costs nothing until memory is short.
 */
export function install_reclaim(k: Kernel, mm: Mm): void {
  const {hooks} = mm;
  if (hooks.try_to_free_pages !== null) return;
  const kswapd = new Kswapd(k);
  hooks.wakeup_kswapd = (t, node) => kswapd.wake(t, node);
  hooks.try_to_free_pages = (t, node) => try_to_free_pages(k, t, node);
  hooks.workingset_refault = (_t, head, shadow) => workingset_refault(k, head, shadow);
}

/** Installs cgroup charging; from here on pages of mms in a cgroup are charged. */
export function install_memcg(mm: Mm): void {
  const {hooks} = mm;
  const k = mm.kernel;
  install_reclaim(k, mm);
  hooks.try_charge = (memcg, n) => mm.swap.memcgs.tryCharge(memcg, n);
  hooks.uncharge = (memcg, n) => mm.swap.memcgs.uncharge(memcg, n);
  hooks.memcg_reclaim = (t, memcg, n) => memcg_reclaim(k, t, memcg, n);
}

function install_swap(mm: Mm): void {
  const {hooks, swap} = mm;
  const k = mm.kernel;
  install_reclaim(k, mm);
  hooks.do_swap_page = (t, f) => do_swap_page(k, t, f);
  hooks.swap_duplicate = (entry, n) => {
    const area = swap.areas.of(entry);
    for (let i = 0; i < n; i++) area.duplicate(swp_offset(entry) + i);
  };
  hooks.free_swap_and_cache = (entry, n) => free_swap_and_cache(k, currentTask(k), entry, n);
  hooks.free_swap_cache = (_t, head) => free_swap_cache(k, head);
  hooks.folio_free_swap = (_t, head) => {
    folio_free_swap(k, head);
  };
  install_shmem_swap(k, mm);
  hooks.page_swapcount = (head) => (folio_swapped(k, head) ? 1 : 0);
}

/** The task that runs now, in a plain function that is not told. */
export function currentTask(k: Kernel): Task {
  const cpu = k.sched.currentCpu();
  const t = cpu === null ? null : k.sched.dispatcher.rqs[cpu.id].current;
  assert(t !== null, 'swap entry freed by nobody');
  return t;
}

/** sys_swapon: an area of `pages` slots, the header included. Returns its type, or -errno. */
export function* sys_swapon(
  k: Kernel,
  t: Task,
  pages: number,
  options: SwapOptions = {},
): Code<number> {
  const {mm} = k;
  const {swap} = mm;
  if (t.cpu.settle()) yield;
  t.cpu.charge(swap.costs.swaponTicks, swap.fns.sys_swapon);
  if (pages < 2) return -EINVAL;
  const inUse = swap.areas.byType.filter((area) => area !== null).length;
  if (inUse >= MAX_SWAPFILES) return -EPERM;
  if (t.cpu.settle()) yield;
  install_swap(mm);
  const lowest = swap.areas.byType.reduce((min, a) => Math.min(min, a?.priority ?? 0), 0);
  const area = swap.areas.add(pages, options.priority ?? lowest - 1);
  swap.devices[area.type] = new SwapDevice(k, options);
  swap.cgroups[area.type] = zeroed(Uint16Array, pages);
  return area.type;
}

/** sys_swapoff. Returns 0 or -errno; may take long, since all pages come in. */
export function* sys_swapoff(k: Kernel, t: Task, type: number): Code<number> {
  const {swap} = k.mm;
  if (t.cpu.settle()) yield;
  t.cpu.charge(swap.costs.swapoffTicks, swap.fns.sys_swapoff);
  const area: SwapArea | null = swap.areas.byType[type] ?? null;
  if (area === null || !area.writeOk) return -EINVAL;
  swap.areas.disable(area);
  const result = yield* try_to_unuse(k, t, area);
  if (result !== 0) {
    swap.areas.enable(area);
    return result;
  }
  if (t.cpu.settle()) yield;
  swap.areas.remove(area);
  swap.devices[type] = null;
  swap.cgroups[type] = null;
  return 0;
}
