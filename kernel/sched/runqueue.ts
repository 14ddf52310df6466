// A run queue: the tasks that want one CPU, ordered by vruntime (first come first among equals),
// and that CPU's times.
//
// vruntime is ticks of CPU time, as every task has nice 0. minVruntime only grows; a task that
// changes queues takes its distance to it along. A binary heap of tasks that know their place: any
// task can be taken out (balancing, exit). Invariant: a task is in at most one heap, and never in
// one while it runs; `insert` and `take` check it.

import {bug} from '../../machine/assert.ts';
import type {CacheLine} from '../../machine/cache_line.ts';
import type {Cpu} from '../../machine/cpu.ts';
import type {Timer} from '../../machine/process.ts';
import type {MmStruct} from '../mm_types.ts';
import type {Task} from '../task.ts';

/** The run queue of one CPU. */
export class RunQueue {
  /** The task that runs here; null when idle. */
  current: Task | null = null;
  readonly tasks: Task[] = [];
  minVruntime = 0;
  /** The address space whose tables are loaded; kernel threads and idle keep it (lazy). */
  loadedMm: MmStruct | null = null;
  /** Set once, by the scheduler. */
  tick: Timer | null = null;
  reschedule: Timer | null = null;
  /** Times, up to `since`; what runs since then is not in yet. */
  idleTicks = 0;
  userTicks = 0;
  since = 0;
  switches = 0;
  /** Tasks picked to run here. */
  picks = 0;
  migrations = 0;
  /** Last tick with a scheduling point (watchdog), and with a quiescent state (RCU). */
  schedulingPoint = 0;
  quiescentAt = 0;
  private sequence = 0;
  private queuedVruntime = 0;

  constructor(
    readonly cpu: Cpu,
    /** struct rq's line with the lock and nr_running: every remote wake-up writes it. */
    readonly line: CacheLine,
  ) {}

  /** nr_running: queued tasks and the one that runs. */
  get running(): number {
    return this.tasks.length + (this.current === null ? 0 : 1);
  }

  first(): Task | null {
    return this.tasks.length > 0 ? this.tasks[0] : null;
  }

  insert(t: Task): void {
    const {se} = t;
    if (se.queued || se.onCpu) bug(`${t.comm}/${t.tid} is queued twice`);
    se.queued = true;
    se.queueSequence = this.sequence++;
    t.cpu = this.cpu;
    this.queuedVruntime += t.vruntimeTicks;
    this.tasks.push(t);
    this.siftUp(t, this.tasks.length - 1);
  }

  /** Takes a queued task out, wherever it stands. */
  take(t: Task): void {
    const {se} = t;
    const hole = se.heapIndex;
    if (!se.queued || this.tasks[hole] !== t) bug(`${t.comm}/${t.tid} is not on this queue`);
    se.queued = false;
    se.heapIndex = -1;
    this.queuedVruntime -= t.vruntimeTicks;
    const last = this.tasks.pop()!;
    if (last === t) return;
    this.siftUp(last, hole);
    if (last.se.heapIndex === hole) this.siftDown(last, hole);
  }

  /** update_min_vruntime(). */
  updateMinVruntime(): void {
    const first = this.first();
    let least = this.current?.vruntimeTicks ?? first?.vruntimeTicks ?? this.minVruntime;
    if (first !== null && first.vruntimeTicks < least) least = first.vruntimeTicks;
    if (least > this.minVruntime) this.minVruntime = least;
  }

  /** avg_vruntime(): where a task without lag stands. */
  averageVruntime(): number {
    const {current, running} = this;
    if (running === 0) return this.minVruntime;
    return Math.floor((this.queuedVruntime + (current?.vruntimeTicks ?? 0)) / running);
  }

  private siftUp(t: Task, hole: number): void {
    const {tasks} = this;
    while (hole > 0) {
      const parent = (hole - 1) >>> 1;
      if (!before(t, tasks[parent])) break;
      tasks[hole] = tasks[parent];
      tasks[hole].se.heapIndex = hole;
      hole = parent;
    }
    tasks[hole] = t;
    t.se.heapIndex = hole;
  }

  private siftDown(t: Task, hole: number): void {
    const {tasks} = this;
    for (;;) {
      let child = 2 * hole + 1;
      if (child >= tasks.length) break;
      if (child + 1 < tasks.length && before(tasks[child + 1], tasks[child])) child++;
      if (!before(tasks[child], t)) break;
      tasks[hole] = tasks[child];
      tasks[hole].se.heapIndex = hole;
      hole = child;
    }
    tasks[hole] = t;
    t.se.heapIndex = hole;
  }
}

function before(a: Task, b: Task): boolean {
  if (a.vruntimeTicks !== b.vruntimeTicks) return a.vruntimeTicks < b.vruntimeTicks;
  return a.se.queueSequence < b.se.queueSequence;
}
