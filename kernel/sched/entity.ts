// What the scheduler keeps per task. vruntime and need_resched are on the task itself, as others
// look at them.

import type {Timer} from '../../machine/process.ts';

/**
 * A task that spins for a sleeping lock: it stops when it should give way, and when the owner stops
 * running.
 */
export interface SpinWatcher {
  needsResched(): void;
  ownerLeft(): void;
}

/** Scheduler state of one task (struct sched_entity and a bit more). */
export class SchedEntity {
  /** In a run queue, waiting for its CPU. The task that runs is not queued. */
  queued = false;
  /** Runs on task.cpu, or is being switched in there. */
  onCpu = false;
  /** Place in the run queue's heap, -1 when not queued. */
  heapIndex = -1;
  /** Order of arrival among equal vruntimes. */
  queueSequence = 0;
  /** Tick up to which the run is in vruntime. */
  execStart = 0;
  /**
   * Ticks run in total, and at the last time it was picked (se.sum_exec_runtime,
   * prev_sum_exec_runtime).
   */
  sumExecTicks = 0;
  prevSumExecTicks = 0;
  /** How far behind the queue's average it was when it left (EEVDF), in ticks of vruntime. */
  lagTicks = 0;
  /** Picks of its queue when it left ahead of the average (DELAY_DEQUEUE), -1 otherwise. */
  leftAtPick = -1;
  /** Tick at which it last left a CPU. */
  lastRanAt = 0;
  /** Runs, or will run on, user code: `userLeftTicks` of work, counted from `userStart` on. */
  inUser = false;
  userLeftTicks = 0;
  userStart = 0;
  /** Factor by which user work is slowed down since `userStart` (busy SMT sibling). */
  userRate = 1;
  sleepStart = 0;
  /** TASK_INTERRUPTIBLE: not looked at by the hung-task detector. */
  interruptible = false;
  /** TASK_KILLABLE: a fatal signal wakes it (signal_wake_up with TASK_WAKEKILL). */
  killable = false;
  timer: Timer | null = null;
  /** Its own optimistic spin, null when it does not spin. */
  spin: SpinWatcher | null = null;
  /** Optimistic spins of others for locks that this task owns; null when there are none. */
  watchers: SpinWatcher[] | null = null;
}
