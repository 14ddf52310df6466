// Designs: one choice per axis, and the consistent set that each kernel version had. A choice is
// one file elsewhere that reads like the patch it stands for; here are only the names, and which
// kernel picks what.
//
// Sources: the Linux trees of these versions and the postings that docs/pgd.md names. `mprotect`
// and `pud` after 6.11: the series of August 2024 ("mm/mprotect: fix dax puds") whole, without one
// of its patches, or not at all. swapoff goes by slot to 5.0, by mm since 5.1. qspinlock replaced
// ticket locks in 4.2.

/** Every axis with its choices, the default kernel's choice not marked. */
export const AXES = {
  pgd: [
    'pgd-list',
    'pgd-list-padded',
    'lockless-v1',
    'lockless-v2',
    'lockless-2015-09',
    'count-at-switch',
    'sync-at-vmalloc',
    'preallocated',
  ],
  paging: ['2-level', 'pae-shared', 'pae-private', '4-level', '4-level-xen', '5-level'],
  spinlock: ['tas', 'ticket', 'mcs', 'qspinlock', 'cna'],
  'vmalloc-sync': ['none', 'purge', 'alloc'],
  notifier: ['G0', 'G1', 'G2', 'G2b', 'G3', 'G3b', 'G4', 'G5', 'G5b', 'G6', 'G7', 'G8'],
  mprotect: ['per-call', 'per-pud', 'per-p4d'],
  pud: ['mprotect-clears', 'leaf-present', 'no-invalidate', 'no-saved-dirty', 'complete'],
  'kvm-mmu': ['shadow', 'tdp'],
  odp: [
    'v1-clamp',
    'take-all-locks',
    'private-counters',
    'active-ranges-pool',
    'active-ranges-stack',
    'interval',
  ],
  tlb: ['ipi', 'broadcast'],
  swapoff: ['by-slot', 'by-mm'],
} as const;

export type Axis = keyof typeof AXES;
export type Choice<A extends Axis> = (typeof AXES)[A][number];
/** One choice on every axis. */
export type Design = {readonly [A in Axis]: Choice<A>};

/** What a kernel version had, beyond the axes. */
export interface KernelFacts {
  readonly version: string;
  readonly design: Design;
  /** Kernel stacks come from vmalloc (x86-64 since 4.9). */
  readonly vmapStack: boolean;
  /** 64-bit vmalloc_fault exists (until 5.8). */
  readonly vmallocFault: boolean;
  /** remove_pagetable clears and frees PGD entries (until af2cf278ef4f, 4.8). */
  readonly removesPgdEntries: boolean;
}

const BASE: Design = {
  pgd: 'pgd-list',
  paging: '4-level',
  spinlock: 'qspinlock',
  'vmalloc-sync': 'none',
  notifier: 'G8',
  mprotect: 'per-p4d',
  pud: 'complete',
  'kvm-mmu': 'tdp',
  odp: 'interval',
  tlb: 'ipi',
  swapoff: 'by-mm',
};

type Row = [string, Partial<Design>, vmapStack: boolean, vmallocFault: boolean, removes: boolean];

/** Until 6.12 mprotect knew no 1 GB leaves. */
const OLD_PUD: Partial<Design> = {mprotect: 'per-pud', pud: 'mprotect-clears'};
const OLD: Partial<Design> = {
  ...OLD_PUD,
  'kvm-mmu': 'shadow',
  odp: 'private-counters',
  swapoff: 'by-slot',
};
/** swapoff was rewritten in 5.1. */
const OLD_5_4: Partial<Design> = {notifier: 'G5b', 'vmalloc-sync': 'purge', swapoff: 'by-mm'};
const ROWS: readonly Row[] = [
  ['2.6.32', {...OLD, spinlock: 'ticket', notifier: 'G0', mprotect: 'per-call'}, false, true, true],
  ['3.10', {...OLD, spinlock: 'ticket', notifier: 'G1', mprotect: 'per-call'}, false, true, true],
  ['4.1', {...OLD, spinlock: 'ticket', notifier: 'G2'}, false, true, true],
  ['4.13', {...OLD, notifier: 'G3'}, true, true, false],
  ['4.15', {...OLD, notifier: 'G3b'}, true, true, false],
  // 4.19 as PTT ran it, 4.19.88: the stable backport of 3f8fd02b1bf1 syncs in the allocation path
  // (kernel/mm/vmalloc.ts).
  ['4.19', {...OLD, notifier: 'G4', 'vmalloc-sync': 'alloc'}, true, true, false],
  ['5.4', {...OLD, ...OLD_5_4}, true, true, false],
  [
    '5.5',
    {...OLD_PUD, notifier: 'G6', 'kvm-mmu': 'shadow', 'vmalloc-sync': 'purge'},
    true,
    true,
    false,
  ],
  ['6.6', {...OLD_PUD, pgd: 'preallocated', notifier: 'G7'}, true, false, false],
  ['6.12', {pgd: 'preallocated'}, true, false, false],
  ['6.18', {pgd: 'preallocated'}, true, false, false],
];

/** Kernel versions by name. */
export const KERNELS: ReadonlyMap<string, KernelFacts> = new Map(
  ROWS.map(([version, design, vmapStack, vmallocFault, removesPgdEntries]) => [
    version,
    {version, design: {...BASE, ...design}, vmapStack, vmallocFault, removesPgdEntries},
  ]),
);

/** A design that does not exist; the message lists what does. */
export class DesignError extends Error {
  readonly exitCode = 2;
}

/** The facts of `version` with `overrides` like `pgd=lockless-v2` applied. */
export function kernelFacts(version: string, overrides: readonly string[] = []): KernelFacts {
  const facts = KERNELS.get(version);
  if (facts === undefined) {
    throw new DesignError(
      `kernel ${version}: unknown; choose one of ${[...KERNELS.keys()].join(', ')}`,
    );
  }
  const design: Record<string, string> = {...facts.design};
  for (const override of overrides) {
    const [axis, choice] = splitOverride(override);
    design[axis] = choice;
  }
  return {...facts, design: design as Design};
}

function splitOverride(override: string): [Axis, string] {
  const at = override.indexOf('=');
  const axis = override.slice(0, at) as Axis;
  const choices: readonly string[] | undefined = AXES[axis];
  if (at < 0 || choices === undefined) {
    throw new DesignError(
      `design ${override}: expected axis=choice with axis one of ${Object.keys(AXES).join(', ')}`,
    );
  }
  const choice = override.slice(at + 1);
  if (!choices.includes(choice)) {
    throw new DesignError(`design ${override}: ${axis} is one of ${choices.join(', ')}`);
  }
  return [axis, choice];
}
