// mm/compaction.c: making large blocks of free memory by moving pages together, 6.18.
//
// Two scanners walk a zone by pageblocks of 2 MB: one from the bottom, which isolates up to 32
// movable pages at a time (compaction_scan.ts), one from the top, which gathers free pages for
// them; migrate_pages moves them up. Done when a block of the wanted order is free, given up when
// the scanners meet. Both go on next time where they were; pageblocks that gave nothing are skipped
// until the scanners have met. A zone that failed is deferred for 2, 4, ... 64 attempts.
//
// It begins only where the buddy allocator cannot serve the order, where there is enough free
// memory in small pieces (low watermark and twice the block), and, for orders above 3, where the
// fragmentation index says that it is not memory that is missing (above 500). Not modelled: migrate
// types (all pageblocks are movable), the fast searches of 5.1+, proactive compaction, capture
// control.

import type {Code} from '../../machine/process.ts';
import {EINVAL, ENOMEM} from '../errno.ts';
import type {Kernel} from '../kernel.ts';
import type {Task} from '../task.ts';
import {isBefore} from '../version.ts';
import {isolate_freepages, isolate_migratepages, release_freepages} from './compaction_scan.ts';
import {lru_add_drain} from './folio_lru.ts';
import {type MigrateMode, migrate_pages} from './migrate.ts';
import {putback_movable_pages} from './migrate_folio.ts';
import type {Mm} from './mm_state.ts';
import {folio_order, MAX_ORDER, prep_compound_page} from './page.ts';
import type {VmArea} from './vma.ts';
import {VM_HUGEPAGE} from './vma_flags.ts';
import type {Zone} from './zones.ts';

export const PAGEBLOCK_PAGES = 512;
const PAGE_ALLOC_COSTLY_ORDER = 3;
const EXTFRAG_THRESHOLD = 500;
const MAX_DEFER_SHIFT = 6;

/** transparent_hugepage/defrag. */
const DEFRAG = ['always', 'defer', 'defer+madvise', 'madvise', 'never'] as const;
export type Defrag = (typeof DEFRAG)[number];

/** enum compact_result, as far as callers look at it. */
export type CompactResult = 'skipped' | 'deferred' | 'success' | 'complete' | 'contended';

/** What a zone remembers between two compactions. */
export class ZoneCompaction {
  /** Where the scanners go on; 0 and the end of the zone after they have met. */
  migratePfn = 0;
  freePfn = 0;
  readonly skip = new Set<number>();
  deferShift = 0;
  considered = 0;
  orderFailed = MAX_ORDER + 1;
}

/** One compaction on its way (struct compact_control). */
export class CompactControl {
  migratePfn: number;
  freePfn: number;
  /** Free pages that were taken, by order. */
  readonly free: number[][] = Array.from({length: MAX_ORDER + 1}, () => []);

  constructor(
    readonly zone: Zone,
    readonly state: ZoneCompaction,
    readonly order: number,
    readonly mode: MigrateMode,
    readonly first: number,
    readonly end: number,
  ) {
    this.migratePfn = state.migratePfn === 0 ? first : state.migratePfn;
    this.freePfn = state.freePfn === 0 ? end : state.freePfn;
  }

  /** compact_scanners_met. */
  get met(): boolean {
    return (
      Math.floor(this.freePfn / PAGEBLOCK_PAGES) <= Math.floor(this.migratePfn / PAGEBLOCK_PAGES)
    );
  }
}

/** Compaction of one kernel. */
export class Compaction {
  defrag: Defrag;
  private readonly zones: ZoneCompaction[] = [];

  constructor(
    readonly k: Kernel,
    readonly mm: Mm,
  ) {
    this.defrag = isBefore(k.facts.version, '4.6') ? 'always' : 'madvise';
  }

  of(zone: Zone): ZoneCompaction {
    this.zones[zone.node] ??= new ZoneCompaction();
    return this.zones[zone.node];
  }

  /** vma_thp_gfp_mask: may a fault in this VMA wait for compaction? */
  stalls(vma: VmArea): boolean {
    if (this.defrag === 'always') return true;
    if (this.defrag === 'never' || this.defrag === 'defer') return false;
    return (vma.flags & VM_HUGEPAGE) !== 0;
  }

  /** transparent_hugepage/defrag: 0 or -EINVAL. */
  storeDefrag(value: string): number {
    const known = DEFRAG.find((one) => one === value);
    if (known === undefined) return -EINVAL;
    this.defrag = known;
    return 0;
  }
}

/** The buddy lists (or a CPU's list of huge pages) can serve the order. */
export function hasFreeBlock(zone: Zone, order: number): boolean {
  for (let at = order; at <= MAX_ORDER; at++) if (zone.buddy.freeBlocks(at) > 0) return true;
  return false;
}

/**
 * fragmentation_index: -1000 when the order can be served; near 0 memory is short, near 1000 it is
 * in pieces.
 */
export function fragmentation_index(zone: Zone, order: number): number {
  if (hasFreeBlock(zone, order)) return -1000;
  let blocks = 0;
  for (let at = 0; at <= MAX_ORDER; at++) blocks += zone.buddy.freeBlocks(at);
  if (blocks === 0) return 0;
  const wanted = Math.floor((zone.free * 1000) / 2 ** order);
  return 1000 - Math.floor((1000 + wanted) / blocks);
}

/** compaction_suit_allocation_order: null when compaction should go on. */
function unsuitable(zone: Zone, order: number): CompactResult | null {
  const costly = order > PAGE_ALLOC_COSTLY_ORDER;
  const mark = costly ? zone.watermarks.low : zone.watermarks.min;
  if (hasFreeBlock(zone, order) && zone.free - 2 ** order >= mark) return 'success';
  if (zone.free < mark + 2 ** (order + 1)) return 'skipped';
  if (!costly) return null;
  const index = fragmentation_index(zone, order);
  return index >= 0 && index <= EXTFRAG_THRESHOLD ? 'skipped' : null;
}

/** compaction_deferred: too soon after a failure. */
function deferred(state: ZoneCompaction, order: number): boolean {
  if (order < state.orderFailed) return false;
  const limit = 2 ** state.deferShift;
  if (++state.considered < limit) return true;
  state.considered = limit;
  return false;
}

/** defer_compaction. */
export function defer_compaction(state: ZoneCompaction, order: number): void {
  state.considered = 0;
  state.deferShift = Math.min(state.deferShift + 1, MAX_DEFER_SHIFT);
  state.orderFailed = Math.min(state.orderFailed, order);
}

/** compaction_defer_reset after a success. */
export function compaction_defer_reset(state: ZoneCompaction, order: number): void {
  state.considered = 0;
  state.deferShift = 0;
  if (order >= state.orderFailed) state.orderFailed = order + 1;
}

/** compact_zone, with its checks before. */
export function* compact_zone(
  c: Compaction,
  t: Task,
  zone: Zone,
  order: number,
  mode: MigrateMode,
): Code<CompactResult> {
  const no = unsuitable(zone, order);
  if (no !== null) return no;
  const {k, mm} = c;
  const {first, end} = mm.pages.nodes[zone.node];
  const cc = new CompactControl(zone, c.of(zone), order, mode, first, end);
  const {costs, fns} = mm.migration;
  lru_add_drain(k, t);
  let result: CompactResult = 'complete';
  for (;;) {
    if (t.cpu.settle()) yield;
    if (cc.met) break;
    if (hasFreeBlock(zone, order)) {
      result = 'success';
      break;
    }
    if (t.sigkill) {
      result = 'contended';
      break;
    }
    t.cpu.charge(costs.pageblockTicks, fns.compact_zone);
    const folios = isolate_migratepages(k, t, cc);
    if (folios.length > 0) {
      const target = (src: number): number => compaction_alloc(k, t, cc, src);
      const {remaining, error} = yield* migrate_pages(k, t, folios, target, mode);
      putback_movable_pages(k, t, remaining);
      if (error === -ENOMEM && !cc.met) {
        result = 'contended';
        break;
      }
    }
    drain(k, t, zone);
    if (k.sched.needsResched(t)) yield* k.sched.condResched(t);
  }
  release_freepages(k, t, cc);
  if (hasFreeBlock(zone, order)) result = 'success';
  remember(cc, result);
  return result;
}

/** lru_add_drain_cpu_zone: what was freed goes to the buddy lists, where it can merge. */
function drain(k: Kernel, t: Task, zone: Zone): void {
  lru_add_drain(k, t);
  const {mm} = k;
  mm.zoneLocks.lock(t.cpu, zone.node, zone.node, mm.fns.free_pcppages_bulk);
  const freed = zone.pcp.drain(t.cpu.id, zone.pcp.count[t.cpu.id]);
  t.cpu.charge(freed * mm.costs.pcpBulkPageTicks, mm.fns.free_pcppages_bulk);
  mm.zoneLocks.unlock(t.cpu, zone.node);
}

/** update_cached_migrate and its kind; scanners that met begin at the ends again. */
function remember(cc: CompactControl, result: CompactResult): void {
  const {state} = cc;
  if (result === 'complete') {
    state.migratePfn = 0;
    state.freePfn = 0;
    state.skip.clear();
    return;
  }
  state.migratePfn = cc.migratePfn;
  state.freePfn = cc.freePfn;
}

/**
 * compaction_alloc: a page from the free scanner's lists, larger ones split; 0 when there is none.
 */
function compaction_alloc(k: Kernel, t: Task, cc: CompactControl, src: number): number {
  const {pages} = k.mm;
  const order = folio_order(pages, src);
  let at = order;
  for (let tries = 0; tries < 2; tries++) {
    at = order;
    while (at <= MAX_ORDER && cc.free[at].length === 0) at++;
    if (at <= MAX_ORDER || tries > 0) break;
    isolate_freepages(k, t, cc);
  }
  if (at > MAX_ORDER) return 0;
  const pfn = cc.free[at].pop()!;
  while (at > order) {
    at--;
    cc.free[at].push(pfn + 2 ** at);
  }
  pages.flags[pfn] = 0;
  if (order > 0) {
    pages.flags.fill(0, pfn, pfn + 2 ** order);
    prep_compound_page(pages, pfn, order);
  }
  pages.refcount.set(pfn, 1);
  if (pages.hasContent) pages.content.fill(0, pfn, pfn + 2 ** order);
  if (pages.hasCpupids) pages.cpupid[pfn] = 0;
  return pfn;
}

/**
 * __alloc_pages_direct_compact: compacts the zones that may serve the allocation, one after the
 * other. True: there is a block of the order now.
 */
export function* try_to_compact_pages(
  c: Compaction,
  t: Task,
  order: number,
  nodes: readonly number[],
  mode: MigrateMode,
): Code<boolean> {
  const {migration} = c.mm;
  let tried = false;
  for (const node of nodes) {
    const zone = c.mm.zones[node];
    const state = c.of(zone);
    if (deferred(state, order)) continue;
    const result = yield* compact_zone(c, t, zone, order, mode);
    if (result === 'skipped' || result === 'deferred') continue;
    tried = true;
    if (result === 'success') {
      compaction_defer_reset(state, order);
      migration.count('compact_stall');
      migration.count('compact_success');
      return true;
    }
    if (mode !== 'async' && result === 'complete') defer_compaction(state, order);
    if (result === 'contended') break;
  }
  if (tried) {
    migration.count('compact_stall');
    migration.count('compact_fail');
  }
  return false;
}
