// mm/page_alloc.c: pages for the rest of mm, out of per-CPU lists and the buddy allocator.
//
// alloc_folio is the fast path (get_page_from_freelist over the zonelist above the low watermark)
// as plain code; zone->lock is taken once a batch. Below the low watermark kswapd is woken; below
// min everything goes through alloc_folio_slow, which reclaims. folio_put is the other end: with
// the last reference a folio leaves the LRU, is uncharged and freed. Not modelled: migrate types,
// ALLOC_HIGHATOMIC reserves, zone_reclaim_mode (0 by default).

import {assert} from '../../machine/assert.ts';
import type {Code} from '../../machine/process.ts';
import type {Kernel} from '../kernel.ts';
import type {Task} from '../task.ts';
import {isBefore} from '../version.ts';
import {LRU_ACTIVE_ANON, LRU_ACTIVE_FILE, LRU_INACTIVE_ANON, LRU_INACTIVE_FILE} from './lru.ts';
import {clearMapping, dissolve_compound, folio_order, prep_compound_page} from './page.ts';
import {PG_head, PG_hugetlb, PG_lru, PG_swapbacked} from './page_flags.ts';
import type {Zone} from './zones.ts';

/**
 * alloc_folio without waiting: head pfn of 2^order pages with refcount 1, charged to `memcg`,
 * content undefined; -1 when it takes reclaim (go on with alloc_folio_slow), or, if `atomic`, 0
 * when the wanted zones are below min.
 */
export function alloc_folio(
  k: Kernel,
  t: Task,
  order: number,
  node: number,
  memcg: number,
  atomic = false,
): number {
  const {mm} = k;
  const {hooks} = mm;
  if (memcg !== 0 && hooks.try_charge !== null) {
    t.cpu.charge(mm.costs.memcgChargeTicks << order, mm.fns.mem_cgroup_charge);
    if (!hooks.try_charge(memcg, 1 << order)) return atomic ? 0 : -1;
  }
  const pfn = get_page_from_freelist(k, t, order, node, atomic);
  if (pfn > 0) return prep_new_page(k, pfn, order, memcg);
  if (memcg !== 0) hooks.uncharge?.(memcg, 1 << order);
  return atomic || hooks.try_to_free_pages === null ? 0 : -1;
}

/**
 * First zone of the zonelist that stays above its watermark; low first, then min, as the slow
 * path's first try has it.
 */
function get_page_from_freelist(
  k: Kernel,
  t: Task,
  order: number,
  node: number,
  atomic: boolean,
): number {
  const {zones, hooks} = k.mm;
  const preferred = zones[node];
  const wanted = 1 << order;
  for (const at of preferred.fallback) {
    const zone = zones[at];
    const left = zone.buddy.freePages - wanted;
    if (left < zone.watermarks.high) zone.pcp.belowHigh = true;
    if (left < zone.watermarks.low) continue;
    const pfn = rmqueue(k, t, zone, order);
    if (pfn === 0) continue;
    if (at === node) zone.numaHit++;
    else preferred.numaForeign++;
    return pfn;
  }
  if (hooks.wakeup_kswapd !== null) {
    for (const at of preferred.fallback) hooks.wakeup_kswapd(t, at, order);
  }
  for (const at of preferred.fallback) {
    const zone = zones[at];
    const min = atomic ? zone.watermarks.min / 2 : zone.watermarks.min;
    if (zone.buddy.freePages - wanted < min) continue;
    const pfn = rmqueue(k, t, zone, order);
    if (pfn !== 0) return pfn;
  }
  return 0;
}

/**
 * rmqueue: from the CPU's list, refilled when empty; large orders straight from the buddy lists.
 */
export function rmqueue(k: Kernel, t: Task, zone: Zone, order: number): number {
  const {cpu} = t;
  const {mm} = k;
  const {costs, fns} = mm;
  const {pcp} = zone;
  if (!pcp.allowsOrder(order)) {
    mm.zoneLocks.lock(cpu, zone.node, zone.node, fns.__alloc_frozen_pages_noprof);
    cpu.charge(costs.buddyTicks, fns.__alloc_frozen_pages_noprof);
    const pfn = zone.buddy.alloc(order);
    mm.zoneLocks.unlock(cpu, zone.node);
    return pfn;
  }
  cpu.charge(costs.allocPcpTicks, fns.__alloc_frozen_pages_noprof);
  const pfn = pcp.take(cpu.id, order);
  if (pfn !== 0) return pfn;
  mm.zoneLocks.lock(cpu, zone.node, zone.node, fns.rmqueue_bulk);
  const blocks = pcp.refill(cpu.id, order);
  cpu.charge(blocks * costs.pcpBulkPageTicks, fns.rmqueue_bulk);
  mm.zoneLocks.unlock(cpu, zone.node);
  return blocks === 0 ? 0 : pcp.take(cpu.id, order);
}

function prep_new_page(k: Kernel, pfn: number, order: number, memcg: number): number {
  const {pages} = k.mm;
  pages.flags[pfn] = 0;
  if (order > 0) prep_compound_page(pages, pfn, order);
  pages.refcount.set(pfn, 1);
  // Whoever asked for it fills it: with zeros, unless he says otherwise.
  if (pages.hasContent) pages.content.fill(0, pfn, pfn + (1 << order));
  if (pages.hasCpupids) pages.cpupid[pfn] = 0;
  if (memcg !== 0) pages.memcg[pfn] = memcg;
  return pfn;
}

/**
 * __alloc_pages_slowpath and charging with reclaim: reclaims until there is a page, and when that
 * leads nowhere has the OOM killer make room. 0: a killed task, nobody to kill, or a large order
 * that is not worth it.
 */
export function* alloc_folio_slow(
  k: Kernel,
  t: Task,
  order: number,
  node: number,
  memcg: number,
): Code<number> {
  const {hooks} = k.mm;
  const costly = order > COSTLY_ORDER;
  let fruitless = 0;
  for (let attempt = 0; !costly || attempt < MAX_RECLAIM_RETRIES; attempt++) {
    if (t.sigkill) return alloc_from_reserves(k, t, order, node, memcg);
    const pfn = alloc_folio(k, t, order, node, memcg);
    if (pfn >= 0) return pfn;
    if (t.cpu.settle()) yield;
    const overLimit =
      memcg !== 0 && hooks.try_charge !== null && !hooks.try_charge(memcg, 1 << order);
    if (overLimit) {
      if (hooks.memcg_reclaim === null) return 0;
      if (!(yield* hooks.memcg_reclaim(t, memcg, 1 << order)) && !t.sigkill) return 0;
      continue;
    }
    if (memcg !== 0) hooks.uncharge?.(memcg, 1 << order);
    if (hooks.try_to_free_pages === null) return 0;
    const freed = yield* hooks.try_to_free_pages(t, node, order, memcg);
    fruitless = freed ? 0 : fruitless + 1;
    if (k.sched.needsResched(t)) yield* k.sched.condResched(t);
    if (freed || should_reclaim_retry(k, order, fruitless)) continue;
    if (costly || hooks.out_of_memory === null) return 0;
    if (!(yield* hooks.out_of_memory(t, node, order))) return 0;
    fruitless = 0;
  }
  return 0;
}
/** MAX_RECLAIM_RETRIES, PAGE_ALLOC_COSTLY_ORDER. */
const MAX_RECLAIM_RETRIES = 16;
const COSTLY_ORDER = 3;

/** should_reclaim_retry: would a zone be above min if everything reclaimable in it were freed? */
function should_reclaim_retry(k: Kernel, order: number, fruitless: number): boolean {
  if (fruitless > MAX_RECLAIM_RETRIES) return false;
  const {zones, swap} = k.mm;
  const needed = 2 ** order;
  return zones.some((zone) => {
    let pages = zone.free - needed;
    for (const {id} of swap.memcgs.byId) pages += reclaimablePages(k, zone.node, id);
    return pages >= zone.watermarks.min;
  });
}

/** zone_reclaimable_pages of one cgroup: anonymous pages only with room to swap to. */
function reclaimablePages(k: Kernel, node: number, memcg: number): number {
  const {size} = k.mm.lruvecs.of(node, memcg);
  const file = size[LRU_INACTIVE_FILE] + size[LRU_ACTIVE_FILE];
  if (k.mm.swap.areas.free <= 0) return file;
  return file + size[LRU_INACTIVE_ANON] + size[LRU_ACTIVE_ANON];
}

/**
 * A killed task's allocation: it need not wait, and an OOM victim may go below min, by half
 * (ALLOC_OOM, 4.14+) or all of it (TIF_MEMDIE). Its charge is forced up to 5.14. 0: none left.
 */
function alloc_from_reserves(
  k: Kernel,
  t: Task,
  order: number,
  node: number,
  memcg: number,
): number {
  const {mm, facts} = k;
  const {hooks} = mm;
  const pages = 1 << order;
  if (memcg !== 0 && hooks.try_charge !== null && !hooks.try_charge(memcg, pages)) {
    if (!isBefore(facts.version, '5.15')) return 0;
    // Negative uncharging: over the limit, as PF_EXITING tasks could.
    hooks.uncharge?.(memcg, -pages);
  }
  const victim = t.signal!.oomMm !== null;
  const share = !victim ? 1 : isBefore(facts.version, '4.14') ? 0 : 0.5;
  for (const at of mm.zones[node].fallback) {
    const zone = mm.zones[at];
    if (zone.buddy.freePages - pages < zone.watermarks.min * share) continue;
    const pfn = rmqueue(k, t, zone, order);
    if (pfn !== 0) return prep_new_page(k, pfn, order, memcg);
  }
  if (memcg !== 0) hooks.uncharge?.(memcg, pages);
  return 0;
}

/** folio_put: drops one reference; with the last one the folio is freed. Plain. */
export function folio_put(k: Kernel, t: Task, head: number): void {
  const {refcount} = k.mm.pages;
  refcount.decrement(head);
  if (refcount.isZero(head)) __folio_put(k, t, head);
}

/** __folio_put: the folio has no references. */
export function __folio_put(k: Kernel, t: Task, head: number): void {
  const {mm} = k;
  const {pages} = mm;
  if ((pages.flags[head] & PG_hugetlb) !== 0) {
    assert(mm.hooks.free_huge_folio !== null, 'hugetlb folio without hugetlb');
    mm.hooks.free_huge_folio(t, head);
    return;
  }
  if ((pages.flags[head] & PG_lru) !== 0) {
    const lruvec = mm.lruvecs.ofFolio(head);
    const lock = mm.lruLock(lruvec);
    mm.lruLocks.lock(t.cpu, lock, lruvec.node, mm.fns.folio_batch_move_lru);
    lruvec.delFolio(head);
    t.cpu.charge(mm.costs.lruMoveTicks, mm.fns.folio_batch_move_lru);
    mm.lruLocks.unlock(t.cpu, lock);
  }
  free_frozen_pages(k, t, head);
}

/**
 * free_unref_folios for one folio that is on no LRU list: uncharge, prepare, give to the CPU's
 * list.
 */
export function free_frozen_pages(k: Kernel, t: Task, head: number): void {
  const {mm} = k;
  const {pages} = mm;
  const order = folio_order(pages, head);
  if (pages.hasMemcgs && pages.memcg[head] !== 0) {
    mm.hooks.uncharge?.(pages.memcg[head], 1 << order);
    pages.memcg[head] = 0;
  }
  if (order > 0) {
    mm.hooks.undo_large_folio?.(t, head);
    dissolve_compound(pages, head);
  }
  clearMapping(pages, head);
  pages.flags[head] &= ~(PG_head | PG_swapbacked);
  const zone = mm.zones[pages.nodeOf(head)];
  free_pages(k, t, zone, head, order);
}

/** Pages without any state: to the per-CPU list or, for large orders, the buddy lists. */
export function free_pages(k: Kernel, t: Task, zone: Zone, pfn: number, order: number): void {
  const {mm} = k;
  const {costs, fns} = mm;
  const {cpu} = t;
  const {pcp} = zone;
  mm.pages.flags[pfn] = 0;
  if (!pcp.allowsOrder(order)) {
    mm.zoneLocks.lock(cpu, zone.node, zone.node, fns.free_pcppages_bulk);
    cpu.charge(costs.buddyTicks, fns.free_pcppages_bulk);
    zone.buddy.free(pfn, order);
    mm.zoneLocks.unlock(cpu, zone.node);
    return;
  }
  cpu.charge(costs.freePageTicks, fns.free_unref_folios);
  const drain = pcp.put(cpu.id, order, pfn);
  if (drain === 0) return;
  mm.zoneLocks.lock(cpu, zone.node, zone.node, fns.free_pcppages_bulk);
  const freed = pcp.drain(cpu.id, drain);
  if (pcp.belowHigh && zone.buddy.freePages >= zone.watermarks.high) pcp.belowHigh = false;
  cpu.charge(freed * costs.pcpBulkPageTicks, fns.free_pcppages_bulk);
  mm.zoneLocks.unlock(cpu, zone.node);
}

/**
 * drain_all_pages: gives every CPU's list back (reclaim and compaction ask for it; the IPIs' time
 * is not charged).
 */
export function drain_all_pages(k: Kernel): void {
  const {cpuCount} = k.machine.topology;
  for (const zone of k.mm.zones) {
    for (let cpu = 0; cpu < cpuCount; cpu++) zone.pcp.drain(cpu, zone.pcp.count[cpu]);
  }
}
