// mm/ksm.c, 6.18: ksmd. It goes round the mergeable mms, pages_to_scan at a time, and merges pages
// of equal content. One full scan: LRU batches drained, unstable tree forgotten, every anonymous
// page of every VM_MERGEABLE VMA looked at once, seqnr++. A page is merged at the second sight at
// the earliest: its checksum must be what it was at the scan before (since 6.11, RECALLED, before
// any tree is searched; the recorded 6.18 run agrees). Then: page of zeros, stable tree, unstable
// tree. Trees and counters are in ksm_tree.ts, the merging of a pair of pages in ksm_merge.ts.
//
// What a page holds is told from outside (pages.content), a class number per page; who writes to a
// page gives it a new one. Not modelled: the advisor, swapping KSM pages out
// (reclaim finds no mapping of theirs), VMAs merged by prctl are those with VM_MERGEABLE.

import type {Code} from '../../machine/engine.ts';
import {nsToTicks as ns} from '../../machine/time.ts';
import {scaledCosts} from '../costs.ts';
import {startProcess} from '../init_task.ts';
import type {Kernel} from '../kernel.ts';
import {Mutex} from '../locking/mutex.ts';
import type {MmStruct} from '../mm_types.ts';
import {JIFFY_TICKS} from '../sched/tunables.ts';
import type {Task} from '../task.ts';
import {isBefore} from '../version.ts';
import {lru_add_drain_all} from './folio_lru.ts';
import {
  find_mergeable_vma,
  mappedAnon,
  try_to_merge_one_page,
  unmerge_ksm_pages,
} from './ksm_merge.ts';
import {KsmTrees, RmapItem, type StableNode} from './ksm_tree.ts';
import type {Mm} from './mm_state.ts';
import {compound_head, folio_test_ksm, MAPPING_KSM, type Pages, setMappingOwner} from './page.ts';
import {folio_put} from './page_alloc.ts';
import {MMF_VM_MERGEABLE, type UserMm} from './user_mm.ts';
import type {VmArea} from './vma.ts';
import {VM_MERGEABLE} from './vma_flags.ts';

/** /sys/kernel/mm/ksm. */
export interface KsmSettings {
  run: boolean;
  pagesToScan: number;
  sleepMs: number;
  maxPageSharing: number;
  useZeroPages: boolean;
  smartScan: boolean;
}

/** Base costs in ticks; all assumptions, from the bytes each touches. */
const COSTS_KSM = {
  /** xxhash of 4 KiB. */
  checksumTicks: ns(300),
  /** memcmp of two equal pages. */
  compareTicks: ns(250),
  /** One step down a tree: memcmp up to the first difference, one miss. */
  treeStepTicks: ns(90),
  /** One page looked at: walk, rmap_item. */
  scanPageTicks: ns(60),
};

/**
 * jhash2 of 4 KiB, until 5.0: 1,569 MB/s against xxhash's 8,770 on one machine (the change that
 * replaced it), so 5.6 times as long.
 */
const JHASH2_TICKS = ns(1680);

/** An mm on ksmd's list. */
export class KsmSlot {
  readonly items = new Map<number, RmapItem>();
  exited = false;

  constructor(readonly user: UserMm) {}
}

/** Who wants to know what ksmd does, as the tracepoints of ksm.c tell it. */
export interface KsmTrace {
  /** ksm_start_scan and ksm_stop_scan. */
  scan(start: boolean, seq: number, rmapItems: number): void;
  /**
   * ksm_merge_with_ksm_page: the page at `vpn` (one that becomes a KSM page when `first`). A page of
   * zeros instead of a KSM page: ksm_merge_one_page.
   */
  merge(first: boolean, zero: boolean, user: UserMm, vpn: number, good: boolean): void;
}

/** Number of ksmd, one that no trace has: below init's stand-in. */
export const KSMD_TID = 2 ** 31 - 2;

/** State of KSM. */
export class Ksm {
  readonly settings: KsmSettings = {
    run: false,
    pagesToScan: 100,
    sleepMs: 20,
    maxPageSharing: 256,
    useZeroPages: false,
    smartScan: true,
  };
  readonly trees: KsmTrees;
  readonly slots: KsmSlot[] = [];
  readonly mutex: Mutex;
  readonly costs: Readonly<Record<keyof typeof COSTS_KSM, number>>;
  readonly fn: number;
  readonly checksumFirst: boolean;
  /** Pages of zeros that replace others are told from ordinary ones (6.6+). */
  readonly tracksZeros: boolean;
  seqnr = 0;
  fullScans = 0;
  pagesScanned = 0;
  pagesSkipped = 0;
  zeroPages = 0;
  rmapItems = 0;
  task: Task | null = null;
  trace: KsmTrace | null = null;
  /** At the end of the full scan after which most pages were saved. */
  readonly peak = {shared: 0, sharing: 0, unshared: 0, volatile: 0};
  /** Slot that is scanned, slots.length at the start of a full scan; where it goes on. */
  cursor = 0;
  address = 0;
  scanning = false;
  private idle = false;

  constructor(
    readonly k: Kernel,
    pages: Pages,
  ) {
    this.trees = new KsmTrees(pages);
    const {version} = k.facts;
    if (isBefore(version, '6.7')) this.settings.smartScan = false;
    if (isBefore(version, '4.13')) this.settings.maxPageSharing = Infinity;
    this.mutex = new Mutex(k, 'ksm_thread_mutex');
    const checksumTicks = isBefore(version, '5.0') ? JHASH2_TICKS : COSTS_KSM.checksumTicks;
    this.costs = scaledCosts({...COSTS_KSM, checksumTicks}, k.machine.topology.kernelWork);
    this.fn = k.fn('ksm_scan_thread');
    this.checksumFirst = !isBefore(version, '6.11');
    this.tracksZeros = !isBefore(version, '6.6');
  }

  /** pages_volatile: rmap_items in no tree. Linux computes it without a lock, and never below 0. */
  get pagesVolatile(): number {
    const {pagesShared, pagesSharing, pagesUnshared} = this.trees;
    return Math.max(0, this.rmapItems - pagesShared - pagesSharing - pagesUnshared);
  }

  /** Wakes ksmd when it has nothing to wait for any more. */
  wakeup(): void {
    if (this.task !== null && this.idle) this.k.sched.wake(this.task);
  }

  /** ksm_scan_thread. */
  *main(t: Task): Code {
    const {sched} = this.k;
    for (;;) {
      while (!this.settings.run || this.slots.length === 0) {
        this.idle = true;
        yield* sched.block(t, {name: 'mergeable memory'});
        this.idle = false;
      }
      if (!this.mutex.acquire(t, this.fn)) yield* this.mutex.acquireSlow(t, this.fn);
      yield* ksm_do_scan(this, t, this.settings.pagesToScan);
      if (!this.mutex.release(t)) yield* this.mutex.releaseSlow(t);
      yield* sched.sleep(t, timeoutTicks(this.k, this.settings.sleepMs));
    }
  }
}

/** schedule_timeout(msecs_to_jiffies(ms)): to the timer tick that ends the last of so many. */
function timeoutTicks(k: Kernel, ms: number): number {
  const jiffies = Math.max(1, Math.ceil(ns(ms * 1e6) / JIFFY_TICKS));
  const {now} = k.machine.engine;
  return (Math.floor(now / JIFFY_TICKS) + jiffies) * JIFFY_TICKS - now;
}

/** Makes KSM part of a kernel: installs its hooks. ksmd is started apart. */
export function install_ksm(k: Kernel, mm: Mm): Ksm {
  const ksm = new Ksm(k, mm.pages);
  const {hooks} = mm;
  hooks.ksm_madvise = (t, vma, start, end, on) => ksm_madvise(ksm, t, vma, start, end, on);
  hooks.ksm_fork = (_t, child, parent) => {
    if ((parent.user?.ksmSlot ?? null) !== null) ksm_enter(ksm, mm.userOf(child));
  };
  hooks.ksm_exit = (t, mm) => ksm_exit(ksm, t, mm);
  hooks.ksm_zap = (user) => {
    if (user.ksmZeroPages === 0) return;
    ksm.zeroPages--;
    user.ksmZeroPages--;
  };
  return ksm;
}

/** ksmd as a kernel thread with the number `tid`, and run = 1. */
export function start_ksmd(ksm: Ksm, tid: number): Task {
  const program = (t: Task): Code => ksm.main(t);
  const task = startProcess(ksm.k, {tid, comm: 'ksmd', program, kernelThread: true});
  task.process!.daemon = true;
  ksm.task = task;
  ksm.settings.run = true;
  return task;
}

/** __ksm_enter: behind the cursor, so that a full scan under way does not see it... unless last. */
export function ksm_enter(ksm: Ksm, user: UserMm): void {
  if (user.ksmSlot !== null) return;
  const slot = new KsmSlot(user);
  user.ksmSlot = slot;
  user.flags |= MMF_VM_MERGEABLE;
  const first = ksm.slots.length === 0;
  if (ksm.scanning && ksm.cursor < ksm.slots.length) ksm.slots.splice(ksm.cursor++, 0, slot);
  else ksm.slots.push(slot);
  if (first) ksm.wakeup();
}

function* ksm_madvise(
  ksm: Ksm,
  t: Task,
  vma: VmArea,
  start: number,
  end: number,
  on: boolean,
): Code<number> {
  if (on) {
    ksm_enter(ksm, ksm.k.mm.byId(vma.space.mmId)!);
    return 0;
  }
  return vma.anonVma === null ? 0 : yield* unmerge_ksm_pages(ksm, t, vma, start, end);
}

/** __ksm_exit, before page tables go: ksmd forgets the mm; if it is in it, waits for mmap_lock. */
function* ksm_exit(ksm: Ksm, t: Task, mm: MmStruct): Code {
  const {user} = mm;
  const slot = (user?.ksmSlot ?? null) as KsmSlot | null;
  if (user === null || slot === null) return;
  slot.exited = true;
  user.ksmSlot = null;
  user.flags &= ~MMF_VM_MERGEABLE;
  dropItems(ksm, slot);
  removeSlot(ksm, slot);
  const {mmapLock} = user;
  if (!mmapLock.writeAcquire(t, ksm.fn)) yield* mmapLock.writeAcquireSlow(t, ksm.fn);
  if (!mmapLock.writeRelease(t)) yield* mmapLock.writeReleaseSlow(t);
}

function removeSlot(ksm: Ksm, slot: KsmSlot): void {
  const at = ksm.slots.indexOf(slot);
  if (at < 0) return;
  ksm.slots.splice(at, 1);
  if (at < ksm.cursor) ksm.cursor--;
  else if (at === ksm.cursor) ksm.address = 0;
}

/** remove_rmap_item_from_tree. */
export function remove_rmap_item_from_tree(ksm: Ksm, item: RmapItem): void {
  ksm.trees.removeItem(item);
  ksm.trees.removeUnstable(item);
  if (item.anonVma !== null) ksm.k.mm.anon.put(item.anonVma);
  item.anonVma = null;
}

/** remove_trailing_rmap_items from the first one on: ksmd knows no page of this mm any more. */
export function dropItems(ksm: Ksm, slot: KsmSlot): void {
  for (const item of slot.items.values()) forget(ksm, item);
  slot.items.clear();
}

/** free_rmap_item. */
function forget(ksm: Ksm, item: RmapItem): void {
  remove_rmap_item_from_tree(ksm, item);
  item.user.ksmRmapItems--;
  ksm.rmapItems--;
}

function notePeak({trees, peak, pagesVolatile}: Ksm): void {
  if (trees.pagesSharing < peak.sharing) return;
  peak.shared = trees.pagesShared;
  peak.sharing = trees.pagesSharing;
  peak.unshared = trees.pagesUnshared;
  peak.volatile = pagesVolatile;
}

/** ksm_do_scan: at most `pages` pages; ends at the end of a full scan. */
export function* ksm_do_scan(ksm: Ksm, t: Task, pages: number): Code {
  const {k} = ksm;
  for (let left = pages; left > 0; left--) {
    if (k.sched.needsResched(t)) yield* k.sched.condResched(t);
    const found = yield* scan_get_next_rmap_item(ksm, t);
    if (found === null) return;
    const {item, pfn} = found;
    ksm.pagesScanned++;
    yield* cmp_and_merge_page(ksm, t, item, pfn);
    folio_put(k, t, compound_head(k.mm.pages, pfn));
  }
}

interface Found {
  readonly item: RmapItem;
  readonly pfn: number;
}

/** scan_get_next_rmap_item: with a reference to the page; null at the end of a full scan. */
function* scan_get_next_rmap_item(ksm: Ksm, t: Task): Code<Found | null> {
  const {k} = ksm;
  if (ksm.slots.length === 0) return null;
  if (!ksm.scanning) {
    ksm.scanning = true;
    ksm.trace?.scan(true, ksm.seqnr, ksm.rmapItems);
    ksm.cursor = 0;
    ksm.address = 0;
    lru_add_drain_all(k, t);
    ksm.trees.prune();
    ksm.trees.clearUnstable();
  }
  while (ksm.cursor < ksm.slots.length) {
    const slot = ksm.slots[ksm.cursor];
    const {mmapLock} = slot.user;
    if (!mmapLock.readAcquire(t, ksm.fn)) yield* mmapLock.readAcquireSlow(t, ksm.fn);
    const found = slot.exited ? null : nextInMm(ksm, t, slot);
    if (found !== null) k.mm.pages.refcount.increment(compound_head(k.mm.pages, found.pfn));
    else if (!slot.exited) endOfMm(ksm, slot);
    if (!mmapLock.readRelease(t)) yield* mmapLock.readReleaseSlow(t);
    if (found !== null) return found;
    if (t.cpu.settle()) yield;
  }
  ksm.scanning = false;
  ksm.trace?.scan(false, ksm.seqnr, ksm.rmapItems);
  ksm.seqnr++;
  ksm.fullScans++;
  notePeak(ksm);
  return null;
}

/** The next anonymous page of a mergeable VMA at or after the address. */
function nextInMm(ksm: Ksm, t: Task, slot: KsmSlot): Found | null {
  const {user} = slot;
  let vma = user.space.tree.find(ksm.address);
  for (; vma !== null; vma = vma.next) {
    if ((vma.flags & VM_MERGEABLE) === 0 || vma.anonVma === null) continue;
    if (ksm.address < vma.start) ksm.address = vma.start;
    while (ksm.address < vma.end) {
      const vpn = ksm.address++;
      t.cpu.charge(ksm.costs.scanPageTicks, ksm.fn);
      const pfn = mappedAnon(ksm, user, vpn);
      if (pfn === 0) continue;
      const item = itemFor(ksm, slot, vpn);
      if (!should_skip_rmap_item(ksm, item, pfn)) return {item, pfn};
    }
  }
  return null;
}

function itemFor(ksm: Ksm, slot: KsmSlot, vpn: number): RmapItem {
  let item = slot.items.get(vpn);
  if (item === undefined) {
    item = new RmapItem(slot.user, vpn);
    slot.items.set(vpn, item);
    slot.user.ksmRmapItems++;
    ksm.rmapItems++;
  }
  item.seen = ksm.seqnr;
  return item;
}

/** Smart scan: pages that did not merge for long are looked at ever more rarely. */
function should_skip_rmap_item(ksm: Ksm, item: RmapItem, pfn: number): boolean {
  const {pages} = ksm.k.mm;
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
  for (const item of slot.items.values()) {
    if (item.seen === ksm.seqnr) continue;
    slot.items.delete(item.vpn);
    forget(ksm, item);
  }
  ksm.address = 0;
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

/** cmp_and_merge_page. */
function* cmp_and_merge_page(ksm: Ksm, t: Task, item: RmapItem, pfn: number): Code {
  const {trees, costs, settings} = ksm;
  const {pages} = ksm.k.mm;
  const own = trees.nodeOf(pfn);
  if (own !== null && item.node === own) return;
  const key = pages.content[pfn];
  if (own === null) {
    remove_rmap_item_from_tree(ksm, item);
    if (ksm.checksumFirst && checksumChanged(ksm, t, item, key)) return;
    if (yield* try_zero_page(ksm, t, item, pfn, key)) return;
  }
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
    ksm.k.mm.anon.get(item.anonVma!);
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
