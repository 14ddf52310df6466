// signal_struct: what all threads of a group have in common, as far as fork, exec, exit and wait
// look at it.
//
// Fatal signals are the only ones modelled. A task notices one where it returns to user mode and in
// interruptible sleeps; user-mode computation is cut short (kick_process).

import type {BulkLock} from './locking/bulk_lock.ts';
import type {MmStruct} from './mm_types.ts';
import type {Task} from './task.ts';

/** Shared by the threads of a group; allocated by copy_signal, gone with the last thread. */
export class SignalStruct {
  /** signal->live: threads that have not passed the start of do_exit. */
  live = 1;
  /** SIGNAL_GROUP_EXIT: every thread is told to die. */
  groupExit = false;
  groupExitCode = 0;
  /**
   * Raised whenever a child of any thread changes state, so that do_wait can tell whether it missed
   * one.
   */
  childEvents = 0;
  /** Tasks in do_wait (wait_chldexit). */
  readonly waiters: Task[] = [];
  /** Zombie children of any thread, in order of death. */
  readonly zombies: Task[] = [];
  /** The thread that waits in de_thread for the others to be gone, null when none does. */
  groupExecTask: Task | null = null;
  /** /proc/PID/oom_score_adj, inherited by fork: -1000 (never killed) to 1000. */
  oomScoreAdj = 0;
  /** The mm that the OOM killer killed this group for; set once (mark_oom_victim). */
  oomMm: MmStruct | null = null;
  /** PR_SET_CHILD_SUBREAPER. */
  isChildSubreaper = false;

  constructor(
    public leader: Task,
    /** sighand->siglock. */
    readonly siglock: BulkLock,
    /** Place of signal->thread_head in the task list's cells. */
    readonly listSlot: number,
  ) {}
}

/**
 * A fatal signal took effect at the border to user mode: the task leaves its program and enters
 * do_exit.
 */
export class TaskKilled extends Error {
  constructor() {
    super('killed');
    this.name = 'TaskKilled';
  }
}
