// Births of threads. A fork shows as a system call, as a side-band record and as two tracepoints,
// in any combination: the first evidence makes the operation, what repeats it is an answer.

import {KIND} from '../kinds.ts';
import {between, num, ptr, type Arg} from './fields.ts';
import type {HoldQueue} from './hold.ts';
import type {RawEvent} from './raw.ts';
import type {SideBand} from './sideband.ts';
import type {Thread, Threads} from './threads.ts';

const CLONE_THREAD = 0x10000n;
const THREAD_FLAGS = 0x3d0f00; // what pthread_create passes, when the source has no flags
const SIGCHLD = 17;
const FROM_RECORD = 1;
const FROM_NEWTASK = 2;
const FROM_SCHED = 4;

function isThread(cloneFlags: Arg): boolean {
  return (BigInt(cloneFlags) & CLONE_THREAD) !== 0n;
}

/** Finds out who made whom, and how. */
export class Births {
  /** By child: which sources have told of its birth. */
  private readonly evidence = new Map<number, number>();

  constructor(
    private readonly queue: HoldQueue,
    private readonly threads: Threads,
  ) {}

  /** The tid belongs to nobody any more. */
  forget(tid: number): void {
    this.evidence.delete(tid);
  }

  /** The fork that `parent` is in made this child. */
  childIs(parent: Thread, child: Arg, cloneFlags: Arg | undefined): void {
    const {held} = parent;
    if (held === undefined) return;
    const known = held.args[1] === 0 ? undefined : held.args[1];
    const flags = known ?? cloneFlags ?? SIGCHLD;
    const threaded = isThread(flags);
    held.args = [child, flags, threaded ? parent.tgid : child];
    this.queue.close(held);
  }

  private inFork(thread: Thread): boolean {
    return thread.call?.waitsFor === 'child' && thread.held !== undefined;
  }

  /** True when another event already told of this child: then this one repeats it. */
  private repeats(parent: Thread, child: number, source: number): boolean {
    let seen = this.evidence.get(child) ?? 0;
    if ((seen & source) !== 0) seen = 0; // the tid is used again
    this.evidence.set(child, seen | source);
    return seen !== 0 || this.inFork(parent);
  }

  /**
   * The parent of a newborn goes on: with task_newtask, which knows its flags, or with something
   * else.
   */
  born(parent: Thread, raw: RawEvent): void {
    const {newborn} = parent;
    if (newborn === undefined) return;
    if (raw.name === 'task_newtask' && num(raw.payload, 'pid') === newborn.args[0]) {
      newborn.args[1] = ptr(raw.payload, 'clone_flags');
    }
    this.queue.close(newborn);
    parent.newborn = undefined;
  }

  /** task_newtask: its flags say what kind of child it is. */
  newtask(raw: RawEvent, timeNs: number, parent: Thread): void {
    const {payload} = raw;
    const child = Number(num(payload, 'pid'));
    const flags = ptr(payload, 'clone_flags');
    const threaded = isThread(flags);
    const tgid = threaded ? parent.tgid : child;
    const repeats = this.repeats(parent, child, FROM_NEWTASK);
    this.threads.add(child, tgid, parent.tid, between(payload, 'comm', 'clone_flags='));
    if (!repeats) {
      this.emit(raw, timeNs, KIND.fork, [child, flags, tgid]);
      return;
    }
    this.childIs(parent, child, flags);
    this.emit(raw, timeNs, KIND.newtask, [child, flags]);
  }

  /** sched_process_fork. */
  schedFork(raw: RawEvent, timeNs: number, parent: Thread): void {
    const child = Number(num(raw.payload, 'child_pid'));
    if (this.repeats(parent, child, FROM_SCHED)) {
      if (parent.held?.open === true) this.childIs(parent, child, undefined);
      this.emit(raw, timeNs, KIND.sched_fork, [child]);
      return;
    }
    this.threads.add(child, child, parent.tid, between(raw.payload, 'child_comm', 'child_pid='));
    this.emit(raw, timeNs, KIND.fork, [child, SIGCHLD, child]);
  }

  /** perf's FORK record. */
  forkRecord(raw: RawEvent, timeNs: number, record: SideBand & {type: 'fork'}): void {
    const {tid, tgid, parentTid} = record;
    const args = [tid, tgid, parentTid];
    if (raw.preamble) {
      this.threads.add(tid, tgid, parentTid, raw.comm);
      this.emit(raw, timeNs, KIND.task_fork, args, parentTid);
      return;
    }
    const parent =
      this.threads.get(parentTid) ?? this.threads.add(parentTid, record.parentTgid, 0, raw.comm);
    const repeats = this.repeats(parent, tid, FROM_RECORD);
    this.threads.add(tid, tgid, parentTid, raw.comm);
    if (repeats) {
      if (parent.held?.open === true && parent.held.args[1] !== 0) {
        this.childIs(parent, tid, undefined);
      }
      this.emit(raw, timeNs, KIND.task_fork, args, parentTid);
      return;
    }
    const flags = tgid === tid ? SIGCHLD : THREAD_FLAGS;
    const held = [tid, flags, tgid];
    if (parent.newborn !== undefined) this.queue.close(parent.newborn);
    parent.newborn = this.queue.hold(KIND.fork, timeNs, parentTid, raw.cpu, held);
  }

  private emit(raw: RawEvent, timeNs: number, kind: number, args: Arg[], tid = raw.tid): void {
    this.queue.emit(kind, timeNs, tid, raw.cpu, args);
  }
}
