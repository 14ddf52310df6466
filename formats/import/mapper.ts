// From events of a recorder to operations and answers. One input event becomes exactly one of: an
// operation, an answer, or a count under its name in `unmodelled`; this is what the totals of an
// import are checked by.
//
// The same act often shows several times: a fork as system call, side-band record and two
// tracepoints. Rule: the first evidence that an act happened is the operation, at its time;
// everything that repeats it is an answer. So a recording without system calls still replays, and
// nothing is ever done twice.
//
// State: per thread the modelled system call that it is in, and what is held for it; bounded by the
// live threads.

import {KIND} from '../kinds.ts';
import type {TraceWriter} from '../writer.ts';
import {ANSWER_ROWS} from './answers.ts';
import {between, num, numberAt, ptr, valueIndex, type Arg} from './fields.ts';
import {HoldQueue, type HeldEvent} from './hold.ts';
import {MappedFiles} from './mapped_files.ts';
import type {RawEvent} from './raw.ts';
import {sideBand, type SideBand} from './sideband.ts';
import {SYSCALLS, SYSCALL_BY_NR, rawSyscallArgs, syscallArgs, type Syscall} from './syscalls.ts';
import {VmapAreas} from './vmap.ts';

const CLONE_THREAD = 0x10000n;
const THREAD_FLAGS = 0x3d0f00; // what pthread_create passes, when the source has no flags
const SIGCHLD = 17;
const FROM_RECORD = 1;
const FROM_NEWTASK = 2;
const FROM_SCHED = 4;

interface Thread {
  readonly tid: number;
  tgid: number;
  /** The modelled system call it is in. */
  call: Syscall | undefined;
  /** What is held for that call. */
  held: HeldEvent | undefined;
  /** A fork made out of a FORK record, held for the flags that task_newtask may bring. */
  newborn: HeldEvent | undefined;
  exitCalled: boolean;
  /** An exec was already made out of a COMM record. */
  execSeen: boolean;
}

function isThread(cloneFlags: Arg): boolean {
  return (BigInt(cloneFlags) & CLONE_THREAD) !== 0n;
}

/** Turns raw events into what a TraceWriter takes. */
export class EventMapper {
  readonly queue: HoldQueue;
  /** Threads whose process the source never named. */
  assumedTgids = 0;
  private readonly writer: TraceWriter;
  private readonly threads = new Map<number, Thread>();
  /** By child: which sources have told of its birth. */
  private readonly evidence = new Map<number, number>();
  private readonly groupExits = new Set<number>();
  private readonly areas = new VmapAreas();
  private readonly files = new MappedFiles();
  private readonly intern: (text: string) => number;
  private timeNs = 0;

  constructor(writer: TraceWriter, holdBound: number) {
    this.writer = writer;
    this.queue = new HoldQueue(writer, holdBound);
    this.intern = (text) => writer.intern(text);
  }

  /** Maps one event. Throws FieldError when its payload lacks what it must have. */
  map(raw: RawEvent, timeNs: number): void {
    this.timeNs = timeNs;
    if (raw.name.startsWith('PERF_RECORD_')) {
      this.record(raw);
      return;
    }
    const thread = this.thread(raw);
    if (thread.newborn !== undefined) this.born(thread, raw);
    const row = ANSWER_ROWS.get(raw.name);
    if (row !== undefined) this.emit(raw, row.kind, row.args(raw.payload, this.intern));
    else if (raw.name.startsWith('sys_')) this.syscall(raw, thread);
    else this.special(raw, thread);
  }

  /** Writes what is still held. */
  finish(): void {
    for (const {newborn} of this.threads.values()) {
      if (newborn !== undefined) this.queue.close(newborn);
    }
    this.queue.finish();
  }

  private emit(raw: RawEvent, kind: number, args: Arg[], tid = raw.tid): void {
    this.queue.emit(kind, this.timeNs, tid, raw.cpu, args);
  }

  private thread(raw: RawEvent): Thread {
    const known = this.threads.get(raw.tid);
    if (known !== undefined) return known;
    const tgid = raw.tgid >= 0 ? raw.tgid : raw.tid;
    if (raw.tgid < 0 && raw.tid > 0) this.assumedTgids++;
    return this.addThread(raw.tid, tgid, 0, raw.comm);
  }

  private addThread(tid: number, tgid: number, parentTid: number, comm: string): Thread {
    const old = this.threads.get(tid);
    if (old !== undefined) this.retire(old);
    const thread: Thread = {
      tid,
      tgid,
      call: undefined,
      held: undefined,
      newborn: undefined,
      exitCalled: false,
      execSeen: false,
    };
    this.threads.set(tid, thread);
    this.writer.task(tid, tgid, parentTid, comm);
    return thread;
  }

  private syscall(raw: RawEvent, thread: Thread): void {
    const enters = raw.name.startsWith('sys_enter');
    if (raw.name === 'sys_enter' || raw.name === 'sys_exit') {
      this.rawSyscall(raw, thread, enters);
      return;
    }
    const call = SYSCALLS.get(raw.name.slice(enters ? 10 : 9));
    if (call === undefined) this.writer.unmodelled(raw.name);
    else if (enters) this.enter(raw, thread, call, syscallArgs(raw.payload, call.arity));
    else this.leave(raw, thread, call, numberAt(raw.payload, 0));
  }

  private rawSyscall(raw: RawEvent, thread: Thread, enters: boolean): void {
    const {payload} = raw;
    const nr = enters ? rawSyscallArgs(payload).nr : Number(num(payload, 'NR'));
    const call = SYSCALL_BY_NR.get(nr);
    if (call === undefined) this.writer.unmodelled(raw.name);
    else if (enters) this.enter(raw, thread, call, rawSyscallArgs(payload).args);
    else this.leave(raw, thread, call, numberAt(payload, payload.indexOf('= ') + 2));
  }

  private enter(raw: RawEvent, thread: Thread, call: Syscall, args: Arg[]): void {
    this.giveUp(thread); // a call whose exit was lost
    thread.call = call;
    if (call.name === 'exit') thread.exitCalled = true;
    if (call.name === 'exit_group') this.groupExits.add(thread.tgid);
    const kind = call.kind ?? KIND.sys_enter;
    const operands = call.operands === undefined ? [call.nr] : call.operands(args);
    if (call.waitsFor === undefined) this.emit(raw, kind, operands);
    else thread.held = this.queue.hold(kind, this.timeNs, raw.tid, raw.cpu, operands);
  }

  private leave(raw: RawEvent, thread: Thread, call: Syscall, ret: Arg): void {
    const {held} = thread;
    const failed = ret < 0 || ret >= 0xfffffffffffff000n;
    if (held !== undefined && thread.call === call) {
      if (call.retArg !== undefined) held.args[call.retArg] = ret;
      else if (call.waitsFor === 'child' && !failed) this.childIs(thread, ret, undefined);
      else if (call.waitsFor === 'exec' && !failed && held.kind !== KIND.exec) {
        held.kind = KIND.exec;
        held.args = [0];
      }
      this.queue.close(held);
    }
    thread.held = undefined;
    thread.call = undefined;
    thread.execSeen = false;
    this.emit(raw, KIND.sys_exit, [call.nr, ret]);
  }

  /** The tid is used again: nothing will be learnt about its former owner. */
  private retire(thread: Thread): void {
    this.giveUp(thread);
    if (thread.newborn !== undefined) this.queue.close(thread.newborn);
  }

  private giveUp(thread: Thread): void {
    if (thread.held !== undefined) {
      if (thread.held.open) this.queue.unresolved++;
      this.queue.close(thread.held);
      thread.held = undefined;
    }
  }

  /** The fork that `parent` is in made this child. */
  private childIs(parent: Thread, child: Arg, cloneFlags: Arg | undefined): void {
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

  private special(raw: RawEvent, thread: Thread): void {
    const {name} = raw;
    if (name === 'task_newtask') this.newtask(raw, thread);
    else if (name === 'sched_process_fork') this.schedFork(raw, thread);
    else if (name === 'sched_process_exec') this.schedExec(raw, thread);
    else if (name === 'sched_process_exit') this.schedExit(raw, thread);
    else if (name === 'alloc_vmap_area') {
      this.emit(raw, ...this.areas.alloc(raw.payload, thread.call !== undefined));
    } else if (name === 'free_vmap_area_noflush') this.emit(raw, ...this.areas.free(raw.payload));
    else if (name === 'ksm_enter') {
      const kind = thread.call === undefined ? KIND.ksm_enter : KIND.ksm_entered;
      this.emit(raw, kind, [ptr(raw.payload, 'mm')]);
    } else if (name === 'lost_events') this.lost(raw, num(raw.payload, 'lost'));
    else this.writer.unmodelled(name);
  }

  private lost(raw: RawEvent, count: Arg): void {
    this.writer.loss(Number(count));
    this.emit(raw, KIND.lost, [count]);
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
  private born(parent: Thread, raw: RawEvent): void {
    const {newborn} = parent;
    if (newborn === undefined) return;
    if (raw.name === 'task_newtask' && num(raw.payload, 'pid') === newborn.args[0]) {
      newborn.args[1] = ptr(raw.payload, 'clone_flags');
    }
    this.queue.close(newborn);
    parent.newborn = undefined;
  }

  private newtask(raw: RawEvent, parent: Thread): void {
    const {payload} = raw;
    const child = Number(num(payload, 'pid'));
    const flags = ptr(payload, 'clone_flags');
    const threaded = isThread(flags);
    const tgid = threaded ? parent.tgid : child;
    const repeats = this.repeats(parent, child, FROM_NEWTASK);
    this.addThread(child, tgid, parent.tid, between(payload, 'comm', 'clone_flags='));
    if (!repeats) {
      this.emit(raw, KIND.fork, [child, flags, tgid]);
      return;
    }
    this.childIs(parent, child, flags);
    this.emit(raw, KIND.newtask, [child, flags]);
  }

  private schedFork(raw: RawEvent, parent: Thread): void {
    const child = Number(num(raw.payload, 'child_pid'));
    if (this.repeats(parent, child, FROM_SCHED)) {
      if (parent.held?.open === true) this.childIs(parent, child, undefined);
      this.emit(raw, KIND.sched_fork, [child]);
      return;
    }
    this.addThread(child, child, parent.tid, between(raw.payload, 'child_comm', 'child_pid='));
    this.emit(raw, KIND.fork, [child, SIGCHLD, child]);
  }

  private schedExec(raw: RawEvent, thread: Thread): void {
    const {payload} = raw;
    const filename = this.intern(between(payload, 'filename', 'pid='));
    const oldTid = Number(num(payload, 'old_pid'));
    const caller = this.threads.get(oldTid) ?? thread;
    const {held} = caller;
    if (caller.call?.waitsFor === 'exec' && held !== undefined) {
      held.kind = KIND.exec;
      held.args = [filename];
      this.queue.close(held);
      this.emit(raw, KIND.sched_exec, [filename]);
    } else {
      this.emit(raw, thread.execSeen ? KIND.sched_exec : KIND.exec, [filename]);
      thread.execSeen = false;
    }
  }

  private schedExit(raw: RawEvent, thread: Thread): void {
    const dead = valueIndex(raw.payload, 'group_dead');
    const groupDead = dead >= 0 && raw.payload.startsWith('true', dead);
    const group = this.groupExits.has(thread.tgid) || (!thread.exitCalled && groupDead);
    this.giveUp(thread);
    thread.call = undefined;
    if (groupDead) this.groupExits.delete(thread.tgid);
    this.evidence.delete(thread.tid);
    this.emit(raw, KIND.exit, [group ? 1 : 0]);
  }

  private record(raw: RawEvent): void {
    const record = sideBand(raw);
    if (record === undefined) {
      this.writer.unmodelled(raw.name);
      return;
    }
    if (record.type === 'lost') this.lost(raw, record.count);
    else if (record.type === 'comm') this.commRecord(raw, record);
    else if (record.type === 'fork') this.forkRecord(raw, record);
    else if (record.type === 'exit') {
      this.emit(raw, KIND.task_exit, [record.tgid, record.parentTid], record.tid);
    } else this.mapRecord(raw, record);
  }

  private commRecord(raw: RawEvent, record: SideBand & {type: 'comm'}): void {
    const thread =
      this.threads.get(record.tid) ?? this.addThread(record.tid, record.tgid, 0, record.comm);
    const comm = this.intern(record.comm);
    if (record.exec && thread.call?.waitsFor !== 'exec') {
      thread.execSeen = true;
      this.emit(raw, KIND.exec, [comm], record.tid);
    } else this.emit(raw, KIND.comm, [comm, record.exec ? 1 : 0], record.tid);
  }

  private forkRecord(raw: RawEvent, record: SideBand & {type: 'fork'}): void {
    const {tid, tgid, parentTid} = record;
    const args = [tid, tgid, parentTid];
    if (raw.preamble) {
      this.addThread(tid, tgid, parentTid, raw.comm);
      this.emit(raw, KIND.task_fork, args, parentTid);
      return;
    }
    const parent =
      this.threads.get(parentTid) ?? this.addThread(parentTid, record.parentTgid, 0, raw.comm);
    const repeats = this.repeats(parent, tid, FROM_RECORD);
    this.addThread(tid, tgid, parentTid, raw.comm);
    if (repeats) {
      if (parent.held?.open === true && parent.held.args[1] !== 0) {
        this.childIs(parent, tid, undefined);
      }
      this.emit(raw, KIND.task_fork, args, parentTid);
      return;
    }
    const flags = tgid === tid ? SIGCHLD : THREAD_FLAGS;
    const held = [tid, flags, tgid];
    if (parent.newborn !== undefined) this.queue.close(parent.newborn);
    parent.newborn = this.queue.hold(KIND.fork, this.timeNs, parentTid, raw.cpu, held);
  }

  private mapRecord(raw: RawEvent, record: SideBand & {type: 'map'}): void {
    const thread = this.threads.get(record.tid);
    if (record.tid <= 0) {
      this.writer.unmodelled(raw.name); // the kernel's own text and modules
      return;
    }
    if (thread === undefined) this.addThread(record.tid, record.tgid, 0, raw.comm);
    const {addr, len, pgoff, prot, flags} = record;
    const file = this.files.nameOf(record.file, record.inode);
    const repeats = thread?.call?.maps === true && thread.call.waitsFor !== 'exec';
    const args = [addr, len, pgoff, prot, flags, this.intern(file)];
    this.emit(raw, repeats ? KIND.mapped : KIND.map, args, record.tid);
  }
}
