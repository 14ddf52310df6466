// mm/memory.c and mm/gup.c: __access_remote_vm for writing: how a debugger writes into a process
// (ptrace, /proc/pid/mem). FOLL_FORCE: a private mapping may be written although it is read-only;
// what comes of it is a page of the process's own, dirty and still not writable.
//
// A forced write is let through to a page only when it is known to be nobody else's: marked
// exclusive (5.19+), before that when a write fault has just been taken for it (FOLL_COW).

import type {Code} from '../../machine/process.ts';
import {LEAF, walkSlot} from '../arch/x86/mm/pgtable.ts';
import {PTE_HUGE, PTE_SPECIAL, pte_present} from '../arch/x86/mm/pgtable_bits.ts';
import {EFAULT, EINTR, ENOMEM} from '../errno.ts';
import type {Kernel} from '../kernel.ts';
import type {MmStruct} from '../mm_types.ts';
import type {Task} from '../task.ts';
import {folio_get} from './folio_counts.ts';
import {FOLL_WRITE, follow_page} from './gup.ts';
import {handle_mm_fault, is_fault_error} from './memory.ts';
import {mmap_read_lock_killable, mmap_read_unlock} from './mmap_lock.ts';
import {compound_head, folio_test_anon, HPAGE_PMD_NR} from './page.ts';
import {PG_anon_exclusive} from './page_flags.ts';
import type {UserMm} from './user_mm.ts';
import {FAULT_FLAG_REMOTE, FAULT_FLAG_WRITE, VM_FAULT_OOM} from './vm_fault.ts';
import type {VmArea} from './vma.ts';
import {is_cow_mapping, VM_IO, VM_PFNMAP, VM_WRITE} from './vma_flags.ts';

/**
 * Gets page `vpn` of `mm` for a forced write: its pfn, with a reference that the caller puts;
 * -EFAULT (no mapping, or a shared one that is read-only) or -ENOMEM.
 */
export function* access_remote_page(k: Kernel, t: Task, mm: MmStruct, vpn: number): Code<number> {
  const user = k.mm.userOf(mm);
  const fn = k.fn('__access_remote_vm');
  if ((yield* mmap_read_lock_killable(t, user, fn, '5.3')) !== 0) return -EINTR;
  const vma = user.space.tree.lookup(vpn);
  const result = vma === null ? -EFAULT : yield* getForced(k, t, user, vma, vpn);
  yield* mmap_read_unlock(t, user);
  return result;
}

function* getForced(k: Kernel, t: Task, user: UserMm, vma: VmArea, vpn: number): Code<number> {
  if ((vma.flags & (VM_IO | VM_PFNMAP)) !== 0) return -EFAULT;
  const forced = (vma.flags & VM_WRITE) === 0;
  if (forced && !is_cow_mapping(vma.flags)) return -EFAULT;
  for (let tries = 0; ; tries++) {
    const pfn = forced ? forcedPage(k, user, vpn, tries) : follow_page(k, user, vpn, FOLL_WRITE);
    if (pfn > 0) {
      folio_get(k.mm.pages, compound_head(k.mm.pages, pfn));
      return pfn;
    }
    const flags = FAULT_FLAG_WRITE | FAULT_FLAG_REMOTE;
    const result = yield* handle_mm_fault(k, t, user.mm, vma, vpn, flags);
    if (is_fault_error(result)) return (result & VM_FAULT_OOM) === 0 ? -EFAULT : -ENOMEM;
    if (t.sigkill) return -EFAULT;
  }
}

/**
 * can_follow_write_pte, _pmd for a mapping without VM_WRITE: the pfn, -1 when a fault is needed.
 */
function forcedPage(k: Kernel, user: UserMm, vpn: number, tries: number): number {
  const {pages, pt, cowRule} = k.mm;
  const slot = walkSlot(user.pgd, vpn);
  const word = pt.flags[slot];
  if (!pte_present(word) || (word & PTE_SPECIAL) !== 0) return -1;
  // A huge mapping's first page says for all whether it is exclusive.
  const first = pt.entries[slot] & ~LEAF;
  const pfn = first + ((word & PTE_HUGE) === 0 ? 0 : vpn % HPAGE_PMD_NR);
  if (!folio_test_anon(pages, compound_head(pages, pfn))) return -1;
  if (cowRule !== 'exclusive') return tries > 0 ? pfn : -1;
  return (pages.flags[first] & PG_anon_exclusive) === 0 ? -1 : pfn;
}
