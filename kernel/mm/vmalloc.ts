// mm/vmalloc.c: kernel virtual memory that every process sees, and what keeps all page tables in
// step with it.
//
// An area is a range of pages and a guard page behind it. vfree unmaps it at once but gives the
// addresses back only in the purge, when more than lazy_max_pages() = fls(CPUs) * 32 MB lie around:
// until then CPUs may have old translations, and the purge flushes the whole range on every CPU
// before anything can be used again.
//
// Axis vmalloc-sync: who calls vmalloc_sync_all(), which walks every PGD once per populated entry
// of the range.
//   none   nobody (register_die_notifier apart, which a run does not call)
//   purge  3f8fd02b1bf1 (5.3): at the start of __purge_vmap_area_lazy, once per purge
//   alloc  the same commit as it went into the stable trees of August 2019. There the added hunk
//          was applied to another function than upstream: into __vmalloc_node_range, after the
//          pages are mapped, in front of clear_vm_uninitialized_flag, with its comment about
//          freeing; __purge_vmap_area_lazy there does not sync. Read in the released 4.19.72 and in
//          the review mail of the 4.14 backport (PATCH 4.14 17/69, 14 Aug 2019, hunk header "void
//          *__vmalloc_node_range"; the 5.2 backport of the same day has it right). PTT's profile of
//          4.19.88 (__vmalloc_node_range -> sync_global_pgds) is this. So every vmalloc, and with
//          VMAP_STACK every fork that misses the stack cache, walks all PGDs. This is the default
//          of 4.19.
//
// A mapping that needs a new top-level entry populates the reference table under
// init_mm.page_table_lock; 5.8+ then calls arch_sync_kernel_mappings, before that vmalloc_fault
// repairs each PGD at the first access (`access`). Boot populates the first entry (drivers,
// modules) and the last one (percpu chunks are placed from the top): stated fact, and why every
// walk is done twice on 4-level kernels; see BootAreas. Not modelled: vmap blocks (vm_map_ram),
// per-node areas and pools (6.9+, warned), the purge as work (5.17+, done here by whoever crosses
// the limit), huge vmalloc.

import {assert} from '../../machine/assert.ts';
import type {Code} from '../../machine/process.ts';
import {KernelBug} from '../checks.ts';
import type {Kernel} from '../kernel.ts';
import type {SpinLock} from '../locking/spinlock.ts';
import {WaitQueue} from '../sched/wait_queue.ts';
import type {Task} from '../task.ts';
import {isBefore} from '../version.ts';
import {VmallocFault} from './vmalloc_fault.ts';
import {BusyList, FreeTree, type VmapSpace} from './vmalloc_space.ts';

const PAGES_PER_32_MB = 8192;
/** Pages of one percpu chunk per CPU (PCPU_MIN_UNIT_SIZE, 32 KiB). */
const PERCPU_UNIT_PAGES = 8;

/**
 * What is in the vmalloc range when the run begins. Assumptions about a machine that has booted.
 */
export interface BootAreas {
  /** Pages from the bottom: drivers' ioremap and vmalloc. */
  readonly bottomPages: number;
  /** Chunks of percpu memory beyond the first, placed from the top. */
  readonly percpuChunks: number;
}

export const DEFAULT_BOOT_AREAS: BootAreas = {bottomPages: 4096, percpuChunks: 1};

interface VmapArea {
  readonly start: number;
  /** Mapped pages, without the guard page. */
  readonly pages: number;
  readonly caller: string;
}

/** lazy_max_pages(): fls(num_online_cpus()) * 32 MB. */
export function lazyMaxPages(cpus: number): number {
  return (32 - Math.clz32(cpus)) * PAGES_PER_32_MB;
}

/** The vmalloc range of one kernel. */
export class Vmalloc {
  readonly vmap_area_lock: SpinLock;
  /** Since 5.5 the free tree has a lock of its own (RECALLED release). */
  readonly free_vmap_area_lock: SpinLock;
  readonly lazy_max_pages: number;
  /** vmap_lazy_nr, in pages, guard pages included. */
  nrLazyPages = 0;
  purges = 0;
  allocations = 0;
  frees = 0;
  readonly fault: VmallocFault;
  private readonly space: VmapSpace;
  private readonly areas = new Map<number, VmapArea>();
  private lazy: VmapArea[] = [];
  private purging = false;
  private readonly purgeWaiters: WaitQueue;
  private readonly fnAlloc: number;
  private readonly fnMap: number;
  private readonly fnFree: number;
  private readonly fnPurge: number;

  constructor(
    readonly kernel: Kernel,
    boot: BootAreas = DEFAULT_BOOT_AREAS,
  ) {
    const {locks, layout, facts, machine, pageTables} = kernel;
    const {VMALLOC_START, VMALLOC_END} = pageTables.layout;
    const oldSearch = isBefore(facts.version, '5.2');
    this.space = oldSearch
      ? new BusyList(VMALLOC_START, VMALLOC_END)
      : new FreeTree(VMALLOC_START, VMALLOC_END);
    this.vmap_area_lock = locks.spinlock('vmap_area_lock', {line: layout.line('vmap_area_lock')});
    this.free_vmap_area_lock = isBefore(facts.version, '5.5')
      ? this.vmap_area_lock
      : locks.spinlock('free_vmap_area_lock', {line: layout.line('free_vmap_area_lock')});
    this.lazy_max_pages = lazyMaxPages(machine.topology.cpuCount);
    this.purgeWaiters = new WaitQueue(kernel, 'vmap_purge_lock');
    this.fault = new VmallocFault(kernel);
    this.fnAlloc = kernel.fn('alloc_vmap_area');
    this.fnMap = kernel.fn('__vmalloc_node_range');
    this.fnFree = kernel.fn('vfree');
    this.fnPurge = kernel.fn('__purge_vmap_area_lazy');
    this.bootMap(boot);
    if (!isBefore(facts.version, '6.9')) {
      kernel.checks.warn('vmalloc: the per-node areas and locks of 6.9+ are not modelled');
    }
  }

  /** Areas in use, those that boot made included. */
  get areaCount(): number {
    return this.areas.size;
  }

  /**
   * __vmalloc_node_range: first page of an area of `pages` pages, mapped; 0 when the range is full.
   */
  *vmalloc(t: Task, pages: number, caller: string): Code<number> {
    const {costs, machine, pageTables, sched} = this.kernel;
    assert(pages > 0 && Number.isInteger(pages), `vmalloc of ${pages} pages`);
    sched.mightSleep(t, 'vmalloc');
    t.cpu.charge(costs.vmapAreaAllocTicks, this.fnMap);
    const start = yield* this.alloc_vmap_area(t, pages + 1);
    if (start === 0) return 0;
    this.areas.set(start, {start, pages, caller});
    this.allocations++;
    t.cpu.charge(pages * costs.allocPageTicks, this.fnMap);
    const node = machine.topology.nodeOf[t.cpu.id];
    const changed = yield* pageTables.mapRange(t, start, pages, 0, node, this.fnMap);
    yield* this.syncNewMapping(t, start, pages, changed);
    return start;
  }

  /** vfree: unmaps now; the addresses come back with a purge. */
  *vfree(t: Task, vpn: number): Code {
    const {costs, pageTables, sched} = this.kernel;
    sched.mightSleep(t, 'vfree');
    const area = yield* this.find_unlink_vmap_area(t, vpn);
    this.frees++;
    pageTables.unmapRange(t, area.start, area.pages, this.fnFree);
    if (t.cpu.settle()) yield;
    this.lazy.push(area);
    this.nrLazyPages += area.pages + 1;
    t.cpu.charge(area.pages * costs.freePageTicks, this.fnFree);
    if (this.nrLazyPages > this.lazy_max_pages && !this.purging) {
      yield* this.purge_vmap_area_lazy(t);
    }
  }

  /**
   * vm_unmap_aliases: no CPU has a translation of a freed area afterwards (set_memory_*, among
   * others).
   */
  *vm_unmap_aliases(t: Task): Code {
    this.kernel.sched.mightSleep(t, 'vm_unmap_aliases');
    if (t.cpu.settle()) yield;
    while (this.purging) yield* this.purgeWaiters.wait(t);
    yield* this.purge_vmap_area_lazy(t);
  }

  /**
   * A read of page `vpn` of the vmalloc range through the page tables that are loaded: may take
   * vmalloc_fault.
   */
  *access(t: Task, vpn: number): Code {
    yield* this.fault.access(t, vpn, this.isMapped(vpn));
  }

  /**
   * True when a live area maps page `vpn`; `vpn` is an area's first page or lies shortly behind it.
   */
  isMapped(vpn: number): boolean {
    if (this.areas.has(vpn)) return true;
    for (const {start, pages} of this.areas.values()) {
      if (vpn >= start && vpn < start + pages) return true;
    }
    return false;
  }

  /**
   * Marks addresses as used since before the run, and mapped, so that allocations go on behind
   * them.
   */
  reserve(startVpn: number, pages: number): void {
    this.space.take(startVpn, pages);
    this.areas.set(startVpn, {start: startVpn, pages, caller: 'boot'});
  }

  private bootMap({bottomPages, percpuChunks}: BootAreas): void {
    const {pageTables, machine} = this.kernel;
    const {VMALLOC_START, VMALLOC_END} = pageTables.layout;
    if (bottomPages > 0) {
      this.reserve(VMALLOC_START, bottomPages);
      pageTables.bootMap(VMALLOC_START, bottomPages, 0);
    }
    const percpuPages = percpuChunks * machine.topology.cpuCount * PERCPU_UNIT_PAGES;
    if (percpuPages > 0) {
      const start = VMALLOC_END + 1 - percpuPages;
      this.reserve(start, percpuPages);
      pageTables.bootMap(start, percpuPages, 0);
    }
    pageTables.tables.takeWork();
    pageTables.publishedGeneration = pageTables.generation;
  }

  private *alloc_vmap_area(t: Task, pages: number): Code<number> {
    const lock = this.free_vmap_area_lock;
    for (let purged = false; ; purged = true) {
      if (!lock.acquire(t, this.fnAlloc)) yield* lock.acquireSlow(t, this.fnAlloc);
      const found = this.space.alloc(pages);
      const steps = found?.steps ?? this.space.size;
      t.cpu.charge(steps * this.kernel.costs.vmapTreeStepTicks, this.fnAlloc);
      if (!lock.release(t)) yield* lock.releaseSlow(t);
      if (found !== null) {
        yield* this.setup_vmalloc_vm(t);
        return found.start;
      }
      if (purged) break;
      yield* this.vm_unmap_aliases(t);
    }
    this.kernel.checks.warn('vmap allocation failed: the vmalloc range is full');
    return 0;
  }

  /** insert_vmap_area and setup_vmalloc_vm: a second section of vmap_area_lock. */
  private *setup_vmalloc_vm(t: Task): Code {
    const lock = this.vmap_area_lock;
    if (!lock.acquire(t, this.fnAlloc)) yield* lock.acquireSlow(t, this.fnAlloc);
    t.cpu.charge(this.kernel.costs.vmapTreeStepTicks, this.fnAlloc);
    if (!lock.release(t)) yield* lock.releaseSlow(t);
  }

  private *syncNewMapping(t: Task, start: number, pages: number, changed: boolean): Code {
    const {pgd, design, pageTables} = this.kernel;
    const everyTime = design.pgd === 'sync-at-vmalloc';
    if (everyTime || (changed && pageTables.features.syncsKernelMappings)) {
      yield* pgd.arch_sync_kernel_mappings(t, start, start + pages - 1);
    }
    if (design['vmalloc-sync'] === 'alloc') yield* pgd.vmalloc_sync_all(t);
  }

  private *find_unlink_vmap_area(t: Task, vpn: number): Code<VmapArea> {
    const lock = this.vmap_area_lock;
    const steps = Math.ceil(Math.log2(this.areas.size + 2));
    if (!lock.acquire(t, this.fnFree)) yield* lock.acquireSlow(t, this.fnFree);
    const area = this.areas.get(vpn);
    this.areas.delete(vpn);
    t.cpu.charge(steps * this.kernel.costs.vmapTreeStepTicks, this.fnFree);
    if (!lock.release(t)) yield* lock.releaseSlow(t);
    if (area !== undefined) return area;
    const text = `Trying to vfree() nonexistent vm area (page ${vpn.toString(16)})`;
    this.kernel.checks.finding(text);
    throw new KernelBug(text);
  }

  /** __purge_vmap_area_lazy under vmap_purge_lock. */
  private *purge_vmap_area_lazy(t: Task): Code {
    const {costs, design, pgd, tlb} = this.kernel;
    const areas = this.lazy;
    if (areas.length === 0) return;
    this.purging = true;
    this.lazy = [];
    this.purges++;
    if (design['vmalloc-sync'] === 'purge') yield* pgd.vmalloc_sync_all(t);
    let start = Number.POSITIVE_INFINITY;
    let end = 0;
    let pages = 0;
    for (const area of areas) {
      start = Math.min(start, area.start);
      end = Math.max(end, area.start + area.pages);
      pages += area.pages + 1;
    }
    yield* tlb.flush_tlb_kernel_range(t, start, end);
    yield* this.free_vmap_areas(t, areas);
    t.cpu.charge(areas.length * costs.purgeAreaTicks, this.fnPurge);
    if (t.cpu.settle()) yield;
    this.nrLazyPages -= pages;
    this.purging = false;
    this.purgeWaiters.wakeAll();
  }

  private *free_vmap_areas(t: Task, areas: readonly VmapArea[]): Code {
    const lock = this.free_vmap_area_lock;
    if (!lock.acquire(t, this.fnPurge)) yield* lock.acquireSlow(t, this.fnPurge);
    let steps = 0;
    for (const area of areas) steps += this.space.free(area.start);
    t.cpu.charge(steps * this.kernel.costs.vmapTreeStepTicks, this.fnPurge);
    if (!lock.release(t)) yield* lock.releaseSlow(t);
  }
}
