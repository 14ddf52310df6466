// mm/mmap.c: exit_mmap, the end of an address space, 6.18: notifiers first, then all pages in
// address order in one gather, all page tables, one flush. It runs when mm_users is 0, so nobody
// else is in the mm but walkers from outside (reclaim, KSM), who take mmap_lock.

import type {Code} from '../../machine/process.ts';
import type {Kernel} from '../kernel.ts';
import {chargeHooks} from '../life_hooks.ts';
import type {MmStruct} from '../mm_types.ts';
import type {Task} from '../task.ts';
import {lru_add_drain} from './folio_lru.ts';
import {free_pgtables} from './memory_free.ts';
import {unmap_vmas} from './memory_zap.ts';
import {mmap_read_lock, mmap_read_unlock, mmap_write_lock, mmap_write_unlock} from './mmap_lock.ts';
import {remove_vmas, USER_PGTABLES_CEILING} from './mmap_unmap.ts';
import {tlb_finish_mmu, tlb_gather_mmu_fullmm} from './mmu_gather.ts';
import {mmu_notifier_release} from './mmu_notifier.ts';
import {MMF_OOM_SKIP, MMF_OOM_VICTIM, type UserMm} from './user_mm.ts';
import type {VmArea} from './vma.ts';
import {detachAll} from './vma_ops.ts';

/** Unmaps and frees everything in the user half of `mm`. */
export function* exit_mmap(k: Kernel, t: Task, mm: MmStruct): Code {
  const fn = k.fns.exit_mmap;
  chargeHooks(k, t, 'exit_mmap', fn);
  const {user} = mm;
  if (user === null) {
    yield* k.tlb.flush_tlb_mm(t, mm);
    return;
  }
  const {ksm_exit, khugepaged_exit} = k.mm.hooks;
  if (ksm_exit !== null) yield* ksm_exit(t, mm);
  if (khugepaged_exit !== null) yield* khugepaged_exit(t, mm);
  yield* mmu_notifier_release(k, t, mm);
  const victim = (user.flags & MMF_OOM_VICTIM) !== 0;
  if (victim) yield* k.mm.hooks.oom_exit_mmap!(t, user, false);
  yield* mmap_read_lock(t, user, fn);
  const vmas = user.space.tree.all();
  if (vmas.length === 0) yield* mmap_read_unlock(t, user);
  else yield unmapAll(k, t, user, vmas);
  if (victim) yield* k.mm.hooks.oom_exit_mmap!(t, user, true);
  k.mm.probe?.exitMmap(mm);
}

function* unmapAll(k: Kernel, t: Task, user: UserMm, vmas: readonly VmArea[]): Code {
  const fn = k.fns.exit_mmap;
  lru_add_drain(k, t);
  const tlb = tlb_gather_mmu_fullmm(user.mm);
  yield unmap_vmas(k, t, tlb, vmas, 0, USER_PGTABLES_CEILING);
  yield* mmap_read_unlock(t, user);
  user.flags |= MMF_OOM_SKIP;
  yield* mmap_write_lock(t, user, fn);
  detachAll(user.space);
  yield free_pgtables(k, t, tlb, user.mm, vmas, 0, USER_PGTABLES_CEILING);
  yield* tlb_finish_mmu(k, t, tlb);
  remove_vmas(k, t, vmas);
  yield* mmap_write_unlock(t, user);
}
