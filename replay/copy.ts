// One instance of the recorded process tree, running: the program of each of its tasks.
//
// A task that exists when the trace begins is *adopted*: started before the clock of the
// measurement, as child of its recorded parent, with an address space of its own, and then held at
// the start gate. A task that the trace forks gets its program with the replayed fork. What both
// then do is in track_run.ts; here is what the tasks of a copy share.

import {argNumber} from '../formats/columns.ts';
import {KIND} from '../formats/kinds.ts';
import {
  CLONE_FILES,
  CLONE_FS,
  CLONE_SIGHAND,
  CLONE_THREAD,
  CLONE_VM,
} from '../kernel/clone_flags.ts';
import {sys_clone} from '../kernel/fork.ts';
import {startProcess} from '../kernel/init_task.ts';
import type {Task} from '../kernel/task.ts';
import type {Code} from '../machine/process.ts';
import {nsToTicks} from '../machine/time.ts';
import {Barriers} from './barriers.ts';
import {type BindingContext, NO_CHILD_YET} from './bind/binding.ts';
import {OperationGate} from './gate.ts';
import type {ReplayObserver} from './observer.ts';
import type {ReplayRun} from './replay_run.ts';
import type {Steering} from './steering.ts';
import {TrackRun} from './track_run.ts';
import {NOBODY_YET, type Track} from './tracks.ts';

/** Pids of copy n are those of the recording plus n times this; larger than any pid_max. */
export const TID_STRIDE = 2 ** 23;

/** What pthread_create asks for, as far as it matters here. */
const CLONE_THREAD_FLAGS = CLONE_VM | CLONE_FS | CLONE_FILES | CLONE_SIGHAND | CLONE_THREAD;

/** One copy of the trace. */
export class TraceCopy {
  readonly gate: OperationGate;
  readonly barriers: Barriers;
  readonly context: BindingContext;
  private readonly ended: Uint8Array;
  private phaseTicks = 0;

  constructor(
    readonly run: ReplayRun,
    readonly index: number,
  ) {
    const {compiled, kernel, dependencies} = run;
    this.gate = new OperationGate(kernel, dependencies, compiled.opCount);
    this.barriers = new Barriers(kernel);
    this.ended = new Uint8Array(compiled.tracks.length);
    this.context = {
      kernel,
      events: compiled.trace.events,
      strings: compiled.trace.strings,
      copy: index,
      names: new Map(),
      files: run.files,
      contents: run.contents,
      resume: 0,
      pidOf: (tid) => this.pidOf(tid),
      reapedPid: (op) => this.reapedPid(op),
    };
  }

  pidOf(recordedTid: number): number {
    return recordedTid + this.index * TID_STRIDE;
  }

  /**
   * Wait edges hold in the orders that keep causes: there wait4 returns the child that it returned
   * in the recording, or none where a poll got none.
   */
  private reapedPid(op: number): number {
    const {order} = this.run.options;
    const track = this.run.compiled.opReaped[op];
    if (order === 'none' || order === 'thread') return 0;
    if (track < 0) return track === NOBODY_YET ? NO_CHILD_YET : 0;
    return this.pidOf(this.run.compiled.tracks[track].tid);
  }

  /** Only the first copy is watched: the others do the same. */
  get observer(): ReplayObserver | null {
    return this.index === 0 ? this.run.observer : null;
  }

  /** As the observer, for the first copy only. */
  get steering(): Steering | null {
    return this.index === 0 ? this.run.steering : null;
  }

  /** How long after the common start this copy begins. */
  shift(ticks: number): void {
    this.phaseTicks = ticks;
  }

  /** Starts the adopted processes below `parent`, each as a child of its recorded parent. */
  adoptProcesses(parent: Track | null, parentTask: Task | null): void {
    const {run} = this;
    for (const track of run.adoptedChildren(parent)) {
      const cpu = run.placer.cpuOf(track, this.index);
      const task = startProcess(run.kernel, {
        tid: this.pidOf(track.tid),
        comm: track.comm,
        program: (t) => this.adopted(t, track),
        ...(cpu < 0 ? {} : {pinnedCpu: cpu}),
        ...(parentTask === null ? {} : {parent: parentTask}),
      });
      this.adoptProcesses(track, task);
    }
  }

  private *adopted(t: Task, track: Track): Code {
    for (const thread of this.run.adoptedThreads(track)) yield* this.adoptThread(t, thread);
    yield* this.startTogether(t, track);
  }

  private *adoptThread(leader: Task, track: Track): Code {
    const cpu = this.run.placer.cpuOf(track, this.index);
    yield* sys_clone(this.run.kernel, leader, {
      flags: CLONE_THREAD_FLAGS,
      childTid: this.pidOf(track.tid),
      childTgid: this.pidOf(track.tgid),
      comm: track.comm,
      program: (thread) => {
        thread.pinnedCpu = cpu;
        return this.startTogether(thread, track);
      },
    });
  }

  private *startTogether(t: Task, track: Track): Code {
    yield* this.run.startGate.wait(t, track.ops.length > 0);
    if (!this.run.placer.pins) t.pinnedCpu = -1;
    if (this.phaseTicks > 0) yield* this.run.kernel.sched.sleep(t, this.phaseTicks);
    yield new TrackRun(this, t, track);
  }

  /** `track` is over; false when it was already. */
  markEnded(track: Track): boolean {
    if (this.ended[track.index] !== 0) return false;
    this.ended[track.index] = 1;
    return true;
  }

  /**
   * What it had left is over for those who wait for it; children that it never had will not come
   * either.
   */
  closeTrack(track: Track): void {
    const {compiled, kernel} = this.run;
    for (const left of track.ops) {
      const child = this.gate.isOver(left) ? -1 : compiled.opChild[left];
      this.gate.finish(left);
      if (child < 0) continue;
      const born = kernel.taskList.find(this.pidOf(compiled.tracks[child].tid)) !== null;
      if (!born) this.neverBorn(compiled.tracks[child]);
    }
    if (track.ops.length > 0 && compiled.opCount > 0) this.run.trackEnded();
  }

  /** The fork that would have made it failed, or never came. */
  neverBorn(track: Track): void {
    if (this.markEnded(track)) this.closeTrack(track);
  }

  /** Barriers that a killed task had ahead of it: the others do not wait for it. */
  leaveBarriers(track: Track): void {
    const {events} = this.run.compiled.trace;
    const left = new Map<number, number>();
    for (const op of track.ops) {
      const i = this.run.compiled.opEvent[op];
      if (events.kind[i] !== KIND.barrier || this.gate.isOver(op)) continue;
      left.set(argNumber(events, i, 0), argNumber(events, i, 1));
    }
    for (const [id, parties] of left) this.barriers.leave(id, parties);
  }

  /** When an operation would start if everything took as long as in the recording. */
  intendedTick(op: number): number {
    const {compiled, options, startTick} = this.run;
    return startTick + this.phaseTicks + nsToTicks(compiled.opStartNs[op] / options.scale);
  }
}
