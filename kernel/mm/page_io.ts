// mm/page_io.c and what reading and writing single folios needs: a block device that serves
// requests in order, the folio lock, and waiting for writeback.
//
// Nothing in a recording describes the disk behind a swap area, so the device has two numbers: the
// latency of one request and the bandwidth that all requests share. A request submitted while
// others are in flight ends when the data before it and its own are through, plus the latency; a
// write is done when the device says so, and nobody waits for it unless he must: for the folio, or
// for one of the queue's requests. Completion is an interrupt on the CPU that submitted.

import type {Cpu} from '../../machine/cpu.ts';
import {PRIORITY} from '../../machine/priorities.ts';
import {type Code, Timer} from '../../machine/process.ts';
import {nsToTicks} from '../../machine/time.ts';
import type {Kernel} from '../kernel.ts';
import {WaitQueue} from '../sched/wait_queue.ts';
import type {Task} from '../task.ts';
import {blk_flush_plug, plug_write} from './blk_plug.ts';
import {PG_locked, PG_reclaim, PG_swapcache, PG_uptodate, PG_writeback} from './page_flags.ts';
import {swp_offset} from './swap_map.ts';

/** A swap device as users describe it. */
export interface SwapDeviceOptions {
  readonly latencyNs?: number;
  readonly bytesPerSecond?: number;
}

/**
 * virtio-blk on a local SSD: what makes the median fault of the sample recording that reads one
 * page (67 us with its tracepoints) as long here. The bandwidth is an assumption.
 */
const LATENCY_NS = 42_000;
const BYTES_PER_SECOND = 1.2e9;
/**
 * Body of the completion interrupt: the request with its first folio, and each further one.
 * Assumption.
 */
const COMPLETION_TICKS = nsToTicks(900);
const FOLIO_TICKS = nsToTicks(150);
const NO_PARTS: readonly number[] = [];
const PAGE_BYTES = 4096;

/**
 * nr_requests of a queue with mq-deadline, and how many must end before sleepers are woken
 * (sbitmap's wake_batch). Counted in pages, as if none were merged.
 */
const NR_REQUESTS = 256;
const WAKE_BATCH = 8;

/** Called when a folio that reclaim wants back soon has been written. */
export type Rotate = (k: Kernel, head: number) => void;

/** A power of two. */
const FIRST_CAPACITY = 64;

/** A block device with one queue. */
export class SwapDevice {
  /** Pages read and written. */
  readPages = 0;
  writtenPages = 0;
  private readonly latencyTicks: number;
  private readonly pageTicks: number;
  /** The transfers asked for so far end here. */
  private freeTick = 0;
  /**
   * Requests under way, a ring from `first` on: when each ends, on whose behalf, its folio and
   * pages, negative for a write. Reclaim may have many thousands waiting here.
   */
  private endTick = new Float64Array(FIRST_CAPACITY);
  private cpuId = new Int32Array(FIRST_CAPACITY);
  private folio = new Int32Array(FIRST_CAPACITY);
  private signedPages = new Int32Array(FIRST_CAPACITY);
  private first = 0;
  private waiting = 0;
  private rotate: Rotate | null = null;
  private readonly timer: Timer;
  private readonly kernel: Kernel;

  constructor(kernel: Kernel, options: SwapDeviceOptions = {}) {
    this.kernel = kernel;
    this.latencyTicks = nsToTicks(options.latencyNs ?? LATENCY_NS);
    const pageNs = (PAGE_BYTES / (options.bytesPerSecond ?? BYTES_PER_SECOND)) * 1e9;
    this.pageTicks = nsToTicks(pageNs);
    this.timer = new Timer(kernel.machine.engine, () => this.complete());
  }

  /** submit_bio of a read: the folio is locked, and unlocked when it has arrived. */
  read(cpu: Cpu, head: number, pages: number): void {
    this.readPages += pages;
    this.submit(cpu, head, pages, false);
  }

  /** submit_bio of a write of a folio under writeback. The submitter does not wait. */
  write(cpu: Cpu, head: number, pages: number, rotate: Rotate): void {
    this.rotate = rotate;
    this.writtenPages += pages;
    this.submit(cpu, head, pages, true);
  }

  /** One request for several folios side by side on the device: they are done together. */
  writeRequest(cpu: Cpu, heads: readonly number[], sizes: readonly number[], rotate: Rotate): void {
    this.rotate = rotate;
    let pages = 0;
    for (const n of sizes) pages += n;
    this.writtenPages += pages;
    this.transfer(cpu, pages);
    for (let i = 0; i < heads.length; i++) this.enqueue(cpu, heads[i], sizes[i], true);
  }

  private submit(cpu: Cpu, head: number, pages: number, write: boolean): void {
    this.transfer(cpu, pages);
    this.enqueue(cpu, head, pages, write);
  }

  private transfer(cpu: Cpu, pages: number): void {
    const now = this.kernel.machine.engine.now + cpu.pendingTicks;
    this.freeTick = Math.max(now, this.freeTick) + pages * this.pageTicks;
  }

  private enqueue(cpu: Cpu, head: number, pages: number, write: boolean): void {
    const {engine} = this.kernel.machine;
    if (this.waiting === this.endTick.length) this.grow();
    const at = (this.first + this.waiting++) & (this.endTick.length - 1);
    this.endTick[at] = this.freeTick + this.latencyTicks;
    this.cpuId[at] = cpu.id;
    this.folio[at] = head;
    this.signedPages[at] = write ? -pages : pages;
    if (this.waiting === 1) engine.schedule(this.timer, this.endTick[at], PRIORITY.timer);
  }

  /** The first request's time has come: an interrupt on the CPU that submitted it. */
  private complete(): void {
    const {machine, sched} = this.kernel;
    const {first} = this;
    const head = this.folio[first];
    const pages = this.signedPages[first];
    const others = this.restOfRequest();
    this.first = (first + 1 + others.length / 2) & (this.endTick.length - 1);
    this.waiting -= 1 + others.length / 2;
    if (this.waiting > 0) {
      const endTick = Math.max(this.endTick[this.first], machine.engine.now);
      machine.engine.schedule(this.timer, endTick, PRIORITY.timer);
    }
    sched.interrupt(machine.cpus[this.cpuId[first]], () => {
      if (pages < 0) this.endWrite(head, -pages);
      else this.endRead(head);
      for (let i = 0; i < others.length; i += 2) this.endWrite(others[i], -others[i + 1]);
      return COMPLETION_TICKS + (others.length / 2) * FOLIO_TICKS;
    });
  }

  /** Folio and pages of each further part of the first request: those that end at the same time. */
  private restOfRequest(): readonly number[] {
    const {first, endTick} = this;
    const mask = endTick.length - 1;
    if (this.waiting === 1 || endTick[(first + 1) & mask] !== endTick[first]) return NO_PARTS;
    const parts: number[] = [];
    for (let i = 1; i < this.waiting; i++) {
      const at = (first + i) & mask;
      if (endTick[at] !== endTick[first]) break;
      parts.push(this.folio[at], this.signedPages[at]);
    }
    return parts;
  }

  private endRead(head: number): void {
    this.kernel.mm.pages.flags[head] |= PG_uptodate;
    folio_unlock(this.kernel, head);
  }

  private endWrite(head: number, n: number): void {
    const {pages, swap} = this.kernel.mm;
    const wanted = (pages.flags[head] & PG_reclaim) !== 0;
    pages.flags[head] &= ~(PG_writeback | PG_reclaim);
    swap.writebacks -= n;
    if (wanted) this.rotate!(this.kernel, head);
    swap.waits.wake(head);
    if (!swap.throttled.isEmpty) swap.throttled.wakeAll();
    if (!swap.tags.isEmpty && swap.writebacks <= NR_REQUESTS - WAKE_BATCH) swap.tags.wakeAll();
  }

  private grow(): void {
    const rotated = <T extends Float64Array | Int32Array>(old: T, larger: T): T => {
      larger.set(old.subarray(this.first));
      larger.set(old.subarray(0, this.first), old.length - this.first);
      return larger;
    };
    const length = this.endTick.length * 2;
    this.endTick = rotated(this.endTick, new Float64Array(length));
    this.cpuId = rotated(this.cpuId, new Int32Array(length));
    this.folio = rotated(this.folio, new Int32Array(length));
    this.signedPages = rotated(this.signedPages, new Int32Array(length));
    this.first = 0;
  }
}

/** folio_wait_table: queues shared by hash; whoever is woken looks at his folio again. */
const WAIT_QUEUES = 64;

/** The queues of tasks that wait for a folio's lock or writeback. */
export class FolioWaits {
  private readonly queues: (WaitQueue | undefined)[] = new Array(WAIT_QUEUES);
  private readonly kernel: Kernel;

  constructor(kernel: Kernel) {
    this.kernel = kernel;
  }

  queue(head: number): WaitQueue {
    const at = head % WAIT_QUEUES;
    this.queues[at] ??= new WaitQueue(this.kernel, 'folio_wait_table');
    return this.queues[at];
  }

  wake(head: number): void {
    const queue = this.queues[head % WAIT_QUEUES];
    if (queue !== undefined && !queue.isEmpty) queue.wakeAll();
  }
}

/**
 * Waits until a folio has none of `bits`; the caller holds a reference and has not settled. With
 * `killable`, false when a fatal signal ended the wait; else true.
 */
function* folio_wait_bits(
  k: Kernel,
  t: Task,
  head: number,
  bits: number,
  killable = false,
): Code<boolean> {
  const {pages, swap} = k.mm;
  if (t.cpu.settle()) yield;
  if ((pages.flags[head] & bits) === 0) return true;
  const queue = swap.waits.queue(head);
  let free = true;
  t.se.killable = killable;
  for (;;) {
    queue.prepare(t);
    if (t.cpu.settle()) yield;
    if ((pages.flags[head] & bits) === 0) break;
    if (killable && t.sigkill) {
      free = false;
      break;
    }
    yield* queue.sleep(t);
  }
  t.se.killable = false;
  queue.finish(t);
  return free;
}

/** True when a writer must wait for a request of the queue. */
export function requests_used_up({mm}: Kernel): boolean {
  return mm.swap.writebacks > NR_REQUESTS;
}

/**
 * blk_mq_get_tag: until a request is free again. Reclaim that writes faster than the device waits
 * here.
 */
export function* blk_mq_get_tag(k: Kernel, t: Task): Code {
  const {tags} = k.mm.swap;
  blk_flush_plug(k, t);
  for (;;) {
    tags.prepare(t);
    if (t.cpu.settle()) yield;
    if (!requests_used_up(k)) break;
    yield* tags.sleep(t);
  }
  tags.finish(t);
}

/** folio_lock. */
export function* folio_lock(k: Kernel, t: Task, head: number): Code {
  yield* folio_wait_bits(k, t, head, PG_locked);
  k.mm.pages.flags[head] |= PG_locked;
}

/** __folio_lock_killable: false, without the lock, when a fatal signal ended the wait. */
export function* folio_lock_killable(k: Kernel, t: Task, head: number): Code<boolean> {
  if (!(yield* folio_wait_bits(k, t, head, PG_locked, true))) return false;
  k.mm.pages.flags[head] |= PG_locked;
  return true;
}

/** folio_trylock: the caller has settled. */
export function folio_trylock(k: Kernel, head: number): boolean {
  const {flags} = k.mm.pages;
  if ((flags[head] & PG_locked) !== 0) return false;
  flags[head] |= PG_locked;
  return true;
}

/** folio_unlock. */
export function folio_unlock(k: Kernel, head: number): void {
  k.mm.pages.flags[head] &= ~PG_locked;
  k.mm.swap.waits.wake(head);
}

/** folio_wait_writeback. */
export function* folio_wait_writeback(k: Kernel, t: Task, head: number): Code {
  yield* folio_wait_bits(k, t, head, PG_writeback);
}

/**
 * __swap_writepage: writeback begins, the folio is unlocked. `rotate` is
 * folio_rotate_reclaimable, called when it ends for a folio that reclaim wants back soon.
 */
export function swap_writepage(
  k: Kernel,
  t: Task,
  device: SwapDevice,
  head: number,
  n: number,
  rotate: Rotate,
): void {
  const {pages, swap} = k.mm;
  const {flags} = pages;
  flags[head] |= PG_writeback;
  swap.writebacks += n;
  folio_unlock(k, head);
  const plug = swap.plugs.get(t);
  if (plug === undefined) {
    t.cpu.charge(swap.costs.swapIoTicks, swap.fns.swap_writepage);
    device.write(t.cpu, head, n, rotate);
    return;
  }
  const slot = (flags[head] & PG_swapcache) === 0 ? -1 : swp_offset(pages.private[head]);
  t.cpu.charge(swap.costs.swapBioTicks, swap.fns.swap_writepage);
  plug_write(k, t, plug, device, {head, n, slot, rotate});
}
