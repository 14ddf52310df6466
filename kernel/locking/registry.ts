// All locks of a kernel: makes them under the design's policy, groups their statistics by class and
// reports them.

import type {CacheLine} from '../../machine/cache_line.ts';
import type {Kernel} from '../kernel.ts';
import {type BulkClass, BulkLock, SpareLocks} from './bulk_lock.ts';
import {CnaLock} from './cna.ts';
import {LockContext} from './context.ts';
import {Lockdep} from './lockdep.ts';
import {McsLock} from './mcs.ts';
import {QSpinLock} from './qspinlock.ts';
import {RwLock} from './rwlock.ts';
import {Seqcount} from './seqcount.ts';
import type {SpinLock, SpinLockParts} from './spinlock.ts';
import {type LockReport, LockStats} from './stats.ts';
import {TasLock} from './tas.ts';
import {TicketLock} from './ticket.ts';

/** What the registry needs of a kernel. */
export type LockHost = Pick<Kernel, 'machine' | 'design' | 'checks'>;

/** How a lock is to be made. */
export interface LockOptions {
  /** Class for statistics and lockdep; the lock's name by default. */
  class?: string;
  /** A line shared with other variables; else the lock has a line of its own. */
  line?: CacheLine;
  /** Memory node of a line of its own; the machine's default home else. */
  node?: number;
}

/** Maker and accountant of locks. */
export class LockRegistry {
  readonly context: LockContext;
  private readonly host: LockHost;
  private readonly statsByClass = new Map<string, LockStats>();
  private readonly bulkClasses = new Map<string, BulkClass>();
  private readonly classIds = new Map<string, number>();

  constructor(kernel: LockHost) {
    this.host = kernel;
    this.context = new LockContext(kernel.machine);
  }

  /** Turns lockdep on: it costs host time, and follows locks acquired from now on. */
  enableLockdep(): Lockdep {
    const {context} = this;
    context.lockdep ??= new Lockdep(context.machine, this.host.checks, (id) => this.className(id));
    return context.lockdep;
  }

  get lockdep(): Lockdep | null {
    return this.context.lockdep;
  }

  /** DEFINE_SPINLOCK / spin_lock_init. */
  spinlock(name: string, opts: LockOptions = {}): SpinLock {
    return this.make(this.parts(name, opts, opts.class ?? name));
  }

  /** A lock inside one of many objects whose memory is on `node`. */
  bulk(className: string, node: number): BulkLock {
    let bulkClass = this.bulkClasses.get(className);
    if (bulkClass === undefined) {
      const stats = this.stats(className);
      const classId = this.classId(className);
      const spares = new SpareLocks((home) =>
        this.make({name: className, line: this.line(className, home), stats, classId: -1}),
      );
      bulkClass = {name: className, stats, classId, spares};
      this.bulkClasses.set(className, bulkClass);
    }
    return new BulkLock(this.context, bulkClass, node);
  }

  /** DEFINE_RWLOCK. */
  rwlock(name: string, opts: LockOptions = {}): RwLock {
    const className = opts.class ?? name;
    const line = opts.line ?? this.line(name, opts.node);
    const waitClass = `${className}.wait_lock`;
    return new RwLock(this.context, {
      name,
      line,
      readStats: this.stats(`${className}-R`),
      writeStats: this.stats(`${className}-W`),
      classId: this.classId(className),
      waitLock: this.make({name: waitClass, line, stats: this.stats(waitClass), classId: -1}),
    });
  }

  /** A seqcount; its writers are serialised by a lock of their own. */
  seqcount(name: string, opts: LockOptions = {}): Seqcount {
    return new Seqcount(this.context, name, opts.line ?? this.line(name, opts.node));
  }

  /** A raw lock for the inside of a sleeping lock: own statistics, not followed by lockdep. */
  innerSpinlock(name: string, line: CacheLine): SpinLock {
    return this.make({name, line, stats: this.stats(name), classId: -1});
  }

  /** Statistics of `className`, made when first asked for. Sleeping locks keep theirs here too. */
  stats(className: string): LockStats {
    let stats = this.statsByClass.get(className);
    if (stats === undefined) {
      stats = new LockStats(className);
      this.statsByClass.set(className, stats);
    }
    return stats;
  }

  /** Lockdep's number for `className`. */
  classId(className: string): number {
    let id = this.classIds.get(className);
    if (id === undefined) {
      id = this.classIds.size;
      this.classIds.set(className, id);
    }
    return id;
  }

  /** Forgets every statistic: the measurement starts here. */
  reset(): void {
    for (const stats of this.statsByClass.values()) stats.reset();
  }

  /** Every class that was acquired, by name; times in ticks. */
  report(): Map<string, LockReport> {
    const rows = new Map<string, LockReport>();
    for (const [name, stats] of this.statsByClass) {
      if (stats.acquired > 0) rows.set(name, stats.report(this.context.machine.profile));
    }
    return rows;
  }

  private className(id: number): string {
    for (const [name, known] of this.classIds) if (known === id) return name;
    return `class ${id}`;
  }

  private parts(name: string, opts: LockOptions, className: string): SpinLockParts {
    return {
      name,
      line: opts.line ?? this.line(name, opts.node),
      stats: this.stats(className),
      classId: this.classId(className),
    };
  }

  private line(name: string, node?: number): CacheLine {
    const {machine} = this.context;
    return machine.line(name, node ?? machine.topology.defaultHomeNode);
  }

  private make(parts: SpinLockParts): SpinLock {
    switch (this.host.design.spinlock) {
      case 'tas':
        return new TasLock(this.context, parts);
      case 'ticket':
        return new TicketLock(this.context, parts);
      case 'mcs':
        return new McsLock(this.context, parts);
      case 'qspinlock':
        return new QSpinLock(this.context, parts);
      case 'cna':
        return new CnaLock(this.context, parts);
    }
  }
}
