// mm/rmap.c, arch/x86/mm/tlb.c: try_to_unmap_flush: one flush for all entries that a reclaimer has
// cleared since the last one (struct tlbflush_unmap_batch). It covers the CPUs of every mm noted,
// and invalidates everything on them.

import type {Cpu} from '../../machine/cpu.ts';
import {CpuMask} from '../../machine/cpumask.ts';
import type {Code} from '../../machine/process.ts';
import {pteClear} from '../arch/x86/mm/pgtable.ts';
import type {Kernel} from '../kernel.ts';
import type {MmStruct} from '../mm_types.ts';
import type {Task} from '../task.ts';
import {isBefore} from '../version.ts';
import {invalidate_secondary_tlbs, mmu_notifier_invalidate_page} from './mmu_notifier.ts';
import {TLB_LOCAL_SHOOTDOWN, TLB_REMOTE_SEND_IPI, TLB_REMOTE_SHOOTDOWN} from './probe.ts';

/** What one reclaimer has still to flush (task_struct.tlb_ubc). */
export class UnmapBatch {
  cpus: CpuMask;
  required = false;

  constructor(cpuCount: number) {
    this.cpus = new CpuMask(cpuCount);
  }
}

/** A batch for one pass of reclaim; null before 4.3, when every entry was flushed at once. */
export function newUnmapBatch(k: Kernel): UnmapBatch | null {
  if (isBefore(k.facts.version, '4.3')) return null;
  return new UnmapBatch(k.machine.topology.cpuCount);
}

/** should_defer_flush: another CPU may use the mm. */
function shouldDefer(k: Kernel, t: Task, mm: MmStruct): boolean {
  return !k.tlb.isLocal(t.cpu, mm);
}

/** set_tlb_ubc_flush_pending, arch_tlbbatch_add_pending. */
export function set_tlb_ubc_flush_pending(
  k: Kernel,
  t: Task,
  batch: UnmapBatch,
  mm: MmStruct,
): void {
  const {machine} = k;
  mm.tlbGeneration++;
  t.cpu.stall(machine.lines.rmw(mm.line, t.cpu), k.mm.swap.fns.try_to_unmap);
  mm.cpumask?.forEach((cpu) => {
    batch.cpus.add(cpu);
  });
  batch.required = true;
  if (k.mm.notifierFacts.secondaryTlb === 'flush') {
    invalidate_secondary_tlbs(k, t, mm, 0, Infinity);
  }
}

/**
 * ptep_clear_flush of one PTE that an rmap walk takes away, under its lock: flushed here, or noted
 * in `batch` when another CPU may use the mm; secondary TLBs as the generation has it.
 */
export function* clear_flush_or_defer(
  k: Kernel,
  t: Task,
  mm: MmStruct,
  slot: number,
  vpn: number,
  batch: UnmapBatch | null,
): Code {
  const {ptl, pt, notifierFacts} = k.mm;
  pteClear(pt, slot);
  if (batch !== null && shouldDefer(k, t, mm)) set_tlb_ubc_flush_pending(k, t, batch, mm);
  else {
    ptl.hold(slot >>> 9);
    yield* k.tlb.flush_tlb_mm_range(t, mm, vpn, vpn + 1, false);
    ptl.unhold(slot >>> 9);
  }
  if (notifierFacts.clearFlushNotifies || notifierFacts.invalidatePage === 'under-ptl') {
    yield* mmu_notifier_invalidate_page(k, t, mm, vpn);
  }
}

/** try_to_unmap_flush, try_to_unmap_flush_dirty: returns when no CPU has an old translation. */
export function* try_to_unmap_flush(k: Kernel, t: Task, batch: UnmapBatch | null): Code {
  if (batch === null || !batch.required) return;
  const {machine, tlb} = k;
  t.preemptCount++;
  const {cpu} = t;
  if (cpu.settle()) yield;
  batch.required = false;
  const targets = new CpuMask(machine.topology.cpuCount);
  let own = false;
  let others = false;
  batch.cpus.forEach((id) => {
    if (id === cpu.id) own = true;
    else if (!machine.tlbs[id].lazy) targets.add(id);
    if (id !== cpu.id) others = true;
  });
  batch.cpus = new CpuMask(machine.topology.cpuCount);
  if (others) tlb.traced?.tlbFlush(cpu, -1, TLB_REMOTE_SEND_IPI);
  if (own)
    cpu.charge(flush_tlb_func(k, cpu, TLB_LOCAL_SHOOTDOWN), k.mm.swap.fns.try_to_unmap_flush);
  if (!targets.isEmpty()) {
    const handler = (target: Cpu): number => flush_tlb_func(k, target, TLB_REMOTE_SHOOTDOWN);
    const fn = k.mm.swap.fns.try_to_unmap_flush;
    tlb.counts.interrupts += yield* machine.ipi.callMany(cpu, targets, handler, fn);
  }
  t.preemptCount--;
}

/** flush_tlb_func with no mm: whatever is loaded catches up with its generation. Returns ticks. */
function flush_tlb_func(k: Kernel, cpu: Cpu, reason: number): number {
  const state = k.machine.tlbs[cpu.id];
  const mm = k.tlb.loadedMm(cpu);
  const {l1HitTicks, fullTlbFlushTicks} = k.machine.topology;
  if (mm === null) return l1HitTicks;
  if (state.lazy) {
    k.tlb.leave_mm(cpu);
    return fullTlbFlushTicks;
  }
  if (state.generation >= mm.tlbGeneration) {
    k.tlb.traced?.tlbFlush(cpu, 0, reason);
    return l1HitTicks;
  }
  state.flushAll(mm.tlbGeneration);
  k.tlb.traced?.tlbFlush(cpu, -1, reason);
  return fullTlbFlushTicks;
}
