// Grades states: replays in total order and compares, after each operation, counters, fault classes
// and flushes.
//
// It watches the replay (ReplayObserver) and the mm (MmProbe). One operation runs at a time, so
// whatever the mm says belongs to the last operation that began and is not over. Which simulated mm
// a recorded life is follows from who runs: the task's mm when its operation begins; the mm that a
// fork or an exec first speaks of is the life born there.

import {argNumber} from '../formats/columns.ts';
import {KIND, KIND_BY_CODE} from '../formats/kinds.ts';
import type {Kernel} from '../kernel/kernel.ts';
import type {MmProbe} from '../kernel/mm/probe.ts';
import {MM_FILEPAGES} from '../kernel/mm/rss.ts';
import {X86_PF_PROT, X86_PF_WRITE} from '../kernel/mm/vm_fault.ts';
import type {MmStruct} from '../kernel/mm_types.ts';
import type {Task} from '../kernel/task.ts';
import type {Cpu} from '../machine/cpu.ts';
import {type Outcome, vpnArg} from './bind/binding.ts';
import type {ReplayObserver} from './observer.ts';
import {CacheEvidence} from './page_cache.ts';
import type {CompiledTrace} from './tracks.ts';
import type {Differences} from './verify_differences.ts';
import {FAULT_CLASSES, type FaultClass, FaultEvidence} from './verify_faults.ts';
import {flushName, type Recorded, type RecordedFault, type RssSample} from './verify_record.ts';

import {isMapped, WindowWatch} from './verify_windows.ts';

export const MEMBER_NAMES = ['file', 'anon', 'swap', 'shmem'] as const;
const NO_COUNTS = new Float64Array(MEMBER_NAMES.length);

interface Tally {
  recorded: number;
  agreed: number;
}

/** Everything counted while states are compared. */
export class StateGrader implements ReplayObserver, MmProbe {
  readonly classes = new Map<FaultClass, Tally>();
  readonly flushes = new Map<string, number>();
  readonly members = MEMBER_NAMES.map(() => ({samples: 0, exact: 0}));
  missing = 0;
  extra = 0;
  ungradedFaults = 0;
  /** Graded faults that brought a page in from swap here. */
  swapFaults = 0;
  samples = 0;
  exact = 0;
  changesExact = 0;
  absError = 0;
  maxError = 0;
  simulatedSteps = 0;
  matchedSteps = 0;
  /** Pages that operations without a model added to a counter, by life and member. */
  private readonly missingPages = new Map<number, number>();
  /** Operations that ended other than done, by name and outcome. */
  readonly outcomes = new Map<string, number>();
  private readonly values = new Map<MmStruct, Float64Array>();
  /** What the counters of ended address spaces were at the end. */
  private readonly finalValues = new Map<number, Float64Array>();
  private readonly mmOfLife: (MmStruct | undefined)[] = [];
  private readonly lifeOfMm = new Map<MmStruct, number>();
  private readonly bornLife = new Map<number, number>();
  /** Samples, steps and the fault of each operation, in order of operations. */
  private readonly sampleStart: Int32Array;
  private readonly faultOf: Int32Array;
  private readonly stepStart: Int32Array;
  private readonly op = {
    index: -1,
    mm: null as MmStruct | null,
    faults: 0,
    /** The entry was present when the operation began. */
    present: false,
    /** Counter changes: life and member, and by how much. */
    steps: [] as number[],
    before: new Map<number, number>(),
  };
  private readonly evidence = new FaultEvidence();
  private readonly windows: WindowWatch;
  /** Samples of background threads that are not graded yet. */
  private readonly background: RssSample[] = [];
  /** What this replay tells of the page cache. */
  readonly cache: CacheEvidence;

  constructor(
    readonly kernel: Kernel,
    private readonly compiled: CompiledTrace,
    private readonly recorded: Recorded,
    private readonly differences: Differences,
    nameOf: (mappingId: number) => string,
    /** What earlier replays told of the page cache. */
    before: CacheEvidence | null,
  ) {
    this.cache = new CacheEvidence(before);
    this.windows = new WindowWatch(kernel, nameOf);
    const {opCount} = compiled;
    for (const name of FAULT_CLASSES) this.classes.set(name, {recorded: 0, agreed: 0});
    for (const life of recorded.lives) {
      if (life.bornOp >= 0) this.bornLife.set(life.bornOp, life.index);
    }
    this.sampleStart = startsOf(
      recorded.samples.map((sample) => sample.op),
      opCount,
    );
    this.stepStart = startsOf(recorded.stepOp, opCount);
    this.faultOf = new Int32Array(opCount).fill(-1);
    recorded.faults.forEach((fault, n) => {
      this.faultOf[fault.op] = n;
    });
  }

  // --- the replay

  began(t: Task, op: number): void {
    this.gradeBackground();
    this.beganFault(t, op);
    const life = this.recorded.opLife[op];
    if (t.mm !== null && life >= 0) this.bind(life, t.mm);
    const current = this.op;
    current.index = op;
    current.mm = t.mm;
    current.faults = 0;
    this.evidence.clear();
  }

  private beganFault(t: Task, op: number): void {
    const {events} = this.compiled.trace;
    const i = this.compiled.opEvent[op];
    if (events.kind[i] !== KIND.access) return;
    const vpn = vpnArg(events, i, 0);
    const user = t.mm?.user ?? null;
    this.op.present = user !== null && isMapped(this.kernel, user, vpn);
    const errorCode = argNumber(events, i, 1);
    if ((errorCode & X86_PF_WRITE) === 0) this.windows.began(t, vpn);
    else this.windows.wrote(t, vpn, op, (errorCode & X86_PF_PROT) !== 0, this.cache);
  }

  ended(t: Task, op: number, _ticks: number, outcome: Outcome): void {
    const kind = this.compiled.trace.events.kind[this.compiled.opEvent[op]];
    if (outcome !== 'done') this.notDone(op, kind, outcome);
    const born = this.bornLife.get(op);
    if (kind === KIND.exec && born !== undefined && t.mm !== null) this.bind(born, t.mm);
    if (this.faultOf[op] >= 0) {
      this.noteWindow(op);
      this.gradeFault(this.recorded.faults[this.faultOf[op]]);
    } else if (op === this.op.index && this.op.faults > 0) this.extraFaults(op);
    for (let n = this.sampleStart[op]; n < this.sampleStart[op + 1]; n++) {
      const sample = this.recorded.samples[n];
      if (sample.outside) this.notModelled(sample, 'a call that was not recorded');
      else if (sample.background) this.background.push(sample);
      else if (outcome === 'skipped' || kind === KIND.io_submit)
        this.notModelled(sample, KIND_BY_CODE[kind]?.name ?? '');
      else this.gradeSample(sample);
    }
    if (op !== this.op.index) return;
    this.gradeSteps(op);
    // What others (a swapoff) change from here on comes before the next operation.
    this.op.steps.length = 0;
    this.op.before.clear();
  }

  /** Calls that failed there, too, are as they should be. */
  private notDone(op: number, kind: number, outcome: Outcome): void {
    const {opFailed, opLife, lives} = this.recorded;
    if (outcome === 'failed' && opFailed[op] !== 0) return;
    const older = (lives[opLife[op]]?.known ?? true) ? '' : ', address space older than the trace';
    const name = `${KIND_BY_CODE[kind]?.name ?? kind} ${outcome}${older}`;
    this.outcomes.set(name, (this.outcomes.get(name) ?? 0) + 1);
  }

  private bind(life: number, mm: MmStruct): void {
    this.mmOfLife[life] = mm;
    this.lifeOfMm.set(mm, life);
  }

  // --- the mm

  rssStat(mm: MmStruct, member: number, pages: number, _currentIsMine: boolean): void {
    let values = this.values.get(mm);
    if (values === undefined) {
      values = new Float64Array(MEMBER_NAMES.length);
      this.values.set(mm, values);
    }
    const change = pages - values[member];
    values[member] = pages;
    const {op} = this;
    if (op.index < 0) return;
    const life = this.lifeFor(mm);
    const key = life * 4 + member;
    if (!op.before.has(key)) op.before.set(key, pages - change);
    if (life >= 0) op.steps.push(key, change);
    if (mm === op.mm) this.evidence.rss(member, change);
  }

  private lifeFor(mm: MmStruct): number {
    const life = this.lifeOfMm.get(mm);
    if (life !== undefined) return life;
    const born = this.bornLife.get(this.op.index);
    if (born === undefined || this.mmOfLife[born] !== undefined) return -1;
    this.bind(born, mm);
    return born;
  }

  fault(): void {
    this.op.faults++;
  }

  tlbFlush(_cpu: Cpu, pages: number, reason: number): void {
    const name = flushName(pages, reason);
    this.flushes.set(name, (this.flushes.get(name) ?? 0) + 1);
    this.evidence.flush(pages, reason);
  }

  exitMmap(mm: MmStruct): void {
    const life = this.lifeOfMm.get(mm);
    this.lifeOfMm.delete(mm);
    if (life === undefined) return;
    // The object may serve another address space later: what it leaves behind is kept apart.
    if (this.mmOfLife[life] === mm) this.mmOfLife[life] = undefined;
    const left = this.values.get(mm);
    if (left !== undefined) this.finalValues.set(life, left);
    this.values.delete(mm);
  }

  notifier(): void {}

  // --- grading

  /**
   * What background threads changed after an operation has happened when the next one begins, or at
   * the end.
   */
  gradeBackground(): void {
    for (const sample of this.background) this.gradeSample(sample);
    this.background.length = 0;
  }

  private gradeFault(fault: RecordedFault): void {
    if (!fault.life.known) {
      this.ungradedFaults++;
      return;
    }
    const tally = this.classes.get(fault.faultClass)!;
    tally.recorded++;
    const {op} = this;
    const found =
      op.index !== fault.op || op.faults === 0 ? null : this.evidence.classOf(op.present);
    if (found === 'swap') this.swapFaults++;
    if (found === fault.faultClass) {
      tally.agreed++;
      return;
    }
    if (found === null) this.missing++;
    const text = found ?? 'no fault';
    const event = this.compiled.opEvent[fault.op];
    const errorCode = argNumber(this.compiled.trace.events, event, 1);
    const cause = `fault ${errorCode.toString(16)}: ${fault.faultClass} recorded, ${text} here`;
    this.differences.add(fault.op, event, cause, fault.faultClass, text);
  }

  /** A read fault on a file: how much was mapped around, on both sides. */
  private noteWindow(op: number): void {
    const {events} = this.compiled.trace;
    const fault = this.recorded.faults[this.faultOf[op]];
    if ((argNumber(events, this.compiled.opEvent[op], 1) & X86_PF_WRITE) !== 0) return;
    if (!fault.life.known || fault.faultClass !== 'file' || op !== this.op.index) return;
    let recorded = 0;
    for (let n = this.sampleStart[op]; n < this.sampleStart[op + 1]; n++) {
      const sample = this.recorded.samples[n];
      if (sample.life === fault.life && sample.member === MM_FILEPAGES) recorded += sample.change;
    }
    const key = fault.life.index * 4 + MM_FILEPAGES;
    const mm = this.mmOfLife[fault.life.index];
    const now = (mm === undefined ? undefined : this.values.get(mm))?.[MM_FILEPAGES] ?? 0;
    const simulated = now - (this.op.before.get(key) ?? now);
    const faulted = this.op.faults > 0;
    this.windows.ended(fault, {recorded, simulated, faulted}, this.cache);
  }

  private extraFaults(op: number): void {
    this.extra += this.op.faults;
    const event = this.compiled.opEvent[op];
    const name = KIND_BY_CODE[this.compiled.trace.events.kind[event]]?.name ?? '';
    const found = `${this.op.faults} faults, the last ${this.evidence.classOf(this.op.present)}`;
    this.differences.add(op, event, `extra faults in ${name}`, 'none', found);
  }

  /**
   * What is not carried out here changed a counter there (io_submit faults in its buffers, whose
   * addresses no recording has; shmdt is not recorded): what it added is missing here until it goes
   * there.
   */
  private notModelled(sample: RssSample, what: string): void {
    if (!sample.life.known) return;
    const key = sample.life.index * 4 + sample.member;
    this.missingPages.set(key, (this.missingPages.get(key) ?? 0) + sample.change);
    const name = `rss_stat in ${what}`;
    this.outcomes.set(name, (this.outcomes.get(name) ?? 0) + 1);
  }

  private gradeSample(sample: RssSample): void {
    const {life, member, op} = sample;
    if (!life.known) return;
    const mm = this.mmOfLife[life.index];
    const values = mm === undefined ? this.finalValues.get(life.index) : this.values.get(mm);
    const found = (values ?? NO_COUNTS)[member];
    const missing = this.missingPages.get(life.index * 4 + member) ?? 0;
    const error = Math.min(
      Math.abs(found - sample.pages),
      Math.abs(found - (sample.pages - missing)),
    );
    this.samples++;
    this.members[member].samples++;
    this.absError += error;
    this.maxError = Math.max(this.maxError, error);
    if (error === 0) {
      this.exact++;
      this.members[member].exact++;
    }
    const before = op === this.op.index ? this.op.before.get(life.index * 4 + member) : undefined;
    const change = before === undefined ? 0 : found - before;
    if (change === sample.change) {
      this.changesExact++;
      return;
    }
    this.wrongChange(sample, change, found);
  }

  private wrongChange(sample: RssSample, change: number, found: number): void {
    const {compiled, recorded} = this;
    const {op, member, life} = sample;
    const {kind} = compiled.trace.events;
    const name = KIND_BY_CODE[kind[compiled.opEvent[op]]]?.name ?? '';
    const fault = this.faultOf[op] < 0 ? '' : ` (${recorded.faults[this.faultOf[op]].faultClass})`;
    const whose = life.index === recorded.opLife[op] ? '' : ' of another mm';
    const sign = Math.abs(change) > Math.abs(sample.change) ? 'more' : 'less';
    const by = sample.background ? ' by the background' : '';
    const where = `${MEMBER_NAMES[member]}${whose}${by} in ${name}${fault}`;
    const cause = `rss ${where}: ${sign} than recorded`;
    const expected = `${signed(sample.change)} to ${sample.pages}`;
    this.differences.add(op, sample.event, cause, expected, `${signed(change)} to ${found}`);
  }

  /** How many of the recorded records of this operation have an equal one here. */
  private gradeSteps(op: number): void {
    const {steps} = this.op;
    const {stepKey, stepChange} = this.recorded;
    this.simulatedSteps += steps.length / 2;
    const left = new Map<string, number>();
    for (let n = 0; n < steps.length; n += 2) {
      const key = `${steps[n]} ${steps[n + 1]}`;
      left.set(key, (left.get(key) ?? 0) + 1);
    }
    for (let n = this.stepStart[op]; n < this.stepStart[op + 1]; n++) {
      const key = `${stepKey[n]} ${stepChange[n]}`;
      const count = left.get(key) ?? 0;
      if (count === 0) continue;
      left.set(key, count - 1);
      this.matchedSteps++;
    }
  }
}

function signed(pages: number): string {
  return pages < 0 ? String(pages) : `+${pages}`;
}

/** First index of each operation in a list sorted by operation, and one past the last. */
function startsOf(ops: ArrayLike<number>, opCount: number): Int32Array {
  const starts = new Int32Array(opCount + 1);
  for (let n = 0; n < ops.length; n++) starts[ops[n] + 1]++;
  for (let op = 0; op < opCount; op++) starts[op + 1] += starts[op];
  return starts;
}
