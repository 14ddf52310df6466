// context_switch(), its address-space half: switch_mm_irqs_off() and lazy TLB.
//
// A kernel thread, and the idle task, keep the tables of whoever ran before (lazy). Coming back to
// the same mm costs nothing but a look at tlb_gen. Another mm is a CR3 load. From 4.14 on (PCID,
// TLB_NR_DYN_ASIDS 6) the CPU remembers six address spaces and flushes only for a new one or one
// that changed meanwhile; before, every load flushes.

import type {Kernel} from '../kernel.ts';
import type {MmStruct} from '../mm_types.ts';
import type {Task} from '../task.ts';
import {isBefore} from '../version.ts';
import type {RunQueue} from './runqueue.ts';
import {MM_SWITCH_SHARE} from './tunables.ts';

const ASIDS = 6;

/** cpu_tlbstate.ctxs of one CPU. */
interface Asids {
  readonly mmIds: Float64Array;
  readonly generations: Float64Array;
  next: number;
}

/** Loads address spaces on CPUs. */
export class MmSwitcher {
  private readonly asids: Asids[] | null;
  private readonly loadTicks: number;

  constructor(readonly kernel: Kernel) {
    const {topology, cpus} = kernel.machine;
    this.loadTicks = Math.round(topology.contextSwitchTicks * MM_SWITCH_SHARE);
    const fresh = (): Asids => ({
      mmIds: new Float64Array(ASIDS).fill(-1),
      generations: new Float64Array(ASIDS),
      next: 0,
    });
    this.asids = isBefore(kernel.facts.version, '4.14') ? null : cpus.map(fresh);
  }

  /** Makes `t`'s address space the loaded one on `rq`. Returns the ticks it took. */
  switchTo(rq: RunQueue, t: Task): number {
    const {mm} = t;
    const tlb = this.kernel.machine.tlbs[rq.cpu.id];
    if (mm === null) {
      t.activeMm = rq.loadedMm;
      tlb.lazy = true;
      return 0;
    }
    t.activeMm = mm;
    if (rq.loadedMm === mm) {
      const stale = tlb.generation < mm.tlbGeneration;
      tlb.lazy = false;
      if (!stale) return 0;
      tlb.flushAll(mm.tlbGeneration);
      return this.kernel.machine.topology.fullTlbFlushTicks;
    }
    return this.load(rq, t, mm);
  }

  /**
   * The CPU goes idle, or runs a task that gave up its mm: the tables stay, the TLB is not looked
   * after.
   */
  enterLazy(rq: RunQueue): void {
    if (rq.loadedMm !== null) this.kernel.machine.tlbs[rq.cpu.id].lazy = true;
  }

  private load(rq: RunQueue, t: Task, mm: MmStruct): number {
    const {machine, pgd} = this.kernel;
    const tlb = machine.tlbs[rq.cpu.id];
    this.kernel.tlb?.mmLoaded(rq.cpu, rq.loadedMm, mm);
    this.rememberFlushes(rq.cpu.id, rq.loadedMm, tlb.generation);
    rq.loadedMm = mm;
    tlb.load(mm.id, mm.tlbGeneration);
    pgd.switch_mm?.(t, mm);
    if (!this.needsFlush(rq.cpu.id, mm)) return this.loadTicks;
    tlb.flushAll(mm.tlbGeneration);
    return this.loadTicks + machine.topology.fullTlbFlushTicks;
  }

  /** Flushes that came while `mm` was loaded count when it comes back. */
  private rememberFlushes(cpu: number, mm: MmStruct | null, generation: number): void {
    if (this.asids === null || mm === null) return;
    const {mmIds, generations} = this.asids[cpu];
    const asid = mmIds.indexOf(mm.id);
    if (asid >= 0) generations[asid] = generation;
  }

  /** choose_new_asid(). */
  private needsFlush(cpu: number, mm: MmStruct): boolean {
    if (this.asids === null) return true;
    const {mmIds, generations} = this.asids[cpu];
    let asid = mmIds.indexOf(mm.id);
    const flush = asid < 0 || generations[asid] < mm.tlbGeneration;
    if (asid < 0) {
      asid = this.asids[cpu].next;
      this.asids[cpu].next = (asid + 1) % ASIDS;
    }
    mmIds[asid] = mm.id;
    generations[asid] = mm.tlbGeneration;
    return flush;
  }
}
