// arch/x86/mm/tlb.c: which CPUs have an mm loaded, and how the others are told that its translations changed.
//
// mm_cpumask(mm) holds the CPUs that loaded the mm and have not been found to have left it. A CPU that runs a kernel
// thread or idles keeps the last mm loaded lazily. What a flush does about lazy CPUs changed:
//   - up to 4.19 they get the IPI too; the handler leaves the mm (init_mm is loaded, the bit in the mask goes);
//   - since 4.20 (145f573b89a6, 97807813fe7e RECALLED) they are not interrupted; they compare mm->context.tlb_gen when
//     they stop being lazy and flush then.
// flush_tlb_mm of fork (dup_mmap) and of exit are full flushes. Kernel ranges go to every CPU, idle ones included, page by
// page up to tlb_single_page_flush_ceiling pages, in full above.
// With broadcast invalidation (AMD INVLPGB, 6.14 RECALLED) nobody is interrupted: the flushing CPU pays the instruction and
// one TLBSYNC.

import type {Cpu} from '../../../../machine/cpu.ts';
import {CpuMask} from '../../../../machine/cpumask.ts';
import type {Code} from '../../../../machine/engine.ts';
import type {Kernel} from '../../../kernel.ts';
import type {MmStruct} from '../../../mm_types.ts';
import type {Task} from '../../../task.ts';
import {isBefore} from '../../../version.ts';

/** Pages up to which a range is flushed one by one (tlb_single_page_flush_ceiling). */
export const TLB_SINGLE_PAGE_FLUSH_CEILING = 33;

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
  private readonly lazyCpusGetIpi: boolean;
  private readonly broadcast: boolean;
  private readonly fnSwitch: number;
  private readonly fnFlush: number;
  private readonly fnKernelFlush: number;

  constructor(readonly kernel: Kernel) {
    const {machine, facts} = kernel;
    this.everyCpu = new CpuMask(machine.topology.cpuCount);
    for (const cpu of machine.cpus) this.everyCpu.add(cpu.id);
    this.lazyCpusGetIpi = isBefore(facts.version, '4.20');
    this.broadcast = facts.design.tlb === 'broadcast' && machine.topology.hasInvlpgb;
    if (facts.design.tlb === 'broadcast' && !this.broadcast) {
      kernel.checks.warn('tlb=broadcast on a machine without INVLPGB: flushes use IPIs');
    }
    this.fnSwitch = kernel.fn('switch_mm_irqs_off');
    this.fnFlush = kernel.fn('flush_tlb_mm_range');
    this.fnKernelFlush = kernel.fn('flush_tlb_kernel_range');
  }

  /** The mm whose tables `cpu` has in CR3; null when those are swapper_pg_dir. */
  loadedMm(cpu: Cpu): MmStruct | null {
    return this.kernel.sched.dispatcher.rqs[cpu.id].loadedMm;
  }

  /** switch_mm_irqs_off: `cpu` has just loaded `next` in place of `previous`. The load itself is the scheduler's. */
  mmLoaded(cpu: Cpu, previous: MmStruct | null, next: MmStruct): void {
    if (previous !== null) this.clearBit(cpu, previous);
    next.cpumask ??= new CpuMask(this.kernel.machine.topology.cpuCount);
    if (next.cpumask.has(cpu.id)) return;
    next.cpumask.add(cpu.id);
    this.touchMask(cpu, next);
  }

  /** Loads swapper_pg_dir in place of an mm that is only held lazily. Its time is in the flush that found it. */
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

  /** Flushes every user translation of `mm` on every CPU that may use them, and waits until that is done. */
  *flush_tlb_mm(t: Task, mm: MmStruct): Code {
    const {machine} = this.kernel;
    this.counts.mmFlushes++;
    t.preemptCount++;
    const {cpu} = t;
    if (cpu.settle()) yield;
    mm.tlbGeneration++;
    cpu.stall(machine.lines.rmw(mm.line, cpu), this.fnFlush);
    cpu.stall(machine.storeBuffers.fence(cpu.id, machine.engine.now), this.fnFlush);
    if (this.loadedMm(cpu) === mm) {
      if (machine.tlbs[cpu.id].lazy) this.leave_mm(cpu);
      else this.flushLocal(cpu, mm);
    }
    const targets = this.flushTargets(mm, cpu);
    if (!targets.isEmpty()) {
      if (this.broadcast) {
        yield* this.invlpgb(cpu, 1, this.fnFlush);
        targets.forEach((id) => {
          machine.tlbs[id].flushAll(mm.tlbGeneration);
        });
      } else {
        const handler = (target: Cpu): number => this.flush_tlb_func(target, mm);
        const sent = yield* machine.ipi.callMany(cpu, targets, handler, this.fnFlush);
        this.counts.interrupts += sent;
      }
    }
    t.preemptCount--;
  }

  /** Flushes kernel translations of [startVpn, endVpn) on every CPU, and waits until that is done. */
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

  /** Runs in the IPI on `cpu`; returns the ticks of its body. */
  private flush_tlb_func(cpu: Cpu, mm: MmStruct): number {
    const tlb = this.kernel.machine.tlbs[cpu.id];
    const {l1HitTicks, fullTlbFlushTicks} = this.kernel.machine.topology;
    if (this.loadedMm(cpu) !== mm) {
      mm.cpumask?.delete(cpu.id);
      return l1HitTicks;
    }
    if (tlb.lazy) {
      this.leave_mm(cpu);
      return fullTlbFlushTicks;
    }
    if (tlb.generation >= mm.tlbGeneration) return l1HitTicks;
    tlb.flushAll(mm.tlbGeneration);
    return fullTlbFlushTicks;
  }

  private flushLocal(cpu: Cpu, mm: MmStruct): void {
    const {machine} = this.kernel;
    machine.tlbs[cpu.id].flushAll(mm.tlbGeneration);
    cpu.charge(machine.topology.fullTlbFlushTicks, this.fnFlush);
  }

  private flushTargets(mm: MmStruct, own: Cpu): CpuMask {
    const {machine} = this.kernel;
    const targets = new CpuMask(machine.topology.cpuCount);
    mm.cpumask?.forEach((id) => {
      if (id === own.id) return;
      if (!this.lazyCpusGetIpi && machine.tlbs[id].lazy) this.counts.lazySkipped++;
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
