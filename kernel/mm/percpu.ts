// mm/percpu.c and lib/percpu_counter.c, as far as mm_init uses them: since 6.2 (f1a7941243c1)
// rss_stat of every mm is four percpu counters, allocated and freed together since 6.6
// (percpu_counter_init_many, seen 6.6.9).
//
// What that costs is in three places, all global or per CPU: pcpu_lock around the bitmap of a
// chunk, percpu_counters_lock around the list of all counters (CONFIG_HOTPLUG_CPU), and clearing 16
// bytes in the unit of every possible CPU, each in another line. Lines are real here: the area is
// the lowest free one, four areas share a line per CPU, and a line stays where it was last touched.
// The stores of the clearing overlap; RFO_OVERLAP says by how much. Not modelled: pcpu_alloc_mutex,
// growing the chunk list, and populating chunks.

import type {Code} from '../../machine/process.ts';
import type {Kernel} from '../kernel.ts';
import type {SpinLock} from '../locking/spinlock.ts';
import type {MmStruct} from '../mm_types.ts';
import type {Task} from '../task.ts';

/** NR_MM_COUNTERS: file, anonymous, swap, shmem. */
export const NR_MM_COUNTERS = 4;
/** Areas of four 32-bit counters in one 64-byte line. */
const AREAS_PER_LINE = 4;
/**
 * Misses that stores to different lines have in flight at once. Assumption: stores retire in order,
 * and the core prefetches ownership for a few of those that wait in the store buffer; 10 to 16 fill
 * buffers are the upper end.
 */
const RFO_OVERLAP = 4;

/** The percpu areas of rss_stat counters. */
export class MmCounters {
  readonly pcpu_lock: SpinLock;
  readonly percpu_counters_lock: SpinLock;
  /** Areas in use. */
  used = 0;
  private readonly inUse: boolean[] = [];
  private firstFree = 0;
  /** By group of areas: the first of its lines, one line per CPU. */
  private readonly lines: Int32Array[] = [];
  private readonly fnInit: number;
  private readonly fnAlloc: number;
  private readonly fnDestroy: number;
  private readonly fnFree: number;

  constructor(readonly kernel: Kernel) {
    const {locks, layout} = kernel;
    this.pcpu_lock = locks.spinlock('pcpu_lock', {line: layout.line('pcpu_lock')});
    this.percpu_counters_lock = locks.spinlock('percpu_counters_lock', {
      line: layout.line('percpu_counters_lock'),
    });
    this.fnInit = kernel.fn('percpu_counter_init');
    this.fnAlloc = kernel.fn('pcpu_alloc');
    this.fnDestroy = kernel.fn('percpu_counter_destroy');
    this.fnFree = kernel.fn('free_percpu');
  }

  /** percpu_counter_init_many(mm->rss_stat). */
  *init(t: Task, mm: MmStruct): Code {
    const {pcpu_lock, percpu_counters_lock} = this;
    const {costs} = this.kernel;
    if (!pcpu_lock.acquireIrq(t, this.fnAlloc)) yield* pcpu_lock.acquireSlow(t, this.fnAlloc);
    mm.pcpuSlot = this.lowestFree();
    t.cpu.charge(costs.pcpuAllocTicks, this.fnAlloc);
    if (!pcpu_lock.releaseIrq(t)) yield* pcpu_lock.releaseIrqSlow(t);
    this.clearUnits(t, mm.pcpuSlot);
    if (!percpu_counters_lock.acquireIrq(t, this.fnInit))
      yield* percpu_counters_lock.acquireSlow(t, this.fnInit);
    t.cpu.charge(NR_MM_COUNTERS * costs.percpuCounterListTicks, this.fnInit);
    if (!percpu_counters_lock.releaseIrq(t)) yield* percpu_counters_lock.releaseIrqSlow(t);
  }

  /** check_mm sums every counter over all CPUs, then percpu_counter_destroy_many. */
  *destroy(t: Task, mm: MmStruct): Code {
    const {pcpu_lock, percpu_counters_lock} = this;
    const {costs, machine} = this.kernel;
    const cpus = machine.topology.cpuCount;
    this.touchUnits(t, mm.pcpuSlot, this.fnDestroy);
    t.cpu.charge(NR_MM_COUNTERS * cpus * costs.percpuCounterSumTicks, this.fnDestroy);
    if (!percpu_counters_lock.acquireIrq(t, this.fnDestroy))
      yield* percpu_counters_lock.acquireSlow(t, this.fnDestroy);
    t.cpu.charge(NR_MM_COUNTERS * costs.percpuCounterListTicks, this.fnDestroy);
    if (!percpu_counters_lock.releaseIrq(t)) yield* percpu_counters_lock.releaseIrqSlow(t);
    if (!pcpu_lock.acquireIrq(t, this.fnFree)) yield* pcpu_lock.acquireSlow(t, this.fnFree);
    t.cpu.charge(costs.pcpuFreeTicks, this.fnFree);
    this.inUse[mm.pcpuSlot] = false;
    this.firstFree = Math.min(this.firstFree, mm.pcpuSlot);
    this.used--;
    mm.pcpuSlot = -1;
    if (!pcpu_lock.releaseIrq(t)) yield* pcpu_lock.releaseIrqSlow(t);
  }

  private lowestFree(): number {
    let area = this.firstFree;
    while (this.inUse[area] === true) area++;
    this.inUse[area] = true;
    this.firstFree = area + 1;
    this.used++;
    return area;
  }

  private clearUnits(t: Task, area: number): void {
    const {costs, machine} = this.kernel;
    this.touchUnits(t, area, this.fnAlloc);
    t.cpu.charge(machine.topology.cpuCount * costs.pcpuClearHitTicks, this.fnAlloc);
  }

  /** Gets the area's line of every CPU's unit. */
  private touchUnits(t: Task, area: number, fn: number): void {
    const {machine} = this.kernel;
    const lines = this.linesOf(Math.floor(area / AREAS_PER_LINE));
    let ticks = 0;
    for (const line of lines) ticks += machine.lines.touch(line, t.cpu);
    t.cpu.stall(Math.round(ticks / RFO_OVERLAP), fn);
  }

  private linesOf(group: number): Int32Array {
    while (this.lines.length <= group) {
      const {lines, topology} = this.kernel.machine;
      this.lines.push(topology.nodeOf.map((node) => lines.allocate(node)));
    }
    return this.lines[group];
  }
}
