// Spinlocks under which nothing waits for anybody: page-table locks, zone and LRU locks. Code under
// such a lock runs through in one go here, so the lock needs no queue of processes: it is the tick
// at which it is free again. Whoever comes earlier stalls for the difference, in order of arrival,
// and pays for the line's way from the last holder's CPU.
//
// Exact when the takers' clocks are settled at the acquisition; a fault takes its locks at most a
// microsecond after it settled, so two faults that start within that time may be served in order of
// their start. Statistics as for any spinlock.
//
// Now and then a page-table lock is held while IPIs are waited for (the flush of a COW). Then
// `hold` is in force: takers must look at `busy` first, and spin.

import type {Cpu} from '../../machine/cpu.ts';
import type {Engine} from '../../machine/engine.ts';
import type {Code} from '../../machine/process.ts';
import type {Topology} from '../../machine/topology.ts';
import type {Kernel} from '../kernel.ts';
import type {LockStats} from '../locking/stats.ts';
import type {Task} from '../task.ts';

/**
 * What a CPU may be ahead of the others when it takes a leaf lock in a loop over page tables: 1 us,
 * as in a fault.
 */
export const LEAF_AHEAD_TICKS = 10_000;
/** Length of one look at a held lock: a PAUSE loop re-reads the line about that often. */
const SPIN_TICKS = 500;

/** Locks of one class in one array: a page-table lock costs 10 bytes. */
export class LeafLocks {
  private freeTick: Float64Array;
  private lastCpu: Int16Array;
  private readonly held = new Set<number>();
  private readonly stats: LockStats;
  private readonly engine: Engine;
  private readonly topology: Topology;
  private readonly fn: number;
  private takenTick = 0;

  constructor(kernel: Kernel, className: string, locks: number) {
    this.engine = kernel.machine.engine;
    this.topology = kernel.machine.topology;
    this.freeTick = new Float64Array(locks);
    this.lastCpu = new Int16Array(locks).fill(-1);
    this.stats = kernel.locks.stats(className);
    this.fn = kernel.fn('native_queued_spin_lock_slowpath');
  }

  /**
   * spin_lock of lock `index`, whose line is home on `node`; `fn` is who asks. The wait, if any, is
   * stalled.
   */
  lock(cpu: Cpu, index: number, node: number, fn: number): void {
    if (index >= this.freeTick.length) this.grow(index);
    const {stats} = this;
    let ticks = this.topology.atomicLocalTicks;
    if (this.lastCpu[index] === cpu.id) stats.handoff[0]++;
    else ticks = this.handedOver(index, cpu.id, node);
    const now = this.engine.now + cpu.pendingTicks;
    if (this.freeTick[index] > now) ticks += this.waited(this.freeTick[index] - now, fn);
    cpu.stall(ticks, this.fn);
    stats.acquired++;
    this.takenTick = now + ticks;
  }

  /** The lock's line comes from the CPU that had the lock last, if any had. Returns the ticks. */
  private handedOver(index: number, cpu: number, node: number): number {
    const {topology} = this;
    const last = this.lastCpu[index];
    this.lastCpu[index] = cpu;
    if (last < 0) return topology.atomicLocalTicks;
    this.stats.handoff[topology.distance(last, cpu)]++;
    return topology.transferTicks(last, cpu, node);
  }

  private waited(ticks: number, fn: number): number {
    this.stats.contended++;
    this.stats.waited(fn, ticks);
    return ticks;
  }

  /** spin_unlock. */
  unlock(cpu: Cpu, index: number): void {
    const now = this.engine.now + cpu.pendingTicks;
    const held = now - this.takenTick;
    if (held > 0) this.stats.holdTicks += held;
    this.freeTick[index] = now;
  }

  /** True while any of the locks is held across waiting. */
  get anyHeld(): boolean {
    return this.held.size !== 0;
  }

  /** True while somebody holds the lock across waiting: `spin` first. */
  busy(index: number): boolean {
    return this.held.size !== 0 && this.held.has(index);
  }

  /** The holder, who has called `lock`, is going to wait with the lock held. */
  hold(index: number): void {
    this.held.add(index);
  }

  /** Ends `hold`; `unlock` follows. */
  unhold(index: number): void {
    this.held.delete(index);
  }

  /** Spins until the lock is no longer held across waiting. */
  *spin(t: Task, index: number, fn: number): Code {
    const since = this.engine.now;
    this.stats.contended++;
    while (this.held.has(index)) {
      t.cpu.stall(SPIN_TICKS, this.fn);
      if (t.cpu.settle()) yield;
    }
    this.stats.waited(fn, this.engine.now - since);
  }

  /** The object is freed: the next one in its place has a new lock. */
  forget(index: number): void {
    if (index >= this.freeTick.length) return;
    this.freeTick[index] = 0;
    this.lastCpu[index] = -1;
  }

  private grow(index: number): void {
    const length = Math.max(index + 1, this.freeTick.length * 2);
    const free = new Float64Array(length);
    free.set(this.freeTick);
    this.freeTick = free;
    const cpus = new Int16Array(length).fill(-1);
    cpus.set(this.lastCpu);
    this.lastCpu = cpus;
  }
}
