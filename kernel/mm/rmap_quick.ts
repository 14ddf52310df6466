// mm/rmap.c's folio_referenced and try_to_unmap for a single anonymous page, as plain code: what
// rmap_unmap.ts does when nothing has to be waited for, without its generators and lists. Reclaim
// does both for every page it looks at, so this is what the speed of swapping hangs on.
//
// It applies when the rmap lock is free, no page-table lock is held across waiting, nobody listens
// to the mms, no mapping is locked, and flushes are local or batched (isQuick). All of it then
// happens at one simulated time, and what it cost is settled by the caller: nobody can come between
// taking the lock and giving it back.

import {pteClear, setPte} from '../arch/x86/mm/pgtable.ts';
import {PTE_DIRTY, PTE_HUGE, PTE_YOUNG} from '../arch/x86/mm/pgtable_bits.ts';
import type {Kernel} from '../kernel.ts';
import type {RwSemaphore} from '../locking/rwsem.ts';
import type {Task} from '../task.ts';
import {pte_lock, pte_unlock} from './memory_pte.ts';
import {MMU_NOTIFY_CLEAR} from './mmu_notifier_types.ts';
import {MAPPING_ANON, mappingId, mappingKind, page_pgoff} from './page.ts';
import {folio_put} from './page_alloc.ts';
import {PG_dirty, PG_head, PG_swapbacked} from './page_flags.ts';
import {folio_remove_rmap_pte, page_mapped_slot} from './rmap.ts';
import {replaceAnon} from './rmap_unmap.ts';
import {set_tlb_ubc_flush_pending, type UnmapBatch} from './rmap_unmap_flush.ts';
import type {UserMm} from './user_mm.ts';
import {type VmArea, vma_address} from './vma.ts';
import {VM_LOCKED} from './vma_flags.ts';

const SITE = 'try_to_unmap_one';

/** The places of one page, found once and used by both walks. */
export class QuickRmap {
  private lock: RwSemaphore | null = null;
  private readonly vmas: VmArea[] = [];
  private readonly users: UserMm[] = [];
  private readonly vpns: number[] = [];
  private count = 0;

  constructor(private readonly kernel: Kernel) {}

  /**
   * True when `head` can be handled here; the places are then known until the caller settles. The
   * task has settled; the folio is locked, mapped and small.
   */
  isQuick(t: Task, head: number, batch: UnmapBatch | null): boolean {
    const {mm, locks} = this.kernel;
    const {pages, ptl, anon: anonVmas, notifierFacts} = mm;
    const word = pages.flags[head];
    if ((word & (PG_head | PG_swapbacked)) !== PG_swapbacked) return false;
    if (mappingKind(pages, head) !== MAPPING_ANON || locks.lockdep !== null) return false;
    if (ptl.anyHeld || batch === null || !notifierFacts.rmapRange) return false;
    const anon = anonVmas.find(mappingId(pages, head));
    if (anon === null) return false;
    const index = page_pgoff(pages, head);
    const {forest} = anonVmas;
    this.count = 0;
    for (let node = forest.iterFirst(anon, index, index); node !== 0; ) {
      if (!this.addPlace(forest.item[node]!, index)) return false;
      node = forest.iterNext(node, index, index);
    }
    this.lock = mm.anonVmaLock(anon);
    // folio_referenced's own way into the lock and out of it.
    if (!this.lock.tryReadAcquire(t, mm.swap.fns.folio_referenced)) return false;
    this.lock.readReleaseAtOnce(t);
    return true;
  }

  private addPlace(vma: VmArea, index: number): boolean {
    const user = this.kernel.mm.byId(vma.space.mmId);
    if (user === null) return true;
    const vpn = vma_address(vma, index);
    if (vpn < 0) return true;
    if ((vma.flags & VM_LOCKED) !== 0 || user.notifierSubscriptions !== null) return false;
    this.vmas[this.count] = vma;
    this.users[this.count] = user;
    this.vpns[this.count++] = vpn;
    return true;
  }

  /** folio_referenced: PTEs of mms in `memcg` (0: of all) that were young. */
  referenced(t: Task, head: number, memcg: number): number {
    const {mm} = this.kernel;
    const {swap, pt} = mm;
    let ptes = 0;
    for (let i = 0; i < this.count; i++) {
      const user = this.users[i];
      if (memcg !== 0 && user.memcg !== memcg) continue;
      t.cpu.charge(swap.costs.rmapVmaTicks, swap.fns.folio_referenced);
      const slot = page_mapped_slot(this.kernel, user.pgd, this.vpns[i], head);
      if (slot < 0) continue;
      pte_lock(mm, t, slot, swap.fns.folio_referenced);
      if ((pt.flags[slot] & PTE_YOUNG) !== 0) ptes++;
      pt.flags[slot] &= ~PTE_YOUNG;
      pte_unlock(mm, t, slot);
    }
    return ptes;
  }

  /** try_to_unmap; the folio may stay mapped. */
  unmap(t: Task, head: number, batch: UnmapBatch): void {
    const {mm} = this.kernel;
    const {swap} = mm;
    this.lock!.tryReadAcquire(t, swap.fns.try_to_unmap);
    for (let i = 0; i < this.count; i++) {
      t.cpu.charge(swap.costs.rmapVmaTicks, swap.fns.try_to_unmap);
      this.notify(i, 'start');
      const go = this.unmapOne(t, head, i, batch);
      this.notify(i, 'end');
      if (!go || mm.pages.mapcount.isZero(head)) break;
    }
    this.lock!.readReleaseAtOnce(t);
  }

  /** The pair that nobody listens to: counted, traced. */
  private notify(i: number, name: 'start' | 'end'): void {
    const {mm} = this.kernel;
    const row = mm.notifierCounts.site(SITE);
    row[name][MMU_NOTIFY_CLEAR]++;
    if (name === 'start') row.pages++;
    if (mm.probe === null) return;
    const vpn = this.vpns[i];
    mm.probe.notifier(this.users[i].mm, name, MMU_NOTIFY_CLEAR, SITE, vpn, vpn + 1);
  }

  /** unmapLocked under the page-table lock. False: the page must stay. */
  private unmapOne(t: Task, head: number, i: number, batch: UnmapBatch): boolean {
    const {kernel} = this;
    const {mm, tlb} = kernel;
    const {swap, pt} = mm;
    const user = this.users[i];
    const vpn = this.vpns[i];
    const slot = page_mapped_slot(kernel, user.pgd, vpn, head);
    if (slot < 0 || (pt.flags[slot] & PTE_HUGE) !== 0) return true;
    pte_lock(mm, t, slot, swap.fns.try_to_unmap);
    const word = pt.flags[slot];
    t.cpu.charge(swap.costs.unmapPteTicks, swap.fns.try_to_unmap);
    pteClear(pt, slot);
    if (tlb.isLocal(t.cpu, user.mm)) tlb.flushLocal(t, user.mm, vpn, vpn + 1, false);
    else set_tlb_ubc_flush_pending(kernel, t, batch, user.mm);
    if ((word & PTE_DIRTY) !== 0) mm.pages.flags[head] |= PG_dirty;
    const gone = replaceAnon(kernel, t, head, user, slot, head, word);
    if (gone) {
      folio_remove_rmap_pte(kernel, t, head, head);
      folio_put(kernel, t, head);
    } else setPte(pt, slot, head, word);
    pte_unlock(mm, t, slot);
    return gone;
  }
}
