// Which kernel variables share a cache line. A lock word that lives beside something else pays for
// the neighbour's traffic, and the neighbour for the lock's: that is all there is to false sharing,
// and this table is where it is decided.
//
// A group is one 64-byte line with the variables in it. A variable that is in no group has a line
// to itself. The link order of .data is not part of any kernel's interface, so what stands next to
// a static variable is an assumption, marked so; what carries ____cacheline_aligned in the source
// is not.

import type {CacheLine} from '../machine/cache_line.ts';
import type {Machine} from '../machine/machine.ts';
import type {Design} from './design.ts';

/** Variables in one line, with where that is known from. */
export interface LineGroup {
  readonly variables: readonly string[];
  readonly source: string;
}

const ALWAYS: readonly LineGroup[] = [
  {variables: ['tasklist_lock'], source: '__cacheline_aligned in kernel/fork.c'},
  {
    variables: ['vmap_area_lock', 'vmap_area_list'],
    source: 'neighbours in mm/vmalloc.c; assumption that the linker keeps them together',
  },
  {
    variables: ['pidmap_lock'],
    source: '____cacheline_aligned_in_smp in kernel/pid.c',
  },
  {variables: ['pcpu_lock'], source: 'static in mm/percpu.c; assumption: no hot neighbour'},
  {
    variables: ['percpu_counters_lock', 'percpu_counters'],
    source: 'neighbours in lib/percpu_counter.c; assumption that the linker keeps them together',
  },
];

/**
 * pgd_lock and pgd_list are defined one after the other in arch/x86/mm/fault.c (4.1 to 6.19). Their
 * neighbour stands for whatever read-mostly word of .data the linker puts there: the page-fault
 * path reads it (assumption).
 */
const PGD_TOGETHER: LineGroup = {
  variables: ['pgd_lock', 'pgd_list', 'pgd_lock_neighbour'],
  source: 'neighbours in arch/x86/mm/fault.c; the third one is an assumption',
};

const PGD_PADDED: readonly LineGroup[] = [
  {variables: ['pgd_lock'], source: 'pgd-list-padded: ____cacheline_aligned_in_smp'},
  {variables: ['pgd_list'], source: 'pgd-list-padded'},
  {variables: ['pgd_lock_neighbour'], source: 'pgd-list-padded'},
];

/** The groups of a design. */
export function lineGroups(design: Design): readonly LineGroup[] {
  return design.pgd === 'pgd-list-padded' ? [...ALWAYS, ...PGD_PADDED] : [...ALWAYS, PGD_TOGETHER];
}

/** The lines of one run's kernel variables, made when first asked for. */
export class Layout {
  private readonly groupOf = new Map<string, string>();
  private readonly lines = new Map<string, CacheLine>();
  /** What every page fault reads in .data, perhaps beside pgd_lock. */
  readonly faultLine: CacheLine;

  constructor(
    readonly machine: Machine,
    design: Design,
  ) {
    for (const {variables} of lineGroups(design)) {
      for (const variable of variables) this.groupOf.set(variable, variables.join('+'));
    }
    this.faultLine = this.line('pgd_lock_neighbour');
  }

  /** The line that `variable` is in; kernel data is on the machine's default home node. */
  line(variable: string): CacheLine {
    const name = this.groupOf.get(variable) ?? variable;
    let line = this.lines.get(name);
    if (line === undefined) {
      line = this.machine.line(name, this.machine.topology.defaultHomeNode);
      this.lines.set(name, line);
    }
    return line;
  }
}
