// mm/ksm.c, 6.18: KSM's state, its daemon, and which mms it goes round: madvise(MADV_MERGEABLE),
// prctl (ksm_merge_any.ts) and fork put an mm on the list, exit takes it off. ksmd looks at
// pages_to_scan pages (ksm_scan.ts), merges what is equal (ksm_merge.ts) with its trees
// (ksm_tree.ts), and sleeps; ksm_sysfs.ts are its files.
//
// What a page holds is told from outside (pages.content), a class number per page; who writes to a
// page gives it a new one. Not modelled: the advisor, swapping KSM pages out (reclaim finds no
// mapping of theirs), merging in PROT_NONE mappings.

import type {Code} from '../../machine/process.ts';
import {nsToTicks as ns} from '../../machine/time.ts';
import {scaledCosts} from '../costs.ts';
import {startProcess} from '../init_task.ts';
import type {Kernel} from '../kernel.ts';
import {Mutex} from '../locking/mutex.ts';
import type {MmStruct} from '../mm_types.ts';
import {JIFFY_TICKS} from '../sched/tunables.ts';
import type {Task} from '../task.ts';
import {isBefore} from '../version.ts';
import {unmerge_ksm_pages} from './ksm_merge.ts';
import {ksm_execve} from './ksm_merge_any.ts';
import {ksm_do_scan} from './ksm_scan.ts';
import {KsmTrees, type RmapItem} from './ksm_tree.ts';
import type {Mm} from './mm_state.ts';
import {MMF_VM_MERGEABLE, type UserMm} from './user_mm.ts';
import type {VmArea} from './vma.ts';

/** /sys/kernel/mm/ksm. */
export interface KsmSettings {
  run: boolean;
  pagesToScan: number;
  sleepMs: number;
  maxPageSharing: number;
  useZeroPages: boolean;
  smartScan: boolean;
}

/**
 * Base costs in ticks. Measured: ksmd's CPU time by pages_scanned, on Linux 6.18 in a 2-vCPU EPYC
 * guest, divided by that machine's kernelWork (docs/calibration.md).
 */
const COSTS_KSM = {
  /** xxhash of 4 KiB: all pages changed since the last scan, without what follows. */
  checksumTicks: ns(310),
  /** memcmp of two equal pages. Assumption. */
  compareTicks: ns(250),
  /** One step down a tree: memcmp up to the first difference, one miss; heights 12 to 15.6. */
  treeStepTicks: ns(76),
  /** One page looked at: walk, rmap_item; what a page costs that is merged already. */
  scanPageTicks: ns(80),
};

/**
 * jhash2 of 4 KiB, until 5.0: 1,569 MB/s against xxhash's 8,770 on one machine (the change that
 * replaced it), so 5.6 times as long.
 */
const JHASH2_TICKS = ns(1680);

/** An mm on ksmd's list: ksm_mm_slot. */
export class KsmSlot {
  /** The pages that ksmd knows (rmap_list), by address. */
  first: RmapItem | null = null;
  /** The one at which this scan is; null before the first. */
  at: RmapItem | null = null;
  /** This scan has come past pages that are gone. */
  passed = false;
  exited = false;

  constructor(readonly user: UserMm) {}
}

/** Who wants to know what ksmd does, as the tracepoints of ksm.c tell it. */
export interface KsmTrace {
  /** ksm_start_scan and ksm_stop_scan. */
  scan(start: boolean, seq: number, rmapItems: number): void;
  /**
   * ksm_merge_with_ksm_page: the page at `vpn` (one that becomes a KSM page when `first`). A page
   * of zeros instead of a KSM page: ksm_merge_one_page.
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
  /** find_vma(address) as it was in the event `vmaEvent`: nobody else has run while it goes on. */
  vma: VmArea | null = null;
  vmaEvent = -1;
  /** The PTE before the address; -1 when that is not known to be in the same page table. */
  pte = -1;
  /** The page at which the scan has just arrived. */
  found = 0;
  item: RmapItem | null = null;
  /** Pages that ksmd still looks at before it sleeps. */
  left = 0;
  scanning = false;
  private idle = false;

  constructor(
    readonly k: Kernel,
    readonly mm: Mm,
  ) {
    this.trees = new KsmTrees(mm.pages);
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

  /** The scan goes on at the beginning of the mm at the cursor. */
  rewind(): void {
    this.address = 0;
    this.vmaEvent = -1;
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
  const ksm = new Ksm(k, mm);
  const {hooks} = mm;
  hooks.ksm_madvise = (t, vma, start, end, on) => ksm_madvise(ksm, t, vma, start, end, on);
  hooks.ksm_fork = (_t, child, parent) => {
    if ((parent.user?.ksmSlot ?? null) !== null) ksm_enter(ksm, mm.userOf(child));
  };
  hooks.ksm_exit = (t, mm) => ksm_exit(ksm, t, mm);
  hooks.ksm_execve = (t, next) => ksm_execve(ksm, t, next);
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
    ksm_enter(ksm, ksm.mm.byId(vma.space.mmId)!);
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

/** The mm leaves the list; the cursor stays where it is. */
export function removeSlot(ksm: Ksm, slot: KsmSlot): void {
  const at = ksm.slots.indexOf(slot);
  if (at < 0) return;
  ksm.slots.splice(at, 1);
  if (at < ksm.cursor) ksm.cursor--;
  else if (at === ksm.cursor) ksm.rewind();
}

/** remove_rmap_item_from_tree. */
export function remove_rmap_item_from_tree(ksm: Ksm, item: RmapItem): void {
  ksm.trees.removeItem(item);
  ksm.trees.removeUnstable(item);
  if (item.anonVma !== null) ksm.mm.anon.put(item.anonVma);
  item.anonVma = null;
}

/** remove_trailing_rmap_items from the first one on: ksmd knows no page of this mm any more. */
export function dropItems(ksm: Ksm, slot: KsmSlot): void {
  for (let item = slot.first; item !== null; item = item.next) forget(ksm, item);
  slot.first = null;
  slot.at = null;
  slot.passed = false;
}

/** free_rmap_item. */
export function forget(ksm: Ksm, item: RmapItem): void {
  remove_rmap_item_from_tree(ksm, item);
  item.user.ksmRmapItems--;
  ksm.rmapItems--;
}
