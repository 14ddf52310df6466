// fs/userfaultfd.c, 6.18: contexts, and what happens to a fault in a registered range
// (handle_userfault).
//
// The task that faulted is put on its context's queue, gives up the lock under which faults run
// (the VMA's since 6.7, else mmap_lock) and sleeps; whoever reads the descriptor gets the message,
// puts a page there and wakes it, and the fault is taken again (VM_FAULT_RETRY). A page that came
// between the fault and the queueing is seen before the sleep (userfaultfd_must_wait).
//
// A VMA names its context by number, so that everything which compares, splits and copies VMAs
// needs to know nothing more. Hooks are installed with the first context of a kernel: one that has
// none runs no line of this.

import type {Code, Waitable} from '../../machine/process.ts';
import {walkSlot} from '../arch/x86/mm/pgtable.ts';
import {PTE_KIND, PTE_MARKER, PTE_WRITE, pte_present} from '../arch/x86/mm/pgtable_bits.ts';
import type {Kernel} from '../kernel.ts';
import {RwSemaphore} from '../locking/rwsem.ts';
import {mmap_read_unlock} from '../mm/mmap_lock.ts';
import {uffd_clear_wp_async} from '../mm/userfaultfd_wp.ts';
import type {UserMm} from '../mm/user_mm.ts';
import {
  FAULT_FLAG_ALLOW_RETRY,
  FAULT_FLAG_RETRY_NOWAIT,
  FAULT_FLAG_USER,
  FAULT_FLAG_VMA_LOCK,
  FAULT_FLAG_WRITE,
  UFFD_REASON_MINOR,
  VM_FAULT_RETRY,
  VM_FAULT_SIGBUS,
  VM_FAULT_UNLOCKED,
  type VmFault,
} from '../mm/vm_fault.ts';
import type {VmArea} from '../mm/vma.ts';
import {VM_UFFD_WP} from '../mm/vma_flags.ts';
import {vma_end_read} from '../mm/vma_lock.ts';
import {WaitQueue} from '../sched/wait_queue.ts';
import type {Task} from '../task.ts';
import {isBefore} from '../version.ts';
import {newFile} from './file.ts';
import {uffdWork} from './userfaultfd_costs.ts';
import {userfaultfd_release} from './userfaultfd_register.ts';
import {
  type FaultWait,
  UFFD_EVENT_PAGEFAULT,
  UFFD_FEATURE_SIGBUS,
  UFFD_FEATURE_THREAD_ID,
  UFFD_FEATURE_WP_ASYNC,
  UFFD_PAGEFAULT_FLAG_MINOR,
  UFFD_PAGEFAULT_FLAG_WP,
  UFFD_PAGEFAULT_FLAG_WRITE,
  UFFD_USER_MODE_ONLY,
  type UffdMsg,
  type UserfaultfdCtx,
} from './userfaultfd_types.ts';

/** All contexts of a kernel. */
export class Userfaultfds {
  private readonly byId = new Map<number, UserfaultfdCtx>();
  private nextId = 1;
  private readonly waker: Waitable = {name: 'the reader of a userfaultfd'};

  constructor(readonly k: Kernel) {}

  /** A context of `user`; nobody has its file open yet. */
  create(user: UserMm, flags: number, features: number): UserfaultfdCtx {
    const {k} = this;
    const file = newFile(k, 0);
    const ctx: UserfaultfdCtx = {
      id: this.nextId++,
      file,
      user,
      flags,
      features,
      initialized: false,
      released: false,
      mmapChanging: 0,
      pending: [],
      faults: [],
      events: [],
      lock: k.locks.spinlock('fault_pending_wqh.lock', {class: 'fault_pending_wqh.lock'}),
      fdWait: new WaitQueue(k, 'fd_wqh'),
      mapChangingLock: new RwSemaphore(k, 'map_changing_lock', {class: 'map_changing_lock'}),
    };
    file.release = (t) => userfaultfd_release(k, t, this, ctx);
    this.byId.set(ctx.id, ctx);
    return ctx;
  }

  /** Context of a VMA, null for none. */
  of(vma: VmArea): UserfaultfdCtx | null {
    return vma.uffd === 0 ? null : (this.byId.get(vma.uffd) ?? null);
  }

  /** True when the VMA is registered and its context has this feature. */
  has(vma: VmArea, feature: number): boolean {
    const ctx = this.of(vma);
    return ctx !== null && (ctx.features & feature) !== 0;
  }

  /** Nobody refers to the context any more. */
  forget(ctx: UserfaultfdCtx): void {
    this.byId.delete(ctx.id);
  }

  /**
   * handle_userfault: VM_FAULT_SIGBUS; or VM_FAULT_RETRY | VM_FAULT_UNLOCKED, and the lock of the
   * fault has been given up; or VM_FAULT_AGAIN when asynchronous write protection has let the write
   * through.
   */
  *handle_userfault(t: Task, f: VmFault, reason: number): Code<number> {
    const {k} = this;
    const ctx = this.of(f.vma);
    if (ctx === null || t.exiting) return VM_FAULT_SIGBUS;
    if (reason === VM_UFFD_WP && (ctx.features & UFFD_FEATURE_WP_ASYNC) !== 0) {
      return yield* uffd_clear_wp_async(k, t, f);
    }
    if ((ctx.features & UFFD_FEATURE_SIGBUS) !== 0) return VM_FAULT_SIGBUS;
    const {flags} = f;
    const userOnly = (ctx.flags & UFFD_USER_MODE_ONLY) !== 0;
    if (userOnly && (flags & FAULT_FLAG_USER) === 0) return VM_FAULT_SIGBUS;
    if ((flags & FAULT_FLAG_ALLOW_RETRY) === 0) return VM_FAULT_SIGBUS;
    if ((flags & FAULT_FLAG_RETRY_NOWAIT) !== 0) return VM_FAULT_RETRY;
    if ((flags & FAULT_FLAG_VMA_LOCK) !== 0 && isBefore(k.facts.version, '6.7')) {
      vma_end_read(k, f.user, f.vma);
      return VM_FAULT_RETRY | VM_FAULT_UNLOCKED;
    }
    yield* this.parkFault(t, f, ctx, reason);
    return VM_FAULT_RETRY | VM_FAULT_UNLOCKED;
  }

  /** Queues the fault, gives its lock up, and sleeps until it is woken. */
  private *parkFault(t: Task, f: VmFault, ctx: UserfaultfdCtx, reason: number): Code {
    const {k} = this;
    const {fns, costs} = uffdWork(k);
    const fn = fns.handle_userfault;
    t.cpu.charge(costs.handleTicks, fn);
    const wait: FaultWait = {task: t, msg: messageOf(t, f, ctx, reason), queued: true};
    if (!ctx.lock.acquire(t, fn)) yield* ctx.lock.acquireSlow(t, fn);
    ctx.pending.push(wait);
    if (!ctx.lock.release(t)) yield* ctx.lock.releaseSlow(t);
    if (t.cpu.settle()) yield;
    const waits = must_wait(k, f, reason) && !ctx.released;
    if ((f.flags & FAULT_FLAG_VMA_LOCK) !== 0) vma_end_read(k, f.user, f.vma);
    else yield* mmap_read_unlock(t, f.user);
    if (waits) {
      if (t.cpu.settle()) yield;
      ctx.fdWait.wakeAll();
      if (t.cpu.settle()) yield;
      if (wait.queued && !ctx.released && !t.sigkill) yield* k.sched.block(t, this.waker, true);
    }
    if (!wait.queued) return;
    if (!ctx.lock.acquire(t, fn)) yield* ctx.lock.acquireSlow(t, fn);
    unqueue(ctx, wait);
    if (!ctx.lock.release(t)) yield* ctx.lock.releaseSlow(t);
  }

  /** __wake_userfault: everybody who waits for a page of [start, end) goes on. */
  *wake_userfault(t: Task, ctx: UserfaultfdCtx, start: number, end: number): Code {
    if (t.cpu.settle()) yield;
    if (ctx.pending.length + ctx.faults.length === 0) return;
    const {fns, costs} = uffdWork(this.k);
    const fn = fns.userfaultfd_ioctl;
    if (!ctx.lock.acquire(t, fn)) yield* ctx.lock.acquireSlow(t, fn);
    for (const wait of [...ctx.pending, ...ctx.faults]) {
      t.cpu.charge(costs.wakeWaiterTicks, fn);
      if (wait.msg.vpn < start || wait.msg.vpn >= end) continue;
      unqueue(ctx, wait);
      this.k.sched.wake(wait.task);
    }
    if (!ctx.lock.release(t)) yield* ctx.lock.releaseSlow(t);
  }
}

function unqueue(ctx: UserfaultfdCtx, wait: FaultWait): void {
  wait.queued = false;
  for (const queue of [ctx.pending, ctx.faults]) {
    const at = queue.indexOf(wait);
    if (at >= 0) queue.splice(at, 1);
  }
}

/** userfault_msg. */
function messageOf(t: Task, f: VmFault, ctx: UserfaultfdCtx, reason: number): UffdMsg {
  let flags = (f.flags & FAULT_FLAG_WRITE) === 0 ? 0 : UFFD_PAGEFAULT_FLAG_WRITE;
  if (reason === VM_UFFD_WP) flags |= UFFD_PAGEFAULT_FLAG_WP;
  if (reason === UFFD_REASON_MINOR) flags |= UFFD_PAGEFAULT_FLAG_MINOR;
  const tid = (ctx.features & UFFD_FEATURE_THREAD_ID) === 0 ? 0 : t.tid;
  return {event: UFFD_EVENT_PAGEFAULT, flags, vpn: f.vpn, to: 0, pages: 0, child: null, tid};
}

/** userfaultfd_must_wait and _huge_must_wait: what was missing is missing still. */
function must_wait(k: Kernel, f: VmFault, reason: number): boolean {
  const {pt} = k.mm;
  const slot = walkSlot(f.user.pgd, f.vpn);
  const word = pt.flags[slot];
  if (word === 0 || (word & PTE_KIND) === PTE_MARKER) return true;
  return pte_present(word) && (word & PTE_WRITE) === 0 && reason === VM_UFFD_WP;
}

const OF_KERNEL = new WeakMap<Kernel, Userfaultfds>();

/** The contexts of `k`, null while there never was one. */
export function userfaultfdsOf(k: Kernel): Userfaultfds | null {
  return OF_KERNEL.get(k) ?? null;
}

/** Makes them known; called once, with the first context. */
export function setUserfaultfds(k: Kernel, all: Userfaultfds): void {
  OF_KERNEL.set(k, all);
}
