// fs/exec.c, what it does to address spaces: the stack of the new image (bprm_mm_init,
// copy_strings, setup_arg_pages), 6.18.
//
// Arguments are copied into pages at the top of the new mm, one page after the other downwards, by
// get_user_pages from outside. While that goes on the pages are counted to the old mm as well
// (acct_arg_size), so that the OOM killer sees them; that ends just before the switch. Then the
// stack is moved down to its random place: PTEs move, one flush for them, one for the page tables
// left behind; and it is opened 128 KB further down.

import type {Code} from '../../machine/process.ts';
import {pteClear, pteSlot, setPte} from '../arch/x86/mm/pgtable.ts';
import type {Kernel} from '../kernel.ts';
import type {MmStruct} from '../mm_types.ts';
import type {Task} from '../task.ts';
import {FOLL_WRITE, get_user_page} from './gup.ts';
import {free_pgd_range} from './memory_free.ts';
import {pte_alloc} from './memory_pte.ts';
import {mmap_write_lock, mmap_write_lock_killable, mmap_write_unlock} from './mmap_lock.ts';
import {MAP_GROWSDOWN, MAP_PRIVATE, PROT_READ, PROT_WRITE, propsFor, vmFlags} from './mmap_prot.ts';
import {USER_PGTABLES_CEILING} from './mmap_unmap.ts';
import {tlb_finish_mmu, tlb_gather_mmu} from './mmu_gather.ts';
import {folio_put} from './page_alloc.ts';
import {MM_ANONPAGES} from './rss.ts';
import {add_mm_counter} from './rss_stat.ts';
import type {UserMm} from './user_mm.ts';
import type {VmArea} from './vma.ts';
import {adjustVma, expandDownwards, insertVma} from './vma_ops.ts';
import {TASK_SIZE_PAGES} from './vma_space.ts';

/** stack_expand of setup_arg_pages: 128 KB. */
const STACK_EXPAND_PAGES = 32;

/** The stack of a new image. */
export interface StackPlan {
  /** Pages of arguments and environment. */
  readonly argPages: number;
  /** First page behind the stack once it is in place; 0 leaves it at the top (no randomisation). */
  readonly end: number;
}

/** A stack that nothing is known of. */
export const DEFAULT_STACK: StackPlan = {argPages: 1, end: 0};

/** bprm_mm_init and copy_strings: the new mm's stack with its arguments. Returns its VMA. */
export function* bprm_stack(k: Kernel, t: Task, mm: MmStruct, plan: StackPlan): Code<VmArea> {
  const {costs, fns} = k.mm;
  const user = k.mm.userOf(mm);
  const {space} = user;
  // mm_init_owner: the new image belongs to the task, and so to its cgroup.
  user.memcg = t.mm?.user?.memcg ?? 0;
  yield* mmap_write_lock(t, user, fns.bprm_mm_init);
  const flags = vmFlags(k, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_GROWSDOWN);
  const top = TASK_SIZE_PAGES;
  t.cpu.charge(costs.newVmaTicks, fns.bprm_mm_init);
  const vma = insertVma(space, top - 1, top, top - 1, propsFor(flags, null));
  space.startStack = top;
  yield* mmap_write_unlock(t, user);
  for (let n = 1; n <= plan.argPages; n++) {
    if (n > 1) expandDownwards(vma, top - n);
    const pfn = yield* get_user_page(k, t, mm, vma, top - n, FOLL_WRITE);
    if (pfn > 0) folio_put(k, t, pfn);
    acct_arg_size(k, t, 1);
  }
  return vma;
}

/** acct_arg_size: the pages of arguments are counted to the mm that execs. */
export function acct_arg_size(k: Kernel, t: Task, pages: number): void {
  const {mm} = t;
  if (mm === null || mm.user === null || pages === 0) return;
  add_mm_counter(k, t, mm, MM_ANONPAGES, pages);
}

/** setup_arg_pages, after exec_mmap: moves the stack to `plan.end` and opens it. */
export function* setup_arg_pages(k: Kernel, t: Task, vma: VmArea, plan: StackPlan): Code {
  const {fns} = k.mm;
  const user = t.mm!.user!;
  if ((yield* mmap_write_lock_killable(t, user, fns.setup_arg_pages)) !== 0) return;
  if (plan.end !== 0 && plan.end < vma.end) yield* relocate_vma_down(k, t, user, vma, plan.end);
  user.space.startStack = vma.end;
  expandDownwards(vma, vma.start - STACK_EXPAND_PAGES);
  yield* mmap_write_unlock(t, user);
}

/** relocate_vma_down: page offsets stay, so the pages' anon_vma indices do. */
function* relocate_vma_down(k: Kernel, t: Task, user: UserMm, vma: VmArea, newEnd: number): Code {
  const {mm} = user;
  const {start, end, pgoff} = vma;
  const {fns, costs, pt} = k.mm;
  const newStart = newEnd - (end - start);
  adjustVma(vma, newStart, newEnd, pgoff);
  for (let page = 0; page < end - start; page++) {
    const to = pte_alloc(k, t, user, newStart + page);
    const from = pteSlot(user.pgd, start + page);
    if (from < 0 || pt.flags[from] === 0) continue;
    const word = pt.flags[from];
    const value = pt.entries[from];
    pteClear(pt, from);
    setPte(pt, to, value, word);
    t.cpu.charge(costs.movePteTicks, fns.move_page_tables);
  }
  yield* k.tlb.flush_tlb_mm_range(t, mm, start, end, false);
  const tlb = tlb_gather_mmu(mm);
  const floor = Math.max(newEnd, start);
  free_pgd_range(k, t, tlb, user.pgd, floor, end, newEnd, USER_PGTABLES_CEILING);
  yield* tlb_finish_mmu(k, t, tlb);
}
