// Reference counts on lines that processes of different CPUs share: struct file, dentries, the
// user's counters, nsproxy.
//
// A get or a put is one locked operation. While the line is this CPU's own that is a plain call;
// when another CPU has had it since, the operation takes its place in the order of time (to within
// AHEAD_TICKS) and waits its turn at the line (machine/cache_line.ts), so a count that many CPUs
// change is as slow as the line is contended. Use:
//   if (!locked(k, t, line, fn)) yield* lockedSlow(k, t, line, fn);
// Objects of one process, which hardly ever meet another CPU, have a line of the arena: lockedOwn.

import type {CacheLine} from '../machine/cache_line.ts';
import type {Code} from '../machine/process.ts';
import {nsToTicks} from '../machine/time.ts';
import type {Kernel} from './kernel.ts';
import type {Task} from './task.ts';

/** Something that several tasks may share, with the count of those that do. */
export interface Shared {
  users: number;
  /** LineArena line of the count; -1 once it is freed. */
  line: number;
}

/**
 * A CPU that is less than this ahead of the others does not wait for them: about one transfer
 * between sockets. Its operation is then taken as asked for now, so the line is never idle for it
 * and its throughput stays exact.
 */
const AHEAD_TICKS = nsToTicks(250);

/** A locked operation on `line`. False: the caller must go on with lockedSlow. */
export function locked(k: Kernel, t: Task, line: CacheLine, fn: number): boolean {
  const {cpu} = t;
  const isOwn = line.isOwn(cpu.id) && k.machine.storeBuffers.pending === 0;
  if (!isOwn && cpu.settleWithin(AHEAD_TICKS)) return false;
  operate(k, t, line, fn);
  return true;
}

export function* lockedSlow(k: Kernel, t: Task, line: CacheLine, fn: number): Code {
  if (t.process!.pendingKey !== 0) yield;
  operate(k, t, line, fn);
}

function operate(k: Kernel, t: Task, line: CacheLine, fn: number): void {
  const {cpu} = t;
  const {engine, storeBuffers} = k.machine;
  if (storeBuffers.pending !== 0) cpu.stall(storeBuffers.fence(cpu.id, engine.now), fn);
  cpu.stall(line.rmw(cpu, engine.now), fn);
}

/** A locked operation on a line of the arena. */
export function lockedOwn(k: Kernel, t: Task, line: number, fn: number): void {
  if (line >= 0) t.cpu.stall(k.machine.lines.rmw(line, t.cpu), fn);
}

/**
 * A new object of one user, `bytes` of it copied or cleared at `kibTicks` a KiB, from the slab of
 * this CPU.
 */
export function newObject(k: Kernel, t: Task, bytes: number, kibTicks: number, fn: number): void {
  t.cpu.charge(k.costs.slabAllocTicks + Math.round((bytes * kibTicks) / 1024), fn);
}

/** A line for the count of an object that `t` allocates. */
export function newLine(k: Kernel, t: Task): number {
  const {lines, topology} = k.machine;
  const line = lines.allocate(topology.nodeOf[t.cpu.id]);
  lines.touch(line, t.cpu);
  return line;
}

/** Another user of `shared`. */
export function share<T extends Shared>(k: Kernel, t: Task, shared: T, fn: number): T {
  lockedOwn(k, t, shared.line, fn);
  shared.users++;
  return shared;
}

/**
 * One user less. True: that was the last one, the line is given back, and the caller frees the
 * object.
 */
export function unshare(k: Kernel, t: Task, shared: Shared, fn: number): boolean {
  lockedOwn(k, t, shared.line, fn);
  if (--shared.users > 0) return false;
  k.machine.lines.release(shared.line);
  shared.line = -1;
  return true;
}
