// The recorded kernel's answers, sorted by the operation that they belong to.
//
// An answer belongs to the last operation that its task began (a kernel-mode fault inside a system call is an operation of
// its own). Answers of tasks without operations (ksmd, kswapd, khugepaged) belong to the background.
//
// Recorded operations overlap; replayed in total order they do not. So expectations are serialised: every rss_stat record is
// taken as a change against the record before it of the same counter, and the expected value after operation n is the sum of
// the changes of operations 0..n. Where nothing overlapped this is the recorded value itself.
//
// Durations: from the event of the operation to sys_exit of its call (faults inside included), without the time that the
// task stood runnable but not running: that is the recorded machine's other load.

import {argNumber, argSigned, type EventColumns} from '../formats/columns.ts';
import {FIRST_ANSWER, KIND, KIND_BY_CODE} from '../formats/kinds.ts';
import {MM_SWAPENTS} from '../kernel/mm/rss.ts';
import {X86_PF_PROT, X86_PF_USER} from '../kernel/mm/vm_fault.ts';
import {type CompiledTrace, timeOrder} from './tracks.ts';
import {RacedCounter, racingChanges} from './verify_races.ts';
import {FaultEvidence, type FaultClass} from './verify_faults.ts';
import {type MmLife, MmLives} from './verify_lives.ts';

const PAGE_BYTES = 4096;
/** Two records further apart than this were interrupted. */
const MAX_PAIR_NS = 3000;
/** flags word of sched_switch: preempted while runnable. */
const PREEMPTED = 16;
const STATE_MASK = 15;

/** What the records say that a counter was after an operation. */
export interface RssSample {
  readonly op: number;
  readonly life: MmLife;
  readonly member: number;
  /** Pages after the operation, and how many the operation changed it by. */
  pages: number;
  change: number;
  /** Written by a task that replays nothing. */
  readonly background: boolean;
  /** Written after the operation had ended, by a call that is not in the recording. */
  readonly outside: boolean;
  /** Event of its last record. */
  event: number;
}

/** A recorded page fault. */
export interface RecordedFault {
  readonly op: number;
  readonly life: MmLife;
  readonly faultClass: FaultClass;
  /** When it began, and its last answer. */
  readonly startNs: number;
  readonly endNs: number;
}

/** A finished operation: when it ended, what it cost. */
export interface RecordedDuration {
  readonly op: number;
  readonly name: string;
  /** Last operation that began inside it; itself when none did. */
  readonly lastOp: number;
  /** Between its first and last event. */
  readonly wallNs: number;
  /** Of that, runnable but not running, and asleep. */
  readonly preemptedNs: number;
  readonly sleptNs: number;
  /** Tracepoints that fired in between: each costs the recorder's time. */
  readonly records: number;
}

/** All answers of a recording. */
export interface Recorded {
  readonly lives: readonly MmLife[];
  /** In order of operations. */
  readonly samples: readonly RssSample[];
  readonly faults: readonly RecordedFault[];
  readonly durations: readonly RecordedDuration[];
  /** tlb_flush records by `reason pages`, where pages is 0, 1, n or all. */
  readonly flushes: ReadonlyMap<string, number>;
  /** rss_stat records, and those of address spaces whose birth was not recorded. */
  readonly rssRecords: number;
  readonly unknownRecords: number;
  /** Mean distance of the two records of one counter vector: what a record costs the recorded kernel, in ns. */
  readonly recordCostNs: number;
  /** Every record of a known address space by a task that replays something: operation (ascending), life x 4 + member, change. */
  readonly stepOp: Int32Array;
  readonly stepKey: Int32Array;
  readonly stepChange: Int32Array;
  /** 1 where swapoff wrote the record: see Reader.unused. */
  readonly stepUnused: Uint8Array;
  /** Pages that swapoff brought in, in order: the operation that began next. */
  readonly unused: Int32Array;
  /** Changes by tasks that replay nothing (kswapd): operation that began last, life x 4 + member, change, flat. */
  readonly backgroundSteps: readonly number[];
  /** Pages written in reclaim (mm_vmscan_write_folio), by operation: its own, and the background's that began last. */
  readonly writtenIn: ReadonlyMap<number, number>;
  /** By operation: the address space of its task before it; -1 unknown number. */
  readonly opLife: Int32Array;
  /** By operation: 1 when its call gave an error there, too. */
  readonly opFailed: Uint8Array;
}

/** One task while the recording is read. */
interface Reading {
  track: number;
  op: number;
  /** The call that `op` is has ended. */
  ended: boolean;
  /** The call that it is in, -1 for none; when it began; time lost to others; tracepoints so far. */
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

/** Name of a flush in the table of counts. */
export function flushName(pages: number, reason: number): string {
  const span = pages < 0 ? 'all' : pages > 1 ? 'n' : String(pages);
  return `${FLUSH_REASONS[reason] ?? reason} pages:${span}`;
}
const FLUSH_REASONS = [
  'task switch',
  'remote shootdown',
  'local shootdown',
  'local mm shootdown',
  'remote send ipi',
  'remote wrong cpu',
];

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
  private readonly samples: RssSample[] = [];
  private readonly sampleOf = new Map<string, RssSample>();
  /** By life and member: the sum of the changes so far. */
  private readonly counters = new Map<number, RacedCounter>();
  private changes: Float64Array | null = null;
  private readonly steps: number[] = [];
  private readonly faults: RecordedFault[] = [];
  private readonly durations: RecordedDuration[] = [];
  private readonly flushes = new Map<string, number>();
  /**
   * A swapoff lasts while others go on, page by page: what it changes belongs to the next operation that begins, as if each page
   * were a step of its own.
   */
  private readonly unusing: {life: MmLife; member: number; change: number; event: number}[] = [];
  private readonly unused: number[] = [];
  private readonly writtenIn = new Map<number, number>();
  private readonly backgroundSteps: number[] = [];
  private rssRecords = 0;
  private unknownRecords = 0;
  private pairNs = 0;
  private pairs = 0;
  private latestOp = -1;

  constructor(private readonly compiled: CompiledTrace) {
    this.events = compiled.trace.events;
    this.lives = new MmLives(compiled);
    this.opOfEvent = new Int32Array(this.events.count).fill(-1);
    for (let op = 0; op < compiled.opCount; op++) this.opOfEvent[compiled.opEvent[op]] = op;
    this.opLife = new Int32Array(compiled.opCount).fill(-1);
    this.opFailed = new Uint8Array(compiled.opCount);
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
    for (const task of this.tasks.values()) this.endFault(task);
    this.unuseBefore(this.latestOp);
    return {
      lives: this.lives.lives,
      samples: this.serialised(),
      faults: this.faults.sort((a, b) => a.op - b.op),
      durations: this.durations,
      flushes: this.flushes,
      rssRecords: this.rssRecords,
      unknownRecords: this.unknownRecords,
      recordCostNs: this.pairs === 0 ? 0 : this.pairNs / this.pairs,
      ...this.sortedSteps(),
      unused: Int32Array.from(this.unused),
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
    this.endFault(task);
    if (task.track !== track) this.resetTask(task, track);
    task.op = op;
    task.ended = false;
    this.latestOp = op;
    this.unuseBefore(op);
    const kind = events.kind[i];
    // What is mapped inside an exec is mapped in the new image.
    if (kind === KIND.map) this.lives.execEnded(track);
    const life = this.lives.lifeOf(track);
    this.opLife[op] = life.index;
    task.records++;
    if (kind === KIND.access) this.beginFault(task, op, events.timeNs[i]);
    else if (kind === KIND.exit || (isSystemCall(kind) && task.callOp < 0))
      this.beginCall(task, op);
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
    else if (kind === KIND.sys_enter) this.endFault(task);
    else if (kind === KIND.vmscan_write_folio) {
      const op = task.op < 0 ? this.latestOp : task.op;
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
      this.faultAnswered(task, events.timeNs[i]);
    }
    if (this.unuses(task)) {
      this.unusing.push({life, member, change, event: i});
      return;
    }
    if (life.known && task.op >= 0) this.steps.push(task.op, key, change, 0);
    else if (life.known && this.latestOp >= 0)
      this.backgroundSteps.push(this.latestOp, key, change);
    this.addSample(task, life, member, change, i);
  }

  /** In a swapoff. */
  private unuses(task: Reading): boolean {
    const {events, compiled} = this;
    if (task.callOp < 0 || task.op !== task.callOp) return false;
    return events.kind[compiled.opEvent[task.callOp]] === KIND.swapoff;
  }

  /** What swapoff did since the last operation comes before this one. */
  private unuseBefore(op: number): void {
    const {unusing} = this;
    // SWAP comes first: a page of which only that is recorded yet belongs to the next operation as a whole.
    const left = unusing.at(-1)?.member === MM_SWAPENTS ? unusing.splice(-1) : [];
    for (const {life, member, change, event} of unusing) {
      if (life.known) this.steps.push(op, life.index * 4 + member, change, 1);
      this.addSample({op, ended: false}, life, member, change, event);
      for (let n = 0; member === MM_SWAPENTS && n < -change; n++) this.unused.push(op);
    }
    unusing.length = 0;
    unusing.push(...left);
  }

  /** io_submit faults in its buffers after it has read its ring: what comes after a fault in it is its own. */
  private backToCall(task: Reading): void {
    if (task.faultOp < 0 || task.callOp < 0 || task.faultEnd < 0) return;
    if (this.events.kind[this.compiled.opEvent[task.callOp]] !== KIND.io_submit) return;
    this.endFault(task);
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

  private addSample(
    task: Pick<Reading, 'op' | 'ended'>,
    life: MmLife,
    member: number,
    change: number,
    i: number,
  ): void {
    const background = task.op < 0;
    const op = background ? this.latestOp : task.op;
    if (op < 0) return;
    const outside = !background && task.ended;
    const key = `${op} ${life.index} ${member} ${background} ${outside}`;
    let sample = this.sampleOf.get(key);
    if (sample === undefined) {
      sample = {op, life, member, pages: 0, change: 0, background, outside, event: i};
      this.sampleOf.set(key, sample);
      this.samples.push(sample);
    }
    sample.change += change;
    sample.event = i;
  }

  private sortedSteps(): Pick<Recorded, 'stepOp' | 'stepKey' | 'stepChange' | 'stepUnused'> {
    const {steps} = this;
    const count = steps.length / 4;
    const order = Int32Array.from({length: count}, (_, n) => n);
    order.sort((a, b) => steps[a * 4] - steps[b * 4] || a - b);
    const column = (k: number): Int32Array => order.map((n) => steps[n * 4 + k]);
    const stepUnused = Uint8Array.from(column(3));
    return {stepOp: column(0), stepKey: column(1), stepChange: column(2), stepUnused};
  }

  private serialised(): RssSample[] {
    const sorted = this.samples.sort((a, b) => a.op - b.op);
    const values = new Map<number, number>();
    for (const sample of sorted) {
      const key = sample.life.index * 4 + sample.member;
      const value = (values.get(key) ?? 0) + sample.change;
      values.set(key, value);
      sample.pages = value;
    }
    return sorted;
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
    if (reason === 3 || reason === 4) this.faultAnswered(task, events.timeNs[i]);
  }

  private faultAnswered(task: Reading, now: number): void {
    task.faultEnd = now;
    task.faultPreemptedNs = task.preemptedInFaultNs;
    task.faultRecords = task.recordsInFault;
  }

  private sysExit(i: number, task: Reading): void {
    this.endFault(task);
    const nr = argNumber(this.events, i, 0);
    if (nr === NR_EXECVE || nr === NR_EXECVEAT) this.lives.execEnded(task.track);
    if (task.callOp >= 0) {
      this.endCall(task, this.events.timeNs[i]);
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
      this.endCall(task, now);
      task.callOp = -1;
    } else if (kind === KIND.exec) this.lives.execEnded(task.track);
  }

  private beginCall(task: Reading, op: number): void {
    task.callOp = op;
    task.preemptedNs = 0;
    task.sleptNs = 0;
    task.records = 0;
  }

  private endCall(task: Reading, now: number): void {
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
   * A kernel access with page faults disabled (copy_fpstate_to_sigframe) is not handled: the kernel faults the page in and tries
   * again. The repeated fault is the first one's, which is handled at once here.
   */
  private beginFault(task: Reading, op: number, now: number): void {
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

  private endFault(task: Reading): void {
    const op = task.faultOp;
    if (op < 0) return;
    task.faultOp = -1;
    const i = this.compiled.opEvent[op];
    const faultClass = task.evidence.classOf((argNumber(this.events, i, 1) & X86_PF_PROT) !== 0);
    const life = this.lives.lives[this.opLife[op]];
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

  private switched(i: number): void {
    const {events} = this;
    const now = events.timeNs[i];
    const out = this.tasks.get(argNumber(events, i, 0));
    if (out !== undefined) {
      const state = argNumber(events, i, 1);
      out.offRunnable = (state & PREEMPTED) !== 0 || (state & STATE_MASK) === 0;
      out.offSince = now;
    }
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

  /** The tid now is another task: a child that begins its operations, or the tid of a dead one used again. */
  private resetTask(task: Reading, track: number): void {
    Object.assign(task, freshReading());
    task.track = track;
  }
}

/** The task runs again. Recorders that follow only some tasks may not say so: then its next event does. */
function backOnCpu(task: Reading, now: number): void {
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

const NR_EXECVE = 59;
const NR_EXECVEAT = 322;

function freshReading(): Reading {
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

/** Operations that are system calls with an end of their own in the recording. */
function isSystemCall(kind: number): boolean {
  if (kind < KIND.access) return true;
  return kind === KIND.swapon || kind === KIND.swapoff || kind === KIND.io_submit;
}

function nameOf(kind: number): string {
  return KIND_BY_CODE[kind]?.name ?? String(kind);
}
