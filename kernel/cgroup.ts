// kernel/cgroup/cgroup.c, what it does when tasks come and go.
//
// css_set_lock is one spinlock for the machine, taken with interrupts off: twice by fork since 5.7
// (cgroup_css_set_fork takes a reference to the parent's css_set, cgroup_post_fork links the child
// to it), once before; by every exit (cgroup_exit unlinks); by every release from 5.6 to 6.10, and
// since 6.11 only for leaders that died before their threads. pids controller (4.3): an atomic
// counter in every cgroup from the task's up to the root's child, changed by fork and by release.
// cgroup_threadgroup_rwsem is held for reading around fork and in exit: a per-CPU count.
//
// Assumptions: all tasks are in one cgroup, two levels below the root, as a service under a slice
// is. Up to 4.3 css_set_lock was a rwlock, from 3.15 to 4.3 a rwsem; here it is a spinlock
// throughout. The references to the css_set are taken under the lock and come with it.

import type {CacheLine} from '../machine/cache_line.ts';
import type {Code} from '../machine/process.ts';
import type {Kernel} from './kernel.ts';
import {sectionIrq} from './locking/section.ts';
import type {SpinLock} from './locking/spinlock.ts';
import {locked, lockedSlow} from './refcount.ts';
import type {Task} from './task.ts';
import {isBefore} from './version.ts';

/** Cgroups from a task's own to the last one below the root. */
const LEVELS = 2;
/** Controllers with a callback at fork: cpuset, freezer, and at exit and release: cpu, pids. */
const FORK_CALLBACKS = 2;
const EXIT_CALLBACKS = 1;

/** The cgroups of one kernel. */
export class Cgroups {
  readonly css_set_lock: SpinLock;
  /** pids_cgroup.counter by level; none before 4.3. */
  private readonly pids: readonly CacheLine[];
  private readonly locksAtCanFork: boolean;
  private readonly locksAtRelease: 'always' | 'leaders' | 'never';

  constructor(readonly kernel: Kernel) {
    const {facts, machine, locks} = kernel;
    const {version} = facts;
    const node = machine.topology.defaultHomeNode;
    this.css_set_lock = locks.spinlock('css_set_lock');
    const levels = isBefore(version, '4.3') ? 0 : LEVELS;
    this.pids = Array.from({length: levels}, (_, n) => machine.line(`pids.current ${n}`, node));
    this.locksAtCanFork = !isBefore(version, '5.7');
    if (isBefore(version, '5.6')) this.locksAtRelease = 'never';
    else this.locksAtRelease = isBefore(version, '6.11') ? 'always' : 'leaders';
  }

  /** cgroup_can_fork: the parent's css_set is pinned and the child is counted. */
  *cgroup_can_fork(t: Task): Code {
    const {costs, fns} = this.kernel;
    t.cpu.charge(costs.percpuRefTicks, fns.cgroup_can_fork);
    if (this.locksAtCanFork) yield* this.underCssSetLock(t, fns.cgroup_can_fork);
    yield* this.count(t, fns.cgroup_can_fork);
  }

  /** cgroup_post_fork. */
  *cgroup_post_fork(t: Task): Code {
    const {costs, fns} = this.kernel;
    yield* this.underCssSetLock(t, fns.cgroup_post_fork);
    t.cpu.charge(FORK_CALLBACKS * costs.hookTicks + costs.percpuRefTicks, fns.cgroup_post_fork);
  }

  /** cgroup_cancel_fork. */
  *cgroup_cancel_fork(t: Task): Code {
    yield* this.count(t, this.kernel.fns.cgroup_can_fork);
  }

  /** cgroup_exit. */
  *cgroup_exit(t: Task): Code {
    const {costs, fns} = this.kernel;
    yield* this.underCssSetLock(t, fns.cgroup_exit);
    t.cpu.charge(EXIT_CALLBACKS * costs.hookTicks, fns.cgroup_exit);
  }

  /** cgroup_release of `p`, which may have died before its threads. */
  *cgroup_release(t: Task, p: Task): Code {
    const {fns, costs} = this.kernel;
    t.cpu.charge(EXIT_CALLBACKS * costs.hookTicks, fns.cgroup_release);
    yield* this.count(t, fns.cgroup_release);
    const {locksAtRelease} = this;
    if (locksAtRelease === 'never' || (locksAtRelease === 'leaders' && !p.diedBeforeThreads))
      return;
    yield* this.underCssSetLock(t, fns.cgroup_release);
  }

  /** Linking or unlinking one task. */
  private underCssSetLock(t: Task, fn: number): Code {
    return sectionIrq(this.css_set_lock, t, this.kernel.costs.cssSetLinkTicks, fn);
  }

  private *count(t: Task, fn: number): Code {
    const {kernel, pids} = this;
    for (const line of pids)
      if (!locked(kernel, t, line, fn)) yield* lockedSlow(kernel, t, line, fn);
  }
}
