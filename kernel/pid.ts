// kernel/pid.c: numbers for tasks.
//
// To 4.14 a number is a bit set in the namespace's bitmap, by a locked operation on a line that
// neighbouring numbers share, and the struct is hashed under pidmap_lock. Since 4.15 both are an
// idr: one section of pidmap_lock takes the number (idr_alloc_cyclic, a walk down a tree with 64
// children a node), a second one makes the struct findable. free_pid removes it in a section of its
// own: under tasklist_lock until 6.14, after it since 6.15. Assumption: one pid namespace. Each
// further level would add its number to the same sections.

import type {CacheLine} from '../machine/cache_line.ts';
import type {Code} from '../machine/process.ts';
import type {Kernel} from './kernel.ts';
import {sectionIrq} from './locking/section.ts';
import type {SpinLock} from './locking/spinlock.ts';
import {locked, lockedSlow, newObject} from './refcount.ts';
import type {Task} from './task.ts';
import {isBefore} from './version.ts';

/** Depth of pid namespaces. */
const LEVELS = 1;
/** struct pid without numbers, and struct upid. */
const PID_BYTES = 112;
const UPID_BYTES = 16;
/** Children of an idr node: 64. */
const IDR_SHIFT = 6;

/** Links of a task to struct pids: PID alone for a thread; TGID, PGID and SID too for a leader. */
export function pidLinks(isLeader: boolean): number {
  return isLeader ? 4 : 1;
}

/** Pids of one kernel. */
export class Pids {
  readonly pidmap_lock: SpinLock;
  /** free_pid comes after tasklist_lock. */
  readonly freesLate: boolean;
  private readonly bitmap: CacheLine | null;
  private allocated = 0;

  constructor(readonly kernel: Kernel) {
    const {facts, layout, locks, machine} = kernel;
    this.pidmap_lock = locks.spinlock('pidmap_lock', {line: layout.line('pidmap_lock')});
    const hasBitmap = isBefore(facts.version, '4.15');
    this.bitmap = hasBitmap ? machine.line('pidmap', machine.topology.defaultHomeNode) : null;
    this.freesLate = !isBefore(facts.version, '6.15');
  }

  /** alloc_pid for a task that shall have number `tid`. */
  *alloc_pid(t: Task, tid: number): Code {
    const {kernel, bitmap} = this;
    const {costs, fns} = kernel;
    newObject(kernel, t, PID_BYTES + LEVELS * UPID_BYTES, costs.clearKibTicks, fns.alloc_pid);
    if (bitmap !== null) {
      if (!locked(kernel, t, bitmap, fns.alloc_pid)) {
        yield* lockedSlow(kernel, t, bitmap, fns.alloc_pid);
      }
      yield* this.section(t, costs.pidHashTicks, fns.alloc_pid);
      return;
    }
    const walk = LEVELS * idrDepth(tid) * costs.idrLevelTicks;
    const newNode = ++this.allocated % (1 << IDR_SHIFT) === 0 ? costs.slabAllocTicks : 0;
    t.cpu.charge(newNode, fns.alloc_pid);
    yield* this.section(t, walk, fns.alloc_pid);
    yield* this.section(t, walk, fns.alloc_pid);
  }

  /** free_pid; the struct goes after a grace period, at the caller's expense. */
  *free_pid(t: Task, tid: number): Code {
    const {kernel, bitmap} = this;
    const {costs, fns} = kernel;
    const walk = bitmap === null ? idrDepth(tid) * costs.idrLevelTicks : costs.pidHashTicks;
    yield* this.section(t, LEVELS * walk, fns.free_pid);
    if (bitmap !== null && !locked(kernel, t, bitmap, fns.free_pid)) {
      yield* lockedSlow(kernel, t, bitmap, fns.free_pid);
    }
    t.cpu.charge(costs.slabFreeTicks + costs.rcuFreeTicks, fns.free_pid);
  }

  private section(t: Task, ticks: number, fn: number): Code {
    return sectionIrq(this.pidmap_lock, t, ticks, fn);
  }
}

/** Nodes from the root of an idr down to `id`. */
function idrDepth(id: number): number {
  let depth = 1;
  for (let rest = id >>> IDR_SHIFT; rest > 0; rest >>>= IDR_SHIFT) depth++;
  return depth;
}
