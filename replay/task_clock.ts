// The clock of one task while a trace is compiled: what of the time between two operations was
// spent thinking (on the CPU, outside operations), what asleep, and what is stripped (see
// tracks.ts). The clock counts think time while `counting`; `mark` is when it was last read.

import {KIND} from '../formats/kinds.ts';

const NO_CALL = -1;
/** sched_switch.prev_state: preempted while runnable; and without that bit. */
const PREEMPTED = 16;
const STATE_MASK = 15;
const RUNNABLE = 0;

/** What is known of a tid while the trace is read. */
export interface Cursor {
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

/** A task of which nothing is known yet. */
export function freshCursor(track: number, counting: boolean): Cursor {
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
export function hasRecordedEnd(kind: number): boolean {
  return kind < KIND.access && kind !== KIND.exit;
}

/** Time from here on is not think time. */
export function stopClock(cursor: Cursor, now: number): void {
  if (cursor.counting) cursor.thinkNs += now - cursor.mark;
  cursor.counting = false;
}

/**
 * The task begins an operation of kind `kind`; with `hasEnds` the recording says when calls end.
 */
export function openOperation(
  cursor: Cursor,
  op: number,
  kind: number,
  now: number,
  hasEnds: boolean,
): void {
  cursor.mark = now;
  cursor.openOp = op;
  if (hasRecordedEnd(kind)) cursor.callOp = hasEnds ? op : NO_CALL;
  cursor.counting = cursor.callOp < 0 && !hasRecordedEnd(kind);
}

/** The task leaves its system call. */
export function leaveCall(cursor: Cursor, now: number): void {
  cursor.callOp = NO_CALL;
  cursor.openOp = -1;
  cursor.counting = true;
  cursor.mark = now;
}

/** The task leaves the CPU; `state` is the flags word of sched_switch. */
export function switchedOut(cursor: Cursor, state: number, now: number): void {
  cursor.countingBeforeOff = cursor.counting;
  stopClock(cursor, now);
  cursor.offSince = now;
  cursor.offState = (state & PREEMPTED) !== 0 ? RUNNABLE : state & STATE_MASK;
  cursor.wokenAt = -1;
}

/** The task is on a CPU again. */
export function switchedIn(cursor: Cursor, now: number): void {
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
