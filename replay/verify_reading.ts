// One task while a recording is read: the operation, the call and the fault that it is in, and the
// time that it was off the CPU meanwhile.

import {FaultEvidence} from './verify_faults.ts';

/** flags word of sched_switch: preempted while runnable. */
const PREEMPTED = 16;
const STATE_MASK = 15;

/** One task while the recording is read. */
export interface Reading {
  track: number;
  op: number;
  /** The call that `op` is has ended. */
  ended: boolean;
  /**
   * The call that it is in, -1 for none; when it began; time lost to others; tracepoints so far.
   */
  callOp: number;
  preemptedNs: number;
  sleptNs: number;
  records: number;
  offSince: number;
  offRunnable: boolean;
  /** Fault under way: last answer seen. */
  faultOp: number;
  /** Fault that this one repeats, itself when it is the first; see beginFault. */
  firstOp: number;
  faultStart: number;
  faultEnd: number;
  faultRecords: number;
  faultPreemptedNs: number;
  recordsInFault: number;
  preemptedInFaultNs: number;
  evidence: FaultEvidence;
  lastRss: {timeNs: number; member: number; life: number} | null;
}

/** A task of which nothing was read yet. */
export function freshReading(): Reading {
  return {
    track: -1,
    op: -1,
    ended: false,
    callOp: -1,
    preemptedNs: 0,
    sleptNs: 0,
    records: 0,
    offSince: -1,
    offRunnable: false,
    faultOp: -1,
    firstOp: -1,
    faultStart: 0,
    faultEnd: -1,
    faultRecords: 0,
    faultPreemptedNs: 0,
    recordsInFault: 0,
    preemptedInFaultNs: 0,
    evidence: new FaultEvidence(),
    lastRss: null,
  };
}

/** The task leaves the CPU; `state` is the flags word of sched_switch. */
export function leaveCpu(task: Reading, state: number, now: number): void {
  task.offRunnable = (state & PREEMPTED) !== 0 || (state & STATE_MASK) === 0;
  task.offSince = now;
}

/**
 * The task runs again. Recorders that follow only some tasks may not say so: then its next event
 * does.
 */
export function backOnCpu(task: Reading, now: number): void {
  if (task.offSince < 0) return;
  const offNs = now - task.offSince;
  task.offSince = -1;
  if (!task.offRunnable) {
    task.sleptNs += offNs;
    return;
  }
  task.preemptedNs += offNs;
  task.preemptedInFaultNs += offNs;
}
