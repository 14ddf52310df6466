// From events of a recorder to operations and answers. One input event becomes exactly one of: an
// operation, an answer, or a count under its name in `unmodelled`; this is what the totals of an
// import are checked by.
//
// The same act often shows several times: a fork as system call, side-band record and two
// tracepoints. Rule: the first evidence that an act happened is the operation, at its time;
// everything that repeats it is an answer. So a recording without system calls still replays, and
// nothing is ever done twice.
//
// State: per thread the modelled system call that it is in, and what is held for it (threads.ts);
// who was born how (births.ts).

import {KIND} from '../kinds.ts';
import type {TraceWriter} from '../writer.ts';
import {ANSWER_ROWS} from './answers.ts';
import {Births} from './births.ts';
import {between, num, numberAt, ptr, valueIndex, type Arg} from './fields.ts';
import {HoldQueue} from './hold.ts';
import {MappedFiles} from './mapped_files.ts';
import type {RawEvent} from './raw.ts';
import {sideBand, type SideBand} from './sideband.ts';
import {SYSCALLS, SYSCALL_BY_NR, rawSyscallArgs, syscallArgs, type Syscall} from './syscalls.ts';
import {type Thread, Threads} from './threads.ts';
import {VmapAreas} from './vmap.ts';

/** Turns raw events into what a TraceWriter takes. */
export class EventMapper {
  readonly queue: HoldQueue;
  private readonly writer: TraceWriter;
  private readonly threads: Threads;
  private readonly births: Births;
  private readonly groupExits = new Set<number>();
  private readonly areas = new VmapAreas();
  private readonly files = new MappedFiles();
  private readonly intern: (text: string) => number;
  private timeNs = 0;

  constructor(writer: TraceWriter, holdBound: number) {
    this.writer = writer;
    this.queue = new HoldQueue(writer, holdBound);
    this.threads = new Threads(writer, this.queue);
    this.births = new Births(this.queue, this.threads);
    this.intern = (text) => writer.intern(text);
  }

  /** Threads whose process the source never named. */
  get assumedTgids(): number {
    return this.threads.assumedTgids;
  }

  /** Maps one event. Throws FieldError when its payload lacks what it must have. */
  map(raw: RawEvent, timeNs: number): void {
    this.timeNs = timeNs;
    if (raw.name.startsWith('PERF_RECORD_')) {
      this.record(raw);
      return;
    }
    const thread = this.threads.of(raw);
    if (thread.newborn !== undefined) this.births.born(thread, raw);
    const row = ANSWER_ROWS.get(raw.name);
    if (row !== undefined) this.emit(raw, row.kind, row.args(raw.payload, this.intern));
    else if (raw.name.startsWith('sys_')) this.syscall(raw, thread);
    else this.special(raw, thread);
  }

  /** Writes what is still held. */
  finish(): void {
    this.threads.finish();
    this.queue.finish();
  }

  private emit(raw: RawEvent, kind: number, args: Arg[], tid = raw.tid): void {
    this.queue.emit(kind, this.timeNs, tid, raw.cpu, args);
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
    this.threads.giveUp(thread); // a call whose exit was lost
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
      else if (call.waitsFor === 'child' && !failed) this.births.childIs(thread, ret, undefined);
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

  private special(raw: RawEvent, thread: Thread): void {
    const {name} = raw;
    if (name === 'task_newtask') this.births.newtask(raw, this.timeNs, thread);
    else if (name === 'sched_process_fork') this.births.schedFork(raw, this.timeNs, thread);
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
    this.threads.giveUp(thread);
    thread.call = undefined;
    if (groupDead) this.groupExits.delete(thread.tgid);
    this.births.forget(thread.tid);
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
    else if (record.type === 'fork') this.births.forkRecord(raw, this.timeNs, record);
    else if (record.type === 'exit') {
      this.emit(raw, KIND.task_exit, [record.tgid, record.parentTid], record.tid);
    } else this.mapRecord(raw, record);
  }

  private commRecord(raw: RawEvent, record: SideBand & {type: 'comm'}): void {
    const thread =
      this.threads.get(record.tid) ?? this.threads.add(record.tid, record.tgid, 0, record.comm);
    const comm = this.intern(record.comm);
    if (record.exec && thread.call?.waitsFor !== 'exec') {
      thread.execSeen = true;
      this.emit(raw, KIND.exec, [comm], record.tid);
    } else this.emit(raw, KIND.comm, [comm, record.exec ? 1 : 0], record.tid);
  }

  private mapRecord(raw: RawEvent, record: SideBand & {type: 'map'}): void {
    const thread = this.threads.get(record.tid);
    if (record.tid <= 0) {
      this.writer.unmodelled(raw.name); // the kernel's own text and modules
      return;
    }
    if (thread === undefined) this.threads.add(record.tid, record.tgid, 0, raw.comm);
    const {addr, len, pgoff, prot, flags} = record;
    const file = this.files.nameOf(record.file, record.inode);
    const execs = thread?.call?.waitsFor === 'exec';
    const repeats = execs ? growsArguments(addr, len, record.file) : thread?.call?.maps === true;
    const args = [addr, len, pgoff, prot, flags, this.intern(file)];
    this.emit(raw, repeats ? KIND.mapped : KIND.map, args, record.tid);
  }
}

/** STACK_TOP_MAX of x86-64, four levels: where exec builds the new stack before it has a place. */
const STACK_TOP = 0x7fff_ffff_f000n;

/** True for the record of exec's new stack growing by a page of arguments (expand_downwards). */
function growsArguments(addr: bigint | number, len: bigint | number, file: string): boolean {
  return file === '//anon' && BigInt(addr) + BigInt(len) === STACK_TOP;
}
