// The choices of the `pgd` axis by name.

import type {Kernel} from '../../../../kernel.ts';
import type {PgdDesign} from '../../../../pgd_design.ts';
import {Lockless201509} from './lockless_2015_09.ts';
import {PgdListDesign} from './pgd_list.ts';

/** The design that `kernel.design.pgd` names. Call after the page tables, locks and task list exist. */
export function makePgdDesign(kernel: Kernel): PgdDesign {
  const choice = kernel.design.pgd;
  switch (choice) {
    case 'pgd-list':
    case 'pgd-list-padded':
    case 'preallocated':
      return new PgdListDesign(kernel, choice);
    default:
      return new Lockless201509(kernel);
  }
}
