// What UFFDIO_COPY copies from: memory of the task that calls, which may be of another process than
// the destination. Under the locks of the destination nothing may be faulted in; where the source
// is not there the locks are given up, the source is touched as a kernel access to user memory, and
// the copy is tried again.

import type {Code} from '../../machine/process.ts';
import {hardwareWalk, pteValue} from '../arch/x86/mm/pgtable.ts';
import {PTE_HUGE, PTE_SPECIAL} from '../arch/x86/mm/pgtable_bits.ts';
import {userAccess, userAccessSlow} from '../arch/x86/mm/user_fault.ts';
import type {Kernel} from '../kernel.ts';
import type {Task} from '../task.ts';
import {FAULT_OOM, FAULT_SIGBUS, FAULT_SIGSEGV} from './vm_fault.ts';

/** Pages that a leaf of each level spans. */
const SPAN = [1, 512, 2 ** 18] as const;

/** pfn that the task can read at page `vpn`, 0 for zeros, -1 when that would fault. */
export function readablePfn(k: Kernel, t: Task, vpn: number): number {
  const user = t.mm?.user ?? null;
  if (user === null) return -1;
  const {pt} = k.mm;
  const slot = hardwareWalk(user.pgd, vpn, false);
  if (slot < 0) return -1;
  const word = pt.flags[slot];
  if ((word & PTE_SPECIAL) !== 0) return 0;
  const span = (word & PTE_HUGE) === 0 ? 1 : SPAN[pt.level[slot >>> 9]];
  return pteValue(pt, slot) + (vpn % span);
}

/** The contents of [vpn, vpn + pages), faulted in with no lock held; null: -EFAULT. */
export function* readSource(k: Kernel, t: Task, vpn: number, pages: number): Code<number[] | null> {
  const contents: number[] = [];
  const {pages: frames} = k.mm;
  for (let at = vpn; at < vpn + pages; ) {
    const pfn = readablePfn(k, t, at);
    if (pfn >= 0) {
      contents.push(pfn === 0 || !frames.hasContent ? 0 : frames.content[pfn]);
      at++;
      continue;
    }
    if (t.mm === null || t.sigkill) return null;
    let result = userAccess(k, t, at, 0);
    if (result < 0) result = yield* userAccessSlow(k, t, at, 0, result);
    if (result === FAULT_SIGSEGV || result === FAULT_SIGBUS || result === FAULT_OOM) return null;
  }
  return contents;
}

/**
 * The contents of [vpn, vpn + pages) as far as that needs no fault; null: go on with readSource.
 */
export function peekSource(k: Kernel, t: Task, vpn: number, pages: number): number[] | null {
  const contents: number[] = [];
  const {pages: frames} = k.mm;
  for (let at = vpn; at < vpn + pages; at++) {
    const pfn = readablePfn(k, t, at);
    if (pfn < 0) return null;
    contents.push(pfn === 0 || !frames.hasContent ? 0 : frames.content[pfn]);
  }
  return contents;
}
