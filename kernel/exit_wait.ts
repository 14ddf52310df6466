// kernel/exit.c: wait4 and do_wait.
//
// The waiter puts itself on wait_chldexit, looks for a zombie under tasklist_lock held for read,
// and sleeps when there is a child but no zombie. The scan goes over the children of all threads of
// the group; for one pid it is a direct look-up since 5.13 (5449162ac001, release RECALLED).

import type {Code} from '../machine/process.ts';
import {WNOHANG} from './clone_flags.ts';
import {ECHILD, ERESTARTSYS} from './errno.ts';
import {exit_to_user_mode} from './exit.ts';
import {release_task, SUMMED_COUNTERS} from './exit_task.ts';
import type {Kernel} from './kernel.ts';
import type {Task} from './task.ts';
import {childCount, thread_group_empty} from './task_tree.ts';
import {isBefore} from './version.ts';

/**
 * wait4(2): the number of a child that was reaped; 0 with WNOHANG when there is none yet; -ECHILD
 * (-10) without a child to wait for; -ERESTARTSYS when a signal came first. `upid` -1 is any child,
 * positive that one; process groups (0 and below -1) count as any, with a warning.
 */
export function* sys_wait4(k: Kernel, t: Task, upid: number, options: number): Code<number> {
  t.cpu.charge(k.machine.topology.syscallEntryTicks, k.fns.syscall_entry);
  if (upid === 0 || upid < -1) {
    k.checks.warn('wait4 for a process group waits for any child: groups are not modelled');
  }
  const result = yield* do_wait(k, t, upid, options);
  yield* exit_to_user_mode(k, t);
  return result;
}

function* do_wait(k: Kernel, t: Task, upid: number, options: number): Code<number> {
  const {fns} = k;
  const {tasklist_lock: lock} = k.taskList;
  const signal = t.signal!;
  for (;;) {
    if (!lock.readAcquire(t, fns.do_wait)) yield* lock.readAcquireSlow(t, fns.do_wait);
    const {zombies} = signal;
    chargeScan(k, t, upid, upid > 0 ? k.taskList.find(upid) : (zombies[0] ?? null));
    if (t.cpu.settle()) yield;
    const seen = signal.childEvents;
    const zombie = takeZombie(k, t, upid);
    const hasChild = zombie !== null || hasEligibleChild(k, t, upid);
    if (!lock.readRelease(t)) yield* lock.readReleaseSlow(t);
    if (zombie !== null) return yield* wait_task_zombie(k, t, zombie);
    if (!hasChild) return -ECHILD;
    if ((options & WNOHANG) !== 0) return 0;
    if (t.sigkill) return -ERESTARTSYS;
    if (signal.childEvents !== seen) continue;
    signal.waiters.push(t);
    yield* k.sched.block(t, {name: 'a child to exit (wait4)'}, true);
    signal.waiters.splice(signal.waiters.indexOf(t), 1);
  }
}

/** Words of status and struct rusage, and calls of wait_task_zombie. */
const WAIT_WORDS = 1 + 18;
const WAIT_CALLS = 5;

function* wait_task_zombie(k: Kernel, t: Task, zombie: Task): Code<number> {
  const {tid} = zombie;
  t.cpu.stall(k.machine.lines.rmw(zombie.line, t.cpu), k.fns.wait_task_zombie);
  chargeReport(k, t, zombie);
  yield release_task(k, t, zombie);
  return tid;
}

/**
 * The zombie's times and counters, of all its threads, and what of them goes to the caller's
 * memory.
 */
function chargeReport(k: Kernel, t: Task, zombie: Task): void {
  const {costs, fns} = k;
  const sums = (zombie.threads.length + 1) * SUMMED_COUNTERS * costs.counterTicks;
  t.cpu.charge(sums + WAIT_WORDS * costs.putUserTicks, fns.wait_task_zombie);
  t.cpu.charge(WAIT_CALLS * costs.hookTicks, fns.wait_task_zombie);
}

/** EXIT_ZOMBIE -> EXIT_DEAD: from here on the zombie is this waiter's. */
function takeZombie(k: Kernel, t: Task, upid: number): Task | null {
  const {zombies} = t.signal!;
  const wanted = upid > 0 ? k.taskList.find(upid) : (zombies[0] ?? null);
  const index = wanted === null ? -1 : zombies.indexOf(wanted);
  if (wanted === null || index < 0 || !thread_group_empty(wanted)) return null;
  zombies.splice(index, 1);
  wanted.exitState = 'dead';
  return wanted;
}

/** A child that another waiter has taken already is none. */
export function hasEligibleChild(k: Kernel, t: Task, upid: number): boolean {
  if (upid <= 0) {
    return t.threads.some((thread) => thread.children.some((c) => c.exitState !== 'dead'));
  }
  const child = k.taskList.find(upid);
  if (child === null || child.leader !== child || child.exitState === 'dead') return false;
  return child.parent !== null && child.parent.signal === t.signal;
}

/** Children that do_wait looks at: up to `last`, or all of them. */
export function chargeScan(k: Kernel, t: Task, upid: number, last: Task | null): void {
  const direct = upid > 0 && !isBefore(k.facts.version, '5.13');
  const scanned = direct ? 1 : last === null ? childCount(t) : last.childIndex + 1;
  t.cpu.charge(Math.max(1, scanned) * k.costs.waitScanTicks, k.fns.do_wait);
}
