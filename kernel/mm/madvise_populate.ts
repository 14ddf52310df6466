// mm/madvise.c: MADV_POPULATE_READ and MADV_POPULATE_WRITE (5.14+): pages are faulted in as an
// access of that kind would, and an error is an error: no signal, no half-done silence. COW is
// broken by WRITE alone; nothing is reported as a page fault of the task.

import type {Code} from '../../machine/process.ts';
import {EFAULT, EHWPOISON, EINTR, EINVAL, ENOMEM} from '../errno.ts';
import type {Kernel} from '../kernel.ts';
import type {Task} from '../task.ts';
import {FOLL_WRITE, follow_page, relockVma} from './gup.ts';
import {handle_mm_fault, is_fault_error} from './memory.ts';
import {mmap_read_lock, mmap_read_unlock} from './mmap_lock.ts';
import type {UserMm} from './user_mm.ts';
import {
  FAULT_FLAG_ALLOW_RETRY,
  FAULT_FLAG_WRITE,
  VM_FAULT_HWPOISON,
  VM_FAULT_OOM,
  VM_FAULT_UNLOCKED,
} from './vm_fault.ts';
import type {VmArea} from './vma.ts';
import {VM_IO, VM_PFNMAP, VM_READ, VM_WRITE} from './vma_flags.ts';

/**
 * madvise_populate of [start, end): 0, -ENOMEM (hole, or no memory), -EINVAL (the mapping does not
 * allow it), -EFAULT (an access would get SIGSEGV or SIGBUS), -EHWPOISON or -EINTR.
 */
export function* madvise_populate(
  k: Kernel,
  t: Task,
  user: UserMm,
  start: number,
  end: number,
  write: boolean,
): Code<number> {
  yield* mmap_read_lock(t, user, k.mm.fns.do_madvise);
  let result = 0;
  for (let at = start; at < end && result === 0; ) {
    const vma = user.space.tree.lookup(at);
    if (vma === null) {
      result = -ENOMEM;
      break;
    }
    const to = Math.min(end, vma.end);
    result = yield* faultin_page_range(k, t, user, vma, at, to, write);
    at = to;
  }
  yield* mmap_read_unlock(t, user);
  return result;
}

function* faultin_page_range(
  k: Kernel,
  t: Task,
  user: UserMm,
  vma: VmArea,
  start: number,
  end: number,
  write: boolean,
): Code<number> {
  if ((vma.flags & (VM_IO | VM_PFNMAP)) !== 0) return -EINVAL;
  if ((vma.flags & (write ? VM_WRITE : VM_READ)) === 0) return -EINVAL;
  const flags = write ? FAULT_FLAG_WRITE : 0;
  let area = vma;
  let faulted = -1;
  for (let vpn = start; vpn < end; ) {
    if (follow_page(k, user, vpn, write ? FOLL_WRITE : 0) >= 0) {
      if (vpn !== faulted) t.cpu.charge(k.mm.costs.populatePageTicks, k.mm.fns.mm_populate);
      vpn++;
      continue;
    }
    faulted = vpn;
    const retry = area.uffd !== 0 ? FAULT_FLAG_ALLOW_RETRY : 0;
    const result = yield* handle_mm_fault(k, t, user.mm, area, vpn, flags | retry);
    if ((result & VM_FAULT_UNLOCKED) !== 0) {
      // userfaultfd: mmap_lock was given up while its reader was waited for.
      const again = yield* relockVma(k, t, user, vpn);
      if (again === null) return -ENOMEM;
      area = again;
    }
    if (is_fault_error(result)) return faultError(result);
    if (t.sigkill) return -EINTR;
    if (k.sched.needsResched(t)) yield* k.sched.condResched(t);
  }
  return 0;
}

function faultError(result: number): number {
  if ((result & VM_FAULT_OOM) !== 0) return -ENOMEM;
  return (result & VM_FAULT_HWPOISON) !== 0 ? -EHWPOISON : -EFAULT;
}
