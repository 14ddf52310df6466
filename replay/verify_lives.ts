// Which address space an rss_stat record speaks of.
//
// The record names an mm by a hash of its address, and says whether it is the current task's
// (curr). Addresses are used again, so a hash means one address space only from its birth to its
// end. Births are visible: a fork writes the child's counters, an exec first those of the new
// image, both with curr=0 (what it maps is known when the recorder wrote that down). A *life* is
// one address space from birth to end; a life whose birth lies before the recording is *unknown*:
// what it mapped was never recorded, so it cannot be graded.

import {KIND} from '../formats/kinds.ts';
import type {CompiledTrace} from './tracks.ts';

/** One address space of the recording. */
export interface MmLife {
  readonly index: number;
  /** mm_id of its records, -1 before the first one. */
  id: number;
  /** Track of the process that it was made for. */
  readonly track: number;
  /** Operation that made it, -1 when it was there before. */
  readonly bornOp: number;
  /** Made by an exec in the recording, or a copy of such a one: its content is known in full. */
  readonly known: boolean;
}

/** Threads share one of these. */
interface Proc {
  life: MmLife;
}

const CLONE_VM = 0x100;
const CLONE_THREAD = 0x10000;

/** Follows processes and their address spaces through the recording, operation by operation. */
export class MmLives {
  readonly lives: MmLife[] = [];
  private readonly procs: (Proc | undefined)[];
  private readonly leaders = new Map<number, Proc>();
  private readonly byId = new Map<number, MmLife>();
  /** By track: the image that an exec under way is building. */
  private readonly building = new Map<number, MmLife>();

  /** The recording says what an exec maps. */
  private readonly hasMaps: boolean;

  constructor(private readonly compiled: CompiledTrace) {
    this.procs = new Array(compiled.tracks.length).fill(undefined);
    const {kind, count} = compiled.trace.events;
    this.hasMaps = kind.subarray(0, count).includes(KIND.map);
  }

  /** Address space of a track's process now. */
  lifeOf(track: number): MmLife {
    return this.procOf(track).life;
  }

  /** `track` forks `child` in operation `op`. */
  forked(track: number, child: number, op: number, cloneFlags: number): void {
    const parent = this.procOf(track);
    if ((cloneFlags & CLONE_THREAD) !== 0) {
      this.procs[child] = parent;
      return;
    }
    const shares = (cloneFlags & CLONE_VM) !== 0;
    const life = shares ? parent.life : this.birth(child, op, parent.life.known);
    this.procs[child] = {life};
  }

  /** `track` begins an exec. */
  execBegan(track: number, op: number): void {
    this.building.set(track, this.birth(track, op, this.hasMaps));
  }

  /** Its exec is over. */
  execEnded(track: number): void {
    const life = this.building.get(track);
    if (life === undefined) return;
    this.building.delete(track);
    this.procs[track] = {life};
  }

  /**
   * The life that a record with `mmId` written by `track` in an operation means; `forkChild` is the
   * track that this operation forks, -1 for none. Null when it is of an address space never seen
   * before.
   */
  resolve(track: number, mmId: number, mine: boolean, forkChild: number): MmLife | null {
    if (track < 0) return this.byId.get(mmId) ?? null;
    const image = this.building.get(track);
    const own = this.procOf(track).life;
    if (image !== undefined) return this.inExec(own, image, mmId, mine, track);
    if (mine) return this.named(own, mmId);
    if (forkChild >= 0) {
      const child = this.procOf(forkChild).life;
      if (child.id === mmId || (child.id < 0 && own.id !== mmId)) return this.named(child, mmId);
    }
    if (own.id === mmId) return own;
    return this.byId.get(mmId) ?? null;
  }

  /**
   * The old image is named by curr=1 until the switch, by curr=0 after it; the new one the other
   * way round.
   */
  private inExec(
    own: MmLife,
    image: MmLife,
    mmId: number,
    mine: boolean,
    track: number,
  ): MmLife | null {
    if (own.id === mmId) return own;
    if (image.id === mmId) {
      if (mine) this.execEnded(track);
      return image;
    }
    if (mine && own.id < 0) return this.named(own, mmId);
    if (!mine && image.id < 0) return this.named(image, mmId);
    return this.byId.get(mmId) ?? null;
  }

  private named(life: MmLife, mmId: number): MmLife {
    if (life.id !== mmId) {
      life.id = mmId;
      this.byId.set(mmId, life);
    }
    return life;
  }

  private birth(track: number, op: number, known: boolean): MmLife {
    const life = {index: this.lives.length, id: -1, track, bornOp: op, known};
    this.lives.push(life);
    return life;
  }

  private procOf(track: number): Proc {
    const known = this.procs[track];
    if (known !== undefined) return known;
    const {tid, tgid, forkOp} = this.compiled.tracks[track];
    const leader = forkOp < 0 ? this.leaders.get(tgid) : undefined;
    const proc = leader ?? {life: this.birth(track, -1, false)};
    if (forkOp < 0 && leader === undefined) this.leaders.set(tgid === 0 ? tid : tgid, proc);
    this.procs[track] = proc;
    return proc;
  }
}
