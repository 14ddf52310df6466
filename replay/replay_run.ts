// One replay while it runs: the machine and kernel, the copies of the trace, the common start, the end.
//
// Before the measurement a boot task per CPU makes the adopted tasks. When all of them stand at the start gate, every
// statistic is set to zero and the clock of the measurement starts. The run ends with the last operation.

import {Kernel} from '../kernel/kernel.ts';
import type {KernelFacts} from '../kernel/design.ts';
import type {CpuTimes} from '../kernel/sched/core.ts';
import {Task} from '../kernel/task.ts';
import type {Code, Waitable} from '../machine/engine.ts';
import {Machine} from '../machine/machine.ts';
import {nsToTicks} from '../machine/time.ts';
import type {Topology} from '../machine/topology.ts';
import {TraceCopy} from './copy.ts';
import {dependenciesOf, type Dependencies} from './dependencies.ts';
import type {ReplayOptions} from './options.ts';
import {Placer} from './placement.ts';
import {OpRecorder} from './recorder.ts';
import {StartGate} from './start_gate.ts';
import type {CompiledTrace, Track} from './tracks.ts';

/** Share of the trace's duration over which the starts of the copies are spread. */
const PHASE_SHARE = 0.05;
const MAX_QUEUE = 2 ** 24;
const FOR_EVER: Waitable = {name: 'nothing: a boot task'};

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
  /** CPU times before the measurement. */
  timesAtStart: CpuTimes = {idleTicks: 0, busyTicks: 0, userTicks: 0, interruptTicks: 0};
  private readonly copies: TraceCopy[] = [];
  private readonly adoptedByParent = new Map<number, Track[]>();
  private openTracks = 0;

  constructor(
    readonly compiled: CompiledTrace,
    topology: Topology,
    facts: KernelFacts,
    readonly options: ReplayOptions,
  ) {
    const bounds = {
      maxEvents: options.maxEvents,
      maxTicks: nsToTicks(options.maxNs),
      maxQueue: MAX_QUEUE,
    };
    const machine = new Machine(topology, {seed: options.seed, ipi: options.ipi, bounds});
    this.kernel = new Kernel(machine, facts);
    this.dependencies = dependenciesOf(compiled, options.order);
    this.placer = new Placer(topology, compiled, options.placement);
    const adopted = this.groupAdopted();
    this.openTracks = compiled.tracks.filter((track) => track.ops.length > 0).length * options.copies;
    this.startGate = new StartGate(this.kernel, adopted * options.copies, () => this.begin());
    this.makeCopies();
  }

  /** True when an operation that waits for others must let the next one go before it ends. */
  get passesTurnEarly(): boolean {
    return this.options.order === 'total';
  }

  adoptedChildren(track: Track): readonly Track[] {
    return this.adoptedByParent.get(track.tid) ?? [];
  }

  /** Runs to the end of the trace. */
  execute(): void {
    const {machine} = this.kernel;
    for (const cpu of machine.cpus) this.boot(cpu.id);
    if (this.openTracks === 0) return;
    machine.engine.run();
    this.endTick = machine.engine.now;
    this.kernel.sched.finish();
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

  /** Adopted tasks under their adopted parent or leader; roots under -1. Returns how many there are. */
  private groupAdopted(): number {
    const adopted = this.compiled.tracks.filter((track) => track.forkOp < 0);
    const tids = new Set(adopted.map((track) => track.tid));
    const parents = new Map(this.compiled.trace.tasks.map((task) => [task.tid, task.parentTid]));
    for (const track of adopted) {
      const parent = track.tgid !== track.tid ? track.tgid : (parents.get(track.tid) ?? 0);
      const key = tids.has(parent) && parent !== track.tid ? parent : -1;
      const siblings = this.adoptedByParent.get(key);
      if (siblings === undefined) this.adoptedByParent.set(key, [track]);
      else siblings.push(track);
    }
    return adopted.length;
  }

  private boot(cpuId: number): void {
    const {kernel} = this;
    const cpu = kernel.machine.cpus[cpuId];
    const task = new Task(-1 - cpuId, -1 - cpuId, `boot/${cpuId}`, cpu, null);
    task.pinnedCpu = cpuId;
    kernel.sched.startTask(task, this.bootProgram(task, cpuId));
    task.process!.daemon = true;
  }

  private *bootProgram(t: Task, cpuId: number): Code {
    const {kernel} = this;
    t.mm = kernel.newMm(kernel.machine.topology.nodeOf[cpuId]);
    t.activeMm = t.mm;
    yield* kernel.pgd.pgd_alloc(t, t.mm);
    const cpus = kernel.machine.cpus.length;
    let turn = 0;
    for (const copy of this.copies) {
      for (const track of this.adoptedByParent.get(-1) ?? []) {
        if (turn++ % cpus === cpuId) yield* copy.adopt(t, track);
      }
    }
    for (;;) yield* kernel.sched.block(t, FOR_EVER);
  }

  private begin(): void {
    const {machine, checks, locks} = this.kernel;
    this.startTick = machine.engine.now;
    machine.profile.reset();
    locks.reset();
    checks.counters.clear();
    this.timesAtStart = this.kernel.sched.times();
  }
}
