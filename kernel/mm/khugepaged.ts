// mm/khugepaged.c, 6.18: the daemon that replaces pages by huge pages. It keeps a list of mms that
// have memory where huge pages may be, goes around it with one cursor (mm, address), looks at
// pages_to_scan (4096) pages, and sleeps scan_sleep (10 s). mmap_lock is only tried for: a busy mm
// is passed over. What is looked at and how 2 MB are replaced is in khugepaged_collapse.ts.

import type {Code} from '../../machine/process.ts';
import {nsToTicks} from '../../machine/time.ts';
import {startProcess} from '../init_task.ts';
import type {MmStruct} from '../mm_types.ts';
import type {Task} from '../task.ts';
import {lru_add_drain_all} from './folio_lru.ts';
import {HPAGE_PMD_NR, type HugeMemory, suitable} from './huge_memory.ts';
import {
  hpage_collapse_scan_pmd,
  SCAN_FAILED_AFTER_UNLOCK,
  SCAN_SUCCEED,
} from './khugepaged_collapse.ts';
import type {UserMm} from './user_mm.ts';
import {type VmArea, vma_is_anonymous} from './vma.ts';

/** /sys/kernel/mm/transparent_hugepage/khugepaged. Times in milliseconds, sizes in pages. */
export interface KhugepagedSettings {
  pagesToScan: number;
  scanSleepMs: number;
  allocSleepMs: number;
  maxPtesNone: number;
  maxPtesSwap: number;
  maxPtesShared: number;
}

/** One mm on the list. */
class MmSlot {
  /** Where the scan of this mm goes on. */
  address = 0;

  constructor(readonly user: UserMm) {}
}

/** State of the daemon. */
export class Khugepaged {
  readonly settings: KhugepagedSettings = {
    pagesToScan: 4096,
    scanSleepMs: 10_000,
    allocSleepMs: 60_000,
    maxPtesNone: HPAGE_PMD_NR - 1,
    maxPtesSwap: HPAGE_PMD_NR / 8,
    maxPtesShared: HPAGE_PMD_NR / 2,
  };
  /** In order of entry; the scan begins at `cursor`. */
  readonly slots: MmSlot[] = [];
  cursor = 0;
  fullScans = 0;
  pagesCollapsed = 0;
  /** The last allocation of a huge page failed: sleep allocSleepMs. */
  allocFailed = false;
  task: Task | null = null;
  private idle = false;

  constructor(readonly huge: HugeMemory) {}

  /** Somebody entered an empty list. */
  wakeup(): void {
    if (this.task !== null && this.idle) this.huge.k.sched.wake(this.task);
  }

  /** The daemon's life. */
  *main(t: Task): Code {
    const {k} = this.huge;
    for (;;) {
      while (this.slots.length === 0) {
        this.idle = true;
        yield* k.sched.block(t, {name: 'memory for khugepaged'});
        this.idle = false;
      }
      yield* khugepaged_do_scan(this, t);
      const {scanSleepMs, allocSleepMs} = this.settings;
      const ms = this.allocFailed ? allocSleepMs : scanSleepMs;
      this.allocFailed = false;
      if (this.slots.length > 0) yield* k.sched.sleep(t, nsToTicks(ms * 1e6));
    }
  }
}

/**
 * start_stop_khugepaged: the daemon as a kernel thread with the number `tid`. `scanTicks`: it does
 * not sleep by its settings but scans at these times, as a recorded one did.
 */
export function start_khugepaged(
  huge: HugeMemory,
  tid: number,
  scanTicks: readonly number[] | null = null,
): Task {
  const {khugepaged, k} = huge;
  const program = (t: Task): Code =>
    scanTicks === null ? khugepaged.main(t) : scanAt(khugepaged, t, scanTicks);
  const task = startProcess(k, {tid, comm: 'khugepaged', program, kernelThread: true});
  task.process!.daemon = true;
  khugepaged.task = task;
  return task;
}

function* scanAt(khugepaged: Khugepaged, t: Task, scanTicks: readonly number[]): Code {
  const {k} = khugepaged.huge;
  for (const at of scanTicks) {
    const early = at - k.machine.engine.now;
    if (early > 0) yield* k.sched.sleep(t, early);
    yield* khugepaged_do_scan(khugepaged, t);
  }
  yield* k.sched.block(t, {name: 'the end of the recording'});
}

/** khugepaged_enter_vma: the mm of this VMA goes onto the list if huge pages may be there. */
export function khugepaged_enter_vma(
  huge: HugeMemory,
  _t: Task,
  vma: VmArea,
  flags = vma.flags,
): void {
  const user = huge.k.mm.byId(vma.space.mmId);
  if (user === null || user.khugepagedSlot !== null) return;
  if (!vma_is_anonymous(vma) || !huge.allowed(vma, flags) || !hasRoom(vma)) return;
  enter(huge.khugepaged, user);
}

function enter(khugepaged: Khugepaged, user: UserMm): void {
  const slot = new MmSlot(user);
  user.khugepagedSlot = slot;
  khugepaged.slots.push(slot);
  if (khugepaged.slots.length === 1) khugepaged.wakeup();
}

function hasRoom(vma: VmArea): boolean {
  return suitable(vma, Math.ceil(vma.start / HPAGE_PMD_NR) * HPAGE_PMD_NR, HPAGE_PMD_NR);
}

/** khugepaged_fork: the child of a listed mm is listed. */
export function khugepaged_fork(
  huge: HugeMemory,
  _t: Task,
  child: MmStruct,
  parent: MmStruct,
): void {
  if ((parent.user?.khugepagedSlot ?? null) === null) return;
  const user = huge.k.mm.userOf(child);
  if (user.khugepagedSlot === null) enter(huge.khugepaged, user);
}

/**
 * khugepaged_exit, before page tables go. If the daemon is in this mm it holds mmap_lock: waits for
 * it. The huge zero folio loses a user here, too.
 */
export function* khugepaged_exit(huge: HugeMemory, t: Task, mm: MmStruct): Code {
  const {user} = mm;
  if (user === null) return;
  huge.putHugeZero(user);
  const slot = user.khugepagedSlot;
  if (slot === null) return;
  const {khugepaged} = huge;
  const at = khugepaged.slots.indexOf(slot as MmSlot);
  user.khugepagedSlot = null;
  khugepaged.slots.splice(at, 1);
  if (at < khugepaged.cursor) khugepaged.cursor--;
  const {mmapLock} = user;
  if (!mmapLock.writeAcquire(t, huge.fnZap)) yield* mmapLock.writeAcquireSlow(t, huge.fnZap);
  if (!mmapLock.writeRelease(t)) yield* mmapLock.writeReleaseSlow(t);
}

/** khugepaged_do_scan: one batch. */
export function* khugepaged_do_scan(khugepaged: Khugepaged, t: Task): Code {
  const {k} = khugepaged.huge;
  let progress = 0;
  let wrapped = 0;
  lru_add_drain_all(k, t);
  while (progress < khugepaged.settings.pagesToScan && khugepaged.slots.length > 0) {
    if (k.sched.needsResched(t)) yield* k.sched.condResched(t);
    if (khugepaged.cursor >= khugepaged.slots.length) {
      khugepaged.cursor = 0;
      khugepaged.fullScans++;
      wrapped++;
    }
    // pass_through_head: around the whole list once.
    if (wrapped >= 2) return;
    const left = khugepaged.settings.pagesToScan - progress;
    progress += yield* khugepaged_scan_mm_slot(khugepaged, t, left);
    if (khugepaged.allocFailed) return;
  }
}

/** khugepaged_scan_mm_slot: goes on in the mm at the cursor. Returns its progress in pages. */
function* khugepaged_scan_mm_slot(khugepaged: Khugepaged, t: Task, pages: number): Code<number> {
  const {huge} = khugepaged;
  const slot = khugepaged.slots[khugepaged.cursor];
  const {user} = slot;
  const {mmapLock} = user;
  let progress = 0;
  if (t.cpu.settle()) yield;
  if (!mmapLock.tryReadAcquire(t, huge.fnFault)) {
    nextSlot(khugepaged, slot);
    return 1;
  }
  progress++;
  let vma = user.space.tree.find(slot.address);
  for (; vma !== null; vma = vma.next) {
    const first = Math.ceil(vma.start / HPAGE_PMD_NR) * HPAGE_PMD_NR;
    const last = vma.end - (vma.end % HPAGE_PMD_NR);
    if (!vma_is_anonymous(vma) || !huge.allowed(vma) || first >= last) {
      progress++;
      continue;
    }
    if (slot.address > last) continue;
    if (slot.address < first) slot.address = first;
    while (slot.address < last) {
      const address = slot.address;
      slot.address += HPAGE_PMD_NR;
      progress += HPAGE_PMD_NR;
      const result = yield* hpage_collapse_scan_pmd(huge, t, vma, address, true);
      if (result === SCAN_SUCCEED) khugepaged.pagesCollapsed++;
      if (result >= SCAN_FAILED_AFTER_UNLOCK) return progress;
      if (progress >= pages) {
        if (!mmapLock.readRelease(t)) yield* mmapLock.readReleaseSlow(t);
        return progress;
      }
    }
  }
  if (!mmapLock.readRelease(t)) yield* mmapLock.readReleaseSlow(t);
  nextSlot(khugepaged, slot);
  return progress;
}

function nextSlot(khugepaged: Khugepaged, slot: MmSlot): void {
  slot.address = 0;
  const at = khugepaged.slots.indexOf(slot);
  if (at >= 0) khugepaged.cursor = at + 1;
}
