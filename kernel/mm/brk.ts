// mm/mmap.c: brk(2), 6.18. The heap is one anonymous VMA that grows at its end (do_brk_flags) and
// is cut by munmap when it shrinks.

import type {Code} from '../../machine/process.ts';
import {EINTR} from '../errno.ts';
import type {Kernel} from '../kernel.ts';
import type {Task} from '../task.ts';
import {mm_populate, mmap_region} from './mmap.ts';
import {
  enterSystemCall,
  mmap_read_unlock,
  mmap_write_lock_killable,
  mmap_write_unlock,
} from './mmap_lock.ts';
import {propsFor} from './mmap_prot.ts';
import {DOWNGRADED, do_vmi_munmap} from './mmap_unmap.ts';
import type {UserMm} from './user_mm.ts';
import {VM_ACCOUNT, VM_DATA_DEFAULT, VM_LOCKED, VM_SOFTDIRTY} from './vma_flags.ts';
import {STACK_GUARD_GAP} from './vma.ts';

const PAGE_BYTES = 4096;

function pageAfter(address: number): number {
  return Math.ceil(address / PAGE_BYTES);
}

/** Where the heap begins (mm->start_brk); exec sets it. Byte address. */
export function setStartBrk(user: UserMm, address: number): void {
  user.startBrkAddress = address;
  user.brkAddress = address;
  user.space.startBrk = pageAfter(address);
  user.space.brk = pageAfter(address);
}

/** brk(2): the new end of the heap as a byte address, the old one when it cannot be. */
export function* sys_brk(k: Kernel, t: Task, address: number): Code<number> {
  enterSystemCall(k, t);
  const user = k.mm.userOf(t.mm!);
  const fn = k.mm.fns.sys_brk;
  if ((yield* mmap_write_lock_killable(t, user, fn)) !== 0) return -EINTR;
  t.cpu.charge(k.mm.costs.brkTicks, fn);
  const {space} = user;
  const from = pageAfter(user.brkAddress);
  const to = pageAfter(address);
  let locked = 0;
  if (address < user.startBrkAddress || (to > from && !hasRoom(user, from, to))) {
    yield* mmap_write_unlock(t, user);
    return user.brkAddress;
  }
  user.brkAddress = address;
  space.brk = to;
  if (to < from) locked = yield* do_vmi_munmap(k, t, user, to, from, true);
  else if (to > from) yield* grow(k, t, user, from, to);
  if (locked === DOWNGRADED) yield* mmap_read_unlock(t, user);
  else yield* mmap_write_unlock(t, user);
  const uffd = k.mm.hooks.userfaultfd_unmap_complete;
  if (uffd !== null) yield* uffd(t);
  if (to > from && (space.defFlags & VM_LOCKED) !== 0) yield* mm_populate(k, t, user, from, to);
  return address;
}

function hasRoom(user: UserMm, from: number, to: number): boolean {
  return user.space.tree.intersection(from, to + STACK_GUARD_GAP) === null;
}

/** do_brk_flags. */
function* grow(k: Kernel, t: Task, user: UserMm, from: number, to: number): Code {
  t.cpu.charge(k.mm.costs.brkGrowTicks, k.mm.fns.sys_brk);
  const flags = VM_DATA_DEFAULT | VM_ACCOUNT | VM_SOFTDIRTY | user.space.defFlags;
  yield* mmap_region(k, t, user, from, to, from, propsFor(flags, null));
  if ((flags & VM_LOCKED) !== 0) user.space.lockedVm += to - from;
}
