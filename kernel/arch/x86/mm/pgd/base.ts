// What all choices of the `pgd` axis have in common: the PGD page itself, copying the kernel half,
// the loop over entries, and what a BUG does. Subclasses are the designs.
//
// A BUG or oops under a lock wedges a real machine for everybody who needs that lock. Here the
// locks are let go and only the task dies, so that the run can end and report; the finding says
// what happened.

import type {Code} from '../../../../../machine/process.ts';
import {nsToTicks} from '../../../../../machine/time.ts';
import {KernelBug} from '../../../../checks.ts';
import type {Kernel} from '../../../../kernel.ts';
import type {SpinLock} from '../../../../locking/spinlock.ts';
import type {MmStruct} from '../../../../mm_types.ts';
import type {PgdDesign, PgdVisitor} from '../../../../pgd_design.ts';
import type {Task} from '../../../../task.ts';
import {xen_pgd_pin} from '../../xen/mmu.ts';
import type {KernelPageTables} from '../page_tables.ts';
import type {KernelPgd} from '../pgd_pool.ts';

/** memcpy of the kernel half from and to cached lines: about 32 bytes a ns (assumption). */
const COPY_BYTES_PER_NS = 32;

/** FIXADDR_TOP, where the 32-bit vmalloc_sync_all stops. */
const FIXADDR_TOP = 0xfffff;

/** A design without the parts that make it one. */
export abstract class PgdBase implements PgdDesign {
  abstract readonly name: string;
  readonly pgd_lock: SpinLock;
  arch_pgd_init_late: ((t: Task, mm: MmStruct) => Code) | null = null;
  switch_mm: ((t: Task, mm: MmStruct) => void) | null = null;
  protected readonly tables: KernelPageTables;
  protected readonly copyTicks: number;
  protected readonly fnAlloc: number;
  protected readonly fnFree: number;
  protected readonly fnSync: number;

  constructor(readonly kernel: Kernel) {
    this.tables = kernel.pageTables;
    this.pgd_lock = kernel.locks.spinlock('pgd_lock', {line: kernel.layout.line('pgd_lock')});
    this.copyTicks = nsToTicks(this.tables.layout.copiedBytes / COPY_BYTES_PER_NS);
    this.fnAlloc = kernel.fn('pgd_alloc');
    this.fnFree = kernel.fn('pgd_free');
    this.fnSync = kernel.fn('sync_global_pgds');
    if (this.tables.features.syncsStackAtSwitch) {
      this.switch_mm = (t, mm) => this.syncStack(t, mm);
    }
    if (this.tables.layout.xen) this.switch_mm = (t, mm) => xen_pgd_pin(kernel, t, mm);
  }

  abstract pgd_alloc(t: Task, mm: MmStruct): Code;
  abstract pgd_free(t: Task, mm: MmStruct): Code;
  abstract walkAll(t: Task, visitor: PgdVisitor, fn: number): Code;
  /** Brings reference entry `index` to every PGD that the design can find; `removed` clears it. */
  protected abstract syncEntry(t: Task, index: number, removed: boolean): Code;

  *sync_global_pgds(t: Task, startVpn: number, endVpn: number, removed: boolean): Code {
    const {tables, fnSync} = this;
    const clears = removed && tables.features.syncClears;
    const last = tables.pgd_index(endVpn);
    for (let index = tables.pgd_index(startVpn); index <= last; index++) {
      t.cpu.charge(this.kernel.costs.walkStepTicks, fnSync);
      if (t.cpu.settle()) yield;
      if (tables.reference(t.cpu, index) === 0 && !clears) continue;
      yield* this.syncEntry(t, index, clears);
    }
  }

  /**
   * 64 bits: sync_global_pgds over the vmalloc range. 32 bits: PMD by PMD up to FIXADDR_TOP, taking
   * the lock for each even when the reference is empty; nothing with SHARED_KERNEL_PMD. Gone with
   * the 64-bit vmalloc_fault.
   */
  *vmalloc_sync_all(t: Task): Code {
    const {tables} = this;
    const {layout, features} = tables;
    if (layout.sharedKernelPmd || !features.vmallocFault) return;
    if (layout.is64) {
      yield* this.sync_global_pgds(t, layout.VMALLOC_START, layout.VMALLOC_END, false);
      return;
    }
    const last = tables.pgd_index(FIXADDR_TOP - 1);
    for (let index = tables.pgd_index(layout.VMALLOC_START); index <= last; index++) {
      yield* this.syncEntry(t, index, false);
    }
  }

  /** Lazy designs leave new vmalloc entries to vmalloc_fault. */
  *arch_sync_kernel_mappings(t: Task, startVpn: number, endVpn: number): Code {
    const {layout, features} = this.tables;
    if (!features.syncsKernelMappings || layout.sharedKernelPmd) return;
    yield* this.sync_global_pgds(t, startVpn, endVpn, false);
  }

  /**
   * _pgd_alloc and preallocate_pmds: zeroed pages, mm->pgd set. Plain: charges only. mm_init has
   * just set up page_table_lock, so that line is here and not in memory when a walk comes for it.
   */
  protected allocatePage(t: Task, mm: MmStruct): KernelPgd {
    const {allocPageTicks, zeroPageTicks} = this.kernel.costs;
    const pages = 1 + this.tables.layout.preallocatedPmds;
    t.cpu.charge(pages * (allocPageTicks + zeroPageTicks), this.fnAlloc);
    const pgd = this.tables.pool.allocate(mm, this.kernel.machine.topology.nodeOf[t.cpu.id]);
    mm.pgd = pgd;
    mm.pageTableLock.init(t.cpu);
    return pgd;
  }

  /**
   * clone_pgd_range over the kernel half (pgd_ctor), or on private PAE the copy of the kernel PMDs
   * (pgd_prepopulate_pmd). The PGD is still private, and whatever publishes it keeps the order of
   * stores, so the copies go straight to memory.
   */
  protected copyKernelHalf(t: Task, pgd: KernelPgd): void {
    const {tables} = this;
    if (tables.layout.sharedKernelPmd) return;
    for (const index of tables.populated) {
      pgd.cells[pgd.base + index] = tables.reference(t.cpu, index);
    }
    pgd.kernelCount = tables.generation;
    t.cpu.stall(this.kernel.machine.lines.touch(pgd.entryLine, t.cpu), this.fnAlloc);
    t.cpu.charge(this.copyTicks, this.fnAlloc);
  }

  /** The creator is done: from now on a missing entry is a missed one. */
  protected markComplete(pgd: KernelPgd): void {
    pgd.completedAt = this.kernel.machine.engine.now;
  }

  /** _pgd_free: looks at the PGD for the last time. Plain. */
  protected freePage(t: Task, mm: MmStruct): void {
    const pgd = mm.pgd as KernelPgd;
    const pages = 1 + this.tables.layout.preallocatedPmds;
    t.cpu.charge(pages * this.kernel.costs.freePageTicks, this.fnFree);
    this.tables.checks.examine(pgd, false);
    this.tables.pool.free(pgd);
    mm.pgd = null;
  }

  /** The task dies of a BUG or oops; the caller has let go of its locks. */
  protected die(text: string): never {
    this.kernel.checks.finding(text);
    this.kernel.checks.count('pgd_bug');
    throw new KernelBug(text);
  }

  /**
   * switch_mm under VMAP_STACK (4.9 on): the stack that runs on must be mapped, as no fault can be
   * taken on it.
   */
  private syncStack(t: Task, mm: MmStruct): void {
    const {tables} = this;
    const pgd = mm.pgd as KernelPgd | null;
    if (pgd === null || t.stackVpn === 0) return;
    const index = tables.pgd_index(t.stackVpn);
    if (tables.entry(t.cpu, pgd, index) !== 0) return;
    tables.set_pgd(t.cpu, pgd, index, tables.reference(t.cpu, index));
    this.kernel.checks.count('pgd_stack_synced_at_switch');
  }
}
