// kernel/fork.c and mm/mmap.c: dup_mmap, the child's copy of an address space, 6.18.
//
// The parent's mmap_lock is held for write throughout, the child's (nested) until its VMAs are in;
// so threads that map or fork wait for each other here, and page faults of the parent's other
// threads wait from the moment their VMA is copied (its lock, 6.4+). Per VMA: the copy, its
// anon_vma with the chain of all ancestors under the family's lock, the file's i_mmap under its
// lock, then the page tables. One TLB flush for the parent after all of them, because its private
// pages have become read-only.

import type {Code} from '../../machine/process.ts';
import {EINTR} from '../errno.ts';
import type {Kernel} from '../kernel.ts';
import {chargeHooks} from '../life_hooks.ts';
import type {MmStruct} from '../mm_types.ts';
import type {Task} from '../task.ts';
import {isBefore} from '../version.ts';
import {CopyWalk, vma_needs_copy} from './memory_copy.ts';
import {mmap_write_lock, mmap_write_lock_killable, mmap_write_unlock, NESTED} from './mmap_lock.ts';
import {
  MMF_DISABLE_THP,
  MMF_HAS_UPROBES,
  MMF_VM_HUGEPAGE,
  MMF_VM_MERGE_ANY,
  MMF_VM_MERGEABLE,
  type UserMm,
} from './user_mm.ts';
import type {VmArea} from './vma.ts';
import {VM_WIPEONFORK} from './vma_flags.ts';
import {vma_mark_write, vma_wait_readers} from './vma_lock.ts';
import {copyVma, linkCopy} from './vma_ops.ts';

/** mmf_init_flags: what a child inherits. */
const MMF_INIT_MASK =
  MMF_DISABLE_THP | MMF_VM_MERGE_ANY | MMF_VM_HUGEPAGE | MMF_VM_MERGEABLE | MMF_HAS_UPROBES;

/** Fills `mm`, fresh from mm_init, with a copy of `oldmm`. 0, -12 (ENOMEM) or -4 (EINTR). */
export function* dup_mmap(k: Kernel, t: Task, mm: MmStruct, oldmm: MmStruct): Code<number> {
  const fn = k.fns.dup_mmap;
  chargeHooks(k, t, 'dup_mmap', fn);
  const from = oldmm.user;
  if (from === null) {
    yield* k.tlb.flush_tlb_mm(t, oldmm);
    return 0;
  }
  const to = k.mm.userOf(mm);
  if ((yield* mmap_write_lock_killable(t, from, fn)) !== 0) return -EINTR;
  yield* mmap_write_lock(t, to, fn, NESTED);
  inherit(from, to);
  k.mm.hooks.ksm_fork?.(t, mm, oldmm);
  k.mm.hooks.khugepaged_fork?.(t, mm, oldmm);
  const result = (yield dupVmas(k, t, from, to)) as number;
  yield* mmap_write_unlock(t, to);
  yield* k.tlb.flush_tlb_mm(t, oldmm);
  yield* mmap_write_unlock(t, from);
  const complete = k.mm.hooks.dup_userfaultfd_complete;
  if (complete !== null) yield* complete(t, result !== 0);
  return result;
}

function inherit(from: UserMm, to: UserMm): void {
  to.flags = from.flags & MMF_INIT_MASK;
  to.startBrkAddress = from.startBrkAddress;
  to.brkAddress = from.brkAddress;
  to.memcg = from.memcg;
  to.hiwaterVm = from.hiwaterVm;
  const {space} = to;
  space.mmapBase = from.space.mmapBase;
  space.taskSize = from.space.taskSize;
  space.startBrk = from.space.startBrk;
  space.brk = from.space.brk;
  space.startStack = from.space.startStack;
}

/** The VMAs: both locks' sections are plain code and are given up ahead (rwsem_state.ts). */
function* dupVmas(k: Kernel, t: Task, from: UserMm, to: UserMm): Code<number> {
  const {mm} = k;
  const {costs} = mm;
  const fn = k.fns.dup_mmap;
  const walk = new CopyWalk(k, t, to.mm, from.mm);
  const killable = !isBefore(k.facts.version, '4.20');
  let result = 0;
  for (let vma = from.space.tree.first; vma !== null && result === 0; vma = vma.next) {
    // A killed task copies no further (4.20+).
    if (t.sigkill && killable) return -EINTR;
    if (vma_mark_write(k, from, vma)) yield* vma_wait_readers(k, t, from, vma);
    t.cpu.charge(costs.dupVmaTicks, fn);
    let copy: VmArea | null;
    if (vma.anonVma === null) copy = copyVma(vma, to.space, false);
    else {
      const lock = mm.anonVmaLock(vma.anonVma);
      if (t.cpu.settle()) yield;
      if (!lock.writeAcquire(t, fn)) yield* lock.writeAcquireSlow(t, fn);
      t.cpu.charge((vma.anonChainLength + 1) * costs.anonVmaChainTicks, fn);
      copy = copyVma(vma, to.space, false);
      if (!lock.writeReleaseAhead(t)) yield* lock.writeReleaseSlow(t);
    }
    if (copy === null) continue;
    if (vma.uffd !== 0) mm.hooks.dup_userfaultfd?.(t, copy, vma);
    if (vma.mapping === null) linkCopy(copy, vma);
    else {
      const lock = mm.iMmapLock(vma.mapping);
      if (t.cpu.settle()) yield;
      if (!lock.writeAcquire(t, fn)) yield* lock.writeAcquireSlow(t, fn);
      t.cpu.charge(costs.linkFileTicks, fn);
      linkCopy(copy, vma);
      if (!lock.writeReleaseAhead(t)) yield* lock.writeReleaseSlow(t);
    }
    if ((copy.flags & VM_WIPEONFORK) !== 0 || !vma_needs_copy(copy, vma)) continue;
    const why = walk.start(copy, vma);
    if (why !== 0 || !walk.ended()) result = yield* walk.finish(why);
  }
  return result;
}
