// arch/x86/mm/tlb.c: which CPUs have an mm loaded, and how the others are told that its
// translations changed.
//
// mm_cpumask(mm) holds the CPUs that loaded the mm and have not been found to have left it. A CPU
// that runs a kernel thread or idles keeps the last mm loaded lazily. What a flush does about lazy
// CPUs changed:
//   - up to 4.19 they get the IPI too; the handler leaves the mm (init_mm is loaded, the bit in
//     the mask goes);
//   - since 4.20 (145f573b89a6, 97807813fe7e RECALLED) they are not interrupted; they compare
//     mm->context.tlb_gen when they stop being lazy and flush then.
// flush_tlb_mm of fork (dup_mmap) and of exit are full flushes. Kernel ranges go to every CPU, idle
// ones included, page by page up to tlb_single_page_flush_ceiling pages, in full above. With
// broadcast invalidation (AMD INVLPGB, 6.14 RECALLED) nobody is interrupted: the flushing CPU pays
// the instruction and one TLBSYNC.

import type {Cpu} from '../../../../machine/cpu.ts';
import {CpuMask} from '../../../../machine/cpumask.ts';
import type {Code} from '../../../../machine/process.ts';
import type {Kernel} from '../../../kernel.ts';
import {invalidate_secondary_tlbs} from '../../../mm/mmu_notifier.ts';
import {
  type MmProbe,
  TLB_LOCAL_MM_SHOOTDOWN,
  TLB_REMOTE_SEND_IPI,
  TLB_REMOTE_SHOOTDOWN,
  TLB_REMOTE_WRONG_CPU,
} from '../../../mm/probe.ts';
import type {MmStruct} from '../../../mm_types.ts';
import type {Task} from '../../../task.ts';
import {isBefore} from '../../../version.ts';

/** Pages up to which a range is flushed one by one (tlb_single_page_flush_ceiling). */
export const TLB_SINGLE_PAGE_FLUSH_CEILING = 33;

/** What one flush invalidates on a CPU: pages, or -1 for everything. */
function flushPages(start: number, end: number, stride: number): number {
  const pages = Math.ceil((end - start) / stride);
  return pages > TLB_SINGLE_PAGE_FLUSH_CEILING ? -1 : pages;
}

/** Flushes asked for, and CPUs interrupted for them. */
export interface TlbFlushCounts {
  mmFlushes: number;
  kernelFlushes: number;
  interrupts: number;
  lazySkipped: number;
  broadcasts: number;
}

/** cpu_tlbstate of all CPUs, and the flushes. */
export class CpuTlbState {
  readonly counts: TlbFlushCounts = {
    mmFlushes: 0,
    kernelFlushes: 0,
    interrupts: 0,
    lazySkipped: 0,
    broadcasts: 0,
  };
  private readonly everyCpu: CpuMask;
  private readonly nobody: CpuMask;
  private readonly lazyCpusGetIpi: boolean;
  private readonly broadcast: boolean;
  /** Before 3.7 (RECALLED) a range was flushed by flushing everything. */
  private readonly fullOnly: boolean;
  private readonly fnSwitch: number;
  private readonly fnFlush: number;
  private readonly fnKernelFlush: number;

  constructor(readonly kernel: Kernel) {
    const {machine, facts} = kernel;
    this.everyCpu = new CpuMask(machine.topology.cpuCount);
    this.nobody = new CpuMask(machine.topology.cpuCount);
    for (const cpu of machine.cpus) this.everyCpu.add(cpu.id);
    this.lazyCpusGetIpi = isBefore(facts.version, '4.20');
    this.broadcast = facts.design.tlb === 'broadcast' && machine.topology.hasInvlpgb;
    if (facts.design.tlb === 'broadcast' && !this.broadcast) {
      kernel.checks.warn('tlb=broadcast on a machine without INVLPGB: flushes use IPIs');
    }
    this.fullOnly = isBefore(facts.version, '3.7');
    this.fnSwitch = kernel.fn('switch_mm_irqs_off');
    this.fnFlush = kernel.fn('flush_tlb_mm_range');
    this.fnKernelFlush = kernel.fn('flush_tlb_kernel_range');
  }

  /** Where flushes are traced, null when nobody listens. */
  traced: MmProbe | null = null;

  /** The mm whose tables `cpu` has in CR3; null when those are swapper_pg_dir. */
  loadedMm(cpu: Cpu): MmStruct | null {
    return this.kernel.sched.dispatcher.rqs[cpu.id].loadedMm;
  }

  /**
   * switch_mm_irqs_off: `cpu` has just loaded `next` in place of `previous`. The load itself is the
   * scheduler's.
   */
  mmLoaded(cpu: Cpu, previous: MmStruct | null, next: MmStruct): void {
    if (previous !== null) this.clearBit(cpu, previous);
    next.cpumask ??= new CpuMask(this.kernel.machine.topology.cpuCount);
    if (next.cpumask.has(cpu.id)) return;
    next.cpumask.add(cpu.id);
    this.touchMask(cpu, next);
  }

  /**
   * Loads swapper_pg_dir in place of an mm that is only held lazily. Its time is in the flush that
   * found it.
   */
  leave_mm(cpu: Cpu): void {
    const rq = this.kernel.sched.dispatcher.rqs[cpu.id];
    rq.loadedMm?.cpumask?.delete(cpu.id);
    rq.loadedMm = null;
    this.kernel.machine.tlbs[cpu.id].load(0, 0);
  }

  /** The mm is about to be freed: no CPU may have its PGD in CR3. Lazy holders leave it. */
  dropMm(mm: MmStruct): void {
    mm.cpumask?.forEach((id) => {
      const cpu = this.kernel.machine.cpus[id];
      if (this.loadedMm(cpu) === mm) this.leave_mm(cpu);
    });
    mm.cpumask = null;
  }

  /**
   * Flushes every user translation of `mm` on every CPU that may use them, and waits until that is
   * done.
   */
  *flush_tlb_mm(t: Task, mm: MmStruct): Code {
    yield* this.flush_tlb_mm_range(t, mm, 0, Infinity, true);
  }

  /** True when no CPU but `cpu` may have translations of `mm`: a flush needs nobody's help. */
  isLocal(cpu: Cpu, mm: MmStruct): boolean {
    const {cpumask} = mm;
    return cpumask === null || !cpumask.hasOther(cpu.id);
  }

  /**
   * flush_tlb_mm_range where isLocal: plain. `stride` is the size of the entries that were cleared,
   * in pages.
   */
  flushLocal(
    t: Task,
    mm: MmStruct,
    start: number,
    end: number,
    _freedTables: boolean,
    stride = 1,
  ): void {
    const {machine} = this.kernel;
    const {cpu} = t;
    this.counts.mmFlushes++;
    mm.tlbGeneration++;
    cpu.stall(machine.lines.rmw(mm.line, cpu), this.fnFlush);
    this.flushOwn(cpu, mm, flushPages(start, end, stride));
    this.secondary(t, mm, start, end);
  }

  /**
   * flush_tlb_mm_range: flushes [start, end) on every CPU that may use it, page by page up to the
   * ceiling, and waits until that is done. `end` Infinity: everything. When page tables were freed,
   * CPUs that have the mm only lazily are interrupted too.
   */
  *flush_tlb_mm_range(
    t: Task,
    mm: MmStruct,
    start: number,
    end: number,
    freedTables: boolean,
    stride = 1,
  ): Code {
    const {machine} = this.kernel;
    this.counts.mmFlushes++;
    t.preemptCount++;
    const {cpu} = t;
    if (cpu.settle()) yield;
    mm.tlbGeneration++;
    cpu.stall(machine.lines.rmw(mm.line, cpu), this.fnFlush);
    cpu.stall(machine.storeBuffers.fence(cpu.id, machine.engine.now), this.fnFlush);
    const pages = flushPages(start, end, stride);
    const generation = mm.tlbGeneration;
    const targets = this.flushTargets(mm, cpu, freedTables && end !== Infinity);
    if (!targets.isEmpty()) this.traced?.tlbFlush(cpu, pages, TLB_REMOTE_SEND_IPI);
    this.flushOwn(cpu, mm, pages);
    if (!targets.isEmpty()) {
      if (this.broadcast) {
        yield* this.invlpgb(cpu, pages < 0 ? 1 : pages, this.fnFlush);
        targets.forEach((id) => {
          machine.tlbs[id].flushAll(mm.tlbGeneration);
        });
      } else {
        const handler = (target: Cpu): number => this.flush_tlb_func(target, mm, pages, generation);
        const sent = yield* machine.ipi.callMany(cpu, targets, handler, this.fnFlush);
        this.counts.interrupts += sent;
      }
    }
    this.secondary(t, mm, start, end);
    t.preemptCount--;
  }

  /**
   * Flushes kernel translations of [startVpn, endVpn) on every CPU, and waits until that is done.
   */
  *flush_tlb_kernel_range(t: Task, startVpn: number, endVpn: number): Code {
    const {machine} = this.kernel;
    const {invlpgTicks, fullTlbFlushTicks} = machine.topology;
    const pages = endVpn - startVpn;
    const full = pages > TLB_SINGLE_PAGE_FLUSH_CEILING;
    const bodyTicks = full ? fullTlbFlushTicks : pages * invlpgTicks;
    const flush = (target: Cpu): number => {
      const tlb = machine.tlbs[target.id];
      if (full) tlb.flushAll(this.loadedMm(target)?.tlbGeneration ?? 0);
      else tlb.counts.pages += pages;
      return bodyTicks;
    };
    this.counts.kernelFlushes++;
    t.preemptCount++;
    const {cpu} = t;
    cpu.charge(flush(cpu), this.fnKernelFlush);
    if (this.broadcast) {
      yield* this.invlpgb(cpu, full ? 1 : pages, this.fnKernelFlush);
      for (const other of machine.cpus) if (other !== cpu) flush(other);
    } else {
      const sent = yield* machine.ipi.callMany(cpu, this.everyCpu, flush, this.fnKernelFlush);
      this.counts.interrupts += sent;
    }
    t.preemptCount--;
  }

  /** Flushes everything on every CPU (flush_tlb_all). */
  *flush_tlb_all(t: Task): Code {
    yield* this.flush_tlb_kernel_range(t, 0, TLB_SINGLE_PAGE_FLUSH_CEILING + 1);
  }

  /** Runs in the IPI on `cpu`; returns the ticks of its body. `pages` is -1 for everything. */
  private flush_tlb_func(cpu: Cpu, mm: MmStruct, pages: number, generation: number): number {
    const tlb = this.kernel.machine.tlbs[cpu.id];
    const {l1HitTicks, fullTlbFlushTicks} = this.kernel.machine.topology;
    if (this.loadedMm(cpu) !== mm) {
      mm.cpumask?.delete(cpu.id);
      this.traced?.tlbFlush(cpu, 0, TLB_REMOTE_WRONG_CPU);
      return l1HitTicks;
    }
    if (tlb.lazy) {
      this.leave_mm(cpu);
      return fullTlbFlushTicks;
    }
    if (tlb.generation >= mm.tlbGeneration) return l1HitTicks;
    return this.invalidate(cpu, mm, pages, generation, TLB_REMOTE_SHOOTDOWN);
  }

  /** This CPU's part of a flush. */
  private flushOwn(cpu: Cpu, mm: MmStruct, pages: number): void {
    const {machine} = this.kernel;
    if (this.loadedMm(cpu) !== mm) return;
    if (machine.tlbs[cpu.id].lazy) {
      this.leave_mm(cpu);
      return;
    }
    const generation = mm.tlbGeneration;
    const ticks = this.invalidate(cpu, mm, pages, generation, TLB_LOCAL_MM_SHOOTDOWN);
    cpu.charge(ticks, this.fnFlush);
  }

  /** Page by page when this CPU has missed no other flush, else everything. Returns the ticks. */
  private invalidate(
    cpu: Cpu,
    mm: MmStruct,
    pages: number,
    generation: number,
    reason: number,
  ): number {
    const {topology, tlbs} = this.kernel.machine;
    const tlb = tlbs[cpu.id];
    const current = tlb.generation === generation - 1 && generation === mm.tlbGeneration;
    if (pages >= 0 && current && !this.fullOnly) {
      tlb.flushPages(pages, generation);
      this.traced?.tlbFlush(cpu, pages, reason);
      return pages * topology.invlpgTicks;
    }
    tlb.flushAll(mm.tlbGeneration);
    this.traced?.tlbFlush(cpu, -1, reason);
    return topology.fullTlbFlushTicks;
  }

  /** Secondary TLBs are invalidated out of the flush since 6.6. */
  private secondary(t: Task, mm: MmStruct, start: number, end: number): void {
    if (mm.user === null || mm.user.notifierSubscriptions === null) return;
    const {kernel} = this;
    if (kernel.mm.notifierFacts.secondaryTlb !== 'flush') return;
    invalidate_secondary_tlbs(kernel, t, mm, start, end);
  }

  private flushTargets(mm: MmStruct, own: Cpu, lazyToo: boolean): CpuMask {
    const {machine} = this.kernel;
    if (this.isLocal(own, mm)) return this.nobody;
    const targets = new CpuMask(machine.topology.cpuCount);
    mm.cpumask?.forEach((id) => {
      if (id === own.id) return;
      const skipped = !this.lazyCpusGetIpi && !lazyToo && machine.tlbs[id].lazy;
      if (skipped) this.counts.lazySkipped++;
      else targets.add(id);
    });
    return targets;
  }

  private *invlpgb(cpu: Cpu, operations: number, fn: number): Code {
    const {invlpgbTicks, tlbsyncTicks} = this.kernel.machine.topology;
    this.counts.broadcasts++;
    cpu.charge(operations * invlpgbTicks + tlbsyncTicks, fn);
    if (cpu.settle()) yield;
  }

  private clearBit(cpu: Cpu, mm: MmStruct): void {
    if (mm.cpumask === null || !mm.cpumask.has(cpu.id)) return;
    mm.cpumask.delete(cpu.id);
    this.touchMask(cpu, mm);
  }

  /** cpumask_set_cpu and cpumask_clear_cpu are locked operations on the mm's line. */
  private touchMask(cpu: Cpu, mm: MmStruct): void {
    if (mm.line >= 0) cpu.stall(this.kernel.machine.lines.rmw(mm.line, cpu), this.fnSwitch);
  }
}
