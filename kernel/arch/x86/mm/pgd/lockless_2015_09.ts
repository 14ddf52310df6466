// lockless-2015-09: the last posting (2015-09-22, 11 patches). for_each_process with
// find_lock_task_mm, rcu_read_lock around pgd_lock, and smp_mb() in arch_pgd_init_late, whose
// comment names the walker's spin_lock as its partner.
//
// One departure, on purpose: the posting's sync_global_pgds still says `pgd = mm->pgd` without
// pgd_index(address), as the two before it did. Here the walk indexes, so that the design shows
// what its barriers are worth and not that slip, which the scenario pgd-index shows under v1 and
// v2. What it leaves open: an mm that only a lazy kernel thread still uses is on no task, and no
// walk finds it.

import {LocklessDesign} from './lockless.ts';

/** The last posting of Molnar's series. */
export class Lockless201509 extends LocklessDesign {
  readonly name = 'lockless-2015-09';
}
