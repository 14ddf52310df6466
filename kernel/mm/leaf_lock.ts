// Spinlocks under which nothing waits for anybody: page-table locks, zone and LRU locks, per-CPU lists. Code under such a lock
// runs through in one go here, so the lock needs no queue of processes: it is the tick at which it is free again. Whoever
// comes earlier stalls for the difference, in order of arrival, and pays for the line's way from the last holder's CPU.
//
// Exact when the takers' clocks are settled at the acquisition; a fault takes its locks at most a microsecond after it
// settled, so two faults that start within that time may be served in order of their start. Statistics as for any spinlock.

import type {Cpu} from '../../machine/cpu.ts';
import type {Kernel} from '../kernel.ts';
import type {LockStats} from '../locking/stats.ts';

/** Locks of one class in one array: a page-table lock costs 10 bytes. */
export class LeafLocks {
  private freeTick: Float64Array;
  private lastCpu: Int16Array;
  private readonly stats: LockStats;
  private readonly fn: number;
  private takenTick = 0;
  private readonly kernel: Kernel;

  constructor(kernel: Kernel, className: string, locks: number) {
    this.kernel = kernel;
    this.freeTick = new Float64Array(locks);
    this.lastCpu = new Int16Array(locks).fill(-1);
    this.stats = kernel.locks.stats(className);
    this.fn = kernel.fn('native_queued_spin_lock_slowpath');
  }

  /** spin_lock of lock `index`, whose line is home on `node`; `fn` is who asks. Never fails: the wait is stalled. */
  lock(cpu: Cpu, index: number, node: number, fn: number): void {
    if (index >= this.freeTick.length) this.grow(index);
    const {kernel, stats} = this;
    const {topology} = kernel.machine;
    const last = this.lastCpu[index];
    let ticks = topology.atomicLocalTicks;
    if (last !== cpu.id) {
      if (last >= 0) {
        ticks = topology.transferTicks(last, cpu.id, node);
        stats.handoff[topology.distance(last, cpu.id)]++;
      }
      this.lastCpu[index] = cpu.id;
    } else {
      stats.handoff[0]++;
    }
    const now = kernel.machine.engine.now + cpu.pendingTicks;
    const wait = this.freeTick[index] - now;
    if (wait > 0) {
      stats.contended++;
      stats.waited(fn, wait);
      cpu.stall(wait + ticks, this.fn);
    } else {
      cpu.stall(ticks, this.fn);
    }
    stats.acquired++;
    this.takenTick = kernel.machine.engine.now + cpu.pendingTicks;
  }

  /** spin_unlock. Leaf locks of one class nest at most once, the inner one released first. */
  unlock(cpu: Cpu, index: number): void {
    const now = this.kernel.machine.engine.now + cpu.pendingTicks;
    this.stats.holdTicks += Math.max(now - this.takenTick, 0);
    this.freeTick[index] = now;
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
