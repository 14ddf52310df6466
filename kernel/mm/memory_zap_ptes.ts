// mm/memory.c: the loop of zap_pte_range over the PTEs of one table, and what becomes of each kind
// of entry. Runs under the table's lock and does not wait.

import {
  is_migration_entry,
  MARKER_GUARD,
  PTE_DEVICE_EXCLUSIVE,
  PTE_DEVICE_READ,
  PTE_DIRTY,
  PTE_KIND,
  PTE_MARKER,
  PTE_PROTNONE,
  PTE_SOFT_DIRTY,
  PTE_SPECIAL,
  PTE_SWAP,
  PTE_YOUNG,
} from '../arch/x86/mm/pgtable_bits.ts';
import type {PgtableCursor} from '../arch/x86/mm/pgtable_range.ts';
import type {Kernel} from '../kernel.ts';
import type {Task} from '../task.ts';
import type {ZapDetails} from './memory_zap.ts';
import type {MmuGather} from './mmu_gather.ts';
import {compound_head, folio_nr_pages, folio_test_anon, type Pages} from './page.ts';
import {PG_dirty, PG_head, PG_referenced, PG_swapbacked, PG_tail} from './page_flags.ts';
import {folio_remove_rmap_pte} from './rmap.ts';
import {MM_ANONPAGES, MM_FILEPAGES, MM_SHMEMPAGES, MM_SWAPENTS} from './rss.ts';

const LARGE = PG_head | PG_tail;

/** zap_pte_range's loop and what it leaves behind. */
export class ZapLoop {
  readonly vec = new Int32Array(4);
  /** Flush before the lock is dropped, then free. */
  forceFlush = false;
  /** PTEs of the page at hand. */
  private refs = 1;

  /** Zaps a run under its lock. Returns how many entries it got through. */
  run(
    k: Kernel,
    t: Task,
    tlb: MmuGather,
    cursor: PgtableCursor,
    details: ZapDetails | null,
  ): number {
    const {mm} = k;
    const {pt, costs} = mm;
    const {slot, count, vpn} = cursor;
    const {entries, flags} = pt;
    const end = slot + count;
    let others = 0;
    let cleared = 0;
    let lowest = -1;
    let highest = -1;
    this.forceFlush = false;
    let at = pt.skipNone(slot, end);
    for (; at < end; at = pt.skipNone(at, end)) {
      const word = flags[at];
      if ((word & PTE_KIND) > PTE_PROTNONE) {
        others++;
        if (this.zapNonpresent(k, at, details)) cleared++;
        at++;
        continue;
      }
      let refs = 1;
      let full = false;
      if ((word & PTE_SPECIAL) === 0) {
        const head = this.zapPage(k, t, tlb, at, end - at, details);
        if (head < 0) {
          at++;
          continue;
        }
        refs = this.refs;
        full = tlb.addFolio(head, refs);
      } else if ((word & PTE_DIRTY) !== 0 && entries[at] === mm.zeroPfn) {
        // ksm_might_unmap_zero_page.
        mm.hooks.ksm_zap?.(tlb.mm.user!);
      }
      flags[at] = 0;
      entries[at] = 0;
      cleared += refs;
      if (lowest < 0) lowest = at;
      at += refs;
      highest = at;
      if (full) {
        this.forceFlush = true;
        break;
      }
    }
    pt.population[slot >>> 9] -= cleared;
    if (lowest >= 0) {
      tlb.adjust(vpn + (lowest - slot), highest - lowest);
      tlb.clearedPtes = true;
    }
    const ticks = cleared * costs.zapPteTicks + others * costs.zapOtherPteTicks;
    const scan = Math.round(count * costs.scanPteTicks);
    t.cpu.charge(ticks + scan + costs.zapTableTicks, mm.fns.zap_pte_range);
    return at - slot;
  }

  /** zap_present_ptes: head of the folio, -1 when it stays. `refs` PTEs are of it. */
  private zapPage(
    k: Kernel,
    t: Task,
    tlb: MmuGather,
    slot: number,
    most: number,
    details: ZapDetails | null,
  ): number {
    const {pt, pages} = k.mm;
    const pfn = pt.entries[slot];
    const word = pt.flags[slot];
    const small = (pages.flags[pfn] & LARGE) === 0;
    const head = small ? pfn : compound_head(pages, pfn);
    const anon = folio_test_anon(pages, head);
    if (details !== null) {
      if (anon && !details.evenCows) return -1;
      if (details.singleFolio !== 0 && head !== details.singleFolio) return -1;
    }
    if (anon) this.vec[MM_ANONPAGES]--;
    else this.noteFilePage(tlb, pages, head, word);
    this.refs = 1;
    if (small) {
      pages.mapcount.decrement(pfn);
      return head;
    }
    folio_remove_rmap_pte(k, t, head, pfn);
    const left = Math.min(most, head + folio_nr_pages(pages, head) - pfn);
    this.refs = this.zapRest(k, t, slot, left, head, anon, word);
    return head;
  }

  /**
   * folio_pte_batch: the PTEs after this one that map the following pages of the same folio alike.
   * Returns the run's length.
   */
  private zapRest(
    k: Kernel,
    t: Task,
    slot: number,
    most: number,
    head: number,
    anon: boolean,
    word: number,
  ): number {
    const {pt, pages} = k.mm;
    const {entries, flags} = pt;
    const pfn = entries[slot];
    const mask = ~(PTE_DIRTY | PTE_YOUNG | PTE_SOFT_DIRTY);
    let n = 1;
    while (n < most && entries[slot + n] === pfn + n && ((flags[slot + n] ^ word) & mask) === 0) {
      if (!anon && (flags[slot + n] & PTE_DIRTY) !== 0) pages.flags[head] |= PG_dirty;
      folio_remove_rmap_pte(k, t, head, pfn + n);
      flags[slot + n] = 0;
      entries[slot + n] = 0;
      n++;
    }
    const shmem = (pages.flags[head] & PG_swapbacked) !== 0;
    this.vec[anon ? MM_ANONPAGES : shmem ? MM_SHMEMPAGES : MM_FILEPAGES] -= n - 1;
    return n;
  }

  /** A page of a file or of shared memory goes: its dirty and accessed bits go to the folio. */
  private noteFilePage(tlb: MmuGather, pages: Pages, head: number, word: number): void {
    const pageFlags = pages.flags;
    const shmem = (pageFlags[head] & PG_swapbacked) !== 0;
    this.vec[shmem ? MM_SHMEMPAGES : MM_FILEPAGES]--;
    if ((word & PTE_DIRTY) !== 0) {
      pageFlags[head] |= PG_dirty;
      tlb.delayedRmap = true;
      this.forceFlush = true;
    }
    if ((word & PTE_YOUNG) !== 0) pageFlags[head] |= PG_referenced;
  }

  /** zap_nonpresent_ptes. True when the entry is gone. */
  private zapNonpresent(k: Kernel, slot: number, details: ZapDetails | null): boolean {
    const evenCows = details === null || details.evenCows;
    const dropMarkers = details?.dropMarkers === true;
    const {pt, pages, hooks} = k.mm;
    const word = pt.flags[slot];
    const value = pt.entries[slot];
    const kind = word & PTE_KIND;
    if (kind === PTE_SWAP) {
      if (!evenCows) return false;
      this.vec[MM_SWAPENTS]--;
      hooks.free_swap_and_cache?.(value, 1);
    } else if (kind === PTE_MARKER) {
      if ((value & MARKER_GUARD) !== 0 && !dropMarkers) return false;
    } else if (is_migration_entry(word)) {
      const head = compound_head(pages, value);
      const anon = folio_test_anon(pages, head);
      if (anon && !evenCows) return false;
      const file = (pages.flags[head] & PG_swapbacked) === 0 ? MM_FILEPAGES : MM_SHMEMPAGES;
      this.vec[anon ? MM_ANONPAGES : file]--;
    } else if (kind >= PTE_DEVICE_READ && kind <= PTE_DEVICE_EXCLUSIVE) {
      this.vec[MM_ANONPAGES]--;
      this.dropDevicePage(k, value);
    }
    pt.flags[slot] = 0;
    pt.entries[slot] = 0;
    return true;
  }

  private dropDevicePage(k: Kernel, pfn: number): void {
    const {pages} = k.mm;
    const head = compound_head(pages, pfn);
    pages.mapcount.decrement(pfn);
    pages.refcount.decrement(head);
  }
}
