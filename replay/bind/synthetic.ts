// Bindings of work that only generated traces have: a critical section under a named spinlock,
// affinity, yielding.

import {argNumber} from '../../formats/columns.ts';
import {KIND} from '../../formats/kinds.ts';
import type {SpinLock} from '../../kernel/locking/spinlock.ts';
import type {Kernel} from '../../kernel/kernel.ts';
import type {Task} from '../../kernel/task.ts';
import type {CacheLine} from '../../machine/cache_line.ts';
import type {Code} from '../../machine/process.ts';
import {nsToTicks} from '../../machine/time.ts';
import type {BindingContext, BindingTable, Outcome} from './binding.ts';

/** A spinlock that a trace names by number, with the data that it protects. */
interface NamedLock {
  readonly lock: SpinLock;
  readonly data: CacheLine[];
}

/** Time that moving a running task to another CPU takes (stop_one_cpu), assumption. */
const MIGRATION_NS = 1000;

const lockTables = new WeakMap<Kernel, Map<number, NamedLock>>();

function namedLock(kernel: Kernel, id: number, lines: number): NamedLock {
  let table = lockTables.get(kernel);
  if (table === undefined) {
    table = new Map();
    lockTables.set(kernel, table);
  }
  let named = table.get(id);
  if (named === undefined) {
    named = {lock: kernel.locks.spinlock(`trace_lock_${id}`), data: []};
    table.set(id, named);
  }
  while (named.data.length < lines) {
    named.data.push(kernel.machine.line(`trace_lock_${id} data ${named.data.length}`));
  }
  return named;
}

/** Writes lines that other CPUs write too, one after the other. */
function* writeLines(t: Task, lines: readonly CacheLine[], count: number, fn: number): Code {
  for (let n = 0; n < count; n++) {
    if (t.cpu.settle()) yield;
    t.cpu.stall(lines[n].write(t.cpu, t.cpu.machine.engine.now), fn);
  }
}

/**
 * A critical section of a named lock and the work after it; see the kind's comment in
 * formats/kinds.ts.
 */
function* lock_section({kernel, events}: BindingContext, t: Task, i: number): Code<Outcome> {
  const lines = argNumber(events, i, 2);
  const ownLineWrites = argNumber(events, i, 4);
  const outsideLines = argNumber(events, i, 5);
  const {lock, data} = namedLock(kernel, argNumber(events, i, 0), Math.max(lines, outsideLines));
  const fn = kernel.fn('lock_section');
  if (!lock.acquire(t, fn)) yield* lock.acquireSlow(t, fn);
  if (lines > 0) yield* writeLines(t, data, lines, fn);
  const pieceTicks = Math.round(nsToTicks(argNumber(events, i, 1)) / (ownLineWrites + 1));
  for (let n = 0; n < ownLineWrites; n++) {
    t.cpu.charge(pieceTicks, fn);
    if (t.cpu.settle()) yield;
    t.cpu.stall(lock.line.write(t.cpu, kernel.machine.engine.now), fn);
  }
  t.cpu.charge(pieceTicks, fn);
  if (!lock.release(t)) yield* lock.releaseSlow(t);
  const outsideFn = kernel.fn('outside_lock_section');
  if (outsideLines > 0) yield* writeLines(t, data, outsideLines, outsideFn);
  t.cpu.charge(nsToTicks(argNumber(events, i, 3)), outsideFn);
  return 'done';
}

function* sched_setaffinity({kernel, events}: BindingContext, t: Task, i: number): Code<Outcome> {
  const cpu = argNumber(events, i, 0);
  if (cpu >= kernel.machine.cpus.length) {
    kernel.checks.warn(`sched_setaffinity to a CPU that the machine does not have`);
    return 'skipped';
  }
  t.pinnedCpu = cpu;
  // The migration thread of the old CPU moves the task: it sleeps for a moment and wakes up where
  // it may run.
  if (t.cpu.id !== cpu) yield* kernel.sched.sleep(t, nsToTicks(MIGRATION_NS));
  return 'done';
}

function* yieldCpu({kernel}: BindingContext, t: Task): Code<Outcome> {
  yield* kernel.sched.yieldCpu(t);
  return 'done';
}

export const SYNTHETIC_BINDINGS: BindingTable = [
  [KIND.lock_section, lock_section],
  [KIND.sched_setaffinity, sched_setaffinity],
  [KIND.yield, yieldCpu],
];
