// Recorded faults and durations, collected while a recording is read.

import {argNumber, type EventColumns} from '../formats/columns.ts';
import {KIND_BY_CODE} from '../formats/kinds.ts';
import {X86_PF_PROT, X86_PF_USER} from '../kernel/mm/vm_fault.ts';
import type {CompiledTrace} from './tracks.ts';
import type {MmLife} from './verify_lives.ts';
import type {Reading} from './verify_reading.ts';
import type {RecordedDuration, RecordedFault} from './verify_record.ts';

/** Faults and durations of one recording. */
export class RecordedTimes {
  readonly faults: RecordedFault[] = [];
  readonly durations: RecordedDuration[] = [];
  private readonly events: EventColumns;

  constructor(
    private readonly compiled: CompiledTrace,
    private readonly lives: readonly MmLife[],
    /** By operation: index of its task's address space. */
    private readonly opLife: Int32Array,
  ) {
    this.events = compiled.trace.events;
  }

  /** An answer of the fault that the task is in. */
  faultAnswered(task: Reading, now: number): void {
    task.faultEnd = now;
    task.faultPreemptedNs = task.preemptedInFaultNs;
    task.faultRecords = task.recordsInFault;
  }

  /** The task enters a call, which is operation `op`. */
  beginCall(task: Reading, op: number): void {
    task.callOp = op;
    task.preemptedNs = 0;
    task.sleptNs = 0;
    task.records = 0;
  }

  /** It leaves it. */
  endCall(task: Reading, now: number): void {
    const {compiled} = this;
    const i = compiled.opEvent[task.callOp];
    this.durations.push({
      op: task.callOp,
      name: nameOf(this.events.kind[i]),
      lastOp: task.op,
      wallNs: now - this.events.timeNs[i],
      preemptedNs: task.preemptedNs,
      sleptNs: task.sleptNs,
      records: task.records,
    });
  }

  /**
   * A kernel access with page faults disabled (copy_fpstate_to_sigframe) is not handled: the kernel
   * faults the page in and tries again. The repeated fault is the first one's, which is handled at
   * once here.
   */
  beginFault(task: Reading, op: number, now: number): void {
    const {firstOp} = task;
    const repeats = firstOp >= 0 && this.isRepeated(firstOp, op);
    if (repeats)
      this.faults.splice(
        this.faults.findLastIndex((fault) => fault.op === firstOp),
        1,
      );
    else task.firstOp = op;
    task.faultOp = op;
    task.faultStart = now;
    task.faultEnd = -1;
    task.recordsInFault = 0;
    task.preemptedInFaultNs = 0;
    task.evidence.clear();
  }

  private isRepeated(first: number, op: number): boolean {
    const {events, compiled} = this;
    const a = compiled.opEvent[first];
    const b = compiled.opEvent[op];
    const userMode = (argNumber(events, b, 1) & X86_PF_USER) !== 0;
    if (userMode || argNumber(events, a, 1) !== argNumber(events, b, 1)) return false;
    const {ops} = compiled.tracks[compiled.opTrack[op]];
    return (
      argNumber(events, a, 0) === argNumber(events, b, 0) && ops[ops.indexOf(op) - 1] === first
    );
  }

  /** The fault that the task was in, if any, is over. */
  endFault(task: Reading): void {
    const op = task.faultOp;
    if (op < 0) return;
    task.faultOp = -1;
    const i = this.compiled.opEvent[op];
    const faultClass = task.evidence.classOf((argNumber(this.events, i, 1) & X86_PF_PROT) !== 0);
    const life = this.lives[this.opLife[op]];
    const startNs = this.events.timeNs[i];
    const endNs = Math.max(startNs, task.faultEnd);
    this.faults.push({op: task.firstOp, life, faultClass, startNs, endNs});
    if (task.faultEnd < 0) return;
    this.durations.push({
      op,
      name: `page_fault ${faultClass}`,
      lastOp: op,
      wallNs: task.faultEnd - task.faultStart,
      preemptedNs: task.faultPreemptedNs,
      sleptNs: 0,
      records: task.faultRecords,
    });
  }
}

function nameOf(kind: number): string {
  return KIND_BY_CODE[kind]?.name ?? String(kind);
}
