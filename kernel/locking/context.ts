// What all locks of a kernel share: the machine, the profile's numbers, the MCS nodes of the CPUs,
// and the stores of releases that are still on their way.
//
// A release is a plain store on x86. The releaser goes on at once, but when the line is shared the
// store only becomes visible when the line has been taken back, and a later locked operation of the
// same CPU waits for that (`storeDone`).

import type {Cpu} from '../../machine/cpu.ts';
import type {Engine} from '../../machine/engine.ts';
import type {Machine} from '../../machine/machine.ts';
import type {Process} from '../../machine/process.ts';
import type {StoreBuffers} from '../../machine/store_buffer.ts';
import type {Topology} from '../../machine/topology.ts';
import type {Lockdep} from './lockdep.ts';

/** State shared by the locks of one kernel. */
export class LockContext {
  readonly machine: Machine;
  readonly engine: Engine;
  readonly topology: Topology;
  readonly storeBuffers: StoreBuffers;
  /** Null when lockdep is off. */
  lockdep: Lockdep | null = null;
  /** Profile ids: uncontended acquisition and release. */
  readonly lockFn: number;
  readonly unlockFn: number;
  /** Tick from which on no store of any CPU to a lock is under way. */
  storeTick = 0;
  /** By CPU: tick at which its last store to a lock is visible. */
  private readonly storeDone: Float64Array;
  /** By CPU: who wrote last to the line of its MCS nodes. */
  private readonly nodeWriter: Int32Array;

  constructor(machine: Machine) {
    this.machine = machine;
    this.engine = machine.engine;
    this.topology = machine.topology;
    this.storeBuffers = machine.storeBuffers;
    this.lockFn = machine.profile.id('_raw_spin_lock');
    this.unlockFn = machine.profile.id('_raw_spin_unlock');
    this.storeDone = new Float64Array(machine.topology.cpuCount);
    this.nodeWriter = Int32Array.from({length: machine.topology.cpuCount}, (_, cpu) => cpu);
  }

  /** Ticks that a locked operation of `cpu` waits for the CPU's earlier stores. */
  fenceTicks(cpu: number, now: number): number {
    const own = this.storeDone[cpu] - now;
    const buffered = this.storeBuffers.pending === 0 ? 0 : this.storeBuffers.fence(cpu, now);
    return Math.max(0, own, buffered);
  }

  /** As fenceTicks for a caller that settles them before it does anything else. */
  drainTicks(cpu: number, now: number): number {
    return Math.max(0, this.storeDone[cpu] - now, this.storeBuffers.ticksToDrain(cpu, now));
  }

  /** `cpu` has stores that no one else sees yet: a locked operation must let them drain first. */
  mustDrain(cpu: number): boolean {
    return this.storeBuffers.pending !== 0 && this.storeBuffers.waiting(cpu) > 0;
  }

  /**
   * Nothing at `tick` asks for a further look at a lock operation: no other CPU is due, no store is
   * under way, and nobody keeps a record of the locks that a task holds.
   */
  isQuiet(tick: number): boolean {
    return (
      tick < this.engine.quietBefore &&
      tick >= this.storeTick &&
      this.storeBuffers.pending === 0 &&
      this.lockdep === null
    );
  }

  /** A store of `cpu` to a lock is visible from `tick` on. */
  stored(cpu: number, tick: number): void {
    if (tick > this.storeDone[cpu]) this.storeDone[cpu] = tick;
    if (tick > this.storeTick) this.storeTick = tick;
  }

  /**
   * Ticks for `cpu` to initialise its own MCS node: the last hand-off may have left the line
   * elsewhere.
   */
  claimNode(cpu: number): number {
    const writer = this.nodeWriter[cpu];
    this.nodeWriter[cpu] = cpu;
    return writer === cpu ? this.topology.l1HitTicks : this.nodeTicks(writer, cpu, cpu);
  }

  /** Ticks for `cpu` to write into the MCS node of `owner`, who polls it. */
  writeNode(owner: number, cpu: number): number {
    this.nodeWriter[owner] = cpu;
    return this.nodeTicks(owner, cpu, owner);
  }

  /** Ticks to move the line of `owner`'s MCS nodes, which is in memory of the owner's node. */
  nodeTicks(from: number, to: number, owner: number): number {
    return this.topology.transferTicks(from, to, this.topology.nodeOf[owner]);
  }
}

/** A CPU's wait for one lock. */
export class Waiter {
  /** Tick at which the wait is over; -1 while that is not known. */
  grantTick = -1;
  /** Tick at which its present spin began. */
  spinTick = 0;
  /** The spinning process while it is parked. */
  process: Process | null = null;
  /** Its successor in a queue. */
  next: Waiter | null = null;
  /** Tick at which the predecessor can see the link to this waiter. */
  linkedTick = 0;
  /** Tick until which its MCS node's line is in transit. */
  nodeBusyTick = 0;
  /** Tick at which it learnt that it is at the head of the queue. */
  headTick = -1;
  /** It polls the lock word. */
  polls = false;

  constructor(
    readonly cpu: Cpu,
    /** Profile id of the function that wants the lock. */
    readonly fn: number,
  ) {}
}
