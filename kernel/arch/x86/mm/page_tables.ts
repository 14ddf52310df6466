// swapper_pg_dir: the reference page table of the kernel half, and init_mm.page_table_lock around
// changes of it.
//
// One cell per synchronised entry (layout.ts). Other CPUs read and write the cells at the same time
// as walkers and creators of PGDs do, so after boot they are only touched through the machine's
// store buffers. What is below an entry is plain data (tables.ts), guarded in the kernel by locks
// that nobody here contends for.
//
// Boot fills in the direct map of the machine's memory, vmemmap, kernel text and fixmap, and under
// `preallocated` the vmalloc area. Everything later comes through `populateEntry` and `mapRange`,
// which are simulated code.

import type {Cpu} from '../../../../machine/cpu.ts';
import type {Code} from '../../../../machine/process.ts';
import type {StoreBuffers} from '../../../../machine/store_buffer.ts';
import type {Kernel} from '../../../kernel.ts';
import type {BulkLock} from '../../../locking/bulk_lock.ts';
import {Mutex} from '../../../locking/mutex.ts';
import type {SpinLock} from '../../../locking/spinlock.ts';
import type {Task} from '../../../task.ts';
import {type PgdFeatures, pgdFeatures} from './features.ts';
import {type PagingLayout, pagingLayout} from './layout.ts';
import {PgdChecks} from './pgd/check.ts';
import {type KernelPgd, PgdPool} from './pgd_pool.ts';
import {type Table, Tables, type TableWork} from './tables.ts';

const GB_SHIFT = 18;
const PMD_SHIFT = 9;

/** The reference tables of one machine. */
export class KernelPageTables {
  readonly layout: PagingLayout;
  readonly features: PgdFeatures;
  /** Reference entries, by index; one spare cell for what stands for user entry 0. */
  readonly swapper_pg_dir: Uint32Array;
  readonly tables: Tables;
  readonly pool: PgdPool;
  readonly checks: PgdChecks;
  /** init_mm.page_table_lock. */
  readonly page_table_lock: BulkLock;
  /** Serialises CPA (pageattr.ts) and memory hotplug (hotplug.ts). */
  readonly cpa_lock: SpinLock;
  readonly mem_hotplug: Mutex;
  /**
   * Indexes of reference entries that were ever populated, ascending: what a copy of the kernel
   * half has to copy.
   */
  readonly populated: number[] = [];
  /** Raised whenever a reference entry is populated, cleared or replaced. */
  generation = 0;
  /** count-at-switch: the generation that every CPU can see, and that PGDs are compared with. */
  publishedGeneration = 0;
  /** Generation at which each entry changed last. */
  readonly changedAt: Float64Array;
  private readonly buffers: StoreBuffers;
  private readonly fnPopulate: number;

  constructor(readonly kernel: Kernel) {
    this.features = pgdFeatures(kernel);
    this.layout = pagingLayout(kernel.design.paging, this.features.since420);
    this.buffers = kernel.machine.storeBuffers;
    this.swapper_pg_dir = new Uint32Array(this.layout.entries + 1);
    this.tables = new Tables(this.layout);
    this.changedAt = new Float64Array(this.layout.entries);
    this.pool = new PgdPool(kernel, this.layout, this.swapper_pg_dir);
    this.checks = new PgdChecks(kernel, this);
    this.page_table_lock = kernel.initMm.pageTableLock;
    this.cpa_lock = kernel.locks.spinlock('cpa_lock');
    this.mem_hotplug = new Mutex(kernel, 'mem_hotplug.lock');
    this.fnPopulate = kernel.fn('pgd_populate');
    kernel.initMm.pgd = this.pool.referencePgd(kernel.initMm);
    this.boot();
  }

  /** pgd_index, as an index into the cells of the kernel half. */
  pgd_index(vpn: number): number {
    return Math.floor((vpn - this.layout.kernelBase) / 2 ** this.layout.entryShift);
  }

  /** First page that entry `index` spans. */
  entryStart(index: number): number {
    return this.layout.kernelBase + index * 2 ** this.layout.entryShift;
  }

  /** Direct-map page of `start`, which is a page frame number, or a kernel virtual page already. */
  directMapVpn(start: number): number {
    return start >= this.layout.kernelBase ? start : this.layout.directMap + start;
  }

  isVmalloc(vpn: number): boolean {
    return vpn >= this.layout.VMALLOC_START && vpn <= this.layout.VMALLOC_END;
  }

  isKernel(vpn: number): boolean {
    return vpn >= this.layout.kernelBase;
  }

  /** *pgd_offset_k: the reference entry as `cpu` sees it now. */
  reference(cpu: Cpu, index: number): number {
    return this.buffers.load(cpu.id, this.swapper_pg_dir, index, this.kernel.machine.engine.now);
  }

  /** The entry of `pgd` as `cpu` sees it now. */
  entry(cpu: Cpu, pgd: KernelPgd, index: number): number {
    return this.buffers.load(cpu.id, pgd.cells, pgd.base + index, this.kernel.machine.engine.now);
  }

  /**
   * set_pgd: a plain store. The caller has just paid for the entry's line, so the store leaves the
   * store buffer at once, unless older stores wait there before it.
   */
  set_pgd(cpu: Cpu, pgd: KernelPgd, index: number, value: number): void {
    const {buffers} = this;
    if (buffers.pending === 0 || buffers.waiting(cpu.id) === 0) {
      pgd.cells[pgd.base + index] = value;
      return;
    }
    const {engine} = this.kernel.machine;
    buffers.store(cpu.id, pgd.cells, pgd.base + index, value, engine.now);
  }

  /** Stores a reference entry. The caller holds init_mm.page_table_lock or pgd_lock (CPA). */
  setReference(cpu: Cpu, index: number, value: number): void {
    this.note(index);
    this.buffers.store(cpu.id, this.swapper_pg_dir, index, value, this.kernel.machine.engine.now);
  }

  /**
   * pgd_populate under init_mm.page_table_lock, when the entry is none. Returns true when this call
   * populated it. The table comes from `node`, or is `built`, which is given back when another CPU
   * was first.
   */
  *populateEntry(t: Task, index: number, node: number, built: Table | null = null): Code<boolean> {
    if (t.cpu.settle()) yield;
    if (built === null && this.reference(t.cpu, index) !== 0) return false;
    const {tables, page_table_lock: lock, fnPopulate: fn} = this;
    const table = built ?? tables.allocate(0, node);
    this.chargeWork(t, tables.takeWork(), fn);
    if (!lock.acquire(t, fn)) yield* lock.acquireSlow(t, fn);
    const raced = this.reference(t.cpu, index) !== 0;
    if (!raced) this.setReference(t.cpu, index, table.number);
    if (!lock.release(t)) yield* lock.releaseSlow(t);
    if (raced) {
      tables.freeTree(table);
      tables.takeWork();
    }
    return !raced;
  }

  /**
   * kernel_physical_mapping_init for one absent entry: the tables below are made first, the
   * reference entry is stored last. Returns true when this call populated the entry.
   */
  *buildEntry(
    t: Task,
    index: number,
    offset: number,
    pages: number,
    leafShift: number,
    node: number,
  ): Code<boolean> {
    if (t.cpu.settle()) yield;
    if (this.reference(t.cpu, index) !== 0) return false;
    const table = this.tables.allocate(0, node);
    this.tables.populate(table, offset, pages, leafShift);
    return yield* this.populateEntry(t, index, node, table);
  }

  /**
   * Maps [startVpn, startVpn + pages) with leaves of 2^leafShift pages, populating what is missing
   * at every level. Returns true when a synchronised entry was newly populated: then PGDs lack it.
   */
  *mapRange(
    t: Task,
    startVpn: number,
    pages: number,
    leafShift: number,
    node: number,
    fn: number,
  ): Code<boolean> {
    let changed = false;
    for (let at = startVpn; at < startVpn + pages; ) {
      const index = this.pgd_index(at);
      const end = Math.min(this.entryStart(index + 1), startVpn + pages);
      if (yield* this.populateEntry(t, index, node)) changed = true;
      const table = this.tables.find(this.reference(t.cpu, index));
      if (table === null) this.reportDangling(t.cpu, index);
      else this.tables.populate(table, at - this.entryStart(index), end - at, leafShift);
      this.chargeWork(t, this.tables.takeWork(), fn);
      at = end;
    }
    return changed;
  }

  /**
   * Clears leaf entries, keeping the tables (vunmap_page_range). Plain: charges, the caller
   * settles.
   */
  unmapRange(t: Task, startVpn: number, pages: number, fn: number): void {
    for (let at = startVpn; at < startVpn + pages; ) {
      const index = this.pgd_index(at);
      const end = Math.min(this.entryStart(index + 1), startVpn + pages);
      const table = this.tables.find(this.reference(t.cpu, index));
      if (table !== null) this.tables.clear(table, at - this.entryStart(index), end - at, false);
      at = end;
    }
    this.chargeWork(t, this.tables.takeWork(), fn);
  }

  /** Charges what `work` says was done on lower tables. */
  chargeWork(t: Task, work: TableWork, fn: number): void {
    const {allocPageTicks, zeroPageTicks, freePageTicks, kernelPteTicks} = this.kernel.costs;
    const ticks =
      work.tablesAllocated * (allocPageTicks + zeroPageTicks) +
      work.tablesFreed * freePageTicks +
      work.entriesWritten * kernelPteTicks;
    if (ticks > 0) t.cpu.charge(ticks, fn);
  }

  /** A finding when reference entry `index` names a freed table. */
  private reportDangling(cpu: Cpu, index: number): void {
    if (!this.tables.isDangling(this.reference(cpu, index))) return;
    this.kernel.checks.finding(
      `use-after-free: swapper_pg_dir entry ${index} names a freed page table`,
    );
    this.kernel.checks.count('pgd_use_after_free');
  }

  private note(index: number): void {
    this.changedAt[index] = ++this.generation;
    this.checks.referenceChanged(index);
    const {populated} = this;
    if (populated.includes(index)) return;
    populated.push(index);
    populated.sort((a, b) => a - b);
  }

  private boot(): void {
    const {layout, kernel} = this;
    const {topology} = kernel.machine;
    const memoryPages = (topology.nodeCount * topology.nodeMemoryBytes) / 4096;
    const directPages = layout.directMapLast - layout.directMap + 1;
    const mapped = Math.min(memoryPages, directPages);
    this.bootMap(layout.directMap, mapped, layout.is64 ? GB_SHIFT : layout.entryShift);
    if (layout.is64) this.bootMap(layout.vmemmap, Math.ceil(mapped / 64), PMD_SHIFT);
    for (const vpn of layout.bootEntries) this.bootMap(vpn, 1, 0);
    if (kernel.design.pgd === 'preallocated' && layout.is64) {
      for (
        let index = this.pgd_index(layout.VMALLOC_START);
        index <= this.pgd_index(layout.VMALLOC_END);
        index++
      ) {
        this.bootEntry(index);
      }
    }
    this.tables.takeWork();
    this.publishedGeneration = this.generation;
  }

  /** Maps pages that are there when the run begins. Before any PGD but the reference exists. */
  bootMap(startVpn: number, pages: number, leafShift: number): void {
    const {layout} = this;
    for (let at = startVpn; at < startVpn + pages; ) {
      const index = this.pgd_index(at);
      const end = Math.min(this.entryStart(index + 1), startVpn + pages);
      if (leafShift >= layout.entryShift) {
        this.swapper_pg_dir[index] = this.tables.largeEntry();
        this.note(index);
      } else {
        const table = this.bootEntry(index);
        this.tables.populate(table, at - this.entryStart(index), end - at, leafShift);
      }
      at = end;
    }
  }

  private bootEntry(index: number): Table {
    const present = this.tables.find(this.swapper_pg_dir[index]);
    if (present !== null) return present;
    const table = this.tables.allocate(0, 0);
    this.swapper_pg_dir[index] = table.number;
    this.note(index);
    return table;
  }
}
