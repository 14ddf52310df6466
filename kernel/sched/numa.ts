// kernel/sched/fair.c, automatic NUMA balancing, 6.18: what is kept per task and per VMA, which
// node a page should be on, and how fast to scan. The scan itself is numa_scan.ts, the hinting
// faults are mm/memory_numa.ts.
//
// A task counts its hinting faults by the node of the memory; after every full scan of its mm the
// node with most of them (older windows count half) becomes its preferred node, and the scan slows
// down or speeds up by the share of private and of local faults. A page moves to the node of the
// CPU that faults on it if the last fault came from that node, too, or from the same task (last
// cpupid): one pass of a stray thread moves nothing.
//
// Only machines with more than one node scan, and kernels from 3.8 on. Before 3.13 the filter knows
// nodes only; before 4.20 a task's first faults are filtered, too. Not modelled: numa groups
// (threads that share pages count their faults apart, and a shared fault is decided without the
// group's statistics), swapping tasks between nodes, memory tiering.

import type {Kernel} from '../kernel.ts';
import type {UserMm} from '../mm/user_mm.ts';
import type {VmArea} from '../mm/vma.ts';
import {nsToTicks} from '../../machine/time.ts';
import type {Task} from '../task.ts';
import {isBefore} from '../version.ts';

const MS = nsToTicks(1e6);
/** MAX_SCAN_WINDOW in MB a second; NUMA_PERIOD_SLOTS, NUMA_PERIOD_THRESHOLD. */
const MAX_SCAN_WINDOW = 2560;
const PERIOD_SLOTS = 10;
const PERIOD_THRESHOLD = 7;
const HZ_MS = 1000;
/** LAST__PID_BITS. */
const PID_BITS = 8;
const PID_MASK = 255;

export const NUMA_NO_NODE = -1;

/** /sys/kernel/debug/sched/numa_balancing; milliseconds, MB. */
export interface NumaSettings {
  enabled: boolean;
  scanDelayMs: number;
  scanPeriodMinMs: number;
  scanPeriodMaxMs: number;
  scanSizeMb: number;
}

/** task_struct's numa_ fields. */
export class TaskNuma {
  /** Run time at which the next period began, and its length. */
  nodeStampTicks = 0;
  scanPeriodMs: number;
  scanPeriodMaxMs = 0;
  /** task_work_add was called. */
  workPending = false;
  scanSeq: number;
  preferredNode = NUMA_NO_NODE;
  migrateRetryTick = 0;
  pagesMigrated = 0;
  lastPlacementTick = 0;
  lastRunTicks = 0;
  /** numa_faults_locality: remote, local, failed to migrate. */
  readonly locality = [0, 0, 0];
  /**
   * numa_faults by node * 2 + private: decayed, and of the current window; memory's node, CPU's
   * node.
   */
  readonly mem: Float64Array;
  readonly memWindow: Float64Array;
  readonly cpu: Float64Array;
  readonly cpuWindow: Float64Array;

  constructor(nodes: number, delayMs: number, seq: number) {
    this.scanPeriodMs = delayMs;
    this.scanSeq = seq;
    this.mem = new Float64Array(nodes * 2);
    this.memWindow = new Float64Array(nodes * 2);
    this.cpu = new Float64Array(nodes * 2);
    this.cpuWindow = new Float64Array(nodes * 2);
  }
}

/** vma_numab_state (6.4+). */
export class VmaNuma {
  nextScanTick = 0;
  pidsActiveResetTick = 0;
  pidsActive = 0;
  pidsActiveBefore = 0;
  startScanSeq = 0;
  prevScanSeq = 0;
}

/** State of NUMA balancing. */
export class NumaBalancing {
  readonly settings: NumaSettings = {
    enabled: true,
    scanDelayMs: 1000,
    scanPeriodMinMs: 1000,
    scanPeriodMaxMs: 60_000,
    scanSizeMb: 256,
  };
  /** VMAs that this task has not touched are left to others (6.4+). */
  readonly perVma: boolean;
  private readonly byCpuPid: boolean;
  private readonly firstFaultsMove: boolean;
  private readonly tasks = new WeakMap<Task, TaskNuma>();
  private readonly vmas = new WeakMap<VmArea, VmaNuma>();
  private readonly nodes: number;

  constructor(readonly k: Kernel) {
    const {version} = k.facts;
    this.nodes = k.machine.topology.nodeCount;
    this.perVma = !isBefore(version, '6.4');
    this.settings.enabled = this.nodes > 1 && !isBefore(version, '3.8');
    this.byCpuPid = !isBefore(version, '3.13');
    this.firstFaultsMove = !isBefore(version, '4.20');
  }

  /**
   * init_numa_balancing, when the task is first looked at. Later threads of an mm start staggered.
   */
  of(t: Task): TaskNuma {
    const known = this.tasks.get(t);
    if (known !== undefined) return known;
    const {scanDelayMs} = this.settings;
    const user = t.mm?.user ?? null;
    const state = new TaskNuma(this.nodes, scanDelayMs, user?.numaScanSeq ?? 0);
    const {leader} = t;
    if (leader !== t && leader.mm === t.mm) {
      const of = this.of(leader);
      const users = t.threads.length;
      const max = user === null ? of.scanPeriodMs : this.scanMax(user);
      state.preferredNode = of.preferredNode;
      state.nodeStampTicks = Math.min(max, of.scanPeriodMs * users) * MS + 8 * MS;
    }
    this.tasks.set(t, state);
    return state;
  }

  /** State of a VMA if it has been scanned. */
  vma(vma: VmArea): VmaNuma | null {
    return this.vmas.get(vma) ?? null;
  }

  addVma(vma: VmArea, state: VmaNuma): void {
    this.vmas.set(vma, state);
  }

  /** task_nr_scan_windows: portions of scan_size that the resident set makes. */
  private windows(user: UserMm): number {
    const portion = this.settings.scanSizeMb << 8;
    const counts = user.rss.counts;
    const resident = counts[0] + counts[1] + counts[3];
    return Math.max(1, Math.ceil(resident / portion));
  }

  /** task_scan_min in ms: at most 2560 MB a second. */
  scanMin(user: UserMm): number {
    const {scanSizeMb, scanPeriodMinMs} = this.settings;
    const windows = scanSizeMb < MAX_SCAN_WINDOW ? Math.floor(MAX_SCAN_WINDOW / scanSizeMb) : 1;
    const floor = Math.floor(1000 / windows);
    return Math.max(floor, Math.floor(scanPeriodMinMs / this.windows(user)));
  }

  /** task_scan_max in ms. */
  scanMax(user: UserMm): number {
    const max = Math.floor(this.settings.scanPeriodMaxMs / this.windows(user));
    return Math.max(this.scanMin(user), max);
  }

  /** se.sum_exec_runtime of a task that runs. */
  runTicks(t: Task): number {
    const {now} = this.k.machine.engine;
    return t.se.sumExecTicks + Math.max(0, now - t.se.execStart);
  }

  /**
   * should_numa_migrate_memory: `head`, on `from`, is used by `t`; should it come to t's node?
   * Exchanges the folio's last cpupid. `last` is what it was.
   */
  shouldMigrate(t: Task, head: number, from: number): {move: boolean; last: number} {
    const {topology} = this.k.machine;
    const {cpupid} = this.k.mm.pages;
    const here = topology.nodeOf[t.cpu.id];
    const last = cpupid[head];
    cpupid[head] = 1 + ((t.cpu.id << PID_BITS) | (t.tid & PID_MASK));
    return {move: here !== from && this.passes(t, last, here), last};
  }

  private passes(t: Task, last: number, here: number): boolean {
    const unset = last === 0;
    if (!this.byCpuPid) return !unset && this.nodeOfCpuPid(last) === here;
    const mine = this.isMine(t, last);
    const state = this.of(t);
    const early = state.preferredNode === NUMA_NO_NODE || state.scanSeq <= 4;
    if (this.firstFaultsMove && early && (unset || mine)) return true;
    if (!unset && this.nodeOfCpuPid(last) !== here) return false;
    // A private fault, or a shared one without a group: both move.
    return true;
  }

  private nodeOfCpuPid(last: number): number {
    return this.k.machine.topology.nodeOf[(last - 1) >> PID_BITS];
  }

  /** cpupid_match_pid. */
  private isMine(t: Task, last: number): boolean {
    return last !== 0 && ((last - 1) & PID_MASK) === (t.tid & PID_MASK);
  }

  /**
   * task_numa_fault: counts `n` pages of `node`. Returns true when it is time to go to the
   * preferred node (numa_migrate_preferred).
   */
  fault(t: Task, fault: NumaFault): boolean {
    const state = this.of(t);
    const {topology, engine} = this.k.machine;
    const priv = fault.last === 0 || this.isMine(t, fault.last) ? 1 : 0;
    let wants = false;
    if (engine.now > state.migrateRetryTick) {
      this.placement(t, state);
      wants = this.wantsMove(t, state);
    }
    if (fault.migrated) state.pagesMigrated += fault.pages;
    if (fault.failed) state.locality[2] += fault.pages;
    state.memWindow[fault.node * 2 + priv] += fault.pages;
    state.cpuWindow[topology.nodeOf[t.cpu.id] * 2 + priv] += fault.pages;
    state.locality[fault.local ? 1 : 0] += fault.pages;
    return wants;
  }

  /** numa_migrate_preferred's test. */
  private wantsMove(t: Task, state: TaskNuma): boolean {
    if (state.preferredNode === NUMA_NO_NODE) return false;
    const {topology, engine} = this.k.machine;
    state.migrateRetryTick = engine.now + Math.min(HZ_MS, state.scanPeriodMs / 16) * MS;
    return topology.nodeOf[t.cpu.id] !== state.preferredNode;
  }

  /** task_numa_placement: once for each full scan of the mm. */
  private placement(t: Task, state: TaskNuma): void {
    const user = t.mm?.user ?? null;
    if (user === null || state.scanSeq === user.numaScanSeq) return;
    state.scanSeq = user.numaScanSeq;
    state.scanPeriodMaxMs = this.scanMax(user);
    const {costs, fns} = this.k.mm.migration;
    t.cpu.charge(costs.numaPlacementTicks * this.nodes, fns.task_numa_fault);
    const total = state.locality[0] + state.locality[1];
    const weight = this.runShare(t, state) / (total + 1);
    const types = [0, 0];
    let most = 0;
    for (let node = 0; node < this.nodes; node++) {
      let faults = 0;
      for (let priv = 0; priv < 2; priv++) {
        const at = node * 2 + priv;
        types[priv] += state.memWindow[at];
        state.mem[at] += state.memWindow[at] - Math.trunc(state.mem[at] / 2);
        state.cpu[at] += weight * state.cpuWindow[at] - Math.trunc(state.cpu[at] / 2);
        state.memWindow[at] = 0;
        state.cpuWindow[at] = 0;
        faults += state.mem[at];
      }
      if (faults > most) {
        most = faults;
        state.preferredNode = node;
      }
    }
    this.updateScanPeriod(user, state, types[0], types[1]);
  }

  /** numa_get_avg_runtime: share of the time since the last placement that the task ran, << 16. */
  private runShare(t: Task, state: TaskNuma): number {
    const {now} = this.k.machine.engine;
    const run = this.runTicks(t);
    const first = state.lastPlacementTick === 0;
    const share = first ? 1 : (run - state.lastRunTicks) / (now - state.lastPlacementTick + 1);
    state.lastRunTicks = run;
    state.lastPlacementTick = now;
    return share * 65536;
  }

  /**
   * update_task_scan_period: 10 slots; three more local or private ones are slower, fewer faster.
   */
  private updateScanPeriod(user: UserMm, state: TaskNuma, shared: number, priv: number): void {
    const [remote, local, failed] = state.locality;
    if (local + shared === 0 || failed > 0) {
      state.scanPeriodMs = Math.min(state.scanPeriodMaxMs, state.scanPeriodMs * 2);
      user.numaNextScanTick = this.k.machine.engine.now + state.scanPeriodMs * MS;
      return;
    }
    const slot = Math.ceil(state.scanPeriodMs / PERIOD_SLOTS);
    const localRatio = Math.floor((local * PERIOD_SLOTS) / (local + remote));
    const privateRatio = Math.floor((priv * PERIOD_SLOTS) / (priv + shared));
    const ratio =
      privateRatio >= PERIOD_THRESHOLD || localRatio < PERIOD_THRESHOLD ? privateRatio : localRatio;
    const slots =
      ratio >= PERIOD_THRESHOLD
        ? Math.max(1, ratio - PERIOD_THRESHOLD)
        : Math.max(localRatio, privateRatio) - PERIOD_THRESHOLD;
    const next = state.scanPeriodMs + slots * slot;
    state.scanPeriodMs = Math.max(this.scanMin(user), Math.min(next, this.scanMax(user)));
    state.locality.fill(0);
  }
}

/** What task_numa_fault is told. */
export interface NumaFault {
  /** Node of the memory after the fault, pages of it, and the last cpupid before. */
  readonly node: number;
  readonly pages: number;
  readonly last: number;
  readonly migrated: boolean;
  readonly failed: boolean;
  readonly local: boolean;
}
