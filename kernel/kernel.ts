// The simulated kernel: its subsystems, put together on one machine for one design. Each subsystem
// owns its state; what they share is reached through here, as global variables are in Linux.

import type {Machine} from '../machine/machine.ts';
import {KernelPageTables} from './arch/x86/mm/page_tables.ts';
import {makePgdDesign} from './arch/x86/mm/pgd/designs.ts';
import {CpuTlbState} from './arch/x86/mm/tlb.ts';
import {Cgroups} from './cgroup.ts';
import {Checks} from './checks.ts';
import {COSTS, type Costs, scaledCosts} from './costs.ts';
import type {Design, KernelFacts} from './design.ts';
import {type ForkFns, forkFns} from './fork_fns.ts';
import {ThreadStacks} from './fork_stack.ts';
import {Layout} from './layout.ts';
import {type HookCounts, hookCounts} from './life_hooks.ts';
import {LockRegistry} from './locking/registry.ts';
import {MmStruct} from './mm_types.ts';
import {MmCounters} from './mm/percpu.ts';
import {Mm} from './mm/mm_state.ts';
import {Vmalloc} from './mm/vmalloc.ts';
import type {PgdDesign} from './pgd_design.ts';
import {Pids} from './pid.ts';
import {InputPool} from './random.ts';
import {Rcu} from './rcu.ts';
import {Scheduler} from './sched/core.ts';
import {SharedState} from './shared_state.ts';
import type {Task} from './task.ts';
import {TaskList} from './tasklist.ts';
import {isBefore} from './version.ts';

/** A kernel of one version and design, running on one machine. */
export class Kernel {
  readonly design: Design;
  readonly checks = new Checks();
  readonly costs: Costs;
  readonly layout: Layout;
  readonly fns: ForkFns;
  readonly locks: LockRegistry;
  readonly sched: Scheduler;
  readonly rcu: Rcu;
  readonly taskList: TaskList;
  readonly initMm: MmStruct;
  readonly pageTables: KernelPageTables;
  readonly pgd: PgdDesign;
  readonly vmalloc: Vmalloc;
  readonly tlb: CpuTlbState;
  readonly stacks: ThreadStacks;
  /** rss_stat as percpu counters (6.2+), null before. */
  readonly mmCounters: MmCounters | null;
  readonly pids: Pids;
  readonly cgroups: Cgroups;
  readonly inputPool: InputPool;
  readonly hooks: HookCounts;
  /** Lines that every fork, exec and exit changes. */
  readonly shared: SharedState;
  /** The task that inherits orphans, null until there was one. */
  init: Task | null = null;
  /** What happened so far: for reports and for the laws that tests check. */
  forks = 0;
  execs = 0;
  exits = 0;
  /** Tasks freed after release_task and a grace period. */
  reaped = 0;
  readonly mmCounts = {pgdAllocs: 0, pgdFrees: 0};
  private nextMmId = 1;
  private mmState: Mm | null = null;

  constructor(
    readonly machine: Machine,
    readonly facts: KernelFacts,
  ) {
    this.design = facts.design;
    this.costs = scaledCosts(COSTS, machine.topology.forkWork);
    this.layout = new Layout(machine, facts.design);
    this.fns = forkFns(this);
    this.locks = new LockRegistry(this);
    this.sched = new Scheduler(this);
    this.rcu = new Rcu(this);
    this.taskList = new TaskList(this);
    this.initMm = new MmStruct(0, this.locks.bulk('page_table_lock', 0));
    this.pageTables = new KernelPageTables(this);
    this.pgd = makePgdDesign(this);
    this.vmalloc = new Vmalloc(this);
    this.tlb = new CpuTlbState(this);
    this.stacks = new ThreadStacks(this);
    this.mmCounters = isBefore(facts.version, '6.2') ? null : new MmCounters(this);
    this.pids = new Pids(this);
    this.cgroups = new Cgroups(this);
    this.inputPool = new InputPool(this);
    this.hooks = hookCounts(facts.version);
    this.shared = new SharedState(this);
  }

  /**
   * Told, of each invalidation that notifiers heard of, how many ticks passed from the call of
   * invalidate_range_start to the return of invalidate_range_end.
   */
  invalidated: ((ticks: number) => void) | null = null;

  /** Memory management: made when first used, since its arenas are not small. */
  get mm(): Mm {
    return this.mmState ?? this.makeMm();
  }

  private makeMm(): Mm {
    this.mmState = new Mm(this);
    return this.mmState;
  }

  /** False while nothing needed memory management. */
  get hasMm(): boolean {
    return this.mmState !== null;
  }

  /** As `mm`, but null while nothing has needed it. */
  get mmIfMade(): Mm | null {
    return this.mmState;
  }

  /** The profile's number for a kernel function; callers keep it. */
  fn(name: string): number {
    return this.machine.profile.id(name);
  }

  /** A new, empty address space with its memory on `node`. */
  newMm(node: number): MmStruct {
    return new MmStruct(this.nextMmId++, this.locks.bulk('page_table_lock', node));
  }
}
