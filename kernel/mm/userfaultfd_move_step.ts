// What UFFDIO_MOVE of pages and of huge pages have in common: where a move stands, the two locks of
// a step, and the wait for a page that is being migrated.

import type {Code} from '../../machine/process.ts';
import {pteValue} from '../arch/x86/mm/pgtable.ts';
import {PTE_HUGE} from '../arch/x86/mm/pgtable_bits.ts';
import type {UserfaultfdCtx} from '../fs/userfaultfd_types.ts';
import type {Kernel} from '../kernel.ts';
import type {Task} from '../task.ts';
import {pte_lock, pte_unlock} from './memory_pte.ts';
import type {Mm} from './mm_state.ts';
import {VmFault} from './vm_fault.ts';
import type {VmArea} from './vma.ts';

/** One call. */
export interface MoveCall {
  readonly ctx: UserfaultfdCtx;
  readonly start: number;
  readonly src: number;
  readonly pages: number;
  /** UFFDIO_MOVE_MODE_ALLOW_SRC_HOLES. */
  readonly holes: boolean;
}

/** Where a move stands. */
export interface MoveStep {
  readonly call: MoveCall;
  readonly from: VmArea;
  readonly to: VmArea;
  readonly srcVpn: number;
  readonly dstVpn: number;
  /** Pages still to move, this one included. */
  readonly left: number;
}

/** double_pt_lock: the locks of the tables of two entries, which may be one. */
export function* double_pt_lock(mm: Mm, t: Task, src: number, dst: number, fn: number): Code {
  const low = Math.min(src, dst);
  const high = Math.max(src, dst);
  while (!pte_lock(mm, t, low, fn)) yield* mm.ptl.spin(t, low >>> 9, fn);
  if (low >>> 9 === high >>> 9) return;
  while (!pte_lock(mm, t, high, fn)) yield* mm.ptl.spin(t, high >>> 9, fn);
}

/** double_pt_unlock. */
export function double_pt_unlock(mm: Mm, t: Task, src: number, dst: number): void {
  if (src >>> 9 !== dst >>> 9) pte_unlock(mm, t, Math.max(src, dst));
  pte_unlock(mm, t, Math.min(src, dst));
}

/** Waits until the migration entry at `src`, of a page or a huge page, is none any more. */
export function* waitForMigration(k: Kernel, t: Task, step: MoveStep, src: number): Code {
  const {pt, hooks} = k.mm;
  const {user} = step.call.ctx;
  const f = new VmFault(user.mm, user, step.from, step.srcVpn, 0);
  f.slot = src;
  f.word = pt.flags[src];
  f.value = pteValue(pt, src);
  if ((f.word & PTE_HUGE) !== 0) f.pmdSlot = src;
  yield* hooks.migration_entry_wait!(t, f);
}
