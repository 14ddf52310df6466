// The choices of the `pgd` axis by name.

import {assertUnreachable} from '../../../../../machine/assert.ts';
import type {Kernel} from '../../../../kernel.ts';
import type {PgdDesign} from '../../../../pgd_design.ts';
import {CountAtSwitch} from './count_at_switch.ts';
import {Lockless201509} from './lockless_2015_09.ts';
import {LocklessV1} from './lockless_v1.ts';
import {LocklessV2} from './lockless_v2.ts';
import {PgdListDesign} from './pgd_list.ts';
import {Preallocated} from './preallocated.ts';
import {SyncAtVmalloc} from './sync_at_vmalloc.ts';

/** The design that `kernel.design.pgd` names. Call after locks, task list and page tables exist. */
export function makePgdDesign(kernel: Kernel): PgdDesign {
  const choice = kernel.design.pgd;
  switch (choice) {
    case 'pgd-list':
    case 'pgd-list-padded':
      return new PgdListDesign(kernel, choice);
    case 'lockless-v1':
      return new LocklessV1(kernel);
    case 'lockless-v2':
      return new LocklessV2(kernel);
    case 'lockless-2015-09':
      return new Lockless201509(kernel);
    case 'count-at-switch':
      return new CountAtSwitch(kernel);
    case 'sync-at-vmalloc':
      return new SyncAtVmalloc(kernel);
    case 'preallocated':
      return new Preallocated(kernel);
    default:
      return assertUnreachable(choice);
  }
}
