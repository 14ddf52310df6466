// kernel/events/uprobes.c: writing one instruction into one process's page, by generation.
//
//   3.5 to 6.15   the page is replaced: a new private page with the changed text, in a CLEAR pair
//                 of one page (__replace_page): clear, flush, [IR], change_pte, new PTE. When the
//                 last breakpoint goes [5.4+], the private page goes instead, and the file's comes
//                 with the next fault.
//   6.16 on       registering takes a write fault for an exclusive private page (which notifies as
//                 any COW) and changes that in place: PTE cleared, flushed, set dirty, no pair.
//                 Unregistering sends a CLEAR pair and drops the page when nobody else refers to
//                 it, else changes it.
// The caller holds mmap_lock for write. FILE -1 ANON +1 where a file page becomes private, ANON -1
// where a private page goes.

import type {Code} from '../../machine/process.ts';
import {nsToTicks} from '../../machine/time.ts';
import {pteClear, pteSlot, setPte, walkSlot} from '../arch/x86/mm/pgtable.ts';
import {PTE_HUGE, PTE_KIND, PTE_PRESENT} from '../arch/x86/mm/pgtable_bits.ts';
import type {Kernel} from '../kernel.ts';
import {folio_mapcount, folio_mapped} from '../mm/folio_counts.ts';
import {folio_add_lru_vma} from '../mm/folio_lru.ts';
import {follow_page} from '../mm/gup.ts';
import {handle_mm_fault, is_fault_error} from '../mm/memory.ts';
import {anon_vma_prepare} from '../mm/memory_anon.ts';
import {mm_counter_file} from '../mm/memory_file.ts';
import {PTE_DIRTIED, PTE_MAPPED, pte_lock, pte_unlock} from '../mm/memory_pte.ts';
import {
  change_pte,
  invalidate_secondary_tlbs,
  mmu_notifier_invalidate_range_end,
  mmu_notifier_invalidate_range_start,
} from '../mm/mmu_notifier.ts';
import {MMU_NOTIFY_CLEAR, MmuNotifierRange} from '../mm/mmu_notifier_types.ts';
import {compound_head, folio_test_anon} from '../mm/page.ts';
import {alloc_folio, alloc_folio_slow, folio_put} from '../mm/page_alloc.ts';
import {PG_anon_exclusive, PG_swapcache, PG_uptodate} from '../mm/page_flags.ts';
import {folio_lock, folio_unlock} from '../mm/page_io.ts';
import {folio_add_new_anon_rmap, folio_remove_rmap_pte} from '../mm/rmap.ts';
import {MM_ANONPAGES} from '../mm/rss.ts';
import {add_mm_counter} from '../mm/rss_stat.ts';
import type {UserMm} from '../mm/user_mm.ts';
import {FAULT_FLAG_REMOTE, FAULT_FLAG_WRITE} from '../mm/vm_fault.ts';
import type {VmArea} from '../mm/vma.ts';
import type {Task} from '../task.ts';
import {isBefore} from '../version.ts';

/** verify_opcode and the copy of one instruction. Assumption. */
const OPCODE_TICKS = nsToTicks(120);
/** Tries of one page; Linux has no limit. */
const MAX_TRIES = 64;

/**
 * How it went: the page was a file's, or private to the process already; `nothing`: there was no
 * breakpoint to remove.
 */
export type Written = 'shared' | 'private' | 'nothing' | 'failed';

/** One page to write. */
interface Site {
  readonly user: UserMm;
  readonly vma: VmArea;
  readonly vpn: number;
  readonly register: boolean;
  /** Without the breakpoint the page is as in the file. */
  readonly identical: boolean;
  readonly fn: number;
}

/** uprobe_write_opcode (uprobe_write since 6.16). */
export function* uprobe_write_opcode(
  k: Kernel,
  t: Task,
  user: UserMm,
  vma: VmArea,
  vpn: number,
  register: boolean,
  identical: boolean,
): Code<Written> {
  const fn = k.fn('uprobe_write_opcode');
  const site: Site = {user, vma, vpn, register, identical, fn};
  const inPlace = !isBefore(k.facts.version, '6.16');
  const was = follow_page(k, user, vpn, 0);
  const wasAnon = was > 0 && folio_test_anon(k.mm.pages, compound_head(k.mm.pages, was));
  for (let tries = 0; tries < MAX_TRIES; tries++) {
    const exclusive = inPlace && (register || tries > 0);
    const pfn = yield* getPage(k, t, site, exclusive);
    if (pfn <= 0) return 'failed';
    const head = compound_head(k.mm.pages, pfn);
    t.cpu.charge(OPCODE_TICKS, fn);
    if (!register && !folio_test_anon(k.mm.pages, head)) {
      folio_put(k, t, head);
      return 'nothing';
    }
    const done = inPlace
      ? yield* writeInPlace(k, t, site, pfn)
      : yield* replacePage(k, t, site, pfn);
    folio_put(k, t, head);
    if (done === 'failed') return done;
    if (done === 'done') return wasAnon ? 'private' : 'shared';
  }
  return 'failed';
}

/**
 * get_user_pages_remote with FOLL_FORCE | FOLL_SPLIT_PMD: pfn with a reference to its folio, 0 when
 * there is none. `exclusive`: with FOLL_WRITE, a private page that is this process's alone.
 */
function* getPage(k: Kernel, t: Task, site: Site, exclusive: boolean): Code<number> {
  const {mm} = k;
  const {pages, pt} = mm;
  const {user, vma, vpn} = site;
  for (let tries = 0; tries < MAX_TRIES; tries++) {
    if (t.cpu.settle()) yield;
    const pfn = follow_page(k, user, vpn, 0);
    const head = pfn > 0 ? compound_head(pages, pfn) : 0;
    const fits = !exclusive || (head !== 0 && mayWrite(k, head, pfn));
    if (head !== 0 && fits) {
      const slot = walkSlot(user.pgd, vpn);
      if ((pt.flags[slot] & PTE_HUGE) === 0 || mm.hooks.split_huge === null) {
        pages.refcount.increment(head);
        return pfn;
      }
      yield* mm.hooks.split_huge(t, vma, slot, vpn);
      continue;
    }
    const flags = FAULT_FLAG_REMOTE | (exclusive ? FAULT_FLAG_WRITE : 0);
    if (is_fault_error(yield* handle_mm_fault(k, t, user.mm, vma, vpn, flags))) return 0;
  }
  return 0;
}

function mayWrite(k: Kernel, head: number, pfn: number): boolean {
  const {pages} = k.mm;
  return folio_test_anon(pages, head) && (pages.flags[pfn] & PG_anon_exclusive) !== 0;
}

type Attempt = 'done' | 'again' | 'failed';

/** The PTE's slot with its lock held, if it still maps `pfn`; -1 without the lock. */
function* lockSame(k: Kernel, t: Task, site: Site, pfn: number): Code<number> {
  const {mm} = k;
  for (;;) {
    if (t.cpu.settle()) yield;
    const slot = pteSlot(site.user.pgd, site.vpn);
    if (slot < 0) return -1;
    if (!pte_lock(mm, t, slot, site.fn)) {
      yield* mm.ptl.spin(t, slot >>> 9, site.fn);
      continue;
    }
    const present = (mm.pt.flags[slot] & PTE_KIND) === PTE_PRESENT;
    if (present && mm.pt.entries[slot] === pfn) return slot;
    pte_unlock(mm, t, slot);
    return -1;
  }
}

/** ptep_clear_flush, the lock held. */
function* clearFlush(k: Kernel, t: Task, site: Site, slot: number): Code {
  const {mm} = k;
  const {user, vpn} = site;
  pteClear(mm.pt, slot);
  mm.ptl.hold(slot >>> 9);
  yield* k.tlb.flush_tlb_mm_range(t, user.mm, vpn, vpn + 1, false);
  mm.ptl.unhold(slot >>> 9);
}

function pair(site: Site, name: string): MmuNotifierRange {
  const {user, vma, vpn} = site;
  return new MmuNotifierRange(MMU_NOTIFY_CLEAR, user.mm, vma, vpn, vpn + 1, name);
}

/** Up to 6.15. */
function* replacePage(k: Kernel, t: Task, site: Site, old: number): Code<Attempt> {
  const {mm} = k;
  const {user, vma, vpn} = site;
  anon_vma_prepare(k, t, vma, 0);
  // 5.4+: the file's own page serves again.
  const drops = site.identical && !isBefore(k.facts.version, '5.4');
  const fresh = drops ? 0 : yield* newCopy(k, t, site, old);
  if (fresh < 0) return 'failed';
  const head = compound_head(mm.pages, old);
  yield* folio_lock(k, t, head);
  const range = pair(site, '__replace_page');
  yield* mmu_notifier_invalidate_range_start(k, t, range);
  const slot = yield* lockSame(k, t, site, old);
  if (slot >= 0) {
    const anon = folio_test_anon(mm.pages, head);
    if (fresh > 0) {
      folio_add_new_anon_rmap(k, fresh, vma, vpn);
      folio_add_lru_vma(k, t, fresh, vma);
    } else {
      add_mm_counter(k, t, user.mm, MM_ANONPAGES, -1);
    }
    if (!anon) {
      add_mm_counter(k, t, user.mm, mm_counter_file(k, head), -1);
      add_mm_counter(k, t, user.mm, MM_ANONPAGES, 1);
    }
    yield* clearFlush(k, t, site, slot);
    if (mm.notifierFacts.secondaryTlb === 'range') {
      invalidate_secondary_tlbs(k, t, user.mm, vpn, vpn + 1);
    }
    if (fresh > 0) {
      change_pte(k, t, user.mm, vpn, fresh);
      setPte(mm.pt, slot, fresh, PTE_MAPPED);
    }
    t.cpu.charge(mm.costs.setPteTicks, site.fn);
    dropOld(k, t, head, old);
    pte_unlock(mm, t, slot);
  }
  yield* mmu_notifier_invalidate_range_end(k, t, range);
  folio_unlock(k, head);
  if (slot < 0 && fresh > 0) folio_put(k, t, fresh);
  return slot < 0 ? 'again' : 'done';
}

/** The mapping's rmap and reference. */
function dropOld(k: Kernel, t: Task, head: number, pfn: number): void {
  const {mm} = k;
  folio_remove_rmap_pte(k, t, head, pfn);
  const cached = (mm.pages.flags[head] & PG_swapcache) !== 0;
  if (cached && !folio_mapped(mm.pages, head)) mm.hooks.free_swap_cache?.(t, head);
  folio_put(k, t, head);
}

/** A private page with the old one's text; -1 when there is no memory. */
function* newCopy(k: Kernel, t: Task, site: Site, old: number): Code<number> {
  const {mm} = k;
  const {user, vma, vpn} = site;
  const node = mm.nodeFor(vma, vpn, t);
  let pfn = alloc_folio(k, t, 0, node, user.memcg);
  if (pfn < 0) pfn = yield* alloc_folio_slow(k, t, 0, node, user.memcg);
  if (pfn <= 0) return -1;
  mm.pages.flags[pfn] |= PG_uptodate;
  if (mm.pages.hasContent) mm.pages.content[pfn] = mm.pages.content[old];
  t.cpu.charge(mm.costs.copyPageTicks, site.fn);
  return pfn;
}

/** 6.16+. */
function* writeInPlace(k: Kernel, t: Task, site: Site, pfn: number): Code<Attempt> {
  const range = pair(site, 'uprobe_write');
  if (!site.register) yield* mmu_notifier_invalidate_range_start(k, t, range);
  const slot = yield* lockSame(k, t, site, pfn);
  let result: Attempt = 'again';
  if (slot >= 0) {
    // -EFAULT otherwise: a write fault makes it this process's own first.
    if (mayWrite(k, compound_head(k.mm.pages, pfn), pfn)) {
      yield* modify(k, t, site, slot, pfn);
      result = 'done';
    }
    pte_unlock(k.mm, t, slot);
  }
  if (!site.register) yield* mmu_notifier_invalidate_range_end(k, t, range);
  return result;
}

/** __uprobe_write, under the lock. */
function* modify(k: Kernel, t: Task, site: Site, slot: number, pfn: number): Code {
  const {mm} = k;
  const {pt, pages} = mm;
  const word = pt.flags[slot];
  const head = compound_head(pages, pfn);
  yield* clearFlush(k, t, site, slot);
  t.cpu.charge(mm.costs.setPteTicks, site.fn);
  const cached = (pages.flags[head] & PG_swapcache) === 0 ? 0 : 1;
  const alone = pages.refcount.get(head) === folio_mapcount(pages, head) + cached + 1;
  if (site.register || !site.identical || !alone || site.vma.uffd !== 0) {
    setPte(pt, slot, pfn, word | PTE_DIRTIED);
    return;
  }
  add_mm_counter(k, t, site.user.mm, MM_ANONPAGES, -1);
  dropOld(k, t, head, pfn);
}
