// A trace, compiled for replay: one track per task, its operations in order, and what happened between them.
//
// The trap that this file exists for: recorded waiting must not become think time, or the cost of the recorded kernel's
// locks is baked into the result for another lock. So the time between two operations of a task is split:
//   think   CPU time in user mode (and in system calls that the trace does not model), which replay spends again;
//   sleep   time off the CPU, blocked outside a modelled operation, which replay spends as sleep;
//   rest    time inside operations (an exec with the faults and mappings in it is one), contention intervals, and time
//           runnable but not running: stripped, it re-emerges.
// An access (page fault) has no recorded end: the answers that follow it on the same task (rss_stat, tlb_flush) move its
// end forward. Generated traces carry explicit think and sleep operations, and nothing is derived for them.
//
// A tid that is used again after its exit starts a new track.

import {argNumber, argSigned, type EventColumns} from '../formats/columns.ts';
import {FIRST_ANSWER, KIND} from '../formats/kinds.ts';
import type {LoadedTrace} from '../formats/reader.ts';

const NO_TRACK = -1;
const NO_CALL = -1;
/** opReaped of a wait4 that a signal interrupted. */
export const INTERRUPTED = -2;
/** -EINTR, -ERESTARTSYS, -ERESTARTNOINTR, -ERESTARTNOHAND, -ERESTART_RESTARTBLOCK. */
const INTERRUPTED_RESULTS: readonly number[] = [-4, -512, -513, -514, -516];
/** sched_switch.prev_state without the preempted bit. */
const STATE_MASK = 15;
const RUNNABLE = 0;

/** One task's life in the trace. */
export interface Track {
  readonly index: number;
  readonly tid: number;
  tgid: number;
  comm: string;
  /** Track of the parent, -1 for a task that exists when the trace begins. */
  parent: number;
  /** The fork operation that made it, -1 when it exists at the start. */
  forkOp: number;
  /** CPU of its first event. */
  firstCpu: number;
  /** Indices into CompiledTrace's operation columns, in order. */
  readonly ops: number[];
}

/** Operations of all tasks in trace order, as columns. */
export interface CompiledTrace {
  readonly trace: LoadedTrace;
  readonly tracks: readonly Track[];
  /** Number of operations. */
  readonly opCount: number;
  /** Event index, track, think and sleep (ns) before it, recorded start (ns from the first operation). */
  readonly opEvent: Int32Array;
  readonly opTrack: Int32Array;
  readonly opThinkNs: Float64Array;
  readonly opSleepNs: Float64Array;
  readonly opStartNs: Float64Array;
  /** Recorded duration (ns), NaN where the trace has no end for it. */
  readonly opDurationNs: Float64Array;
  /** Track that a fork operation starts, -1 for other operations. */
  readonly opChild: Int32Array;
  /** For a wait4 that recorded which child it got: the child's track; INTERRUPTED when a signal ended it; else -1. */
  readonly opReaped: Int32Array;
  /** Causal edges `from op -> to op` other than fork and program order, by kind. */
  readonly edges: readonly {
    readonly kind: 'wake' | 'wait' | 'lock';
    readonly from: number;
    readonly to: number;
  }[];
  /** Operations by recorded CPU count. */
  readonly recordedCpus: number;
  readonly durationNs: number;
}

/** What is known of a tid while the trace is read. */
interface Cursor {
  track: number;
  mark: number;
  counting: boolean;
  offSince: number;
  offState: number;
  countingBeforeOff: boolean;
  thinkNs: number;
  sleepNs: number;
  openOp: number;
  /** System call that it is in, -1 for none: faults and mappings inside it do not end it. */
  callOp: number;
  wokenAt: number;
  /** Operation of the waker to be awaited by the next operation. */
  wakerOp: number;
}

/** Events in order of time, file order among equals; null when the file already is in order. */
export function timeOrder(events: EventColumns): Int32Array | null {
  let sorted = true;
  for (let i = 1; i < events.count && sorted; i++)
    sorted = events.timeNs[i] >= events.timeNs[i - 1];
  if (sorted) return null;
  const order = Int32Array.from({length: events.count}, (_, i) => i);
  return order.sort((a, b) => events.timeNs[a] - events.timeNs[b] || a - b);
}

/**
 * Splits a trace into tracks; `untilNs` cuts it that long after its first event. Cost: one pass over the events.
 */
export function compileTrace(trace: LoadedTrace, untilNs = Infinity): CompiledTrace {
  return new Compiler(trace, untilNs).compile();
}

class Compiler {
  private readonly events: EventColumns;
  private readonly generated: boolean;
  /** The recording says when system calls end. */
  private readonly hasEnds: boolean;
  private readonly tracks: Track[] = [];
  private readonly cursors = new Map<number, Cursor>();
  private readonly knownTasks = new Map<number, {tgid: number; comm: string}>();
  private readonly opEvent: Int32Array;
  private readonly opTrack: Int32Array;
  private readonly opThinkNs: Float64Array;
  private readonly opSleepNs: Float64Array;
  private readonly opStartNs: Float64Array;
  private readonly opDurationNs: Float64Array;
  private readonly opChild: Int32Array;
  private readonly opReaped: Int32Array;
  private readonly edges: {kind: 'wake' | 'wait' | 'lock'; from: number; to: number}[] = [];
  private readonly exitOpOfTrack: number[] = [];
  private opCount = 0;
  private recordedCpus = 1;
  private firstNs = 0;

  constructor(
    private readonly trace: LoadedTrace,
    private readonly untilNs: number,
  ) {
    this.events = trace.events;
    this.generated = trace.header.source === 'generated';
    let ops = 0;
    for (let i = 0; i < this.events.count; i++) if (this.events.kind[i] < FIRST_ANSWER) ops++;
    this.hasEnds = this.events.kind.subarray(0, this.events.count).includes(KIND.sys_exit);
    this.opEvent = new Int32Array(ops);
    this.opTrack = new Int32Array(ops);
    this.opThinkNs = new Float64Array(ops);
    this.opSleepNs = new Float64Array(ops);
    this.opStartNs = new Float64Array(ops);
    this.opDurationNs = new Float64Array(ops).fill(Number.NaN);
    this.opChild = new Int32Array(ops).fill(NO_TRACK);
    this.opReaped = new Int32Array(ops).fill(NO_TRACK);
    for (const task of trace.tasks) this.knownTasks.set(task.tid, task);
  }

  compile(): CompiledTrace {
    const {events} = this;
    const order = timeOrder(events);
    let lastNs = 0;
    for (let n = 0; n < events.count; n++) {
      const i = order === null ? n : order[n];
      if (n === 0) this.firstNs = events.timeNs[i];
      if (events.timeNs[i] - this.firstNs > this.untilNs) break;
      lastNs = events.timeNs[i];
      if (events.cpu[i] + 1 > this.recordedCpus) this.recordedCpus = events.cpu[i] + 1;
      if (events.kind[i] < FIRST_ANSWER) this.operation(i);
      else this.answer(i);
    }
    if (this.generated) this.adoptListedTasks();
    return {
      trace: this.trace,
      tracks: this.tracks,
      opCount: this.opCount,
      opEvent: this.opEvent,
      opTrack: this.opTrack,
      opThinkNs: this.opThinkNs,
      opSleepNs: this.opSleepNs,
      opStartNs: this.opStartNs,
      opDurationNs: this.opDurationNs,
      opChild: this.opChild,
      opReaped: this.opReaped,
      edges: this.edges,
      recordedCpus: this.recordedCpus,
      durationNs: lastNs - this.firstNs,
    };
  }

  private operation(i: number): void {
    const {events} = this;
    const tid = events.tid[i];
    const now = events.timeNs[i];
    const cursor = this.cursorOf(tid, events.cpu[i]);
    if (cursor.offSince >= 0) this.switchedIn(tid, now);
    if (cursor.counting) cursor.thinkNs += now - cursor.mark;
    const op = this.opCount++;
    this.opEvent[op] = i;
    this.opTrack[op] = cursor.track;
    this.opStartNs[op] = now - this.firstNs;
    if (!this.generated) {
      this.opThinkNs[op] = cursor.thinkNs;
      this.opSleepNs[op] = cursor.sleepNs;
    }
    cursor.thinkNs = 0;
    cursor.sleepNs = 0;
    if (cursor.wakerOp >= 0) this.edges.push({kind: 'wake', from: cursor.wakerOp, to: op});
    cursor.wakerOp = -1;
    this.tracks[cursor.track].ops.push(op);
    this.openOperation(cursor, op, events.kind[i], now);
    if (events.kind[i] === KIND.fork) this.forked(op, i, cursor);
    if (events.kind[i] === KIND.exit) this.exited(op, tid, cursor);
  }

  /** Operations with a recorded end keep the clock stopped until it; the others only until the next event. */
  private openOperation(cursor: Cursor, op: number, kind: number, now: number): void {
    cursor.mark = now;
    cursor.openOp = op;
    if (hasRecordedEnd(kind)) cursor.callOp = this.hasEnds ? op : NO_CALL;
    cursor.counting = cursor.callOp < 0 && !hasRecordedEnd(kind);
  }

  private forked(op: number, i: number, parent: Cursor): void {
    const childTid = argNumber(this.events, i, 0);
    if (childTid === 0) return;
    const childTgid = argNumber(this.events, i, 2);
    const track = this.newTrack(childTid, parent.track, op, this.events.cpu[i]);
    track.tgid = childTgid === 0 ? childTid : childTgid;
    if (track.comm === '') track.comm = this.tracks[parent.track].comm;
    this.opChild[op] = track.index;
    this.cursors.set(childTid, freshCursor(track.index, false));
  }

  private exited(op: number, tid: number, cursor: Cursor): void {
    this.exitOpOfTrack[cursor.track] = op;
    cursor.counting = false;
    cursor.openOp = -1;
    this.dead.set(tid, cursor.track);
    this.cursors.delete(tid);
  }
  private readonly dead = new Map<number, number>();

  private answer(i: number): void {
    const {events} = this;
    const kind = events.kind[i];
    const now = events.timeNs[i];
    if (kind === KIND.sched_switch) {
      this.switchedOut(argNumber(events, i, 0), argNumber(events, i, 1), now);
      this.switchedIn(argNumber(events, i, 2), now);
      return;
    }
    const cursor = this.cursors.get(events.tid[i]);
    if (kind === KIND.sched_waking) {
      this.woken(argNumber(events, i, 0), cursor, now);
      return;
    }
    if (cursor === undefined) return;
    // Recorders that follow only some tasks may not say that one runs again. A flush on task switch is written by the one that leaves.
    const leaving = kind === KIND.tlb_flush && argNumber(events, i, 1) === 0;
    if (cursor.offSince >= 0 && !leaving) this.switchedIn(events.tid[i], now);
    if (kind === KIND.sys_exit) this.syscallEnded(i, cursor, now);
    else if (kind === KIND.sys_enter || kind === KIND.contention_begin) this.stopClock(cursor, now);
    else if (kind === KIND.contention_end) this.restartClock(cursor, now);
    else if (this.insideAccess(cursor)) cursor.mark = now;
  }

  private insideAccess(cursor: Cursor): boolean {
    return cursor.openOp >= 0 && this.events.kind[this.opEvent[cursor.openOp]] === KIND.access;
  }

  private stopClock(cursor: Cursor, now: number): void {
    if (cursor.counting) cursor.thinkNs += now - cursor.mark;
    cursor.counting = false;
  }

  private restartClock(cursor: Cursor, now: number): void {
    if (cursor.callOp >= 0) return;
    if (cursor.openOp >= 0 && hasRecordedEnd(this.events.kind[this.opEvent[cursor.openOp]])) return;
    cursor.counting = true;
    cursor.mark = now;
  }

  private syscallEnded(i: number, cursor: Cursor, now: number): void {
    const op = cursor.callOp;
    if (op >= 0 && Number.isNaN(this.opDurationNs[op])) {
      this.opDurationNs[op] = now - this.firstNs - this.opStartNs[op];
      const kind = this.events.kind[this.opEvent[op]];
      if (kind === KIND.wait4) this.reaped(op, argSigned(this.events, i, 1));
    }
    cursor.callOp = NO_CALL;
    cursor.openOp = -1;
    cursor.counting = true;
    cursor.mark = now;
  }

  private reaped(op: number, pid: number): void {
    if (INTERRUPTED_RESULTS.includes(pid)) this.opReaped[op] = INTERRUPTED;
    const track = pid > 0 ? this.dead.get(pid) : undefined;
    if (track === undefined) return;
    this.opReaped[op] = track;
    this.edges.push({kind: 'wait', from: this.exitOpOfTrack[track], to: op});
  }

  private switchedOut(tid: number, state: number, now: number): void {
    const cursor = this.cursors.get(tid);
    if (cursor === undefined) return;
    cursor.countingBeforeOff = cursor.counting;
    this.stopClock(cursor, now);
    cursor.offSince = now;
    cursor.offState = (state & 16) !== 0 ? RUNNABLE : state & STATE_MASK;
    cursor.wokenAt = -1;
  }

  private switchedIn(tid: number, now: number): void {
    const cursor = this.cursors.get(tid);
    if (cursor === undefined) return;
    if (cursor.offSince < 0) {
      cursor.counting = cursor.openOp < 0;
    } else {
      const outside = cursor.countingBeforeOff;
      if (outside && cursor.offState !== RUNNABLE && cursor.wakerOp < 0) {
        cursor.sleepNs += (cursor.wokenAt >= 0 ? cursor.wokenAt : now) - cursor.offSince;
      }
      cursor.counting = outside;
    }
    cursor.offSince = -1;
    cursor.mark = now;
  }

  /** A wake-up by a traced task is an edge; by anything else (timer, device) only a time. */
  private woken(tid: number, waker: Cursor | undefined, now: number): void {
    const cursor = this.cursors.get(tid);
    if (cursor === undefined || cursor.offSince < 0) return;
    cursor.wokenAt = now;
    if (waker === undefined || waker === cursor || !cursor.countingBeforeOff) return;
    const ops = this.tracks[waker.track].ops;
    if (ops.length > 0) cursor.wakerOp = ops[ops.length - 1];
  }

  private cursorOf(tid: number, cpu: number): Cursor {
    const known = this.cursors.get(tid);
    if (known !== undefined) return known;
    const track = this.newTrack(tid, NO_TRACK, -1, cpu);
    const cursor = freshCursor(track.index, true);
    this.cursors.set(tid, cursor);
    cursor.counting = false;
    return cursor;
  }

  private newTrack(tid: number, parent: number, forkOp: number, cpu: number): Track {
    const known = this.knownTasks.get(tid);
    const track: Track = {
      index: this.tracks.length,
      tid,
      tgid: known?.tgid ?? tid,
      comm: known?.comm ?? '',
      parent,
      forkOp,
      firstCpu: cpu,
      ops: [],
    };
    this.tracks.push(track);
    return track;
  }

  /** Tasks that a generated trace lists but never forks exist when it begins, whether they do anything or not. */
  private adoptListedTasks(): void {
    const seen = new Set(this.tracks.map((track) => track.tid));
    for (const task of this.trace.tasks) {
      if (!seen.has(task.tid)) this.newTrack(task.tid, NO_TRACK, -1, 0);
    }
  }
}

function freshCursor(track: number, counting: boolean): Cursor {
  return {
    track,
    mark: 0,
    counting,
    offSince: -1,
    offState: RUNNABLE,
    countingBeforeOff: false,
    thinkNs: 0,
    sleepNs: 0,
    openOp: -1,
    callOp: NO_CALL,
    wokenAt: -1,
    wakerOp: -1,
  };
}

/** True for operations whose end the recorder writes down as sys_exit. */
function hasRecordedEnd(kind: number): boolean {
  return kind < KIND.access && kind !== KIND.exit;
}
