// task_struct: one thread of a simulated process, as far as the mm, the scheduler and the task list
// look at it.

import type {Cpu} from '../machine/cpu.ts';
import type {Process} from '../machine/process.ts';
import type {Cred} from './cred.ts';
import type {FilesStruct} from './fs/file.ts';
import type {FsStruct} from './fs/fs_struct.ts';
import type {BulkLock} from './locking/bulk_lock.ts';
import type {MmStruct} from './mm_types.ts';
import type {Shared} from './refcount.ts';
import type {SignalStruct} from './signal_struct.ts';
import {SchedEntity} from './sched/entity.ts';

/** Task states as far as the model tells them apart. */
export type TaskState = 'new' | 'running' | 'sleeping' | 'zombie' | 'dead';

/** A task. The group leader has tid === tgid. */
export class Task {
  /** Where it runs, or ran last. */
  cpu: Cpu;
  /** The engine's side of it: its code. Set when the scheduler first gets it. */
  process: Process | null = null;
  state: TaskState = 'new';
  mm: MmStruct | null = null;
  activeMm: MmStruct | null = null;
  parent: Task | null = null;
  readonly children: Task[] = [];
  /** Leader of the thread group; itself for a leader. */
  leader: Task;
  /** All threads of the group, in order of creation; the same array in all of them. */
  threads: Task[];
  /** preempt_disable depth: spinlocks held and explicit sections. */
  preemptCount = 0;
  /** rcu_read_lock depth. */
  rcuDepth = 0;
  /** non_block_start depth. */
  nonBlockCount = 0;
  /** PF_EXITING. */
  exiting = false;
  exitCode = 0;
  isKernelThread = false;
  /** vruntime and other scheduler state belong to the scheduler. */
  vruntimeTicks = 0;
  needResched = false;
  readonly se = new SchedEntity();
  /** CPU it may only run on, -1 for any. */
  pinnedCpu = -1;
  /** Index in the task list, -1 when not on it. */
  listSlot = -1;
  /** task_lock(). */
  allocLock: BulkLock | null = null;
  /** Kernel stack: where it came from matters under VMAP_STACK. */
  stackVpn = 0;
  /** exit_state: a zombie waits for its parent, a dead one is being released. */
  exitState: 'none' | 'zombie' | 'dead' = 'none';
  /** Shared with the other threads; null only before copy_signal. */
  signal: SignalStruct | null = null;
  /**
   * Open files, directories, signal handlers, credentials: shared or own; null before fork gave
   * them and after exit.
   */
  files: FilesStruct | null = null;
  fs: FsStruct | null = null;
  sighand: Shared | null = null;
  cred: Cred | null = null;
  /** A leader that died while other threads of its group lived. */
  diedBeforeThreads = false;
  /** A fatal signal is pending (fatal_signal_pending). */
  sigkill = false;
  /**
   * It waits for something that is no part of the kernel, as the order of a replay; the OOM killer
   * ends that.
   */
  parked = false;
  /** 3.12 to 4.18: cgroup whose limit the fault under way has hit (memcg_in_oom), 0 for none. */
  memcgInOom = 0;
  /** The task that waits in wait_for_vfork_done for this one, null when none does. */
  vforkParent: Task | null = null;
  /** Index in parent.children. */
  childIndex = -1;
  /**
   * LineArena line of the fields that others read: list links, mm, exit_state; -1 before
   * dup_task_struct.
   */
  line = -1;
  /** Memory node of task_struct and stack. */
  node = 0;

  constructor(
    /** Changes only when a thread that is not the leader execs (de_thread). */
    public tid: number,
    readonly tgid: number,
    /** Changes with exec. */
    public comm: string,
    cpu: Cpu,
    leader: Task | null,
  ) {
    this.cpu = cpu;
    this.leader = leader ?? this;
    this.threads = leader === null ? [this] : leader.threads;
    if (leader !== null) this.threads.push(this);
  }
}
