// Looks at what fault-around did: which pages of a file were mapped in the window of a read fault.
// This is the simulated half of the evidence from which page_cache.ts infers what was cached when
// the recording began.

import {PTE_HUGE, PTE_KIND, PTE_PRESENT, PTE_PROTNONE} from '../kernel/arch/x86/mm/pgtable_bits.ts';
import {walkSlot} from '../kernel/arch/x86/mm/pgtable.ts';
import type {Kernel} from '../kernel/kernel.ts';
import type {UserMm} from '../kernel/mm/user_mm.ts';
import type {Task} from '../kernel/task.ts';
import type {CacheEvidence} from './page_cache.ts';
import type {RecordedFault} from './verify_record.ts';

const WINDOW_PAGES = 16;
const TABLE_PAGES = 512;

/** True when the entry of a page is present, as bit 0 of a fault's error code says. */
export function isMapped(k: Kernel, user: UserMm, vpn: number): boolean {
  const slot = walkSlot(user.pgd, vpn);
  if (slot < 0) return false;
  const flags = k.mm.pt.flags[slot];
  const kind = flags & PTE_KIND;
  return kind === PTE_PRESENT || kind === PTE_PROTNONE || (flags & PTE_HUGE) !== 0;
}

/** Pages that each kernel mapped; and whether this one took a fault too. */
export interface WindowResult {
  readonly recorded: number;
  readonly simulated: number;
  readonly faulted: boolean;
}

/** Watches one fault at a time. */
export class WindowWatch {
  private file = '';
  /**
   * Page of the file at the fault, and of the window's empty entries: virtual page and page of the
   * file.
   */
  private page = -1;
  /** The window has more than the faulting page. */
  private wide = false;
  private readonly pages: number[] = [];
  private readonly vpns: number[] = [];
  private user: UserMm | null = null;
  private span = {first: 0, end: 0, low: 0, high: 0};

  constructor(
    private readonly kernel: Kernel,
    private readonly nameOf: (mappingId: number) => string,
  ) {}

  /** A read of `vpn` begins. */
  began(t: Task, vpn: number): void {
    this.page = -1;
    this.pages.length = 0;
    this.vpns.length = 0;
    const user = t.mm?.user ?? null;
    const vma = user?.space.tree.lookup(vpn) ?? null;
    if (user === null || vma === null || vma.mapping === null || vma.mapping.host !== 'file')
      return;
    this.file = this.nameOf(vma.mapping.id);
    this.page = vma.pgoff + vpn - vma.start;
    const table = vpn - (vpn % TABLE_PAGES);
    const from = Math.max(vpn - (vpn % WINDOW_PAGES), vma.start);
    const end = Math.min(from + WINDOW_PAGES, table + TABLE_PAGES, vma.end);
    this.wide = end - from > 1;
    for (let at = from; at < end; at++) {
      if (isMapped(this.kernel, user, at)) continue;
      this.pages.push(vma.pgoff + at - vma.start);
      this.vpns.push(at);
    }
    const page = (at: number): number => vma.pgoff + at - vma.start;
    this.user = user;
    this.span = {
      first: page(from),
      end: page(end),
      low: page(Math.max(table, vma.start)),
      high: page(Math.min(table + TABLE_PAGES, vma.end)),
    };
  }

  /**
   * A write to `vpn` begins, which found the page mapped in the recording or not. Where it is
   * otherwise here, fault-around did something else before.
   */
  wrote(t: Task, vpn: number, op: number, recordedMapped: boolean, evidence: CacheEvidence): void {
    const user = t.mm?.user ?? null;
    const vma = user?.space.tree.lookup(vpn) ?? null;
    if (user === null || vma === null || vma.mapping === null || vma.mapping.host !== 'file')
      return;
    const mapped = isMapped(this.kernel, user, vpn);
    if (mapped === recordedMapped) return;
    const file = this.nameOf(vma.mapping.id);
    const page = vma.pgoff + vpn - vma.start;
    if (mapped) evidence.faultedAlone(op, file, page);
    else evidence.wasMapped(op, file, page);
  }

  /** It is over. */
  ended(
    {op, life, startNs, endNs}: RecordedFault,
    {recorded, simulated, faulted}: WindowResult,
    evidence: CacheEvidence,
  ): void {
    const {page, file, user, span, kernel} = this;
    if (page < 0 || recorded < 0 || user === null) return;
    evidence.faulted(op, life.index, file, page);
    if (!faulted) {
      if (recorded > 0) evidence.faultedAlone(op, file, page);
      return;
    }
    // The faulting page is mapped in any case; a fault that mapped nothing else may be one that
    // faulted alone.
    if (recorded === 1 && this.wide) evidence.faultedAlone(op, file, page);
    const pages = this.pages.filter((at) => at !== page);
    const passed = this.vpns.filter((vpn) => !isMapped(kernel, user, vpn)).length;
    const absent = simulated + passed - recorded;
    evidence.window({op, file, pages, absent, ...span, life: life.index, startNs, endNs});
  }
}
