// mm/ksm.c, 6.18: the scan. One full scan: LRU batches drained, unstable tree forgotten, every
// anonymous page of every VM_MERGEABLE VMA looked at once, seqnr++. A page is merged at the second
// sight at the earliest: its checksum must be what it was at the scan before (since 6.11, RECALLED,
// before any tree is searched; the recorded 6.18 run agrees). Then: page of zeros, stable tree,
// unstable tree. Smart scan leaves out what did not merge for long, ever more often.

import type {Code} from '../../machine/engine.ts';
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
import {
  find_mergeable_vma,
  mappedAnon,
  try_to_merge_one_page,
  unmerge_ksm_pages,
} from './ksm_merge.ts';
import {RmapItem, type StableNode} from './ksm_tree.ts';
import {compound_head, folio_test_ksm, MAPPING_KSM, setMappingOwner} from './page.ts';
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
 * ksm_do_scan: at most `pages` pages; ends at the end of a full scan. Most pages stay as they are,
 * so what looks at one page (scan_get_next_rmap_item, cmp_and_merge_page up to a merge) is plain
 * code as far as it need not wait.
 */
export function* ksm_do_scan(ksm: Ksm, t: Task, pages: number): Code {
  const {k} = ksm;
  const {pages: frames} = ksm.mm;
  for (let left = pages; left > 0; ) {
    if (k.sched.needsResched(t)) yield* k.sched.condResched(t);
    if (!ksm.scanning && !beginScan(ksm, t)) return;
    if (ksm.cursor >= ksm.slots.length) {
      endScan(ksm);
      return;
    }
    const slot = ksm.slots[ksm.cursor];
    const {mmapLock} = slot.user;
    if (!mmapLock.readAcquire(t, ksm.fn)) yield* mmapLock.readAcquireSlow(t, ksm.fn);
    const item = slot.exited ? null : scan_get_next_rmap_item(ksm, t, slot);
    const {found} = ksm;
    let {merged} = ksm;
    if (item === null) {
      if (!slot.exited) endOfMm(ksm, slot);
    } else if (!merged) frames.refcount.increment(compound_head(frames, found));
    if (!mmapLock.readRelease(t)) {
      // Time passes, in which a page without a reference may go.
      if (item !== null && merged) frames.refcount.increment(found);
      merged = false;
      yield* mmapLock.readReleaseSlow(t);
    }
    if (item === null) {
      if (t.cpu.settle()) yield;
      continue;
    }
    left--;
    ksm.pagesScanned++;
    if (merged) continue;
    if (!staysAsItIs(ksm, t, item, found)) yield* cmp_and_merge_page(ksm, t, item, found);
    folio_put(k, t, compound_head(frames, found));
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
 * The next anonymous page of a mergeable VMA at or after the address; its number in `ksm.found`. In
 * `ksm.merged` whether it is a KSM page with this rmap_item, as most are: it needs no reference.
 */
function scan_get_next_rmap_item(ksm: Ksm, t: Task, slot: KsmSlot): RmapItem | null {
  const {user} = slot;
  let vma = find_vma(ksm, user);
  for (; vma !== null; vma = vma.next) {
    ksm.vma = vma;
    if ((vma.flags & VM_MERGEABLE) === 0 || vma.anonVma === null) continue;
    if (ksm.address < vma.start) ksm.address = vma.start;
    while (ksm.address < vma.end) {
      t.cpu.charge(ksm.costs.scanPageTicks, ksm.fn);
      const pfn = mappedAnon(ksm, user, ksm.address);
      const item = pfn === 0 ? null : get_next_rmap_item(ksm, slot);
      ksm.address++;
      if (item === null) continue;
      ksm.merged = ksm.trees.isOf(pfn, item);
      if (!ksm.merged && should_skip_rmap_item(ksm, item, pfn)) continue;
      ksm.found = pfn;
      return item;
    }
  }
  return null;
}

function find_vma(ksm: Ksm, user: UserMm): VmArea | null {
  const {events} = ksm.k.machine.engine;
  if (ksm.vmaEvent !== events) {
    ksm.vmaEvent = events;
    ksm.vma = user.space.tree.find(ksm.address);
  }
  return ksm.vma;
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

/** Smart scan: pages that did not merge for long are looked at ever more rarely. */
function should_skip_rmap_item(ksm: Ksm, item: RmapItem, pfn: number): boolean {
  const {pages} = ksm.mm;
  if (!ksm.settings.smartScan || folio_test_ksm(pages, compound_head(pages, pfn))) return false;
  const {age} = item;
  if (item.age < 255) item.age++;
  if (age < 3) return false;
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

/** The first tests of cmp_and_merge_page: true when they are all that there is to it. */
function staysAsItIs(ksm: Ksm, t: Task, item: RmapItem, pfn: number): boolean {
  const {trees} = ksm;
  const own = trees.nodeOf(pfn);
  if (own !== null) return item.node === own;
  remove_rmap_item_from_tree(ksm, item);
  return ksm.checksumFirst && checksumChanged(ksm, t, item, ksm.mm.pages.content[pfn]);
}

/** cmp_and_merge_page from there on: zero page, stable tree, unstable tree. */
function* cmp_and_merge_page(ksm: Ksm, t: Task, item: RmapItem, pfn: number): Code {
  const {trees, costs, settings} = ksm;
  const own = trees.nodeOf(pfn);
  const key = ksm.mm.pages.content[pfn];
  if (own === null && (yield* try_zero_page(ksm, t, item, pfn, key))) return;
  t.cpu.charge(trees.stableHeight * costs.treeStepTicks, ksm.fn);
  // A forked child maps KSM pages already: it is appended over the limit.
  const node = own ?? trees.search(trees.keyOf(pfn), settings.maxPageSharing);
  remove_rmap_item_from_tree(ksm, item);
  if (node !== null) {
    if (yield* mergeWith(ksm, t, item, pfn, node.pfn)) appendTo(ksm, item, node);
    return;
  }
  if (!ksm.checksumFirst && checksumChanged(ksm, t, item, key)) return;
  t.cpu.charge(trees.unstableHeight * costs.treeStepTicks, ksm.fn);
  const other = trees.searchUnstable(trees.keyOf(pfn), item, ksm.seqnr);
  if (other !== null) yield* mergeTwo(ksm, t, item, pfn, other, key);
}

/** The page changed since the last scan, or is seen for the first time: not now. */
function checksumChanged(ksm: Ksm, t: Task, item: RmapItem, key: number): boolean {
  t.cpu.charge(ksm.costs.checksumTicks, ksm.fn);
  if (item.oldChecksum === key) return false;
  item.oldChecksum = key;
  return true;
}

/** try_to_merge_with_zero_page: true when it has become the page of zeros. */
function* try_zero_page(
  ksm: Ksm,
  t: Task,
  item: RmapItem,
  pfn: number,
  key: number,
): Code<boolean> {
  if (!ksm.settings.useZeroPages || key !== 0 || item.oldChecksum !== 0) return false;
  return yield* mergeWith(ksm, t, item, pfn, -1);
}

/** try_to_merge_with_ksm_page: under mmap_lock for read. */
function* mergeWith(ksm: Ksm, t: Task, item: RmapItem, pfn: number, target: number): Code<boolean> {
  const {mmapLock} = item.user;
  if (!mmapLock.readAcquire(t, ksm.fn)) yield* mmapLock.readAcquireSlow(t, ksm.fn);
  const vma = find_mergeable_vma(item.user, item.vpn);
  const good = vma !== null && (yield* try_to_merge_one_page(ksm, t, vma, item.vpn, pfn, target));
  if (good && target >= 0) {
    remove_rmap_item_from_tree(ksm, item);
    item.anonVma = vma.anonVma;
    ksm.mm.anon.get(item.anonVma!);
  }
  if (!mmapLock.readRelease(t)) yield* mmapLock.readReleaseSlow(t);
  ksm.trace?.merge(target === 0, target < 0, item.user, item.vpn, good);
  return good;
}

function appendTo(ksm: Ksm, item: RmapItem, node: StableNode): void {
  ksm.trees.removeUnstable(item);
  ksm.trees.append(item, node);
}

/** try_to_merge_two_pages and stable_tree_insert: the page at hand becomes the KSM page. */
function* mergeTwo(
  ksm: Ksm,
  t: Task,
  item: RmapItem,
  pfn: number,
  other: RmapItem,
  key: number,
): Code {
  const {trees, k} = ksm;
  const {pages} = k.mm;
  const otherPfn = mappedAnon(ksm, other.user, other.vpn);
  if (otherPfn === 0 || otherPfn === pfn || pages.content[otherPfn] !== key) {
    // It changed since it was put there: the search goes past it.
    trees.removeUnstable(other);
    trees.searchUnstable(trees.keyOf(pfn), item, ksm.seqnr);
    return;
  }
  pages.refcount.increment(compound_head(pages, otherPfn));
  const oneFolio = compound_head(pages, otherPfn) === compound_head(pages, pfn);
  let merged = false;
  if (yield* mergeWith(ksm, t, item, pfn, 0)) {
    merged = true;
    const node = trees.insert(trees.keyOf(pfn), pfn);
    setMappingOwner(pages, pfn, MAPPING_KSM, node.id);
    appendTo(ksm, item, node);
    if (yield* mergeWith(ksm, t, other, otherPfn, pfn)) appendTo(ksm, other, node);
    else yield* break_cow(ksm, t, item);
  }
  folio_put(k, t, compound_head(pages, otherPfn));
  // Both pages are of one folio, which our own references have kept from being split.
  const {split_folio} = k.mm.hooks;
  if (!merged && oneFolio && split_folio !== null) {
    yield* split_folio(t, compound_head(pages, pfn), pfn);
  }
}

/** break_cow: the second page would not merge, the first gets a copy of its own again. */
function* break_cow(ksm: Ksm, t: Task, item: RmapItem): Code {
  remove_rmap_item_from_tree(ksm, item);
  const {mmapLock} = item.user;
  if (!mmapLock.readAcquire(t, ksm.fn)) yield* mmapLock.readAcquireSlow(t, ksm.fn);
  const vma = find_mergeable_vma(item.user, item.vpn);
  if (vma !== null) yield* unmerge_ksm_pages(ksm, t, vma, item.vpn, item.vpn + 1);
  if (!mmapLock.readRelease(t)) yield* mmapLock.readReleaseSlow(t);
}
