// One replay while it runs: the machine and kernel, the copies of the trace, the common start, the
// end.
//
// Before the measurement the adopted tasks are made. When all of them stand at the start gate,
// every statistic is set to zero and the clock of the measurement starts. The run ends with the
// last operation.

import type {KernelFacts} from '../kernel/design.ts';
import {startProcess} from '../kernel/init_task.ts';
import {Kernel} from '../kernel/kernel.ts';
import type {CpuTimes} from '../kernel/sched/core.ts';
import type {Task} from '../kernel/task.ts';
import {Machine} from '../machine/machine.ts';
import {Deadlock} from '../machine/panics.ts';
import type {Code} from '../machine/process.ts';
import {nsToTicks} from '../machine/time.ts';
import type {Topology} from '../machine/topology.ts';
import {type Background, backgroundOf} from './background.ts';
import {RecordedFiles} from './bind/recorded_files.ts';
import type {PageContents} from './contents.ts';
import {TraceCopy} from './copy.ts';
import {type Dependencies, dependenciesOf} from './dependencies.ts';
import type {ReplayObserver} from './observer.ts';
import type {ReplayOptions} from './options.ts';
import {type CacheMarks, NO_MARKS} from './page_cache_marks.ts';
import {Placer} from './placement.ts';
import {OpRecorder} from './recorder.ts';
import {StartGate} from './start_gate.ts';
import type {Steering} from './steering.ts';
import type {CompiledTrace, Track} from './tracks.ts';

/** Share of the trace's duration over which the starts of the copies are spread. */
const PHASE_SHARE = 0.05;
/** Number of the task that waits for the end of the recording, one that no trace has. */
const RECORDER_TID = 2 ** 31 - 4;
const MAX_QUEUE = 2 ** 24;
/** Stands for the parent of tasks whose parent is not in the trace. */
const ROOT = -1;

function isLeader(track: Track): boolean {
  return track.tgid === track.tid;
}

function append(groups: Map<number, Track[]>, key: number, track: Track): void {
  const group = groups.get(key);
  if (group === undefined) groups.set(key, [track]);
  else group.push(track);
}

/** State of one replay. */
export class ReplayRun {
  readonly kernel: Kernel;
  readonly recorder = new OpRecorder();
  readonly dependencies: Dependencies;
  readonly placer: Placer;
  readonly startGate: StartGate;
  /** Simulated time at which the measurement began. */
  startTick = 0;
  endTick = 0;
  /** Set before execute(). */
  observer: ReplayObserver | null = null;
  /** What the recording tells besides its operations; set before execute(). */
  steering: Steering | null = null;
  /** Shared by all copies. */
  readonly files: RecordedFiles;
  readonly contents: PageContents | null;
  readonly background: Background;
  /** CPU times before the measurement. */
  timesAtStart: CpuTimes = {idleTicks: 0, busyTicks: 0, userTicks: 0, interruptTicks: 0};
  private readonly copies: TraceCopy[] = [];
  private readonly processesByParent = new Map<number, Track[]>();
  private readonly threadsByLeader = new Map<number, Track[]>();
  private openTracks = 0;

  constructor(
    readonly compiled: CompiledTrace,
    topology: Topology,
    facts: KernelFacts,
    readonly options: ReplayOptions,
    marks: CacheMarks = NO_MARKS,
  ) {
    const bounds = {
      maxEvents: options.maxEvents,
      maxTicks: nsToTicks(options.maxNs),
      maxQueue: MAX_QUEUE,
    };
    const machine = new Machine(topology, {seed: options.seed, ipi: options.ipi, bounds});
    this.kernel = new Kernel(machine, facts);
    this.files = new RecordedFiles(this.kernel, marks);
    this.background = backgroundOf(compiled);
    this.contents = this.background.contents(this.kernel);
    this.dependencies = dependenciesOf(compiled, options.order);
    this.placer = new Placer(topology, compiled, options.placement);
    const adopted = this.groupAdopted();
    this.openTracks =
      compiled.tracks.filter((track) => track.ops.length > 0).length * options.copies;
    this.startGate = new StartGate(this.kernel, adopted * options.copies, () => this.begin());
    this.makeCopies();
  }

  /** True when an operation that waits for others must let the next one go before it ends. */
  get passesTurnEarly(): boolean {
    return this.options.order === 'total';
  }

  /**
   * Processes that exist at the start and whose parent is `track`; null for those without a known
   * parent.
   */
  adoptedChildren(track: Track | null): readonly Track[] {
    return this.processesByParent.get(track === null ? ROOT : track.tid) ?? [];
  }

  adoptedThreads(leader: Track): readonly Track[] {
    return this.threadsByLeader.get(leader.tid) ?? [];
  }

  /** Runs to the end of the trace. */
  execute(): void {
    const {machine} = this.kernel;
    if (this.openTracks === 0) return;
    for (const copy of this.copies) copy.adoptProcesses(null, null);
    this.runToEnd();
    this.endTick = machine.engine.now;
    this.kernel.sched.finish();
  }

  /**
   * A task that died of a BUG may have held locks: then the others hang, as they would, and the run
   * ends there.
   */
  private runToEnd(): void {
    const {machine, checks} = this.kernel;
    try {
      machine.engine.run();
    } catch (error) {
      if (!(error instanceof Deadlock) || checks.findings.length === 0) throw error;
      checks.count('hung_after_bug');
      checks.warn(`the machine hung after a BUG: ${error.waitGraph[0]}`);
    }
  }

  /** A task has done its last operation. */
  trackEnded(): void {
    this.openTracks--;
    if (this.openTracks === 0) this.kernel.machine.engine.stop();
  }

  private makeCopies(): void {
    const rng = this.kernel.machine.rng('copies');
    for (let index = 0; index < this.options.copies; index++) {
      const copy = new TraceCopy(this, index);
      if (index > 0) copy.shift(this.phaseTicks(rng.nextFloat()));
      this.copies.push(copy);
    }
  }

  private phaseTicks(share: number): number {
    return nsToTicks(Math.round(share * PHASE_SHARE * this.compiled.durationNs));
  }

  /**
   * Sorts the adopted tasks: processes under their adopted parent, threads under their leader.
   * Returns how many.
   */
  private groupAdopted(): number {
    const adopted = this.compiled.tracks.filter((track) => track.forkOp < 0);
    const processes = new Set(adopted.filter(isLeader).map((track) => track.tid));
    const parents = new Map(this.compiled.trace.tasks.map((task) => [task.tid, task.parentTid]));
    for (const track of adopted) {
      if (!isLeader(track) && processes.has(track.tgid)) {
        append(this.threadsByLeader, track.tgid, track);
        continue;
      }
      const parent = parents.get(track.tid) ?? ROOT;
      const known = processes.has(parent) && parent !== track.tid;
      append(this.processesByParent, known ? parent : ROOT, track);
    }
    return adopted.length;
  }

  private begin(): void {
    const {machine, checks, locks} = this.kernel;
    this.startTick = machine.engine.now;
    machine.profile.reset();
    locks.reset();
    checks.counters.clear();
    this.kernel.mmIfMade?.notifierCounts.clear();
    this.kernel.invalidated = (ticks) => this.recorder.invalidations.record(ticks);
    this.timesAtStart = this.kernel.sched.times();
    this.background.start(this.kernel, this.options.scale);
    const {time} = this.options;
    const recorded = time === 'timed' || time === 'scaled';
    if (recorded && this.background.ksm !== null) this.runToEndOfRecording();
  }

  /** ksmd goes on when the last operation is over: so does the run, as long as the recording. */
  private runToEndOfRecording(): void {
    const {kernel, compiled, options} = this;
    this.openTracks++;
    const ticks = nsToTicks(compiled.durationNs / options.scale);
    const program = function* (this: ReplayRun, t: Task): Code {
      yield* kernel.sched.sleep(t, ticks);
      this.trackEnded();
      yield* kernel.sched.block(t, {name: 'the end of the run'});
    }.bind(this);
    const spec = {tid: RECORDER_TID, comm: 'recorder', program, kernelThread: true};
    startProcess(kernel, spec).process!.daemon = true;
  }
}
