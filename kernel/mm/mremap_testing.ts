// For tests of calls that change an address space: a program that maps, protects, moves and advises
// memory, beside a naive model of what each page must then hold and allow.

import assert from 'node:assert/strict';
import type {Code} from '../../machine/process.ts';
import {walkSlot} from '../arch/x86/mm/pgtable.ts';
import {
  PTE_HUGE,
  PTE_KIND,
  PTE_PRESENT,
  PTE_PROTNONE,
  PTE_SPECIAL,
} from '../arch/x86/mm/pgtable_bits.ts';
import type {Kernel} from '../kernel.ts';
import type {MmStruct} from '../mm_types.ts';
import type {Task} from '../task.ts';
import type {AddressSpace} from './address_space.ts';
import {access} from './mm_testing.ts';
import {sys_mmap} from './mmap.ts';
import {MAP_PRIVATE, MAP_SHARED, PROT_READ, PROT_WRITE, propsFor, vmFlags} from './mmap_prot.ts';

export const RW = PROT_READ | PROT_WRITE;

/** mmap(MAP_FIXED) of private anonymous memory; with `mapping`, shared memory of that file. */
export function* map(
  k: Kernel,
  t: Task,
  start: number,
  pages: number,
  prot = RW,
  mapping: AddressSpace | null = null,
): Code {
  const flags = vmFlags(k, prot, mapping === null ? MAP_PRIVATE : MAP_SHARED);
  const props = propsFor(flags, mapping);
  const args = {start, fixed: true, pages, pgoff: 0, props, populate: false};
  assert.equal(yield* sys_mmap(k, t, args), start);
}

/** pfn mapped at `vpn`, PROT_NONE included; 0 for none and the page of zeros. */
export function pfnAt(k: Kernel, mm: MmStruct, vpn: number): number {
  const {pt} = k.mm;
  const slot = walkSlot(mm.user!.pgd, vpn);
  const word = pt.flags[slot];
  const kind = word & PTE_KIND;
  if ((kind !== PTE_PRESENT && kind !== PTE_PROTNONE) || (word & PTE_SPECIAL) !== 0) return 0;
  return (pt.entries[slot] & 0x7fff_ffff) + ((word & PTE_HUGE) === 0 ? 0 : vpn % 512);
}

/** What a load at `vpn` would see. */
export function contentAt(k: Kernel, mm: MmStruct, vpn: number): number {
  const pfn = pfnAt(k, mm, vpn);
  return pfn === 0 ? 0 : k.mm.pages.content[pfn];
}

/** A store: true when it was allowed. */
export function* store(k: Kernel, t: Task, vpn: number, value: number): Code<boolean> {
  const what = yield* access(k, t, vpn, true);
  if (what === 'sigsegv') return false;
  k.mm.pages.content[pfnAt(k, t.mm!, vpn)] = value;
  return true;
}

/** A load: what it sees, -1 for SIGSEGV. */
export function* load(k: Kernel, t: Task, vpn: number): Code<number> {
  const what = yield* access(k, t, vpn, false);
  return what === 'sigsegv' ? -1 : contentAt(k, t.mm!, vpn);
}

/** The VMAs of `mm`, as `start-end` in pages from `base` on. */
export function layout(mm: MmStruct, base: number): string[] {
  const rows: string[] = [];
  for (let vma = mm.user!.space.tree.first; vma !== null; vma = vma.next)
    rows.push(`${vma.start - base}-${vma.end - base}`);
  return rows;
}
