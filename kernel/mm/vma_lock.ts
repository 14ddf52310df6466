// Per-VMA locks (6.4+): include/linux/mmap_lock.h, mm/mmap_lock.c. A VMA is write-locked while its
// lockSeq equals the mm's lockSeq; giving up mmap_lock for write raises the latter and so unlocks
// all at once (vma_end_write_all). Readers count in vma.lockReaders only while they may sleep: a
// fault that runs through needs no count, because nothing interrupts it here.

import type {Code, Waitable} from '../../machine/process.ts';
import type {Kernel} from '../kernel.ts';
import type {Task} from '../task.ts';
import type {UserMm} from './user_mm.ts';
import type {VmArea} from './vma.ts';

const DRAINED: Waitable = {name: 'readers of a VMA'};

/**
 * lock_vma_under_rcu: true when the VMA may be read without mmap_lock. With `sleeps`, pair with
 * vma_end_read.
 */
export function vma_start_read(k: Kernel, user: UserMm, vma: VmArea, sleeps: boolean): boolean {
  if (!k.mm.hasVmaLocks || vma.lockSeq === user.lockSeq || !vma.attached) return false;
  if (sleeps) vma.lockReaders++;
  return true;
}

/** vma_end_read. */
export function vma_end_read(k: Kernel, user: UserMm, vma: VmArea): void {
  vma.lockReaders--;
  if (vma.lockReaders > 0 || user.vmaWriter === null) return;
  const writer = user.vmaWriter;
  user.vmaWriter = null;
  k.sched.wake(writer);
}

/**
 * The part of vma_start_write that does not wait: marks the VMA. True when readers are in it, and
 * vma_wait_readers must follow.
 */
export function vma_mark_write(k: Kernel, user: UserMm, vma: VmArea): boolean {
  if (!k.mm.hasVmaLocks || vma.lockSeq === user.lockSeq) return false;
  vma.lockSeq = user.lockSeq;
  return vma.lockReaders > 0;
}

/** vma_start_write: mmap_lock is held for write; waits for readers. */
export function* vma_start_write(k: Kernel, t: Task, user: UserMm, vma: VmArea): Code {
  if (vma_mark_write(k, user, vma)) yield* vma_wait_readers(k, t, user, vma);
}

/**
 * vma_start_write of those neighbours that a merge with `vma` may take away while a fault sleeps in
 * them. Nothing when no fault does.
 */
export function* vma_start_write_near(k: Kernel, t: Task, user: UserMm, vma: VmArea): Code {
  const {prev, next} = vma;
  const before = prev !== null && prev.lockReaders > 0 && prev.end === vma.start;
  const after = next !== null && next.lockReaders > 0 && next.start === vma.end;
  if (before) yield* vma_start_write(k, t, user, prev);
  if (after) yield* vma_start_write(k, t, user, next);
}

/** Waits until no page fault reads the VMA any more. */
export function* vma_wait_readers(k: Kernel, t: Task, user: UserMm, vma: VmArea): Code {
  if (t.cpu.settle()) yield;
  while (vma.lockReaders > 0) {
    user.vmaWriter = t;
    yield* k.sched.block(t, DRAINED);
    if (t.cpu.settle()) yield;
  }
}

/** vma_end_write_all: first thing of mmap_write_unlock and mmap_write_downgrade. */
export function vma_end_write_all(user: UserMm): void {
  user.lockSeq++;
}
