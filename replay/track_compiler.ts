// Compiles a trace into tracks (tracks.ts): one pass over its events in order of time. A tid that
// is used again after its exit starts a new track.

import {argNumber, argSigned, type EventColumns} from '../formats/columns.ts';
import {FIRST_ANSWER, KIND} from '../formats/kinds.ts';
import type {LoadedTrace} from '../formats/reader.ts';
import {
  type Cursor,
  freshCursor,
  hasRecordedEnd,
  leaveCall,
  openOperation,
  stopClock,
  switchedIn,
  switchedOut,
} from './task_clock.ts';
import type {CompiledTrace, Track} from './tracks.ts';

const NO_TRACK = -1;
/** opReaped of a wait4 that a signal interrupted. */
export const INTERRUPTED = -2;
/** opReaped of a wait4 that polled (WNOHANG) and found no dead child. */
export const NOBODY_YET = -3;
/** wait4 on x86-64. What waitid found is not in its result: 0 is a child, too. */
const NR_WAIT4 = 61;
/** -EINTR, -ERESTARTSYS, -ERESTARTNOINTR, -ERESTARTNOHAND, -ERESTART_RESTARTBLOCK. */
const INTERRUPTED_RESULTS: readonly number[] = [-4, -512, -513, -514, -516];

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
 * Splits a trace into tracks; `untilNs` cuts it that long after its first event. Cost: one pass
 * over the events.
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
    if (cursor.offSince >= 0) switchedIn(cursor, now);
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
    openOperation(cursor, op, events.kind[i], now, this.hasEnds);
    if (events.kind[i] === KIND.fork) this.forked(op, i, cursor);
    if (events.kind[i] === KIND.exit) this.exited(op, tid, cursor);
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
      const out = this.cursors.get(argNumber(events, i, 0));
      if (out !== undefined) switchedOut(out, argNumber(events, i, 1), now);
      const back = this.cursors.get(argNumber(events, i, 2));
      if (back !== undefined) switchedIn(back, now);
      return;
    }
    const cursor = this.cursors.get(events.tid[i]);
    if (kind === KIND.sched_waking) {
      this.woken(argNumber(events, i, 0), cursor, now);
      return;
    }
    if (cursor === undefined) return;
    // Recorders that follow only some tasks may not say that one runs again. A flush on task switch
    // is written by the one that leaves.
    const leaving = kind === KIND.tlb_flush && argNumber(events, i, 1) === 0;
    if (cursor.offSince >= 0 && !leaving) switchedIn(cursor, now);
    if (kind === KIND.sys_exit) this.syscallEnded(i, cursor, now);
    else if (kind === KIND.sys_enter || kind === KIND.contention_begin) stopClock(cursor, now);
    else if (kind === KIND.contention_end) this.restartClock(cursor, now);
    else if (this.insideAccess(cursor)) cursor.mark = now;
  }

  private insideAccess(cursor: Cursor): boolean {
    return cursor.openOp >= 0 && this.events.kind[this.opEvent[cursor.openOp]] === KIND.access;
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
      if (kind === KIND.wait4) {
        const result = argSigned(this.events, i, 1);
        if (result === 0 && argNumber(this.events, i, 0) === NR_WAIT4)
          this.opReaped[op] = NOBODY_YET;
        else this.reaped(op, result);
      }
    }
    leaveCall(cursor, now);
  }

  private reaped(op: number, pid: number): void {
    if (INTERRUPTED_RESULTS.includes(pid)) this.opReaped[op] = INTERRUPTED;
    const track = pid > 0 ? this.dead.get(pid) : undefined;
    if (track === undefined) return;
    this.opReaped[op] = track;
    this.edges.push({kind: 'wait', from: this.exitOpOfTrack[track], to: op});
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

  /**
   * Tasks that a generated trace lists but never forks exist when it begins, whether they do
   * anything or not.
   */
  private adoptListedTasks(): void {
    const seen = new Set(this.tracks.map((track) => track.tid));
    for (const task of this.trace.tasks) {
      if (!seen.has(task.tid)) this.newTrack(task.tid, NO_TRACK, -1, 0);
    }
  }
}
