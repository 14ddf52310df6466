// Reads a recording's answers, task by task (see verify_record.ts). Cost: one pass over the events.

import {argNumber, argSigned, type EventColumns} from '../formats/columns.ts';
import {FIRST_ANSWER, KIND} from '../formats/kinds.ts';
import {flushName} from './flush_names.ts';
import {type CompiledTrace, timeOrder} from './tracks.ts';
import {type MmLife, MmLives} from './verify_lives.ts';
import {RacedCounter, racingChanges} from './verify_races.ts';
import {backOnCpu, freshReading, leaveCpu, type Reading} from './verify_reading.ts';
import type {Recorded} from './verify_record.ts';
import {RecordedSamples} from './verify_samples.ts';
import {RecordedTimes} from './verify_times.ts';

const PAGE_BYTES = 4096;
/** Two records further apart than this were interrupted. */
const MAX_PAIR_NS = 3000;
const NR_EXECVE = 59;
const NR_EXECVEAT = 322;

/** Reads the answers. Cost: one pass over the events. */
export function readRecorded(compiled: CompiledTrace): Recorded {
  return new Reader(compiled).read();
}

class Reader {
  private readonly events: EventColumns;
  private readonly lives: MmLives;
  private readonly tasks = new Map<number, Reading>();
  private readonly opOfEvent: Int32Array;
  private readonly opLife: Int32Array;
  private readonly opFailed: Uint8Array;
  private readonly samples = new RecordedSamples();
  private readonly times: RecordedTimes;
  /** By life and member: the sum of the changes so far. */
  private readonly counters = new Map<number, RacedCounter>();
  private changes: Float64Array | null = null;
  private readonly flushes = new Map<string, number>();
  private readonly writtenIn = new Map<number, number>();
  private readonly backgroundSteps: number[] = [];
  private rssRecords = 0;
  private unknownRecords = 0;
  private pairNs = 0;
  private pairs = 0;

  constructor(private readonly compiled: CompiledTrace) {
    this.events = compiled.trace.events;
    this.lives = new MmLives(compiled);
    this.opOfEvent = new Int32Array(this.events.count).fill(-1);
    for (let op = 0; op < compiled.opCount; op++) this.opOfEvent[compiled.opEvent[op]] = op;
    this.opLife = new Int32Array(compiled.opCount).fill(-1);
    this.opFailed = new Uint8Array(compiled.opCount);
    this.times = new RecordedTimes(compiled, this.lives.lives, this.opLife);
  }

  read(): Recorded {
    const {events} = this;
    const order = timeOrder(events);
    this.changes = racingChanges(events, order);
    for (let n = 0; n < events.count; n++) {
      const i = order === null ? n : order[n];
      if (events.kind[i] < FIRST_ANSWER) this.operation(this.opOfEvent[i], i);
      else this.answer(i);
    }
    for (const task of this.tasks.values()) this.times.endFault(task);
    this.samples.unuseBefore(this.samples.latestOp);
    return {
      lives: this.lives.lives,
      samples: this.samples.serialised(),
      faults: this.times.faults.sort((a, b) => a.op - b.op),
      durations: this.times.durations,
      flushes: this.flushes,
      rssRecords: this.rssRecords,
      unknownRecords: this.unknownRecords,
      recordCostNs: this.pairs === 0 ? 0 : this.pairNs / this.pairs,
      ...this.samples.sortedSteps(),
      unused: Int32Array.from(this.samples.unused),
      writtenIn: this.writtenIn,
      backgroundSteps: this.backgroundSteps,
      opLife: this.opLife,
      opFailed: this.opFailed,
    };
  }

  private operation(op: number, i: number): void {
    const {events, compiled} = this;
    const track = compiled.opTrack[op];
    const task = this.taskOf(events.tid[i]);
    backOnCpu(task, events.timeNs[i]);
    if (events.kind[i] === KIND.map && task.faultOp >= 0 && task.callOp < 0) {
      // The recorder's record of a stack that grew in this fault.
      task.recordsInFault++;
      return;
    }
    this.times.endFault(task);
    if (task.track !== track) this.resetTask(task, track);
    task.op = op;
    task.ended = false;
    this.samples.latestOp = op;
    this.samples.unuseBefore(op);
    const kind = events.kind[i];
    // What is mapped inside an exec is mapped in the new image.
    if (kind === KIND.map) this.lives.execEnded(track);
    const life = this.lives.lifeOf(track);
    this.opLife[op] = life.index;
    task.records++;
    if (kind === KIND.access) this.times.beginFault(task, op, events.timeNs[i]);
    else if (kind === KIND.exit || (isSystemCall(kind) && task.callOp < 0))
      this.times.beginCall(task, op);
    if (kind === KIND.fork && compiled.opChild[op] >= 0) {
      this.lives.forked(track, compiled.opChild[op], op, argNumber(events, i, 1));
    } else if (kind === KIND.exec) this.lives.execBegan(track, op);
  }

  private answer(i: number): void {
    const {events} = this;
    const kind = events.kind[i];
    if (kind === KIND.sched_switch) {
      this.switched(i);
      return;
    }
    const task = this.tasks.get(events.tid[i]) ?? this.taskOf(events.tid[i]);
    // A flush on task switch is written by the task that leaves, when it has left.
    const leaving = kind === KIND.tlb_flush && argNumber(events, i, 1) === 0;
    if (!leaving) backOnCpu(task, events.timeNs[i]);
    task.records++;
    task.recordsInFault++;
    if (kind === KIND.rss_stat) this.rssStat(i, task);
    else if (kind === KIND.tlb_flush) this.tlbFlush(i, task);
    else if (kind === KIND.sys_exit) this.sysExit(i, task);
    else if (kind === KIND.sys_enter) this.times.endFault(task);
    else if (kind === KIND.vmscan_write_folio) {
      const op = task.op < 0 ? this.samples.latestOp : task.op;
      this.writtenIn.set(op, (this.writtenIn.get(op) ?? 0) + 1);
    } else if (kind === KIND.exit_mmap) this.exitMmap(task, events.timeNs[i]);
  }

  private rssStat(i: number, task: Reading): void {
    const {events} = this;
    this.backToCall(task);
    this.rssRecords++;
    const mine = argNumber(events, i, 1) !== 0;
    const member = argNumber(events, i, 2);
    const pages = argNumber(events, i, 3) / PAGE_BYTES;
    const forkChild = task.op < 0 ? -1 : this.compiled.opChild[task.op];
    const life = this.lives.resolve(task.track, argNumber(events, i, 0), mine, forkChild);
    this.pairCost(task, events.timeNs[i], member, life);
    if (life === null || !life.known) {
      this.unknownRecords++;
      if (life === null) return;
    }
    const key = life.index * 4 + member;
    let counter = this.counters.get(key);
    if (counter === undefined) {
      counter = new RacedCounter(life.known ? 0 : pages);
      this.counters.set(key, counter);
    }
    const change = counter.change(pages, this.changes?.[i] ?? Number.NaN);
    if (task.faultOp >= 0) {
      if (life.index === this.opLife[task.faultOp]) task.evidence.rss(member, change);
      this.times.faultAnswered(task, events.timeNs[i]);
    }
    if (this.unuses(task)) {
      this.samples.unusing.push({life, member, change, event: i});
      return;
    }
    if (life.known && task.op >= 0) this.samples.steps.push(task.op, key, change, 0);
    else if (life.known && this.samples.latestOp >= 0)
      this.backgroundSteps.push(this.samples.latestOp, key, change);
    this.samples.addSample(task, life, member, change, i);
  }

  /** In a swapoff. */
  private unuses(task: Reading): boolean {
    const {events, compiled} = this;
    if (task.callOp < 0 || task.op !== task.callOp) return false;
    return events.kind[compiled.opEvent[task.callOp]] === KIND.swapoff;
  }

  /**
   * io_submit faults in its buffers after it has read its ring: what comes after a fault in it is
   * its own.
   */
  private backToCall(task: Reading): void {
    if (task.faultOp < 0 || task.callOp < 0 || task.faultEnd < 0) return;
    if (this.events.kind[this.compiled.opEvent[task.callOp]] !== KIND.io_submit) return;
    this.times.endFault(task);
    task.op = task.callOp;
  }

  /** FILE directly before ANON in one vector: nothing but the record lies between them. */
  private pairCost(task: Reading, timeNs: number, member: number, life: MmLife | null): void {
    const {lastRss} = task;
    const index = life?.index ?? -1;
    if (lastRss !== null && lastRss.member === 0 && member === 1 && lastRss.life === index) {
      const gapNs = timeNs - lastRss.timeNs;
      if (gapNs <= MAX_PAIR_NS) {
        this.pairNs += gapNs;
        this.pairs++;
      }
    }
    task.lastRss = {timeNs, member, life: index};
  }

  private tlbFlush(i: number, task: Reading): void {
    const {events} = this;
    const pages = argSigned(events, i, 0);
    const reason = argNumber(events, i, 1);
    const name = flushName(pages, reason);
    this.flushes.set(name, (this.flushes.get(name) ?? 0) + 1);
    task.lastRss = null;
    if (task.faultOp < 0) return;
    task.evidence.flush(pages, reason);
    if (reason === 3 || reason === 4) this.times.faultAnswered(task, events.timeNs[i]);
  }

  private sysExit(i: number, task: Reading): void {
    this.times.endFault(task);
    const nr = argNumber(this.events, i, 0);
    if (nr === NR_EXECVE || nr === NR_EXECVEAT) this.lives.execEnded(task.track);
    if (task.callOp >= 0) {
      this.times.endCall(task, this.events.timeNs[i]);
      if (argSigned(this.events, i, 1) < 0) this.opFailed[task.callOp] = 1;
    }
    task.callOp = -1;
    task.ended = true;
  }

  private exitMmap(task: Reading, now: number): void {
    const {callOp} = task;
    if (callOp < 0) return;
    const kind = this.events.kind[this.compiled.opEvent[callOp]];
    if (kind === KIND.exit) {
      this.times.endCall(task, now);
      task.callOp = -1;
    } else if (kind === KIND.exec) this.lives.execEnded(task.track);
  }

  private switched(i: number): void {
    const {events} = this;
    const now = events.timeNs[i];
    const out = this.tasks.get(argNumber(events, i, 0));
    if (out !== undefined) leaveCpu(out, argNumber(events, i, 1), now);
    const back = this.tasks.get(argNumber(events, i, 2));
    if (back !== undefined) backOnCpu(back, now);
  }

  private taskOf(tid: number): Reading {
    let task = this.tasks.get(tid);
    if (task === undefined) {
      task = freshReading();
      this.tasks.set(tid, task);
    }
    return task;
  }

  /**
   * The tid now is another task: a child that begins its operations, or the tid of a dead one used
   * again.
   */
  private resetTask(task: Reading, track: number): void {
    Object.assign(task, freshReading());
    task.track = track;
  }
}

/** Operations that are system calls with an end of their own in the recording. */
function isSystemCall(kind: number): boolean {
  if (kind < KIND.access) return true;
  return kind === KIND.swapon || kind === KIND.swapoff || kind === KIND.io_submit;
}
