// What mutex and rwsem have in common: one cache line with count, owner, spin queue and wait list;
// statistics in the registry's form; lockdep; the head of the spin queue.

import {CacheLine} from '../../machine/cache_line.ts';
import type {Cpu} from '../../machine/cpu.ts';
import type {Engine} from '../../machine/engine.ts';
import type {Process, Waitable} from '../../machine/process.ts';
import type {Kernel} from '../kernel.ts';
import type {Task} from '../task.ts';
import type {Acquisition} from './lockdep.ts';
import {OsqLock, Spinner} from './osq_lock.ts';
import type {LockOptions, LockRegistry} from './registry.ts';
import type {SpinLock} from './spinlock.ts';
import type {LockStats} from './stats.ts';

/** For lockdep: a plain acquisition of a sleeping lock, and a trylock. */
export const SLEEPING: Acquisition = Object.freeze({sleeping: true});
export const TRYLOCK: Acquisition = Object.freeze({sleeping: true, trylock: true});

/** Where the profile counts spinning and sleeping. */
const FUNCTIONS = {
  mutex: {spin: 'mutex_spin_on_owner', sleep: 'mutex_lock_slowpath'},
  rwsem: {spin: 'rwsem_spin_on_owner', sleep: 'rwsem_lock_slowpath'},
} as const;

/** Base of the locks that one may sleep for. */
export abstract class SleepingLock implements Waitable {
  protected readonly line: CacheLine;
  protected readonly engine: Engine;
  protected readonly locks: LockRegistry;
  private readonly className: string;
  private madeWaitLock: SpinLock | null = null;
  protected readonly osq: OsqLock;
  protected readonly classId: number;
  /** Spinners that look at the owner now. */
  protected readonly lookers: Spinner[] = [];
  protected readonly spinFn: number;
  protected readonly sleepFn: number;

  constructor(
    readonly kernel: Kernel,
    readonly name: string,
    opts: LockOptions,
    kind: 'mutex' | 'rwsem',
  ) {
    const {machine, locks} = kernel;
    const className = opts.class ?? name;
    const node = opts.node ?? machine.topology.defaultHomeNode;
    this.line = opts.line ?? new CacheLine(name, machine.topology, node);
    this.engine = machine.engine;
    this.locks = locks;
    this.className = className;
    this.osq = new OsqLock(kernel, `${name}.osq`, this.line);
    this.classId = locks.classId(className);
    this.spinFn = kernel.fn(FUNCTIONS[kind].spin);
    this.sleepFn = kernel.fn(FUNCTIONS[kind].sleep);
  }

  abstract holder(): Process | null;

  /** wait_lock, made when somebody has to wait: most locks never see that. */
  protected get waitLock(): SpinLock {
    this.madeWaitLock ??= this.kernel.locks.innerSpinlock(`${this.className}.wait_lock`, this.line);
    return this.madeWaitLock;
  }

  protected get now(): number {
    return this.engine.now;
  }

  /** A locked operation on the lock's word. */
  protected rmw(cpu: Cpu, fn: number): void {
    cpu.stall(this.line.rmw(cpu, this.now), fn);
  }

  /** The owner changed on `cpu`: who looks sees it when the line has come. */
  protected notifyLookers(cpu: Cpu): void {
    if (this.lookers.length > 0) this.notifyAll(cpu);
  }

  private notifyAll(cpu: Cpu): void {
    const {topology} = this.kernel.machine;
    for (const spinner of this.lookers.slice()) {
      const to = spinner.task.cpu.id;
      spinner.notify(cpu.pendingTicks + topology.transferTicks(cpu.id, to, this.line.homeNode));
    }
  }

  protected stopLooking(spinner: Spinner): void {
    const at = this.lookers.indexOf(spinner);
    if (at >= 0) this.lookers.splice(at, 1);
  }

  protected newSpinner(t: Task): Spinner {
    return new Spinner(this.kernel, t);
  }
}

/** Counts of one class of holders (a mutex, the readers or the writers of an rwsem). */
export class HolderStats {
  private lastCpu = -1;

  constructor(
    readonly kernel: Kernel,
    readonly stats: LockStats,
  ) {}

  taken(cpu: Cpu): void {
    this.stats.acquired++;
    if (this.lastCpu !== cpu.id) this.handedOver(cpu.id);
  }

  private handedOver(cpu: number): void {
    const {stats, lastCpu} = this;
    this.lastCpu = cpu;
    if (lastCpu < 0) stats.first++;
    else stats.handoff[this.kernel.machine.topology.distance(lastCpu, cpu)]++;
  }
}
