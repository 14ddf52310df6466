// mm/ksm.c, 6.18: the scan. One full scan: LRU batches drained, unstable tree forgotten, every
// anonymous page of every VM_MERGEABLE VMA looked at once (ksm_cmp.ts), seqnr++. Smart scan leaves
// out what did not merge for long, ever more often.
//
// The rmap_items of an mm are a list by address, along which the scan goes. Most pages stay as they
// are: of 515,000 looks at a page in the recorded run 9,000 led to a merge. So what is done for a
// page is plain code as far as it need not wait.

import type {Code} from '../../machine/process.ts';
import {pteSlot} from '../arch/x86/mm/pgtable.ts';
import type {Task} from '../task.ts';
import {lru_add_drain_all} from './folio_lru.ts';
import {
  dropItems,
  forget,
  type Ksm,
  type KsmSlot,
  remove_rmap_item_from_tree,
  removeSlot,
} from './ksm.ts';
import {findEqual, merge, staysAsItIs} from './ksm_cmp.ts';
import {anonOfPte, hugeAnon} from './ksm_merge.ts';
import {RmapItem} from './ksm_tree.ts';
import {compound_head, folio_test_ksm} from './page.ts';
import {folio_put} from './page_alloc.ts';
import {MMF_VM_MERGEABLE, type UserMm} from './user_mm.ts';
import type {VmArea} from './vma.ts';
import {VM_MERGEABLE} from './vma_flags.ts';

function notePeak({trees, peak, pagesVolatile}: Ksm): void {
  if (trees.pagesSharing < peak.sharing) return;
  peak.shared = trees.pagesShared;
  peak.sharing = trees.pagesSharing;
  peak.unshared = trees.pagesUnshared;
  peak.volatile = pagesVolatile;
}

/**
 * Where scan_pages stops: before a page; before the lock of one is taken or given back; at a page.
 */
const BEFORE = 0;
const LOCKING = 1;
const UNLOCKING = 2;
const AT_PAGE = 3;

/** ksm_do_scan: at most `pages` pages; ends at the end of a full scan. */
export function* ksm_do_scan(ksm: Ksm, t: Task, pages: number): Code {
  const {k} = ksm;
  const {pages: frames} = ksm.mm;
  ksm.left = pages;
  while (ksm.left > 0) {
    if (k.sched.needsResched(t)) yield* k.sched.condResched(t);
    if (!ksm.scanning && !beginScan(ksm, t)) return;
    if (ksm.cursor >= ksm.slots.length) {
      endScan(ksm);
      return;
    }
    const slot = ksm.slots[ksm.cursor];
    const {mmapLock} = slot.user;
    let stop = scan_pages(ksm, t, slot, false);
    while (stop === LOCKING) {
      yield* mmapLock.readAcquireSlow(t, ksm.fn);
      stop = scan_pages(ksm, t, slot, true);
    }
    if (stop === BEFORE) continue;
    const {item, found} = ksm;
    if (item !== null) frames.refcount.increment(compound_head(frames, found));
    else if (!slot.exited) endOfMm(ksm, slot);
    if (stop === UNLOCKING || !mmapLock.readRelease(t)) yield* mmapLock.readReleaseSlow(t);
    if (item === null) {
      if (t.cpu.settle()) yield;
      continue;
    }
    ksm.left--;
    ksm.pagesScanned++;
    if (!staysAsItIs(ksm, t, item, found)) {
      const equal = findEqual(ksm, t, item, found);
      if (equal !== null) yield* merge(ksm, t, item, found, equal);
    }
    folio_put(k, t, compound_head(frames, found));
  }
}

/**
 * Goes along the pages of an mm as long as they are KSM pages that their rmap_items are about, as
 * most are: they need no reference, and nothing follows for them. `locked`: mmap_lock is taken.
 */
function scan_pages(ksm: Ksm, t: Task, slot: KsmSlot, locked: boolean): number {
  const {fn, trees} = ksm;
  const {sched} = ksm.k;
  const {mmapLock} = slot.user;
  for (let held = locked; ; held = false) {
    if (!held && !mmapLock.readAcquire(t, fn)) return LOCKING;
    const item = slot.exited ? null : scan_get_next_rmap_item(ksm, t, slot);
    ksm.item = item;
    if (item === null || !trees.isOf(ksm.found, item)) return AT_PAGE;
    if (!mmapLock.readRelease(t)) return UNLOCKING;
    ksm.pagesScanned++;
    if (--ksm.left === 0 || sched.needsResched(t)) return BEFORE;
  }
}

/** The start of a full scan; false when there is nothing to scan. */
function beginScan(ksm: Ksm, t: Task): boolean {
  if (ksm.slots.length === 0) return false;
  ksm.scanning = true;
  ksm.trace?.scan(true, ksm.seqnr, ksm.rmapItems);
  ksm.cursor = 0;
  ksm.rewind();
  lru_add_drain_all(ksm.k, t);
  ksm.trees.prune();
  ksm.trees.clearUnstable();
  return true;
}

function endScan(ksm: Ksm): void {
  ksm.scanning = false;
  ksm.trace?.scan(false, ksm.seqnr, ksm.rmapItems);
  ksm.seqnr++;
  ksm.fullScans++;
  notePeak(ksm);
}

/**
 * The next anonymous page of a mergeable VMA at or after the address; its number in `ksm.found`.
 */
function scan_get_next_rmap_item(ksm: Ksm, t: Task, slot: KsmSlot): RmapItem | null {
  const {mm, settings} = ksm;
  const {pages} = mm;
  for (let vma = find_vma(ksm, slot); vma !== null; vma = vma.next) {
    if ((vma.flags & VM_MERGEABLE) === 0 || vma.anonVma === null) continue;
    if (ksm.vma !== vma || ksm.address < vma.start) enterVma(ksm, vma);
    while (ksm.address < vma.end) {
      t.cpu.charge(ksm.costs.scanPageTicks, ksm.fn);
      const pte = nextPte(ksm, slot.user);
      const pfn = pte < 0 ? hugeAnon(mm, slot.user, ksm.address) : anonOfPte(mm, pte);
      const item = pfn === 0 ? null : get_next_rmap_item(ksm, slot);
      ksm.address++;
      if (item === null) continue;
      if (settings.smartScan && !folio_test_ksm(pages, pfn) && skips(ksm, item)) continue;
      ksm.found = pfn;
      return item;
    }
  }
  return null;
}

/** What the scan knows of its place holds as long as nobody else runs: in one event. */
function find_vma(ksm: Ksm, slot: KsmSlot): VmArea | null {
  const {events} = ksm.k.machine.engine;
  if (ksm.vmaEvent === events) return ksm.vma;
  ksm.vmaEvent = events;
  ksm.vma = slot.user.space.tree.find(ksm.address);
  ksm.pte = -1;
  return ksm.vma;
}

function enterVma(ksm: Ksm, vma: VmArea): void {
  ksm.vma = vma;
  if (ksm.address < vma.start) ksm.address = vma.start;
  ksm.pte = -1;
}

/**
 * Slot of the PTE at the address, -1 without a page table: in most cases the one after the last.
 */
function nextPte(ksm: Ksm, user: UserMm): number {
  const {pte, address} = ksm;
  ksm.pte = pte < 0 || (pte & 511) === 511 ? pteSlot(user.pgd, address) : pte + 1;
  return ksm.pte;
}

/** get_next_rmap_item: that of the page at the address; made when there is none. */
function get_next_rmap_item(ksm: Ksm, slot: KsmSlot): RmapItem {
  const {at} = slot;
  let item = at === null ? slot.first : at.next;
  if (item === null || item.vpn !== ksm.address) item = findItem(ksm, slot, item);
  slot.at = item;
  item.seen = ksm.seqnr;
  return item;
}

/** The same beyond `next`, the one after the last page: pages have gone or come. */
function findItem(ksm: Ksm, slot: KsmSlot, next: RmapItem | null): RmapItem {
  let {at} = slot;
  while (next !== null && next.vpn < ksm.address) {
    slot.passed = true;
    at = next;
    next = at.next;
  }
  if (next !== null && next.vpn === ksm.address) return next;
  const item = new RmapItem(slot.user, ksm.address, next);
  if (at === null) slot.first = item;
  else at.next = item;
  slot.user.ksmRmapItems++;
  ksm.rmapItems++;
  return item;
}

/**
 * should_skip_rmap_item: smart scan looks ever more rarely at pages that did not merge for long.
 */
function skips(ksm: Ksm, item: RmapItem): boolean {
  const {age} = item;
  if (age < 255) item.age++;
  return age >= 3 && skipsOld(ksm, item, age);
}

function skipsOld(ksm: Ksm, item: RmapItem, age: number): boolean {
  if (item.remainingSkips === 0) {
    item.remainingSkips = age <= 3 ? 1 : age <= 5 ? 2 : age <= 8 ? 4 : 8;
    return false;
  }
  ksm.pagesSkipped++;
  item.remainingSkips--;
  remove_rmap_item_from_tree(ksm, item);
  return true;
}

/** remove_trailing_rmap_items and what went missing on the way; the mm is done for this scan. */
function endOfMm(ksm: Ksm, slot: KsmSlot): void {
  let last = slot.passed ? null : slot.at;
  for (let item = last === null ? slot.first : last.next; item !== null; item = item.next) {
    if (item.seen === ksm.seqnr) {
      last = item;
      continue;
    }
    if (last === null) slot.first = item.next;
    else last.next = item.next;
    forget(ksm, item);
  }
  slot.at = null;
  slot.passed = false;
  ksm.rewind();
  if (hasMergeable(slot.user)) {
    ksm.cursor++;
    return;
  }
  slot.user.ksmSlot = null;
  slot.user.flags &= ~MMF_VM_MERGEABLE;
  dropItems(ksm, slot);
  removeSlot(ksm, slot);
}

function hasMergeable(user: UserMm): boolean {
  for (let vma = user.space.tree.first; vma !== null; vma = vma.next) {
    if ((vma.flags & VM_MERGEABLE) !== 0) return true;
  }
  return false;
}
