// fs/userfaultfd.c, 6.18: reading the descriptor, and events (4.11+): fork, mremap, what
// MADV_DONTNEED and MADV_REMOVE take away, munmap. Who causes an event waits, with no mmap_lock
// held, until its message has been read; from before the change on until then mmap_changing makes
// fills fail with EAGAIN, since their range may not be there any more or not yet.
//
// Fork: without the event the child's VMAs leave userfaultfd. With it they get a context of their
// own, whose descriptor the reader of the message receives. What a task has prepared under
// mmap_lock and must finish without it is kept here by task.

import {assert} from '../../machine/assert.ts';
import type {Code, Waitable} from '../../machine/process.ts';
import {EAGAIN, EINTR, EINVAL} from '../errno.ts';
import type {Kernel} from '../kernel.ts';
import {
  enterSystemCall,
  mmap_read_unlock,
  mmap_write_lock,
  mmap_write_unlock,
} from '../mm/mmap_lock.ts';
import type {UserMm} from '../mm/user_mm.ts';
import type {VmArea} from '../mm/vma.ts';
import {VM_HIGH_UFFD_MINOR, VM_UFFD_MISSING, VM_UFFD_WP} from '../mm/vma_flags.ts';
import {vma_end_read} from '../mm/vma_lock.ts';
import type {Task} from '../task.ts';
import type {Userfaultfds} from './userfaultfd.ts';
import {uffdWork} from './userfaultfd_costs.ts';
import {
  type EventWait,
  UFFD_EVENT_FORK,
  UFFD_EVENT_REMAP,
  UFFD_EVENT_REMOVE,
  UFFD_EVENT_UNMAP,
  UFFD_FEATURE_EVENT_FORK,
  UFFD_FEATURE_EVENT_REMAP,
  UFFD_FEATURE_EVENT_REMOVE,
  UFFD_FEATURE_EVENT_UNMAP,
  type UffdMsg,
  type UserfaultfdCtx,
} from './userfaultfd_types.ts';

const EVENT_READ: Waitable = {name: 'the reader of a userfaultfd event'};
/** __VM_UFFD_FLAGS, the word of 32 bits. */
export const VM_UFFD_FLAGS = VM_UFFD_MISSING | VM_UFFD_WP;

function message(event: number, vpn: number, to: number, pages: number): UffdMsg {
  return {event, flags: 0, vpn, to, pages, child: null, tid: 0};
}

/** userfaultfd_reset_ctx. */
export function userfaultfd_reset_ctx(vma: VmArea): void {
  vma.uffd = 0;
  vma.flags &= ~VM_UFFD_FLAGS;
  vma.flagsHigh &= ~VM_HIGH_UFFD_MINOR;
}

/** Something that was prepared under mmap_lock: the message follows. */
interface Prepared {
  readonly ctx: UserfaultfdCtx;
  readonly msg: UffdMsg;
}

/** Events of one kernel. */
export class UffdEvents {
  private readonly k: Kernel;
  /** fcs, uf_unmap and vm_userfaultfd_ctx: by the task whose call they are of. */
  private readonly forks = new Map<Task, Prepared[]>();
  private readonly unmaps = new Map<Task, Prepared[]>();
  private readonly remaps = new Map<Task, UserfaultfdCtx>();

  constructor(readonly all: Userfaultfds) {
    this.k = all.k;
  }

  /** dup_userfaultfd: `vma` is the child's copy of `parent`, whose flags copyVma has taken off. */
  dup_userfaultfd(t: Task, vma: VmArea, parent: VmArea): void {
    const {all} = this;
    const octx = all.of(parent);
    if (octx === null || (octx.features & UFFD_FEATURE_EVENT_FORK) === 0) return;
    t.cpu.charge(uffdWork(this.k).costs.ioctlTicks, uffdWork(this.k).fns.dup_userfaultfd);
    const prepared = this.forks.get(t) ?? [];
    this.forks.set(t, prepared);
    let child = prepared.find(({ctx}) => ctx === octx)?.msg.child ?? null;
    if (child === null) {
      const user = this.k.mm.byId(vma.space.mmId)!;
      child = all.create(user, octx.flags, octx.features);
      child.initialized = true;
      octx.mmapChanging++;
      prepared.push({ctx: octx, msg: {...message(UFFD_EVENT_FORK, 0, 0, 0), child}});
    }
    vma.uffd = child.id;
    vma.flags |= parent.flags & VM_UFFD_FLAGS;
    vma.flagsHigh |= parent.flagsHigh & VM_HIGH_UFFD_MINOR;
  }

  /**
   * dup_userfaultfd_complete, or with `failed` dup_userfaultfd_fail: the forker holds no mmap_lock.
   */
  *dup_userfaultfd_complete(t: Task, failed: boolean): Code {
    const prepared = this.forks.get(t);
    if (prepared === undefined) return;
    this.forks.delete(t);
    for (const {ctx, msg} of prepared) {
      if (!failed) yield* this.event_wait_completion(t, ctx, msg);
      else {
        ctx.mmapChanging--;
        this.all.forget(msg.child!);
      }
    }
  }

  /** userfaultfd_unmap_prep: [start, end) of the VMA is about to go. */
  userfaultfd_unmap_prep(t: Task, vma: VmArea, start: number, end: number): void {
    const ctx = this.all.of(vma);
    if (ctx === null || (ctx.features & UFFD_FEATURE_EVENT_UNMAP) === 0) return;
    const prepared = this.unmaps.get(t) ?? [];
    this.unmaps.set(t, prepared);
    const known = prepared.some((p) => p.ctx === ctx && p.msg.vpn === start && p.msg.to === end);
    if (known) return;
    ctx.mmapChanging++;
    prepared.push({ctx, msg: message(UFFD_EVENT_UNMAP, start, end, 0)});
  }

  /** userfaultfd_unmap_complete: mmap_lock has been given up. */
  *userfaultfd_unmap_complete(t: Task): Code {
    const prepared = this.unmaps.get(t);
    if (prepared === undefined) return;
    this.unmaps.delete(t);
    for (const {ctx, msg} of prepared) yield* this.event_wait_completion(t, ctx, msg);
  }

  /** mremap_userfaultfd_prep: `vma` is where the pages have gone to. */
  mremap_userfaultfd_prep(t: Task, vma: VmArea): void {
    const ctx = this.all.of(vma);
    if (ctx === null) return;
    if ((ctx.features & UFFD_FEATURE_EVENT_REMAP) === 0) {
      userfaultfd_reset_ctx(vma);
      return;
    }
    if (this.remaps.has(t)) return;
    ctx.mmapChanging++;
    this.remaps.set(t, ctx);
  }

  /** mremap_userfaultfd_complete, or with an error (`to` < 0) mremap_userfaultfd_fail. */
  *mremap_userfaultfd_complete(t: Task, from: number, to: number, pages: number): Code {
    const ctx = this.remaps.get(t);
    if (ctx === undefined) return;
    this.remaps.delete(t);
    if (to < 0) ctx.mmapChanging--;
    else yield* this.event_wait_completion(t, ctx, message(UFFD_EVENT_REMAP, from, to, pages));
  }

  /**
   * userfaultfd_remove: the pages of [start, end) are about to be taken. False: the event was read,
   * and the lock (`locked`: the VMA's, else mmap_lock for reading) has been given up for that.
   */
  *userfaultfd_remove(
    t: Task,
    user: UserMm,
    vma: VmArea,
    start: number,
    end: number,
    locked = false,
  ): Code<boolean> {
    const ctx = this.all.of(vma);
    if (ctx === null || (ctx.features & UFFD_FEATURE_EVENT_REMOVE) === 0) return true;
    ctx.mmapChanging++;
    if (locked) vma_end_read(this.k, user, vma);
    else yield* mmap_read_unlock(t, user);
    yield* this.event_wait_completion(t, ctx, message(UFFD_EVENT_REMOVE, start, end, 0));
    return false;
  }

  /** userfaultfd_event_wait_completion. */
  private *event_wait_completion(t: Task, ctx: UserfaultfdCtx, msg: UffdMsg): Code {
    const {k} = this;
    const {fns, costs} = uffdWork(k);
    const fn = fns.userfaultfd_event_wait_completion;
    t.cpu.charge(costs.handleTicks, fn);
    const wait: EventWait = {task: t, msg, read: false};
    if (!ctx.lock.acquire(t, fn)) yield* ctx.lock.acquireSlow(t, fn);
    ctx.events.push(wait);
    if (!ctx.lock.release(t)) yield* ctx.lock.releaseSlow(t);
    if (t.cpu.settle()) yield;
    ctx.fdWait.wakeAll();
    while (!wait.read && !ctx.released && !t.sigkill) {
      yield* k.sched.block(t, EVENT_READ, true);
      if (t.cpu.settle()) yield;
    }
    ctx.mmapChanging--;
    assert(ctx.mmapChanging >= 0, 'an event that nothing began');
    if (wait.read) return;
    ctx.events.splice(ctx.events.indexOf(wait), 1);
    if (msg.child !== null) yield* this.release_new_ctx(t, msg.child);
  }

  /** userfaultfd_release_new: nobody will ever read of the child's context. */
  private *release_new_ctx(t: Task, ctx: UserfaultfdCtx): Code {
    const {user} = ctx;
    yield* mmap_write_lock(t, user, uffdWork(this.k).fns.userfaultfd_release);
    for (let vma = user.space.tree.first; vma !== null; vma = vma.next) {
      if (vma.uffd === ctx.id) userfaultfd_reset_ctx(vma);
    }
    yield* mmap_write_unlock(t, user);
    this.all.forget(ctx);
  }

  /**
   * read(2) of one message, faults before events. -EINVAL before UFFDIO_API, -EAGAIN when there is
   * none and `nonblock`, -EINTR when killed.
   */
  *read(t: Task, ctx: UserfaultfdCtx, nonblock: boolean): Code<UffdMsg | number> {
    const {k} = this;
    enterSystemCall(k, t);
    const {fns, costs} = uffdWork(k);
    const fn = fns.userfaultfd_read;
    if (!ctx.initialized) return -EINVAL;
    for (;;) {
      t.cpu.charge(costs.readTicks, fn);
      if (!ctx.lock.acquire(t, fn)) yield* ctx.lock.acquireSlow(t, fn);
      const msg = this.take(ctx);
      if (!ctx.lock.release(t)) yield* ctx.lock.releaseSlow(t);
      if (msg !== null) return msg;
      if (nonblock) return -EAGAIN;
      if (t.sigkill || ctx.released) return -EINTR;
      ctx.fdWait.prepare(t, true);
      if (t.cpu.settle()) yield;
      const come = ctx.pending.length + ctx.events.length > 0;
      if (!come && !ctx.released && !t.sigkill) yield* ctx.fdWait.sleep(t);
      ctx.fdWait.finish(t);
    }
  }

  /** The next message: a fault goes on to fault_wqh, who caused an event goes on. */
  private take(ctx: UserfaultfdCtx): UffdMsg | null {
    const fault = ctx.pending.shift();
    if (fault !== undefined) {
      ctx.faults.push(fault);
      return fault.msg;
    }
    const event = ctx.events.shift();
    if (event === undefined) return null;
    event.read = true;
    this.k.sched.wake(event.task);
    return event.msg;
  }
}
