// The threads of a recording while it is imported: which modelled system call each is in, and what
// is held for it. Bounded by the live threads.

import type {TraceWriter} from '../writer.ts';
import type {HeldEvent, HoldQueue} from './hold.ts';
import type {RawEvent} from './raw.ts';
import type {Syscall} from './syscalls.ts';

/** One thread. */
export interface Thread {
  readonly tid: number;
  tgid: number;
  /** The modelled system call it is in. */
  call: Syscall | undefined;
  /** What is held for that call. */
  held: HeldEvent | undefined;
  /** A fork made out of a FORK record, held for the flags that task_newtask may bring. */
  newborn: HeldEvent | undefined;
  exitCalled: boolean;
  /** An exec was already made out of a COMM record. */
  execSeen: boolean;
}

/** All threads by tid. */
export class Threads {
  /** Threads whose process the source never named. */
  assumedTgids = 0;
  private readonly byTid = new Map<number, Thread>();

  constructor(
    private readonly writer: TraceWriter,
    private readonly queue: HoldQueue,
  ) {}

  get(tid: number): Thread | undefined {
    return this.byTid.get(tid);
  }

  /** The thread that wrote an event. */
  of(raw: RawEvent): Thread {
    const known = this.byTid.get(raw.tid);
    if (known !== undefined) return known;
    const tgid = raw.tgid >= 0 ? raw.tgid : raw.tid;
    if (raw.tgid < 0 && raw.tid > 0) this.assumedTgids++;
    return this.add(raw.tid, tgid, 0, raw.comm);
  }

  /** A new thread; a former owner of the tid is forgotten. */
  add(tid: number, tgid: number, parentTid: number, comm: string): Thread {
    const old = this.byTid.get(tid);
    if (old !== undefined) this.retire(old);
    const thread: Thread = {
      tid,
      tgid,
      call: undefined,
      held: undefined,
      newborn: undefined,
      exitCalled: false,
      execSeen: false,
    };
    this.byTid.set(tid, thread);
    this.writer.task(tid, tgid, parentTid, comm);
    return thread;
  }

  /** The call that a thread is in has no end that was recorded. */
  giveUp(thread: Thread): void {
    if (thread.held === undefined) return;
    if (thread.held.open) this.queue.unresolved++;
    this.queue.close(thread.held);
    thread.held = undefined;
  }

  /** Writes what is still held. */
  finish(): void {
    for (const {newborn} of this.byTid.values()) {
      if (newborn !== undefined) this.queue.close(newborn);
    }
  }

  private retire(thread: Thread): void {
    this.giveUp(thread);
    if (thread.newborn !== undefined) this.queue.close(thread.newborn);
  }
}
