// mm/migrate.c: migration_entry_wait: a fault on a page that is on the move sleeps until its folio
// is unlocked, without a reference on it (a reference would make the migration fail), and then
// looks again.

import {is_migration_entry} from '../arch/x86/mm/pgtable_bits.ts';
import type {Code} from '../../machine/process.ts';
import type {Kernel} from '../kernel.ts';
import type {Task} from '../task.ts';
import {VM_FAULT_AGAIN} from './memory.ts';
import {compound_head} from './page.ts';
import {PG_locked} from './page_flags.ts';
import type {VmFault} from './vm_fault.ts';

/** migration_entry_wait, pmd_migration_entry_wait: f.slot is the entry that the fault saw. */
export function* migration_entry_wait(k: Kernel, t: Task, f: VmFault): Code<number> {
  const {pages, swap, migration} = k.mm;
  t.cpu.charge(k.mm.costs.spuriousTicks, migration.fns.migration_entry_wait);
  if (t.cpu.settle()) yield;
  const head = compound_head(pages, f.value);
  const queue = swap.waits.queue(head);
  queue.prepare(t);
  if (t.cpu.settle()) yield;
  if (stillMoving(k, f) && (pages.flags[head] & PG_locked) !== 0) yield* queue.sleep(t);
  queue.finish(t);
  return VM_FAULT_AGAIN;
}

function stillMoving(k: Kernel, f: VmFault): boolean {
  const {pt} = k.mm;
  return is_migration_entry(f.word) && pt.flags[f.slot] === f.word;
}
