// vmalloc_fault (arch/x86/mm/fault.c): the lazy half of keeping PGDs in step.
//
// The CPU walks the tables that are loaded. When the top-level entry there is none, the fault
// handler copies it from the reference. 64-bit kernels to 5.7 and all 32-bit ones have the handler
// (features.vmallocFault); without it the access is an oops. An own entry that differs from the
// reference is a BUG on 64 bits. 64 bits: the PGD of current->active_mm. 32 bits: the one in CR3,
// as the fault may come in the middle of a switch.

import type {Code} from '../../machine/process.ts';
import type {KernelPgd} from '../arch/x86/mm/pgd_pool.ts';
import {KernelBug} from '../checks.ts';
import type {Kernel} from '../kernel.ts';
import type {Task} from '../task.ts';

/** Accesses to the vmalloc range and the faults they take. */
export class VmallocFault {
  /** Faults that copied an entry. */
  repaired = 0;
  private readonly fn: number;

  constructor(readonly kernel: Kernel) {
    this.fn = kernel.fn('vmalloc_fault');
  }

  /** Reads page `vpn`. `mapped`: some area maps it. */
  *access(t: Task, vpn: number, mapped: boolean): Code {
    const {pageTables, machine} = this.kernel;
    t.cpu.stall(machine.topology.l1HitTicks, this.fn);
    if (t.cpu.settle()) yield;
    if (!mapped) this.oops(vpn, 'page not mapped');
    if (pageTables.layout.sharedKernelPmd) return;
    const pgd = this.loadedPgd(t);
    if (pgd === null) return;
    const index = pageTables.pgd_index(vpn);
    const own = pageTables.entry(t.cpu, pgd, index);
    if (own === 0) yield* this.vmalloc_fault(t, pgd, index, vpn);
    else this.checkEntry(t, index, own);
  }

  private *vmalloc_fault(t: Task, pgd: KernelPgd, index: number, vpn: number): Code {
    const {pageTables, machine, costs} = this.kernel;
    if (!pageTables.features.vmallocFault) this.oops(vpn, 'no PGD entry, and no vmalloc_fault');
    t.cpu.charge(machine.topology.pageFaultEntryTicks + costs.vmallocFaultTicks, this.fn);
    if (t.cpu.settle()) yield;
    const reference = pageTables.reference(t.cpu, index);
    if (reference === 0) this.oops(vpn, 'no entry in the reference table');
    pageTables.set_pgd(t.cpu, pgd, index, reference);
    this.repaired++;
    this.kernel.checks.count('vmalloc_faults');
  }

  /**
   * 64 bits: BUG_ON(pgd_page_vaddr(*pgd) != pgd_page_vaddr(*pgd_ref)), seen when another fault
   * comes by.
   */
  private checkEntry(t: Task, index: number, own: number): void {
    const {pageTables, checks} = this.kernel;
    const reference = pageTables.reference(t.cpu, index);
    if (reference === own) return;
    checks.count('vmalloc_stale_entry_used');
    if (pageTables.tables.isDangling(own)) {
      const text = `BUG: access through kernel entry ${index}, which names a freed page table`;
      checks.finding(text);
      throw new KernelBug(text);
    }
  }

  private loadedPgd(t: Task): KernelPgd | null {
    const {pageTables, sched} = this.kernel;
    const loaded = sched.dispatcher.rqOf(t).loadedMm;
    const mm = pageTables.layout.is64 ? (t.mm ?? t.activeMm) : loaded;
    return mm === null ? null : (mm.pgd as KernelPgd | null);
  }

  private oops(vpn: number, why: string): never {
    const text = `BUG: unable to handle page fault for address ${vpn.toString(16)}000: ${why}`;
    this.kernel.checks.finding(text);
    throw new KernelBug(text);
  }
}
