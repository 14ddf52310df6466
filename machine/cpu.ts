// A logical CPU: who runs on it, how much time it owes, whether it takes interrupts.
//
// Code that runs on a CPU *charges* time as it goes and *settles* it before it does anything that
// another CPU could see. So a CPU may run ahead of the others only while no one can tell: every
// access to a line that somebody else may hold is preceded by settle(), which is where the events
// of all CPUs are put in order of time.
//     cpu.charge(ticks, fn);          // private work
//     if (cpu.settle()) yield;        // now look at shared state
// An interrupt taken while a process runs makes it late by the handler's time (`stolen`); the
// engine asks for that when the process's event comes up. A process that only spins is late by what
// is left of a handler when its wait ends, not by handlers that were done before. With interrupts
// off, interrupts wait until they are on again.

import {assert} from './assert.ts';
import type {Engine} from './engine.ts';
import type {Machine} from './machine.ts';
import type {Gate, Process} from './process.ts';

/** Work done in interrupt context. Returns the ticks that the handler's body took. */
export type InterruptHandler = (cpu: Cpu) => number;

/** One logical CPU. */
export class Cpu implements Gate {
  /** The process that runs here now, null when idle. */
  process: Process | null = null;
  /** The other hardware thread of the core, null without SMT. */
  sibling: Cpu | null = null;
  /** Depth of local_irq_disable. */
  irqDisabledDepth = 0;
  /** Ticks charged and not yet settled. */
  pendingTicks = 0;
  /** Total ticks in which something ran here. */
  busyTicks = 0;
  /** Total ticks spent in interrupt handlers. */
  interruptTicks = 0;
  private stolenTicks = 0;
  /** Tick until which handlers run that interrupted a process while it was waiting. */
  private handlingUntil = 0;
  private readonly heldInterrupts: InterruptHandler[] = [];

  private readonly engine: Engine;
  private readonly spent: Float64Array;

  constructor(
    readonly id: number,
    readonly machine: Machine,
  ) {
    this.engine = machine.engine;
    this.spent = machine.profile.ticks;
  }

  /** Lets private work pass; `fn` is a Profile id. A busy SMT sibling makes work slower. */
  charge(ticks: number, fn: number): void {
    if (this.sibling !== null) ticks = this.besideSibling(ticks);
    this.pendingTicks += ticks;
    this.spent[fn] += ticks;
  }

  /** What work takes while the other hardware thread is busy, or is not. */
  private besideSibling(ticks: number): number {
    if (this.sibling!.process === null) return ticks;
    return Math.round(ticks * this.machine.topology.smtSlowdown);
  }

  /**
   * Lets a memory access of exactly `ticks` pass: latency, not work, so SMT does not stretch it.
   */
  stall(ticks: number, fn: number): void {
    this.pendingTicks += ticks;
    this.spent[fn] += ticks;
  }

  /**
   * Makes simulated time catch up with this CPU. True: the running process must yield before it
   * goes on.
   */
  settle(): boolean {
    const ticks = this.pendingTicks;
    if (ticks === 0) return false;
    this.pendingTicks = 0;
    return this.engine.advance(ticks);
  }

  /** As settle, but a CPU that is less than `ticks` ahead of the others goes on. */
  settleWithin(ticks: number): boolean {
    return this.pendingTicks >= ticks && this.settle();
  }

  takeStolenTicks(): number {
    const ticks = this.stolenTicks;
    this.stolenTicks = 0;
    const left = this.handlingUntil - this.engine.now;
    if (left <= 0) return ticks;
    this.handlingUntil = 0;
    return ticks + left;
  }

  disableInterrupts(): void {
    this.irqDisabledDepth++;
  }

  /** Takes the interrupts that came meanwhile. */
  enableInterrupts(): void {
    assert(this.irqDisabledDepth > 0, 'interrupts enabled more often than disabled');
    this.irqDisabledDepth--;
    while (this.irqDisabledDepth === 0 && this.heldInterrupts.length > 0) {
      this.pendingTicks += this.handle(this.heldInterrupts.shift()!);
    }
  }

  /** An interrupt arrives. Returns true when it was taken at once. */
  interrupt(handler: InterruptHandler): boolean {
    if (this.irqDisabledDepth > 0) {
      this.heldInterrupts.push(handler);
      return false;
    }
    this.interruptNow(handler);
    return true;
  }

  /**
   * An interrupt arrives while they are on, which the caller has checked. Returns the ticks that it
   * took.
   */
  interruptNow(handler: InterruptHandler): number {
    const ticks = this.handle(handler);
    const {process} = this;
    if (process === null) return ticks;
    if (process.waitingFor === null) this.stolenTicks += ticks;
    else this.handlingUntil = Math.max(this.handlingUntil, this.engine.now) + ticks;
    return ticks;
  }

  private handle(handler: InterruptHandler): number {
    const ticks = this.machine.topology.ipiHandlerEntryTicks + handler(this);
    this.interruptTicks += ticks;
    return ticks;
  }
}
