// Store buffers of x86-TSO for variables that the kernel model declares racy. Each CPU has a FIFO
// of stores that only it can see; a store leaves the FIFO for memory some time later, and then
// every CPU sees it. Nothing else is reordered: that is the whole of x86-TSO (Sewell et al., CACM
// 2010), and the litmus test beside this file checks it exhaustively.
//
// Memory is the caller's Uint32Array cells. Stores wait in one queue per CPU, in order of issue
// with due times that never go down inside a queue. Whoever loads or fences first moves every store
// that is due by now into memory, in order of due time and then of CPU number, so the cells are
// right for everyone who asks through this class. Code that reads cells directly calls `settle`
// first. While no store waits anywhere, load and fence cost one integer test.

import {assert} from './assert.ts';
import type {Rng} from './rng.ts';

/**
 * Stores that fit into one CPU's buffer unless the machine says otherwise. Assumption: 56 is the
 * store-buffer size of Skylake-class Intel cores; older ones have 36 to 42, Zen 3 and later 64.
 */
export const DEFAULT_STORE_BUFFER_ENTRIES = 56;

export interface StoreBufferOptions {
  /** Stores that may wait per CPU; one more makes the oldest visible at once. */
  readonly capacity?: number;
  /** Ticks from a store's issue until it may become visible; drawn once per store. */
  readonly drainTicks: (cpu: number, rng: Rng) => number;
}

interface PendingStore {
  cells: Uint32Array;
  index: number;
  value: number;
  dueTicks: number;
}

/** Waiting stores of all CPUs. */
export class StoreBuffers {
  readonly capacity: number;
  /** Stores that wait anywhere. */
  pending = 0;
  /** Due time of the store that drains next, and its CPU. */
  private earliestTicks = Infinity;
  private earliestCpu = -1;
  /** CPUs with waiting stores, in no order. */
  private readonly busy: number[] = [];
  private readonly queues: PendingStore[][];
  private readonly lastDueTicks: Float64Array;
  private readonly drainTicks: StoreBufferOptions['drainTicks'];
  private readonly rng: Rng;

  constructor(cpuCount: number, options: StoreBufferOptions, rng: Rng) {
    this.capacity = options.capacity ?? DEFAULT_STORE_BUFFER_ENTRIES;
    assert(this.capacity >= 1, 'a store buffer needs room for one store');
    this.queues = Array.from({length: cpuCount}, () => []);
    this.lastDueTicks = new Float64Array(cpuCount);
    this.drainTicks = options.drainTicks;
    this.rng = rng;
  }

  /** Issues a plain store: `cpu` sees it at once, the others when it has drained. */
  store(cpu: number, cells: Uint32Array, index: number, value: number, nowTicks: number): void {
    if (this.pending !== 0) this.settle(nowTicks);
    const queue = this.queues[cpu];
    if (queue.length === this.capacity) this.drainOne(cpu);
    const due = nowTicks + this.drainTicks(cpu, this.rng);
    const dueTicks = Math.max(due, this.lastDueTicks[cpu]);
    this.lastDueTicks[cpu] = dueTicks;
    if (queue.length === 0) this.busy.push(cpu);
    queue.push({cells, index, value, dueTicks});
    this.pending++;
    if (queue.length === 1) this.consider(cpu);
  }

  /**
   * What `cpu` reads at `nowTicks`: its own newest waiting store to the cell, else memory as of
   * now.
   */
  load(cpu: number, cells: Uint32Array, index: number, nowTicks: number): number {
    if (this.pending === 0) return cells[index];
    this.settle(nowTicks);
    const queue = this.queues[cpu];
    for (let i = queue.length - 1; i >= 0; i--) {
      const entry = queue[i];
      if (entry.cells === cells && entry.index === index) return entry.value >>> 0;
    }
    return cells[index];
  }

  /**
   * Ticks until the last waiting store of `cpu` has drained. A locked operation whose caller
   * settles them before it goes on needs no more: the stores keep their times, and others see them
   * late.
   */
  ticksToDrain(cpu: number, nowTicks: number): number {
    if (this.pending === 0) return 0;
    this.settle(nowTicks);
    return Math.max(0, this.drainedBy(cpu) - nowTicks);
  }

  /**
   * MFENCE, and the fence in every locked operation: returns the ticks until the last waiting store
   * of `cpu` would have drained, which the caller charges. The stores reach memory at once, which
   * x86-TSO allows too, so that no caller can read ahead of its own stores, whenever it pays the
   * charge; stores of other CPUs keep their times.
   */
  fence(cpu: number, nowTicks: number): number {
    if (this.pending === 0) return 0;
    this.settle(nowTicks);
    const untilTicks = this.drainedBy(cpu);
    while (this.drainOne(cpu));
    return untilTicks === 0 ? 0 : untilTicks - nowTicks;
  }

  /** Tick at which everything that `cpu` has issued so far is visible; 0 when nothing waits. */
  drainedBy(cpu: number): number {
    const queue = this.queues[cpu];
    return queue.length === 0 ? 0 : queue[queue.length - 1].dueTicks;
  }

  /** Number of stores of `cpu` that wait. */
  waiting(cpu: number): number {
    return this.queues[cpu].length;
  }

  /**
   * Moves every store that is due by `nowTicks` into memory, earliest first, lower CPU first on a
   * tie.
   */
  settle(nowTicks: number): void {
    while (this.pending !== 0 && this.earliestTicks <= nowTicks) this.drainOne(this.earliestCpu);
  }

  /**
   * Moves the oldest waiting store of `cpu` into memory whatever its time; false when none waits.
   */
  drainOne(cpu: number): boolean {
    const queue = this.queues[cpu];
    const entry = queue.shift();
    if (entry === undefined) return false;
    entry.cells[entry.index] = entry.value;
    this.pending--;
    if (queue.length === 0) this.busy.splice(this.busy.indexOf(cpu), 1);
    if (cpu === this.earliestCpu) this.findEarliest();
    return true;
  }

  private findEarliest(): void {
    this.earliestTicks = Infinity;
    this.earliestCpu = -1;
    for (const cpu of this.busy) this.consider(cpu);
  }

  /** Makes the oldest store of `cpu` the next to drain if it is due before the one known so far. */
  private consider(cpu: number): void {
    const {dueTicks} = this.queues[cpu][0];
    const known = this.earliestTicks;
    if (dueTicks > known || (dueTicks === known && cpu > this.earliestCpu && this.earliestCpu >= 0))
      return;
    this.earliestTicks = dueTicks;
    this.earliestCpu = cpu;
  }
}
