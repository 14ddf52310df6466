// What pages hold. KSM decides by it, and no trace of page faults states it: it is an input like
// the files that are mapped.
//
// A content is a class number: pages of equal class are equal, 0 is all zeros (a page that nobody
// wrote to). Generated traces state classes (write_content); for recordings they are inferred from
// what ksmd found equal (ksm_contents.ts) and belong to the write accesses that made them. A write
// of which nothing is known leaves a content that no other page has. A replay without KSM has no
// PageContents and pays nothing.

import {argNumber, type EventColumns} from '../formats/columns.ts';
import {KIND} from '../formats/kinds.ts';
import {LEVEL_PAGES, pteSlot, pteValue, walkSlot} from '../kernel/arch/x86/mm/pgtable.ts';
import {
  PTE_HUGE,
  PTE_KIND,
  PTE_PRESENT,
  PTE_SPECIAL,
  PTE_WRITE,
} from '../kernel/arch/x86/mm/pgtable_bits.ts';
import type {Kernel} from '../kernel/kernel.ts';
import type {Task} from '../kernel/task.ts';

/** Classes of contents that were inferred begin here; those that a trace states are below. */
export const FIRST_INFERRED = 2 ** 30;

/** Contents that writes leave behind, by event of the access or call, and page. */
export type WrittenContents = ReadonlyMap<number, ReadonlyMap<number, number>>;

/**
 * The same in the form that the replay looks it up: the pages of event i are those from first[i] to
 * before first[i + 1].
 */
export class WrittenPages {
  readonly first: Int32Array;
  readonly vpns: Float64Array;
  readonly contents: Int32Array;

  /** `events`: how many events the trace has. */
  constructor(written: WrittenContents, events: number) {
    let pages = 0;
    for (const ofEvent of written.values()) pages += ofEvent.size;
    this.first = new Int32Array(events + 1);
    this.vpns = new Float64Array(pages);
    this.contents = new Int32Array(pages);
    let at = 0;
    for (let i = 0; i < events; i++) {
      this.first[i] = at;
      for (const [vpn, content] of written.get(i) ?? []) {
        this.vpns[at] = vpn;
        this.contents[at++] = content;
      }
    }
    this.first[events] = at;
  }
}

/** Kinds by which a trace shows that it needs contents. */
const NEEDS_CONTENTS: ReadonlySet<number> = new Set([
  KIND.ksm_run,
  KIND.write_content,
  KIND.ksm_scan,
  KIND.ksm_merge_one,
  KIND.ksm_merge_with,
]);

/** True when KSM runs in this trace. Cost: one look at each event. */
export function needsContents(events: EventColumns, strings: readonly string[]): boolean {
  for (let i = 0; i < events.count; i++) {
    const kind = events.kind[i];
    if (NEEDS_CONTENTS.has(kind)) return true;
    if (kind === KIND.sysfs_write && strings[argNumber(events, i, 0)]?.includes('/ksm/'))
      return true;
  }
  return false;
}

/** Sets contents as tasks write. */
export class PageContents {
  /** Contents that no other page has count downwards. */
  private nextUnique = -1;
  private readonly content: Int32Array;

  constructor(
    private readonly kernel: Kernel,
    private readonly written: WrittenPages | null = null,
  ) {
    this.content = kernel.mm.pages.content;
  }

  /**
   * A write access to page `vpn` of t's mm is over: it holds what no other page does, unless more
   * is known (done).
   */
  wrote(t: Task, vpn: number): void {
    this.set(t, vpn, this.nextUnique--);
  }

  /** Pages that the call of event `i` brings in; undefined when nothing is known. */
  pagesOf(i: number): Float64Array | undefined {
    if (this.written === null) return undefined;
    const {first, vpns} = this.written;
    return first[i] === first[i + 1] ? undefined : vpns.subarray(first[i], first[i + 1]);
  }

  /**
   * The access or call of event `i` is over: pages that it wrote or brought in hold what is known
   * of them.
   */
  done(t: Task, i: number): void {
    if (this.written === null) return;
    const {first, vpns, contents} = this.written;
    for (let at = first[i]; at < first[i + 1]; at++) this.set(t, vpns[at], contents[at]);
  }

  /** Page `vpn`, if t can write to it, holds `content` from now on. */
  set(t: Task, vpn: number, content: number): void {
    const user = t.mm?.user ?? null;
    if (user === null) return;
    const {pt} = this.kernel.mm;
    let slot = pteSlot(user.pgd, vpn);
    if (slot < 0) slot = walkSlot(user.pgd, vpn);
    const word = pt.flags[slot];
    const present = (word & PTE_KIND) === PTE_PRESENT || (word & PTE_HUGE) !== 0;
    if (!present || (word & PTE_WRITE) === 0 || (word & PTE_SPECIAL) !== 0) return;
    const pfn = pteValue(pt, slot) + (vpn & (LEVEL_PAGES[pt.level[slot >>> 9]] - 1));
    this.content[pfn] = content;
  }
}
