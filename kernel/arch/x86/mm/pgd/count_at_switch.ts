// count-at-switch: Andy Lutomirski's idea in the thread of the lockless series. Every PGD has a
// count of the kernel entries it has seen; a switch to an mm with fewer than init_mm has fixes it
// up. No list, no walk, no late copy, no lazy faults: "the update is just a single PGD entry copy".
// Entries are never removed, so a count says everything (here: the generation of the reference).
//
// The mail leaves open what happens on CPUs that run while an entry is added, because they do not
// switch. Assumption: the one who adds it interrupts them, and the handler fixes up the PGD that is
// loaded there. A CPU that loads a PGD meanwhile looks at the count, which was raised before; the
// entry was visible before the count, as stores are in order. Price: a compare at every context
// switch ("cheap but nonzero", Molnar's objection), paid in `switch_mm`.

import {CpuMask} from '../../../../../machine/cpumask.ts';
import type {Cpu} from '../../../../../machine/cpu.ts';
import type {Code} from '../../../../../machine/process.ts';
import {nsToTicks} from '../../../../../machine/time.ts';
import type {Kernel} from '../../../../kernel.ts';
import type {MmStruct} from '../../../../mm_types.ts';
import type {PgdVisitor} from '../../../../pgd_design.ts';
import type {Task} from '../../../../task.ts';
import type {KernelPgd} from '../pgd_pool.ts';
import {PgdBase} from './base.ts';
import {walkProcesses} from './walk.ts';

/** Loading two counters and comparing them, both in cache. Assumption. */
const COMPARE_TICKS = nsToTicks(1);
/** Looking at one reference entry and copying it. Assumption. */
const FIX_ENTRY_TICKS = nsToTicks(2);

/** A count per PGD, compared at context switch. */
export class CountAtSwitch extends PgdBase {
  readonly name = 'count-at-switch';
  private readonly everybody: CpuMask;
  private readonly fnSwitch: number;

  constructor(kernel: Kernel) {
    super(kernel);
    const {cpuCount} = kernel.machine.topology;
    this.fnSwitch = kernel.fn('switch_mm');
    this.everybody = new CpuMask(cpuCount);
    for (let cpu = 0; cpu < cpuCount; cpu++) this.everybody.add(cpu);
    this.switch_mm = (t, mm) => this.checkCount(t, mm);
  }

  *pgd_alloc(t: Task, mm: MmStruct): Code {
    const pgd = this.allocatePage(t, mm);
    if (t.cpu.settle()) yield;
    const seen = this.tables.publishedGeneration;
    this.copyKernelHalf(t, pgd);
    pgd.kernelCount = seen;
    this.markComplete(pgd);
  }

  *pgd_free(t: Task, mm: MmStruct): Code {
    if (t.cpu.settle()) yield;
    this.freePage(t, mm);
  }

  /** Raises the count, behind the entry, and brings up to date the CPUs that run. */
  protected *syncEntry(t: Task, index: number): Code {
    const {checks} = this.tables;
    const {storeBuffers, engine, ipi} = this.kernel.machine;
    const walk = checks.beginWalk();
    const {generation} = this.tables;
    t.cpu.stall(storeBuffers.fence(t.cpu.id, engine.now), this.fnSync);
    this.tables.publishedGeneration = Math.max(this.tables.publishedGeneration, generation);
    if (t.cpu.settle()) yield;
    const own = t.mm ?? t.activeMm;
    if (own !== null && own.pgd !== null) {
      t.cpu.charge(this.fixUp(t.cpu, own.pgd as KernelPgd), this.fnSync);
    }
    yield* ipi.callMany(t.cpu, this.everybody, (cpu) => this.handleIpi(cpu), this.fnSync);
    checks.endWalk(walk, index);
  }

  /**
   * For CPA and Xen, which change what is present already. An mm that is on no task yet is fixed up
   * when it is first switched to, as the count is a generation here: a replaced entry counts as
   * well as a new one.
   */
  override *walkAll(t: Task, visitor: PgdVisitor, fn: number): Code {
    const {tables} = this;
    tables.publishedGeneration = Math.max(tables.publishedGeneration, tables.generation);
    yield* walkProcesses(this.kernel, t, visitor, fn);
  }

  private checkCount(t: Task, mm: MmStruct): void {
    t.cpu.charge(COMPARE_TICKS, this.fnSwitch);
    const pgd = mm.pgd as KernelPgd | null;
    if (pgd === null || pgd.kernelCount === this.tables.publishedGeneration) return;
    t.cpu.charge(this.fixUp(t.cpu, pgd), this.fnSwitch);
  }

  private handleIpi(cpu: Cpu): number {
    const pgd = this.kernel.tlb.loadedMm(cpu)?.pgd as KernelPgd | null | undefined;
    return pgd === null || pgd === undefined ? 0 : this.fixUp(cpu, pgd);
  }

  /** Copies what `pgd` lacks; returns the ticks it took. */
  private fixUp(cpu: Cpu, pgd: KernelPgd): number {
    const {tables} = this;
    if (tables.layout.sharedKernelPmd || pgd.kernelCount === tables.publishedGeneration) return 0;
    for (const index of tables.populated) {
      const ref = tables.reference(cpu, index);
      if (ref === 0 || tables.entry(cpu, pgd, index) === ref) continue;
      tables.set_pgd(cpu, pgd, index, ref);
    }
    pgd.kernelCount = tables.publishedGeneration;
    this.kernel.checks.count('pgd_fixed_up');
    const line = this.kernel.machine.lines.touch(pgd.entryLine, cpu);
    return line + tables.populated.length * FIX_ENTRY_TICKS;
  }
}
