// The global task list: init_task.tasks with one node per process, signal->thread_head with one
// node per thread, and tasklist_lock around changes (kernel/fork.c, include/linux/sched/signal.h;
// 3.14 to 6.18, when for_each_thread replaced while_each_thread).
//
// Readers walk under rcu_read_lock without tasklist_lock. So the links are racy variables: a cell
// per slot, stored and loaded only through the machine's store buffers. A task is visible to a CPU
// exactly when that CPU can load the link to it, which is the STORE of Oleg Nesterov's argument.
// tsk->mm is such a cell too, as exec and exit change it under task_lock only, not under
// tasklist_lock.
//
// A removed task keeps its own link, so a walker that stands on it finds its way back; its slot is
// used again only after a grace period. Writers hold tasklist_lock for write, and the tails are
// theirs: plain variables. Cells live in chunks that never move, because a waiting store remembers
// its array.

import {assert, bug} from '../machine/assert.ts';
import type {Cpu} from '../machine/cpu.ts';
import type {Code} from '../machine/process.ts';
import {KernelBug} from './checks.ts';
import type {Kernel} from './kernel.ts';
import type {RwLock} from './locking/rwlock.ts';
import type {MmStruct} from './mm_types.ts';
import type {Task} from './task.ts';

const CHUNK_BITS = 12;
const CHUNK = 1 << CHUNK_BITS;
/** Slot of init_task, the head of the list of processes; as a link of a thread it ends the list. */
const HEAD = 0;

/** One kind of racy cell, for any number of slots. */
class Cells {
  private readonly chunks: Uint32Array[] = [];
  constructor(private readonly kernel: Kernel) {}

  grow(slots: number): void {
    while (this.chunks.length * CHUNK < slots) this.chunks.push(new Uint32Array(CHUNK));
  }

  store(cpu: Cpu, slot: number, value: number): void {
    const {storeBuffers, engine} = this.kernel.machine;
    const chunk = this.chunks[slot >>> CHUNK_BITS];
    storeBuffers.store(cpu.id, chunk, slot & (CHUNK - 1), value, engine.now);
  }

  load(cpu: Cpu, slot: number): number {
    const {storeBuffers, engine} = this.kernel.machine;
    const chunk = this.chunks[slot >>> CHUNK_BITS];
    return storeBuffers.load(cpu.id, chunk, slot & (CHUNK - 1), engine.now);
  }
}

/** All tasks of the machine. */
export class TaskList {
  readonly tasklist_lock: RwLock;
  /** nr_threads. */
  count = 0;
  private readonly tasks: (Task | null)[] = [null];
  private readonly mms = new Map<number, MmStruct>();
  private readonly freeSlots: number[] = [];
  private readonly nextProcessCells: Cells;
  private readonly nextThreadCells: Cells;
  private readonly mmCells: Cells;
  /**
   * Backward links, guarded by tasklist_lock; of a signal's slot in `previousThread`: its last
   * thread.
   */
  private readonly previousProcess: number[] = [HEAD];
  private readonly previousThread: number[] = [HEAD];
  private readonly byTid = new Map<number, Task>();

  constructor(readonly kernel: Kernel) {
    this.tasklist_lock = kernel.locks.rwlock('tasklist_lock', {
      line: kernel.layout.line('tasklist_lock'),
    });
    this.nextProcessCells = new Cells(kernel);
    this.nextThreadCells = new Cells(kernel);
    this.mmCells = new Cells(kernel);
    this.growCells();
  }

  /** A slot for a task or for a signal's thread_head; in use until `releaseSlot`. */
  takeSlot(): number {
    const slot = this.freeSlots.pop() ?? this.tasks.push(null) - 1;
    this.growCells();
    return slot;
  }

  /** Makes `p` visible. The caller runs as `current` and holds tasklist_lock for write. */
  add(current: Task, p: Task): void {
    assert(
      p.listSlot >= 0 && this.tasks[p.listSlot] === null,
      `${p.comm}/${p.tid} is listed twice`,
    );
    const {cpu} = current;
    const slot = p.listSlot;
    this.tasks[slot] = p;
    if (p.leader === p) this.linkProcess(cpu, slot);
    this.linkThread(cpu, slot, p.signal!.listSlot);
    this.byTid.set(p.tid, p);
    this.count++;
  }

  /** __unhash_process: `p` is gone for new walkers. The caller holds tasklist_lock for write. */
  remove(current: Task, p: Task): void {
    const {cpu} = current;
    const slot = p.listSlot;
    assert(slot >= 0 && this.tasks[slot] === p, `${p.comm}/${p.tid} is not listed`);
    if (p.leader === p) {
      const {previousProcess} = this;
      this.unlink(cpu, slot, this.nextProcessCells, previousProcess, HEAD);
    }
    this.unlink(cpu, slot, this.nextThreadCells, this.previousThread, p.signal!.listSlot);
    if (this.byTid.get(p.tid) === p) this.byTid.delete(p.tid);
    this.count--;
  }

  /** de_thread by a thread that is not the leader: `p` takes the leader's node and number. */
  replaceLeader(current: Task, leader: Task, p: Task): void {
    const {cpu} = current;
    const slot = p.listSlot;
    const next = this.nextProcessCells.load(cpu, leader.listSlot);
    const previous = this.previousProcess[leader.listSlot];
    this.nextProcessCells.store(cpu, slot, next);
    this.previousProcess[slot] = previous;
    this.nextProcessCells.store(cpu, previous, slot);
    this.previousProcess[next] = slot;
    const tid = leader.tid;
    leader.tid = p.tid;
    p.tid = tid;
    this.byTid.set(p.tid, p);
    this.byTid.set(leader.tid, leader);
  }

  /** The slot is free for another task: call after a grace period. */
  releaseSlot(slot: number): void {
    this.tasks[slot] = null;
    // A task's slot may become a thread_head next: an empty one has no last thread.
    this.previousThread[slot] = HEAD;
    this.freeSlots.push(slot);
  }

  /** tsk->mm = mm, as a store that the others see when it has drained. */
  storeMm(current: Task, p: Task, mm: MmStruct | null): void {
    p.mm = mm;
    if (mm !== null) this.mms.set(mm.id, mm);
    this.mmCells.store(current.cpu, p.listSlot, mm === null ? 0 : mm.id);
  }

  /** The mm is freed: nobody may find it any more. */
  forgetMm(mm: MmStruct): void {
    this.mms.delete(mm.id);
  }

  /** READ_ONCE(p->mm) on `cpu`. A freed mm is an error of the walker and asserts. */
  loadMm(cpu: Cpu, p: Task): MmStruct | null {
    const id = this.mmCells.load(cpu, p.listSlot);
    if (id === 0) return null;
    const mm = this.mms.get(id);
    if (mm === undefined) bug(`${p.comm}/${p.tid} still shows a freed mm`);
    return mm;
  }

  /**
   * for_each_process: the first one (`p` null) or the one after `p`, as `cpu` sees the list now;
   * null at the end.
   */
  nextProcess(cpu: Cpu, p: Task | null): Task | null {
    if (p !== null && p.listSlot < 0) this.reportFreed(p);
    const slot = this.nextProcessCells.load(cpu, p === null ? HEAD : p.listSlot);
    return slot === HEAD ? null : this.tasks[slot];
  }

  /** for_each_thread: the first thread of the group of `leader` (`p` null) or the one after `p`. */
  nextThread(cpu: Cpu, leader: Task, p: Task | null): Task | null {
    if ((p ?? leader).listSlot < 0) this.reportFreed(p ?? leader);
    const slot = this.nextThreadCells.load(cpu, p === null ? leader.signal!.listSlot : p.listSlot);
    return slot === HEAD ? null : this.tasks[slot];
  }

  /**
   * Charges one step of a walk to `p`: its links may be in another CPU's cache. The walker settles.
   */
  chargeStep(cpu: Cpu, p: Task, fn: number): void {
    cpu.stall(this.kernel.machine.lines.touch(p.line, cpu), fn);
    cpu.charge(this.kernel.costs.walkStepTicks, fn);
  }

  /**
   * for_each_process(p): every leader that is visible, `visit` plain or as simulated code. Call
   * under rcu_read_lock; the caller's defects (no rcu_read_lock) are its own.
   */
  *for_each_process(t: Task, fn: number, visit: (p: Task) => Code | undefined): Code {
    for (let p = this.nextProcess(t.cpu, null); p !== null; ) {
      this.chargeStep(t.cpu, p, fn);
      if (t.cpu.settle()) yield;
      const code = visit(p);
      if (code !== undefined) yield* code;
      p = this.nextProcess(t.cpu, p);
    }
  }

  /** for_each_process_thread(g, p): every thread that is visible. */
  *for_each_process_thread(t: Task, fn: number, visit: (p: Task) => Code | undefined): Code {
    for (let g = this.nextProcess(t.cpu, null); g !== null; g = this.nextProcess(t.cpu, g)) {
      this.chargeStep(t.cpu, g, fn);
      if (t.cpu.settle()) yield;
      for (let p = this.nextThread(t.cpu, g, null); p !== null; ) {
        if (p !== g) this.chargeStep(t.cpu, p, fn);
        if (t.cpu.settle()) yield;
        const code = visit(p);
        if (code !== undefined) yield* code;
        p = this.nextThread(t.cpu, g, p);
      }
    }
  }

  /**
   * find_lock_task_mm (mm/oom_kill.c): a thread of the group of `p` that still has its mm, with its
   * task_lock held; the leader may be gone already. Null when all of them have lost it.
   */
  *find_lock_task_mm(t: Task, p: Task, fn: number): Code<Task | null> {
    for (let thread = this.nextThread(t.cpu, p, null); thread !== null; ) {
      if (thread !== p) this.chargeStep(t.cpu, thread, fn);
      const lock = thread.allocLock!;
      if (!lock.acquire(t, fn)) yield* lock.acquireSlow(t, fn);
      if (this.loadMm(t.cpu, thread) !== null) return thread;
      if (!lock.release(t)) yield* lock.releaseSlow(t);
      thread = this.nextThread(t.cpu, p, thread);
    }
    return null;
  }

  /** find_task_by_vpid; the pid hash itself is not a racy variable here. */
  find(tid: number): Task | null {
    return this.byTid.get(tid) ?? null;
  }

  /** A walker outside of an RCU reader stands on a task that was freed meanwhile: an oops. */
  private reportFreed(p: Task): never {
    const text = `use-after-free: a walk of the task list stands on the freed task ${p.comm}/${p.tid}`;
    this.kernel.checks.finding(text);
    throw new KernelBug(text);
  }

  private linkProcess(cpu: Cpu, slot: number): void {
    const {nextProcessCells, previousProcess} = this;
    const tail = previousProcess[HEAD];
    nextProcessCells.store(cpu, slot, HEAD);
    previousProcess[slot] = tail;
    previousProcess[HEAD] = slot;
    nextProcessCells.store(cpu, tail, slot);
  }

  private linkThread(cpu: Cpu, slot: number, headSlot: number): void {
    const {nextThreadCells, previousThread} = this;
    const tail = previousThread[headSlot] || headSlot;
    nextThreadCells.store(cpu, slot, HEAD);
    previousThread[slot] = tail;
    previousThread[headSlot] = slot;
    nextThreadCells.store(cpu, tail, slot);
  }

  /** list_del_rcu: the neighbour's link changes, the own one stays for walkers that stand here. */
  private unlink(cpu: Cpu, slot: number, next: Cells, previous: number[], head: number): void {
    const after = next.load(cpu, slot);
    const before = previous[slot];
    next.store(cpu, before, after);
    const last = before === head && after === HEAD && head !== HEAD ? 0 : before;
    previous[after === HEAD ? head : after] = last;
  }

  private growCells(): void {
    const slots = this.tasks.length;
    this.nextProcessCells.grow(slots);
    this.nextThreadCells.grow(slots);
    this.mmCells.grow(slots);
  }
}
